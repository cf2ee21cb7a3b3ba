"""`unsample train-inverse`: teach the network that `learned_start` asks, on pictures that the model itself makes."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from unsample.cli import checks, options, places, session, talk
from unsample.cli.flat import But, flat
from unsample.cli.options import OUTPUT, EndOptions, Placement, examples, opt
from unsample.cli.progress import Progress
from unsample.errors import BadInput
from unsample.preflight.known import DEFAULT_MODEL, known_model
from unsample.verbs.learning import Training, check_suffix, taught

TRAINING = "Training"
_OWN: dict[str, Any] = {f.name: f.default for f in fields(Training)}


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    shown = (
        "unsample train-inverse --model scenes-ddpm",
        "unsample invert picture.png --model scenes-ddpm --method learned_start",
    )
    app.command("train-inverse", epilog=examples(*shown))(flat(train_inverse))


@dataclass(frozen=True)
class TrainingOptions:
    """How the network is taught; names and defaults are those of `Training`."""

    num_inference_steps: Annotated[int, opt(TRAINING, "N", "Of the inversions that it is for.", *options.STEPS)] = _OWN[
        "num_inference_steps"
    ]
    guidance_scale: Annotated[float, opt(TRAINING, "W", "The same.")] = _OWN["guidance_scale"]
    num_pictures: Annotated[int, opt(TRAINING, "N", "Half sampled, half noised and sampled back.")] = _OWN[
        "num_pictures"
    ]
    num_updates: Annotated[int, opt(TRAINING, "N", "Under 300 it learns hardly more than the mean.")] = _OWN[
        "num_updates"
    ]
    batch_size: Annotated[int, opt(TRAINING, "N", "Pictures an update.")] = _OWN["batch_size"]
    learning_rate: Annotated[float, opt(TRAINING, "X", "At first; it falls to 0 along a cosine.")] = _OWN[
        "learning_rate"
    ]
    seed: Annotated[int, opt(TRAINING, "N", "Of noise, prompts and updates.")] = _OWN["seed"]


def train_inverse(
    *,
    model: options.OwnModel = DEFAULT_MODEL,
    place: Placement,
    how: TrainingOptions,
    prompts: Annotated[
        str | None,
        opt(
            TRAINING,
            "FILE",
            "A prompt a line; each picture has one of them.",
            default="captions of scenes for the models that know them alone, else the empty prompt",
        ),
    ] = None,
    output: Annotated[
        str | None,
        opt(
            OUTPUT,
            "FILE",
            "The network, as NAME.safetensors.",
            *options.OUT,
            default="$UNSAMPLE_CACHE/learned/HASH-GRID.safetensors, where learned_start looks",
        ),
    ] = None,
    end: Annotated[EndOptions, But(leave=("force",))],
) -> int:
    """Teach a network where the first two steps of a model's inversion lead.

    Minutes for a small model, with a GPU for a large one. It may be interrupted:
    the same command goes on where it was. '--method learned_start' then takes it.
    """  # fmt: skip
    training = Training(**asdict(how), prompts=_lines(prompts))
    training.check()
    if output is not None:
        check_suffix(output)
        places.check_outputs([Path(output)], end.overwrite, [] if prompts is None else [prompts])
    where = checks.place(place)
    known = known_model(model)
    first = training.prompts[0] if training.prompts else None
    known.check(how.num_inference_steps, first, [how.guidance_scale], name="prompts")
    loaded = session.load(known, where)
    bars: dict[str, Progress] = {}
    begun: dict[str, int] = {}  # what lay there before

    def told(what: str, done: int, total: int) -> None:
        if what not in bars:
            bars[what], begun[what] = shown.enter_context(Progress(what)), done - 1
        bars[what].at(done, total, begun[what], 0)

    with ExitStack() as shown:
        path, facts = taught(loaded, output, training, end.overwrite, told)
    if end.json:
        talk.document({"file": str(path), **asdict(facts)})
        return 0
    talk.say(f"{loaded.id}: taught on {facts.num_pictures:,} pictures in {facts.seconds / 60:.1f} min -> {path}")
    talk.say(
        f"on pictures apart, x_2 is off by {facts.solver_error:.3g} of sigma^2 with anderson, by "
        f"{facts.learned_error:.3g} as the network tells it, by {facts.error:.3g} with learned_start"
    )
    if facts.error >= facts.solver_error:
        talk.warn("learned_start gains nothing on this model; use anderson")
    return 0


def _lines(file: str | None) -> tuple[str, ...] | None:
    """The prompts in a file.

    Raises:
        BadInput: it cannot be read, or holds none.
    """
    if file is None:
        return None
    try:
        lines = [line.strip() for line in Path(file).expanduser().read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"cannot read the prompts in {file} ({error}); give a text file in UTF-8, a prompt a line"
        ) from error
    if not any(lines):
        raise BadInput(f"{file} holds no prompt; give a text file with a prompt a line")
    return tuple(filter(None, lines))
