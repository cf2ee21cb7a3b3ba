"""A network that tells where the first two steps out of the clean end lead: what it is taught for, its file, its use.

It is a copy of the model's own (`copied`), asked once at the first level with what an attempt of solvers found
(`numbers.solvers.two_steps`); what it answers is added to the directions that the attempt ended at. It holds for one
set of weights, on one grid, under one guidance, and stands in a file of that name; another one is refused.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from unsample.errors import BadInput, WeightsMissing, first_line
from unsample.models.base import Model
from unsample.models.copied import Copy, check_copied, copied
from unsample.models.digests import cache_folder
from unsample.models.guidance import Predict
from unsample.numbers.solvers.two_steps import PARTS, Attempt, led

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid

ANSWERS = 2  # what is added to the direction of each step
VERSION = "1"


@dataclass(frozen=True)
class Taught:
    """What a network was taught for, and how it did on pictures of its own that it was not taught on.

    Errors are mean squares of the difference of x_2, over sigma_2 squared, as E_latent is of the noise.
    """

    model: str
    weights_sha256: str
    levels: list[list[float]]  # alpha and sigma of the first three grid points, and the timesteps of the latter two
    num_inference_steps: int
    guidance_scale: float
    seed: int
    num_pictures: int
    num_updates: int
    batch_size: int
    learning_rate: float
    solver_error: float  # of anderson's x_2
    learned_error: float  # of the network's
    error: float  # of what `learned_start` takes
    agrees: float  # a solver's x_2 is kept where the network's is no farther from it: RMS, over sigma_2
    evaluations: int  # of the network, that the training cost
    backward: int
    seconds: float
    prompts_sha256: str = ""  # of those that were given; none: those of the model


def levels_of(grid: Grid) -> list[list[float]]:
    """The part of a grid that such a network is taught for."""
    points = [[float(grid.alpha[i]), float(grid.sigma[i])] for i in range(3)]
    return [*points, [float(t) for t in grid.timesteps[1:3]], [0.0 if grid.clip is None else float(grid.clip)]]


def default_path(model: Model, grid: Grid, guidance_scale: float) -> Path:
    """Where the network for these weights, this grid and this guidance stands: in the folder of `digests`."""
    asked = json.dumps([levels_of(grid), guidance_scale])
    name = f"{model.weights_sha256()[:16]}-{hashlib.sha256(asked.encode()).hexdigest()[:8]}.safetensors"
    return cache_folder() / "learned" / name


def guessed(copy: Copy, predict: Predict, attempt: Attempt, x0: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """The directions of the first two steps, as the network tells them: one evaluation, counted in `predict`."""
    asking = Predict(copy.model, grid, predict.condition, None, 1.0, len(x0), predict.cost)
    told = copy.asked(lambda: asking.conditional(attempt.x1, 1), attempt.features.float(), ANSWERS)
    return attempt.first + told[0].to(x0.dtype), attempt.second + told[1].to(x0.dtype)


def second_point(copy: Copy, predict: Predict, attempt: Attempt, x0: Tensor, grid: Grid) -> Tensor:
    """x_2 as the network tells it."""
    return led(x0, *guessed(copy, predict, attempt, x0, grid), grid)


def untaught(model: Model, seed: int) -> Copy:
    """A copy of a model's network that was not taught yet.

    Raises:
        Incompatible: a network that cannot be copied.
    """
    check_copied(model)
    return copied(model, PARTS, ANSWERS, seed)


def written(copy: Copy, taught: Taught, path: Path) -> None:
    """Write the file."""
    from safetensors.torch import save_file

    metadata = {"unsample_learned": VERSION, "unsample": json.dumps(asdict(taught))}
    save_file(copy.tensors(), str(path), metadata=metadata)


def opened(model: Model, grid: Grid, guidance_scale: float, file: Path) -> tuple[Copy, Taught]:
    """The network for a model, on its device.

    Args:
        model: the one that is inverted.
        grid: its noise levels.
        guidance_scale: of inversion.
        file: where it stands.

    Raises:
        WeightsMissing: there is no such file. BadInput: it is no such network, or one for other weights, another grid
            or another guidance. Incompatible: a network that cannot be copied.
    """
    from safetensors.torch import load_file

    check_copied(model)
    guided = f" --guidance-scale {guidance_scale:g}" if guidance_scale != 1 else ""
    teach = f"unsample train-inverse --model {shlex.quote(model.id)} --steps {grid.num_steps}{guided}"
    if not file.is_file():
        raise WeightsMissing(
            f"learned_start needs a network taught for {model.id} at {grid.num_steps} steps and guidance "
            f"{guidance_scale:g}, and {file} is not there; teach one ({teach}), or use anderson, which needs none"
        )
    taught = read_taught(file)
    asked = {"weights_sha256": model.weights_sha256(), "levels": levels_of(grid), "guidance_scale": guidance_scale}
    names = {"weights_sha256": "weights", "levels": "first noise levels", "guidance_scale": "guidance"}
    other = [names[key] for key, value in asked.items() if getattr(taught, key) != value]
    if other:
        raise BadInput(
            f"{file} was taught for {taught.model} at {taught.num_inference_steps} steps and guidance "
            f"{taught.guidance_scale:g}: it has other {' and '.join(other)} than {model.id} at {grid.num_steps} steps "
            f"and guidance {guidance_scale:g}; teach another ({teach})"
        )
    copy = untaught(model, 0)
    try:
        copy.load(load_file(file))
    except Exception as error:  # whatever a damaged file raises
        raise _broken(file, error) from error
    copy.modules.requires_grad_(False)
    return copy, taught


def read_taught(path: Path) -> Taught:
    """What a file says of itself; its weights are not read.

    Raises:
        BadInput: it is no such file, or damaged.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("unsample_learned") != VERSION:
            raise ValueError("not a network that 'unsample train-inverse' wrote")
        said = json.loads(metadata["unsample"])
        return Taught(**{field.name: said[field.name] for field in fields(Taught) if field.name in said})
    except Exception as error:  # whatever a damaged file raises
        raise _broken(path, error) from error


def _broken(path: Path, error: BaseException) -> BadInput:
    reason = first_line(error, type(error).__name__)
    return BadInput(f"cannot read {path} ({reason}); give a file that 'unsample train-inverse' wrote, or teach it anew")
