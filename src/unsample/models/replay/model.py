"""The adapter: a pipeline of diffusers behind the names of `models.base.Model`."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from unsample.errors import Incompatible, UnsampleError, first_line, out_of_memory
from unsample.models.base import EMBEDS, LENGTH, Condition, Guidance, described
from unsample.models.calling import vae_factor
from unsample.models.replay.record import denoiser_of
from unsample.models.replay.session import Session
from unsample.models.replay.study import OPTIONS, STEPS, Study
from unsample.models.replay.tail import Tail, decode, encode, vae_of
from unsample.models.weights import Weights, parts_of
from unsample.numbers.grid import Grid, check_steps, grid_of_set

if TYPE_CHECKING:
    import torch
    from torch import Tensor

KEPT = 4  # sessions, of the last sizes and numbers of steps
SCALE = "guidance"  # the row that carries w, where the network is told it


class ReplayModel:
    """A live pipeline of diffusers with one denoiser.

    Nothing is recorded until something is asked, so that the pipeline may be cast and moved first. `at` binds it to a
    size and a number of steps; unbound it has its pipeline's own size.

    Args:
        pipeline: text, a class, or nothing to pictures.
        id: a name.
        call: more arguments of the pipeline's own call, that hold for every use (`guidance_rescale=0.7`).

    Raises:
        Incompatible: when it is first used: a pipeline that is not served, with the reason.
    """

    family = "pipeline"
    grey = False
    __repr__ = described

    def __init__(self, pipeline: Any, id: str, **call: Any) -> None:
        self.pipeline, self.id, self._own = pipeline, id, call
        self.weights = Weights(lambda: parts_of(self.pipeline), foreign=True)
        parameters = inspect.signature(type(pipeline).__call__).parameters
        self.takes_prompt = "prompt" in parameters
        config = denoiser_of(pipeline).config
        labelled = "class_labels" in parameters
        self.num_classes: int | None = (config.get("num_embeds_ada_norm") or 1000) if labelled else None
        self._sessions: dict[tuple[Any, ...], Session] = {}
        self._session: Session | None = None
        self.check()

    # ------------------------------------------------------------ what it is

    @cached_property
    def study(self) -> Study:
        """What its pipeline is, read off its own call."""
        try:
            return Study(self.pipeline, self.id, self._own)
        except Exception as error:  # whatever a pipeline raises
            if isinstance(error, UnsampleError) or out_of_memory(error):
                raise
            raise Incompatible(
                f"{self.id}: its pipeline ({type(self.pipeline).__name__} with {type(self.scheduler).__name__}) "
                f"stopped with {type(error).__name__} when it was called: {first_line(error)}"
            ) from error

    @cached_property
    def own(self) -> Session:
        """Its pipeline's own size, at a few steps."""
        return Session(self.study, self.study.call["num_inference_steps"])

    @property
    def unet(self) -> Any:
        """The denoiser."""
        return denoiser_of(self.pipeline)

    @property
    def vae(self) -> Any:
        """The autoencoder, if there is one."""
        return vae_of(self.pipeline)

    @property
    def networks(self) -> list[Any]:
        """All of its networks."""
        return list(parts_of(self.pipeline).values())

    @property
    def scheduler(self) -> Any:
        """The pipeline's own."""
        return self.pipeline.scheduler

    @property
    def device(self) -> torch.device:
        """Where the pictures go."""
        return self.pipeline._execution_device  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        """Of the denoiser."""
        return self.unet.dtype  # type: ignore[no-any-return]

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the state, by default."""
        return (self._session or self.own).tail.shape

    @property
    def picture_size(self) -> tuple[int, int]:
        """Width and height of its pictures, by default."""
        _, height, width = self.own.tail.shape
        return width * self.factor, height * self.factor

    @cached_property
    def factor(self) -> int:
        """Pixels of a picture to one of the state."""
        if self.vae is None:
            return 1
        named = ("vae_scale_factor", "vae_scale_factor_spatial")
        return int(next((f for n in named if (f := getattr(self.pipeline, n, None))), None) or vae_factor(self.vae))

    @cached_property
    def multiple(self) -> int:
        """The sides of a picture are multiples of this: the VAE's factor times the denoiser's patches, or levels."""
        config, session = self.unet.config, self.own
        if "block_out_channels" in config:
            levels = self.factor * int(2 ** (len(config["block_out_channels"]) - 1))
            return math.lcm(levels, 8) if self.vae is not None else levels  # pipelines of U-Nets ask for 8
        if len(session.native) == 2:  # tokens, each of a square
            return self.factor * math.isqrt(session.native[-1] // session.tail.shape[0])
        patch = config.get("patch_size") or config.get("all_patch_size") or 1
        patch = patch[-1] if isinstance(patch, list | tuple) else patch
        return self.factor * int(patch)

    @property
    def null_class(self) -> int | None:
        """The class that stands for none."""
        if self.num_classes is None or self.study.free is None:
            return None
        return int(self.study.leaves(self.study.tape.steps[0], self.study.free)["class_labels"])

    @property
    def guidance(self) -> Guidance:
        """How a scale reaches it."""
        return self.study.guidance

    @property
    def linear(self) -> bool:
        """Whether its pipeline joins predictions linearly."""
        return self.study.rule.name == "linear"

    # ------------------------------------------------------------ size and steps

    def at(self, sample_shape: tuple[int, ...], num_inference_steps: int) -> ReplayModel:
        """Bound to a size and a number of steps: its pipeline is recorded with them, once.

        Raises:
            Incompatible: a size that the pipeline does not make.
        """
        steps = check_steps(num_inference_steps, self.scheduler.config.get("num_train_timesteps"))
        bound = copy.copy(self)
        bound._session = self._at(tuple(sample_shape), steps)
        return bound

    def _at(self, shape: tuple[int, ...], steps: int, spacing: str | None = None) -> Session:
        table = type(self.scheduler).__name__, repr(sorted(self.scheduler.config.items(), key=lambda item: item[0]))
        key = (shape, steps, spacing, table)
        if key not in self._sessions:
            self._sessions[key] = self._recorded(shape, steps, spacing)
            while len(self._sessions) > KEPT:
                del self._sessions[next(iter(self._sessions))]
        return self._sessions[key]

    def _recorded(self, shape: tuple[int, ...], steps: int, spacing: str | None) -> Session:
        own, size = self.own.tail.shape, None
        if shape != own:
            if len(shape) != 3 or shape[0] != own[0] or "height" not in self._parameters:
                raise Incompatible(f"{self.id} makes samples of {own} only; got {shape}")
            size = shape[1] * self.factor, shape[2] * self.factor
        try:
            session = Session(self.study, steps, size, spacing)
        except ValueError as error:  # of the pipeline: a size, or a number of steps, that it refuses
            asked = f"{_size(size)}{steps} steps"
            raise Incompatible(f"{self.id}: its pipeline refuses {asked}: {first_line(error)}") from error
        if session.tail.shape != shape:
            _, height, width = session.tail.shape
            made = f"{width * self.factor}x{height * self.factor}"
            raise Incompatible(
                f"{self.id}: asked for {_size(size)}its pipeline makes {made}; give pictures of a size that it keeps"
            )
        return session

    @property
    def _parameters(self) -> Mapping[str, Any]:
        return inspect.signature(type(self.pipeline).__call__).parameters

    @property
    def session(self) -> Session:
        """What it is bound to."""
        if self._session is None:
            raise Incompatible(f"{self.id} is asked before it is bound to a size and a number of steps: use model.at")
        return self._session

    def shape_of(self, height: int | None, width: int | None) -> tuple[int, int, int]:
        """(C, H, W) for a picture of that size."""
        channels, rows, columns = self.own.tail.shape
        factor = self.factor
        return channels, (height or rows * factor) // factor, (width or columns * factor) // factor

    def grid(self, num_inference_steps: int, *, clip: str = "off", timestep_spacing: str | None = None) -> Grid:
        """What its pipeline's scheduler holds once the pipeline has set it."""
        shape = self.sample_shape
        session = self._at(shape, num_inference_steps, timestep_spacing)
        return grid_of_set(session.tape.scheduler, clip=clip)

    # ------------------------------------------------------------ predictions

    def embed(self, prompts: Sequence[str | None], negative: bool = False) -> Condition:
        """What its pipeline gives the denoiser for each prompt; None is what it does without one."""
        import torch

        if not self.takes_prompt:
            raise Incompatible(f"{self.id} takes no prompt; leave prompt out, or use a text model such as scenes-sd")
        session, study = self._session or self.own, self.study
        name = "negative_prompt" if negative else "prompt"
        if negative and name not in self._parameters and any(prompts):
            raise Incompatible(f"{self.id}: its pipeline takes no negative prompt; leave it out")
        made: Condition | None = None
        for prompt in prompts:
            known = self._parameters.get(name)
            default = None if known is None else study.call.get(name, known.default)  # PixArt's is "", not None
            given = default if prompt is None and negative else prompt or ""
            own = session.text("prompt", "", True) if known is None else session.text(name, given, negative)
            rows = {self._name(path): _float(t) for path, t in own.items()}
            rows |= {SCALE: torch.ones(1, device=self.device)} if study.guidance == "distilled" else {}
            one = Condition.of(rows)
            made = one if made is None else made.joined(one)
        assert made is not None
        return made

    def _name(self, path: str) -> str:
        """A row's name in a condition, or its path for that name: the two change places."""
        pairs = {self.study.main: EMBEDS, EMBEDS: self.study.main}
        return pairs.get(path) or path

    def network(self, x: Tensor, timestep: float, condition: Condition) -> Tensor:
        """The raw output, as its pipeline asks; rows of unequal lengths are asked apart."""
        import torch

        named = condition.named
        lengths = [n for n in named if n.endswith(LENGTH)]
        if not lengths:
            return self._ask(x, timestep, named)
        alike: dict[tuple[int, ...], list[int]] = {}
        for k, key in enumerate(torch.stack([named[n] for n in lengths], 1).tolist()):
            alike.setdefault(tuple(key), []).append(k)
        outputs = []
        for key, rows in alike.items():
            index = torch.tensor(rows, device=x.device)
            part = {n: t[index] for n, t in named.items() if n not in lengths}
            cut = {n.removesuffix(LENGTH): size for n, size in zip(lengths, key, strict=True)}
            outputs.append(self._ask(x[index], timestep, part | {n: part[n][:, :size] for n, size in cut.items()}))
        order = torch.tensor([k for rows in alike.values() for k in rows], device=x.device).argsort()
        return torch.cat(outputs)[order]

    def _ask(self, x: Tensor, timestep: float, named: Mapping[str, Tensor]) -> Tensor:
        session, study = self.session, self.study
        rows = {self._name(name): t for name, t in named.items() if name != SCALE}
        if study.scale is not None:
            rows[study.scale[0]] = study.scale[1] * named[SCALE]
        if lacking := [path for path in study.rows if path not in rows]:
            raise Incompatible(
                f"{self.id} is conditioned on {', '.join(self._name(path) for path in sorted(lacking))} too; give "
                "prompts, or what model.embed gives"
            )
        given = session.arguments(x, timestep, rows)
        try:
            answer = self.unet(**given)
        except Exception as error:  # whatever a network raises
            if isinstance(error, UnsampleError) or out_of_memory(error):
                raise
            raise Incompatible(
                f"the network of {self.id} stopped with {type(error).__name__} ({first_line(error)}) when it was asked "
                f"about {tuple(x.shape)} at timestep {timestep:g}"
            ) from error
        return session.answered(answer, x)

    def rule(self, free: Tensor, bound: Tensor, w: float) -> Tensor:
        """As its pipeline joins them."""
        tail = self.session.tail
        if self.linear:
            return free + w * (bound - free)
        return tail.unpacked(self.study.rule(tail.packed(free), tail.packed(bound), w))

    # ------------------------------------------------------------ beside the pipeline itself

    @property
    def call_arguments(self) -> dict[str, Any]:
        """Those of the pipeline's own call that stand behind what it is bound to, without prompt and guidance."""
        apart = ("prompt", "negative_prompt", "class_labels", "generator", "output_type", self.study.number)
        return {name: value for name, value in self.session.call.items() if name not in apart}

    def own_guidance(self, w: float) -> dict[str, float]:
        """What the pipeline's own guidance argument must be to mean our w; Z-Image's counts from 0.

        Raises:
            Incompatible: the number is not an argument of its call.
        """
        number, scale = self.study.number, self.study.rule.scale
        if self.guidance == "none" or number is None:
            if w not in (1, scale):
                raise Incompatible(f"{self.id}: its pipeline's call takes no guidance; it has {scale:g}")
            return {}
        return {number: w if self.guidance == "distilled" else w - round(scale - self.study.call[number])}

    @property
    def changes(self) -> list[str]:
        """In words: in what sampling by us differs from sampling by the pipeline."""
        grid = grid_of_set(self.session.tape.scheduler).meta
        own = type(self.scheduler).__name__
        told = (
            [f"{own} {grid['sampler']}: its first-order deterministic counterpart is walked"]
            if "sampler" in grid
            else []
        )
        told += [f"{own} gives way to {grid['scheduler']} of the same table"] if grid["scheduler"] != own else []
        told += [f"{name} is off" for name in OPTIONS if name in self.session.call]
        return told

    def to_state(self, sample: Tensor, i: int) -> Tensor:
        """The state at grid point i of a sample as the pipeline hands it to its scheduler."""
        session, rows = self.session, sample[: len(sample) // self.study.halves]
        level = grid_of_set(session.tape.scheduler).alpha[i] if session.exploding else 1.0
        return session.tail.unpacked(rows) * level

    # ------------------------------------------------------------ pictures

    def encode(self, images: Tensor) -> Tensor:
        """Pictures in [0, 1] to the state: the mode of the VAE's posterior, as its pipeline undoes it."""
        if self.vae is None:
            return images * 2 - 1
        tail = self._tail(self.shape_of(*images.shape[2:]))
        z = encode(self.vae, images, frames=len(tail.decoded) == 4)
        if tuple(z.shape[1:]) != tail.decoded:
            raise Incompatible(
                f"{self.id}: its VAE makes {tuple(z.shape[1:])} of a picture, and decodes {tail.decoded}"
            )
        return tail.from_vae(z)

    def decode(self, latents: Tensor) -> Tensor:
        """The state to pictures, nominally in [0, 1]."""
        if self.vae is None:
            return latents / 2 + 0.5
        return decode(self.vae, self.for_vae(latents))

    def for_vae(self, latents: Tensor) -> Tensor:
        """The state as the VAE's decoder takes it."""
        return self._tail(tuple(latents.shape[1:])).for_vae(latents)

    def from_vae(self, z: Tensor) -> Tensor:
        """The other way."""
        own = self.sample_shape
        return self._tail((own[0], *z.shape[-2:]) if z.ndim > 3 else own).from_vae(z)

    def _tail(self, shape: tuple[int, ...]) -> Tail:
        """For states of a shape, whatever the number of steps."""
        bound = self._session
        return (bound if bound and bound.tail.shape == shape else self._at(shape, STEPS)).tail

    # ------------------------------------------------------------ weights

    def check(self) -> None:
        """Refuse what was put into it and cannot be inverted (`Incompatible`)."""
        self.weights.check()

    def weights_sha256(self) -> str:
        """SHA-256 of all its networks, and of what changes their predictions beside their weights."""
        return self.weights.sha256()


def _float(t: Tensor) -> Tensor:
    """Rows that are no whole numbers in float32, or float64 where they are."""
    return t.float() if t.is_floating_point() and t.itemsize < 8 else t


def _size(size: tuple[int, int] | None) -> str:
    return "" if size is None else f"{size[1]}x{size[0]}, "
