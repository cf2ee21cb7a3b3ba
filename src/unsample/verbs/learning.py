"""Teaching a network the first two steps of a model's inversion, on pictures that the model itself makes.

Of a picture that was sampled, x_1 and x_2 are known. Half of the pictures are sampled from fresh noise; half are those
again, noised to 30 % of the steps and sampled back, for a third of the price: other points of other trajectories.
What is made lies in a folder beside the file until that is written, chunk by chunk and with the state of the training,
so that an interrupted training goes on where it was, to the same bits.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.datasets.scenes import SEED_RANGES, draw_scene
from unsample.errors import BadInput, BadOption, first_line
from unsample.media.files import atomic_write, check_writable_folder, lock
from unsample.methods.anderson import anderson
from unsample.models.copied import Copy, check_copied
from unsample.models.domain import drawn
from unsample.models.guidance import Predict, check_guidance
from unsample.models.learned import (
    Taught,
    default_path,
    guessed,
    levels_of,
    read_taught,
    second_point,
    untaught,
    written,
)
from unsample.numbers.draws import draw_noise
from unsample.numbers.grid import check_steps
from unsample.numbers.solvers.ddim import ddim_sample
from unsample.numbers.solvers.fixed_point import rms
from unsample.numbers.solvers.two_steps import ATTEMPT, Attempt, attempted, both_solved, going
from unsample.numbers.walk import walk
from unsample.verbs.prompts import Prompts
from unsample.verbs.running import quiet
from unsample.wording import argument

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.models.base import Model
    from unsample.numbers.grid import Grid

CHUNK = 32  # pictures made together
AGAIN = 0.3  # of the steps: how far up pictures are noised to be sampled once more
HELD_OUT = 64  # sampled pictures, apart, on which the network is judged
EVERY = 50  # updates between two states that are kept
MOST = 10**12  # of a count or a seed: more is a slip of the keyboard
LOCK = ".lock"
AVERAGED = 0.999  # of the weights' running mean, at most
Told = Callable[[str, int, int], None]
"""`told(what, done, total)`, after each chunk and each update."""


@dataclass(frozen=True)
class Training:
    """How a network is taught.

    Args:
        num_inference_steps: of the grid that it is for.
        guidance_scale: of sampling and of inversion alike.
        num_pictures: half of them sampled, half sampled back.
        num_updates: of Adam; under 300 it learns hardly more than the mean.
        batch_size: pictures an update.
        learning_rate: at first; it falls to 0 along a cosine.
        seed: of noise, prompts and updates.
        prompts: from which each picture draws one; None: captions of scenes for the models that know them, else none.
    """

    num_inference_steps: int = 50
    guidance_scale: float = 1.0
    num_pictures: int = 2048
    num_updates: int = 2000
    batch_size: int = 32
    learning_rate: float = 5e-4
    seed: int = 0
    prompts: Sequence[str] | None = None

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            BadOption: it says which.
        """
        if check_steps(self.num_inference_steps) < 3:
            raise BadOption(
                f"a walk of {self.num_inference_steps} steps has no first two to learn; use 3 steps or more"
            )
        check_guidance(self.guidance_scale)
        for name, low in (("num_pictures", 2 * CHUNK), ("num_updates", 1), ("batch_size", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= MOST:
                raise BadOption(f"{argument(name)} must be a whole number from {low} to 10**12; got {value!r}")
        if not 0 < self.learning_rate <= 1:
            raise BadOption(f"{argument('learning_rate')} must be above 0 and at most 1; got {self.learning_rate!r}")
        if self.prompts is not None and not (self.prompts and all(isinstance(p, str) for p in self.prompts)):
            raise BadOption(f"prompts must be texts, one at least; got {self.prompts!r}")


def train_inverse(
    model: Any,
    output: str | Path | None = None,
    *,
    num_inference_steps: int = 50,
    guidance_scale: float = 1.0,
    num_pictures: int = 2048,
    num_updates: int = 2000,
    batch_size: int = 32,
    learning_rate: float = 5e-4,
    seed: int = 0,
    prompts: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Path:
    """Teach the network that `learned_start` asks, for one model and one number of steps.

    Args:
        model: from `load` or `wrap`, or anything that `load` takes; its network a UNet of diffusers.
        output: a .safetensors file; default: `MODEL'S HASH-GRID.safetensors` in `$UNSAMPLE_CACHE/learned`, where
            `learned_start` looks.
        num_inference_steps, guidance_scale, num_pictures, num_updates, batch_size, learning_rate, seed, prompts: as
            of `Training`.
        overwrite: replace a file that is there, and begin anew; without it, one that was taught so already is returned.
        progress: show bars; default: on a terminal.

    Returns:
        The file. `unsample.models.learned.read_taught` says what is in it: errors on pictures apart, and the cost.

    Raises:
        BadOption, Incompatible: what was asked cannot be done. BadInput: another file is there, or a training with
            other settings was begun beside it.

    Example:
        >>> import unsample
        >>> unsample.train_inverse("scenes-mixture", num_inference_steps=10)
        Traceback (most recent call last):
        ...
        unsample.errors.Incompatible: the first steps of scenes-mixture cannot be learned: what is taught is a copy ...
    """
    from tqdm import tqdm

    from unsample.verbs.api import load

    training = Training(
        num_inference_steps, guidance_scale, num_pictures, num_updates, batch_size, learning_rate, seed, prompts
    )
    bars: dict[str, Any] = {}

    def told(what: str, done: int, total: int) -> None:
        if what not in bars:
            hidden = None if progress is None else not progress
            bars[what] = tqdm(total=total, desc=f"train-inverse: {what}", disable=hidden, leave=False, initial=done)
        bars[what].update(done - bars[what].n)

    training.check()
    try:
        return taught(load(model), output, training, overwrite, told)[0]
    finally:
        for bar in bars.values():
            bar.close()


def taught(
    model: Model, output: str | Path | None, training: Training, overwrite: bool, told: Told
) -> tuple[Path, Taught]:
    """As `train_inverse`, of a model that is loaded; `told` hears how far it is."""
    check_copied(model)
    model = model.at(model.sample_shape, training.num_inference_steps)
    grid = model.grid(training.num_inference_steps)
    training = replace(training, prompts=prompts_of(model, training))
    _conditions(model, training, range(1), 1)  # refuses prompts and guidance that the model does not take
    path = default_path(model, grid, training.guidance_scale) if output is None else check_suffix(output)
    if path.exists() and not (overwrite and path.is_file()):
        there = _there(path, model, grid, training)
        if there is None:
            raise BadInput(f"{path} is there, and is another one; give another output, or overwrite to teach it anew")
        return path, there
    check_writable_folder(path.parent)
    begun = path.with_name(f"{path.name}.training")
    if overwrite and not _begun_so(begun, model, training):
        shutil.rmtree(begun, ignore_errors=True)
    teaching = Teaching(model, grid, training, begun, told)
    held = lock(begun, LOCK, wait=False)
    if held is None:
        raise BadInput(f"another process teaches into {begun}; wait for it, or give another output")
    with held:
        copy, facts = teaching.run()
        atomic_write(path, lambda temporary: written(copy, facts, temporary))
    shutil.rmtree(begun, ignore_errors=True)
    return path, facts


def check_suffix(output: str | Path) -> Path:
    """The file of a network, by its name.

    Raises:
        BadOption: another kind of file.
    """
    path = Path(output)
    if path.suffix != ".safetensors":
        raise BadOption(f"the network is written as NAME.safetensors; got {str(path)!r}")
    return path


def prompts_of(model: Model, training: Training) -> tuple[str, ...] | None:
    """Of which pictures are sampled; a model that knows scenes alone gets captions of those it was trained on."""
    if training.prompts is not None or not model.takes_prompt or drawn(model.id) is None:
        return None if training.prompts is None else tuple(training.prompts)
    first = SEED_RANGES["train"][0]
    return tuple(draw_scene(first + k).caption for k in range(training.num_pictures))


class Teaching:
    """One training: pictures, updates, and what is judged at the end.

    Args:
        model, grid, training: what is taught.
        folder: where the work lies.
        told: hears how far it is.
    """

    def __init__(self, model: Model, grid: Grid, training: Training, folder: Path, told: Told) -> None:
        self.model, self.grid, self.training, self.folder, self.told = model, grid, training, folder, told
        _begin(folder, model, training)
        self.chunks = -(-training.num_pictures // (2 * CHUNK))
        self.apart = -(-HELD_OUT // CHUNK)
        self.again = min(max(round(AGAIN * grid.num_steps), 3), grid.num_steps)  # steps of those that are sampled back

    def run(self) -> tuple[Copy, Taught]:
        """All of it: the network, and what its file says."""
        data = self.made()
        copy = self.fitted(data)
        return copy, self.judged(copy, data)

    # ------------------------------------------------------------ pictures

    def made(self) -> list[dict[str, Tensor]]:
        """Every chunk: `x0`, `x1`, `x2`, `features`, `at`; those that lie in the folder are read."""
        from safetensors.torch import load_file, save_file

        total = self.apart + 2 * self.chunks
        found: list[dict[str, Tensor]] = []
        for k in range(total):
            file, chunk = self.folder / f"pictures-{k:05}.safetensors", None
            if file.is_file():
                try:
                    chunk = load_file(file)
                except Exception as error:  # whatever a damaged file raises
                    raise BadInput(f"cannot read {file} ({first_line(error)}); delete it, and run again") from error
            if chunk is None:
                begin = time.perf_counter()
                source = found[k - self.chunks]["x0"] if k >= self.apart + self.chunks else None
                chunk = self._chunk(k, source)
                tensors = {name: t.contiguous() for name, t in chunk.items()}
                atomic_write(file, lambda to, tensors=tensors: save_file(tensors, str(to)))  # type: ignore[misc]
                self._spend(time.perf_counter() - begin)
            found.append(chunk)
            self.told("chunks of pictures", k + 1, total)
        return found

    def _chunk(self, k: int, source: Tensor | None) -> dict[str, Tensor]:
        """Pictures of the k-th chunk: sampled, or those of `source` noised and sampled back."""
        import torch

        grid, device = self.grid, self.model.device
        again = source is not None
        first = SEED_RANGES["train"][0] + (self.training.seed * 10**5 + k) * CHUNK
        noise = draw_noise([torch.Generator().manual_seed(first + n) for n in range(CHUNK)], self.model.sample_shape)
        top = self.again if again else grid.num_steps
        number = k - self.chunks if again else k
        with self.asked(range(number * CHUNK, (number + 1) * CHUNK)) as predict:
            x = noise.to(device)
            if source is not None:
                x = grid.alpha[top] * source.to(device) + grid.sigma[top] * x
            points: list[Tensor] = []
            walk(ddim_sample, predict, x, grid, range(top, -1, -1), {}, lambda n, j, y, state: _kept(points, y))
            x2, x1, x0 = points[-3:]
            found = attempted(predict, x0, grid)
        named = {"x0": x0, "x1": x1, "x2": x2, "features": found.features, "at": found.x1}
        return {name: t.float().cpu() for name, t in named.items()}

    @contextmanager
    def asked(self, rows: range) -> Iterator[Predict]:
        """`predict` under the prompts of some pictures, while it lasts without gradients."""
        with quiet(self.model):
            yield self.predict(rows)

    def predict(self, rows: Sequence[int]) -> Predict:
        """Of some pictures by their number; those that are sampled back have the prompt of their source."""
        w, count = self.training.guidance_scale, len(rows)
        condition, free = _conditions(self.model, self.training, rows, w)
        return Predict(self.model, self.grid, condition, free, w, count)

    # ------------------------------------------------------------ updates

    def fitted(self, data: Sequence[dict[str, Tensor]]) -> Copy:
        """The network after all updates: the running mean of its weights."""
        import torch
        from safetensors.torch import save_file

        used, training = data[self.apart :], self.training
        rows = {name: torch.cat([chunk[name] for chunk in used]) for name in used[0]}
        copy = untaught(self.model, training.seed)
        parameters = list(copy.modules.parameters())
        adam = torch.optim.Adam(parameters, lr=training.learning_rate)
        mean = [p.detach().clone() for p in parameters]
        state, begun = self.folder / "state.safetensors", 0
        if state.is_file():
            begun = _restored(state, copy, adam, mean)
        begin = time.perf_counter()
        for update in range(begun, training.num_updates):
            part = torch.randint(len(rows["x0"]), (training.batch_size,), generator=_seeded(training.seed, update))
            for group in adam.param_groups:
                group["lr"] = training.learning_rate * _cosine(update, training.num_updates)
            loss = self._loss(copy, {name: t[part].to(self.model.device) for name, t in rows.items()}, part.tolist())
            adam.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            adam.step()
            weight = min(AVERAGED, (update + 1) / (update + 10))
            for kept_one, p in zip(mean, parameters, strict=True):
                kept_one.lerp_(p.detach(), 1 - weight)
            if (update + 1) % EVERY == 0 or update + 1 == training.num_updates:
                whole = _state(copy, adam, mean, update + 1)
                atomic_write(state, lambda to, whole=whole: save_file(whole, str(to)))  # type: ignore[misc]
                self._spend(time.perf_counter() - begin)
                begin = time.perf_counter()
            self.told("updates", update + 1, training.num_updates)
        with torch.no_grad():
            for p, kept_one in zip(parameters, mean, strict=True):
                p.copy_(kept_one)
        copy.modules.requires_grad_(False)
        return copy

    def _loss(self, copy: Copy, rows: dict[str, Tensor], numbers: Sequence[int]) -> Tensor:
        """The mean squared error of the directions of both steps."""
        import torch

        grid, x0 = self.grid, rows["x0"]
        with torch.enable_grad():
            told = guessed(copy, self.predict(self._sources(numbers)), _attempt(rows), x0, grid)
            true = (going(x0, rows["x1"], grid, 0, 1), going(rows["x1"], rows["x2"], grid, 1, 2))
            loss: Tensor = sum((a - b).square().mean() for a, b in zip(told, true, strict=True))  # type: ignore[assignment]
            return loss

    def _sources(self, numbers: Sequence[int]) -> list[int]:
        """Whose prompt pictures have that are counted from the first one after those held apart."""
        half = self.chunks * CHUNK
        return [self.apart * CHUNK + number % half for number in numbers]

    # ------------------------------------------------------------ judged

    def judged(self, copy: Copy, data: Sequence[dict[str, Tensor]]) -> Taught:
        """On the pictures held apart: how far x_2 is off, and at which distance the network agrees with the solver."""
        import torch

        grid, step, found, judging = self.grid, anderson().invert_step, [], 0
        for k, chunk in enumerate(data[: self.apart]):
            x0, true = chunk["x0"].to(self.model.device), chunk["x2"].to(self.model.device)
            with self.asked(range(k * CHUNK, (k + 1) * CHUNK)) as predict:
                x1, state = step(predict, x0, grid, 0, 1, {})
                solved, _ = step(predict, x1, grid, 1, 2, state)
                told = second_point(copy, predict, _attempt({n: t.to(x0) for n, t in chunk.items()}), x0, grid)
                rows = torch.arange(len(x0), device=x0.device)
                _, polished, _ = both_solved(predict, x0, told, grid, rows, None)
                judging += sum(predict.cost.nfe)
            off = [(rms(y - true) / grid.sigma[2]).square() for y in (solved, told, polished)]
            found.append(torch.stack([*off, rms(told - solved) / grid.sigma[2]], 1).double().cpu())
        solved, told, polished, apart = torch.cat(found).unbind(1)
        bounds = torch.cat([apart.new_zeros(1), apart.sort().values])
        errors = torch.stack([torch.where(apart <= bound, solved, polished).mean() for bound in bounds])
        best = int(errors.argmin())
        sampled = (self.apart + self.chunks) * CHUNK * grid.num_steps
        back = self.chunks * CHUNK * self.again
        made = (self.apart + 2 * self.chunks) * CHUNK * ATTEMPT
        updates = self.training.num_updates * self.training.batch_size
        pair = 2 if self.training.guidance_scale not in (0, 1) else 1
        return Taught(
            **_said(self.model, grid, self.training),
            solver_error=float(solved.mean()),
            learned_error=float(told.mean()),
            error=float(errors[best]),
            agrees=float(bounds[best]),
            evaluations=pair * (sampled + back + made) + judging + updates,
            backward=updates,
            seconds=self._spend(0.0),
        )

    def _spend(self, seconds: float) -> float:
        """Add to the time that all of it took, in all of its parts."""
        file = self.folder / "seconds.json"
        spent = (json.loads(file.read_text()) if file.is_file() else 0.0) + seconds
        if seconds > 0:
            atomic_write(file, lambda temporary: temporary.write_text(json.dumps(spent)))
        return float(spent)


def _state(copy: Copy, adam: Any, mean: Sequence[Tensor], updates: int) -> dict[str, Tensor]:
    """All that a training goes on from, by name."""
    import torch

    named = {f"weights.{name}": t for name, t in copy.tensors().items()}
    named |= {f"mean.{k}": t.cpu() for k, t in enumerate(mean)}
    for k, own in adam.state_dict()["state"].items():
        named |= {f"adam.{k}.{name}": torch.as_tensor(value).cpu() for name, value in own.items()}
    # safetensors holds no two names of the same memory
    return {name: t.clone().contiguous() for name, t in named.items()} | {"updates": torch.tensor(updates)}


def _restored(file: Path, copy: Copy, adam: Any, mean: Sequence[Tensor]) -> int:
    """Put a state back; how many updates it has seen.

    Raises:
        BadInput: it cannot be read.
    """
    from safetensors.torch import load_file

    try:
        named = load_file(file)
        copy.load({n.removeprefix("weights."): t for n, t in named.items() if n.startswith("weights.")})
        for k, kept_one in enumerate(mean):
            kept_one.copy_(named[f"mean.{k}"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name in (n for n in named if n.startswith("adam.")):
            _, number, what = name.split(".")
            moments.setdefault(int(number), {})[what] = named[name]
        adam.load_state_dict({**adam.state_dict(), "state": moments})
        return int(named["updates"])
    except Exception as error:  # whatever a damaged file raises
        raise BadInput(f"cannot read {file} ({first_line(error)}); delete it, and run again") from error


def _kept(points: list[Tensor], y: Tensor) -> Tensor:
    points.append(y)
    return y


def _attempt(rows: dict[str, Tensor]) -> Attempt:
    """An attempt from what was kept of it."""
    return Attempt(rows["at"], rows["features"])


def _conditions(model: Model, training: Training, rows: Sequence[int], w: float) -> tuple[Any, Any]:
    prompts = None if training.prompts is None else [training.prompts[n % len(training.prompts)] for n in rows]
    return Prompts(prompts).conditions(model, len(rows), w)


def _cosine(update: int, of: int) -> float:
    import math

    return 0.5 * (1 + math.cos(math.pi * update / of))


def _seeded(seed: int, update: int) -> Any:
    import torch

    return torch.Generator().manual_seed(seed * 10**6 + update)


def _facts(model: Model, training: Training) -> dict[str, Any]:
    prompts = None if training.prompts is None else list(training.prompts)
    return {"weights_sha256": model.weights_sha256(), **asdict(training), "prompts": prompts, "model": model.id}


def _said(model: Model, grid: Grid, training: Training) -> dict[str, Any]:
    """What a file says of what was asked."""
    own = {n: v for n, v in asdict(training).items() if n != "prompts"}
    prompts = "" if training.prompts is None else hashlib.sha256(json.dumps(training.prompts).encode()).hexdigest()
    told = {"model": model.id, "weights_sha256": model.weights_sha256(), "levels": levels_of(grid)}
    return told | own | {"prompts_sha256": prompts}


def _there(path: Path, model: Model, grid: Grid, training: Training) -> Taught | None:
    """What a file says that was taught so before; None where it is another one."""
    try:
        found = read_taught(path)
    except BadInput:
        return None
    return found if _said(model, grid, training).items() <= asdict(found).items() else None


def _begun_so(folder: Path, model: Model, training: Training) -> bool:
    """Whether a training lies there that was begun with the same settings."""
    try:
        return bool(json.loads((folder / "training.json").read_text()) == _facts(model, training))
    except (OSError, ValueError):
        return False


def _begin(folder: Path, model: Model, training: Training) -> None:
    """The folder of a training, new or begun with the same settings.

    Raises:
        BadInput: one with others lies there.
    """
    file = folder / "training.json"
    if file.is_file() and not _begun_so(folder, model, training):
        raise BadInput(
            f"{folder} holds a training that was begun with other settings; give the same, another output, or "
            "overwrite to begin anew"
        )
    folder.mkdir(parents=True, exist_ok=True)
    if not file.is_file():
        atomic_write(file, lambda temporary: temporary.write_text(json.dumps(_facts(model, training))))
