"""`unsample interpolate`: the pictures between two saved inversions, and a strip of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from unsample.cli import checks, options, outside, places, talk
from unsample.cli.options import OUTPUT, Placement, examples
from unsample.errors import Diverged
from unsample.preflight.known import KnownModel, known_model, playing_model

if TYPE_CHECKING:
    from unsample.cli.places import Recorded
    from unsample.models.base import Model
    from unsample.verbs.results import Images

MAX_FRAMES = 1000  # they go through the network as one batch


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    commands = (
        "unsample interpolate out/a.safetensors out/b.safetensors -o between",
        "unsample interpolate out/a.safetensors out/b.safetensors --num-frames 5",
    )
    app.command("interpolate", epilog=examples(*commands))(interpolate)


def interpolate(
    inversion_a: Annotated[str, Argument(metavar="INVERSION_A", help="Where it begins.", show_default=False)],
    inversion_b: Annotated[str, Argument(metavar="INVERSION_B", help="Where it ends.", show_default=False)],
    num_frames: Annotated[
        int, Option(metavar="N", help="Pictures, the two ends among them; at least 2.", rich_help_panel=OUTPUT)
    ] = 9,
    model: options.RecordedModel = None,
    allow_other_model: options.AllowOther = False,
    device: options.Device = None,
    dtype: options.Dtype = "float32",
    offload: options.Offload = "none",
    vae_tiling: options.VaeTiling = False,
    guidance_scale: options.RecordedGuidance = None,
    output: options.Folder = "out",
    force: options.Force = False,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Make the pictures between two inversions.

    The noises are interpolated by slerp, the prompts are blended, and each frame
    is sampled plainly. It writes DIR/frame-00.png, DIR/frame-01.png ... and all
    of them side by side, DIR/strip.png.
    """
    from unsample.verbs.results import check_pair, noise_shape

    where = checks.place(Placement(device, dtype, offload, vae_tiling))
    checks.at_least("--num-frames", num_frames, 2, MAX_FRAMES)
    if guidance_scale is not None:
        checks.guidance("--guidance-scale", guidance_scale)
    named = None if model is None else known_model(model)
    inputs = [places.the_one(inversion_a), places.the_one(inversion_b)]
    ends = [places.open_one_inversion(path) for path in inputs]
    a, b = ((noise_shape(end.path), end.meta) for end in ends)
    check_pair(a, b, guidance_scale)
    for end in ends:
        known = named = playing_model(named, end.meta["model"]["id"], end.path, allow_other_model)
    outside.check([reason for end in ends for reason in outside.of_inversion(known, end)], force)
    between = Between(known, ends, Path(output), num_frames, guidance_scale, allow_other_model)
    places.check_outputs([*between.frames, between.strip], overwrite, inputs)

    from unsample.cli import session

    return _run(session.load(known, where), between, json)


@dataclass(frozen=True)
class Between:
    """Which ends, how many frames, and where they go."""

    model: KnownModel
    ends: Sequence[Recorded]
    folder: Path
    num_frames: int
    guidance_scale: float | None
    allow_other_model: bool

    @property
    def frames(self) -> list[Path]:
        """The files of the frames, in order."""
        digits = max(2, len(str(self.num_frames - 1)))
        return [self.folder / f"frame-{k:0{digits}}.png" for k in range(self.num_frames)]

    @property
    def strip(self) -> Path:
        """The file of all frames side by side."""
        return self.folder / "strip.png"


def _run(model: Model, between: Between, as_json: bool) -> int:
    from unsample.cli import record, session
    from unsample.verbs import api

    paths = [end.path for end in between.ends]
    a, b = (session.open_inversion(model, path, between.allow_other_model) for path in paths)
    with talk.naming([f"frame {k}" for k in range(between.num_frames)]):
        made = api.interpolate(
            model,
            a,
            b,
            num_frames=between.num_frames,
            guidance_scale=between.guidance_scale,
            allow_other_model=between.allow_other_model,
        )
    rows = _write(made, between)
    lost = record.diverged(rows)
    name = between.ends[0].meta["method"]["name"]
    talk.say(f"wrote {sum(r['status'] == 'ok' for r in rows)} frames and {between.strip}, {made.seconds:.1f} s")
    if as_json:
        extra = {"inputs": paths, "strip": str(between.strip)}
        talk.document(record.document([model.id] * len(rows), name, rows, **extra, **lost))
    return 5 if lost else 0


def _write(made: Images, between: Between) -> list[dict[str, Any]]:
    """The frames that are finite, and the strip of them."""
    from unsample.cli import record, session
    from unsample.media.figures import strip
    from unsample.media.pictures import write_png

    first, last = between.ends
    about = {"inputs": [Path(end.path).name for end in between.ends]}
    rows, shown = [], []
    reasons = list(dict.fromkeys(why for end in between.ends for _, _, why in outside.of_inversion(between.model, end)))
    for k, file in enumerate(between.frames):
        own: dict[str, Any] = {
            "outside": reasons,
            "nfe": made.nfe[k],
            "backward": made.backward[k],
            "seconds": made.seconds / len(made),
        }
        own["nonfinite_at"] = made.nonfinite_at[k]
        position = k / (between.num_frames - 1)
        if made.status[k] == "diverged":
            where = made.lost_at[k]
            talk.error(f"frame {k} diverged at {where}; it was not written")
            rows.append(record.row("frame", **own, status="diverged", lost_at=where, position=position))
            continue
        image = session.as_pil(made.images[k : k + 1])
        write_png(image, file, made.settings(k) | about)
        shown.append(image)
        rows.append(record.row("frame", picture=file, **own, status="ok", position=position))
    if not shown:
        raise Diverged(f"every frame between {first.path} and {last.path} diverged; try guidance 1")
    whole = {name: value for name, value in made.settings(0).items() if name not in ("size", "position")}
    write_png(strip(shown), between.strip, whole | about)
    return rows
