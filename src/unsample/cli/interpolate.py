"""`unsample interpolate`: the pictures between two saved inversions, and a strip of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unsample.cli import checks, options, outside, places, record, session, talk
from unsample.cli.flat import But, command
from unsample.cli.options import OUTPUT, EndOptions, Placement, PlayOptions, argument, opt
from unsample.cli.places import Recorded
from unsample.errors import Diverged
from unsample.preflight.known import KnownModel, known_model, playing_model
from unsample.verbs import api

if TYPE_CHECKING:
    from unsample.verbs.results import Images

MAX_FRAMES = 1000  # they go through the network as one batch


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    command(
        app,
        interpolate,
        "unsample interpolate out/a.safetensors out/b.safetensors -o between",
        "unsample interpolate out/a.safetensors out/b.safetensors --num-frames 5",
    )


def interpolate(
    inversion_a: Annotated[str, argument("INVERSION_A", "Where it begins.")],
    inversion_b: Annotated[str, argument("INVERSION_B", "Where it ends.")],
    *,
    num_frames: Annotated[int, opt(OUTPUT, "N", "Pictures, the two ends among them; at least 2.")] = 9,
    model: options.RecordedModel = None,
    allow_other_model: options.AllowOther = False,
    place: Placement,
    play: Annotated[PlayOptions, But(leave=("use", "guidance_schedule"))],
    output: options.Folder = "out",
    end: EndOptions,
) -> int:
    """Make the pictures between two inversions.

    The noises are interpolated by slerp, the prompts are blended, and each frame
    is sampled plainly. It writes DIR/frame-00.png, DIR/frame-01.png ... and all
    of them side by side, DIR/strip.png.
    """
    from unsample.verbs.results import check_pair
    from unsample.verbs.saved import noise_shape

    where = checks.place(place)
    checks.at_least("--num-frames", num_frames, 2, MAX_FRAMES)
    checks.guidance("guidance_scale", play.guidance_scale)
    named = None if model is None else known_model(model)
    inputs = [places.the_one(inversion_a), places.the_one(inversion_b)]
    ends = [places.open_one_inversion(path) for path in inputs]
    a, b = ((noise_shape(end.path), end.meta) for end in ends)
    check_pair(a, b, play.guidance_scale)
    for one in ends:
        known = named = playing_model(named, one.meta["model"]["id"], one.path, allow_other_model)
    outside.check([reason for one in ends for reason in outside.of_inversion(known, one)], end.force)
    between = Between(known, ends, Path(output), num_frames)
    places.check_outputs([*between.frames, between.strip], end.overwrite, inputs)
    loaded = session.load(known, where)
    pair = [session.open_inversion(loaded, path, allow_other_model) for path in inputs]
    with talk.naming([f"frame {k}" for k in range(num_frames)]):
        made = api.interpolate(
            loaded,
            *pair,
            num_frames=num_frames,
            guidance_scale=play.guidance_scale,
            allow_other_model=allow_other_model,
        )
    rows = _write(made, between)
    talk.say(f"wrote {sum(r['status'] == 'ok' for r in rows)} frames and {between.strip}, {made.seconds:.1f} s")
    about = {"inputs": inputs, "strip": str(between.strip)}
    return record.ended(end.json, [loaded.id] * len(rows), ends[0].meta["method"]["name"], rows, **about)


@dataclass(frozen=True)
class Between:
    """Which ends, how many frames, and where they go."""

    model: KnownModel
    ends: Sequence[Recorded]
    folder: Path
    num_frames: int

    @property
    def frames(self) -> list[Path]:
        """The files of the frames, in order."""
        digits = max(2, len(str(self.num_frames - 1)))
        return [self.folder / f"frame-{k:0{digits}}.png" for k in range(self.num_frames)]

    @property
    def strip(self) -> Path:
        """The file of all frames side by side."""
        return self.folder / "strip.png"


def _write(made: Images, between: Between) -> list[dict[str, Any]]:
    """The frames that are finite, and the strip of them."""
    from unsample.media.figures import strip
    from unsample.media.pictures import write_png

    about = {"inputs": [Path(end.path).name for end in between.ends]}
    rows, shown = [], []
    reasons = list(dict.fromkeys(why for end in between.ends for _, _, why in outside.of_inversion(between.model, end)))
    for k, file in enumerate(between.frames):
        own = record.cost(made, k) | {"outside": reasons, "position": k / (between.num_frames - 1)}
        if made.status[k] == "diverged":
            talk.error(f"frame {k} diverged at {made.lost_at[k]}; it was not written")
            rows.append(record.lost("frame", made, k, **own))
            continue
        image = session.as_pil(made.images[k : k + 1])
        write_png(image, file, made.settings(k) | about)
        shown.append(image)
        rows.append(record.row("frame", picture=file, **own))
    if not shown:
        first, last = (end.path for end in between.ends)
        raise Diverged(f"every frame between {first} and {last} diverged; try guidance 1")
    whole = {name: value for name, value in made.settings(0).items() if name not in ("size", "position")}
    write_png(strip(shown), between.strip, whole | about)
    return rows
