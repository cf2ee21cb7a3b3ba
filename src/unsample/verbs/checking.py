"""Is a model served as its own pipeline would serve it? Both sample from one noise, and what differs is said."""

from __future__ import annotations

import resource
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from unsample.errors import BadOption, UnsampleWarning
from unsample.methods import get_method
from unsample.metrics.pixels import psnr
from unsample.models.domain import drawn
from unsample.models.families import family_of
from unsample.models.guidance import check_guidance
from unsample.models.loading import load
from unsample.models.reference import Asked, Ran, Reference, reference_of
from unsample.numeric import finite
from unsample.verbs.api import invert, reconstruct, sample

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.models.base import Model
    from unsample.verbs.results import Images

TOLERANCE = {"float64": 1e-4, "float32": 1e-3, "float16": 3e-2, "bfloat16": 1e-1}
"""Of latents, to their largest value, by the network's dtype: a pipeline rounds its state to it at every step."""
PROMPT, SCENE = "a photograph of a cat", "a large red circle at the center on a white background"
ITERATIONS = 10
PICTURES = 3  # whose first step is looked at
NEAR = 0.9, 1.1  # a spectral radius between these is near 1
GUIDANCE = {"cfg": 3.0, "distilled": 3.5}


@dataclass(frozen=True)
class Compared:
    """One run of the pipeline and one of ours from the same noise."""

    guidance_scale: float
    own: Mapping[str, Any]  # the pipeline's arguments that mean it
    first_step: float  # largest difference after the first step, to the largest value there
    latents: float  # the same at the end
    rms: float  # root mean square of that difference, to the root mean square of the latents
    picture_levels: float  # largest difference of the pictures, in levels of 255


@dataclass(frozen=True)
class Inverted:
    """What we made was inverted by `fixed_point` and made again."""

    status: str
    nfe: int
    noise_mse: float  # of the noise found to the one it was made from
    noise_std: float | None
    psnr: float | None  # None: equal
    guidance_scale: float


@dataclass(frozen=True)
class Contraction:
    """The spectral radius of the first inversion step's map at the true point of a few pictures that the model made."""

    radii: list[float | None]
    guidance_scale: float

    @property
    def verdict(self) -> str:
        """Whether plain fixed-point iteration converges to the truth at the first step, in words."""
        (low, high), known = NEAR, [radius for radius in self.radii if radius is not None]
        if len(known) < len(self.radii):
            return "unknown: the network's answers about it are not finite"
        if max(known) < low:
            return "plain fixed-point iteration converges to the truth there"
        if min(known) > high:
            return "the truth repels plain fixed-point iteration, which ends at another noise or nowhere"
        if min(known) >= low and max(known) <= high:
            return "plain fixed-point iteration is slow to converge to the truth there, or does not"
        return "plain fixed-point iteration converges to the truth there for some pictures and not for others"


@dataclass(frozen=True)
class Check:
    """What was found; `clean` where the pipeline's latents are ours."""

    model: str
    pipeline: str
    adapter: str
    family: str | None
    tried: str
    device: str
    dtype: str
    size: tuple[int, int]
    steps: int
    changes: list[str]
    compared: list[Compared]
    inverted: Inverted
    first_step: Contraction
    autoencoder_psnr: float | None
    peak_bytes: int
    tolerance: float
    problems: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """No problem was found."""
        return not self.problems

    def entries(self) -> dict[str, Any]:
        """For JSON."""
        told = asdict(self) | {"first_step": {**asdict(self.first_step), "verdict": self.first_step.verdict}}
        return {**told, "verdict": "clean" if self.clean else "differs"}


def check(
    model: Any,
    prompt: str | None = None,
    *,
    class_labels: int | None = None,
    num_inference_steps: int = 10,
    guidance_scale: float | None = None,
    height: int | None = None,
    width: int | None = None,
    generator: int = 0,
) -> Check:
    """Sample with a model's own pipeline and with ours from one noise, compare, invert, reconstruct.

    The pipeline runs its own call, with a deterministic sampler of first order where its own is none (`changes` says
    so). Guidance 1 is compared and, where the model has guidance, `guidance_scale`. `first_step` says whether plain
    fixed-point iteration converges to the truth at the first step, where most is lost, by the spectral radius of that
    step's map on a few pictures of the model (`numbers.spectrum`); it says nothing of being served well, and is not in
    the verdict.

    Args:
        model: from `load`, or anything that `load` takes.
        prompt: of a model with text; default: one that it should know.
        class_labels: of a model that draws classes; default 0.
        num_inference_steps: of each run; the cost is about (5 + 2 ITERATIONS) runs.
        guidance_scale: w >= 1; default: 3, of a distilled model 3.5.
        height, width: of the picture, in pixels; default: the model's own.
        generator: the seed of the noise.

    Returns:
        `Check`; `.clean` is the verdict.

    Raises:
        Incompatible: nothing to compare with, or a model that is not served. BadOption: guidance below 1, which
            pipelines leave out.

    Example:
        >>> import unsample
        >>> unsample.check("scenes-ddpm", num_inference_steps=3).clean
        True
    """
    model = load(model)
    reference = reference_of(model)
    scales = _scales(model, reference, guidance_scale)
    own_width, own_height = model.picture_size
    size = (width or own_width, height or own_height)
    asked = Asked(
        prompt=_prompt(model, prompt),
        label=_label(model, class_labels),
        guidance_scale=1.0,
        num_inference_steps=num_inference_steps,
        height=size[1],
        width=size[0],
        seed=generator,
    )
    forget_peak(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsampleWarning)  # of noise and convergence: the figures say it
        runs = [_both(model, reference, replace(asked, guidance_scale=w)) for w in scales]
        _, ours, first = runs[0]
        inverted = _inverted(model, ours, first)
        first_step = _first_step(model, ours, first)
        autoencoder = _round_trip(model, ours)
    compared = [_compared(a, b, asked_.guidance_scale) for a, b, asked_ in runs]
    dtype = str(model.dtype).removeprefix("torch.")
    row = family_of(type(reference.pipeline).__name__)
    found = Check(
        model=model.id,
        pipeline=type(reference.pipeline).__name__,
        adapter=model.family,
        family=row.name if row else None,
        tried=row.tried if row else "",
        device=str(model.device),
        dtype=dtype,
        size=size,
        steps=num_inference_steps,
        changes=reference.changes,
        compared=compared,
        inverted=inverted,
        first_step=first_step,
        autoencoder_psnr=autoencoder,
        peak_bytes=peak(model),
        tolerance=TOLERANCE.get(dtype, TOLERANCE["float32"]),
    )
    found.problems.extend(_problems(found))
    return found


def _scales(model: Model, reference: Reference, guidance_scale: float | None) -> list[float]:
    """Guidance 1, and another where there is any."""
    if (only := reference.only_guidance) is not None:
        if guidance_scale not in (None, only):
            raise BadOption(f"the guidance of {model.id} is no argument of its call; it has {only:g}, so leave it out")
        return [only]
    kind = model.guidance if model.takes_prompt or model.num_classes else "none"
    w = GUIDANCE.get(kind, 1.0) if guidance_scale is None else check_guidance(guidance_scale)
    if w < 1:
        raise BadOption(f"guidance_scale must be at least 1 here, since pipelines leave guidance out below; got {w:g}")
    if kind == "none" and w != 1:
        raise BadOption(f"{model.id} has no guidance; leave guidance_scale out")
    return [w] if kind == "distilled" or w == 1 else [1.0, w]


def _prompt(model: Model, prompt: str | None) -> str | None:
    if not model.takes_prompt:
        if prompt is not None:
            raise BadOption(f"{model.id} takes no prompt; leave it out")
        return None
    return (SCENE if drawn(model.id) else PROMPT) if prompt is None else prompt


def _label(model: Model, label: int | None) -> int | None:
    if not model.num_classes:
        if label is not None:
            raise BadOption(f"{model.id} draws no classes; leave class_labels out")
        return None
    return label or 0


def _both(model: Model, reference: Reference, asked: Asked) -> tuple[Ran, Images, Asked]:
    """The pipeline's run, and ours from its noise."""
    shape = model.shape_of(asked.height, asked.width)
    grid = model.at(shape, asked.num_inference_steps).grid(asked.num_inference_steps)
    theirs = reference.run(asked, grid)
    ours = sample(
        model,
        asked.prompt,
        class_labels=asked.label,
        noise=theirs.trajectory[0],
        num_inference_steps=asked.num_inference_steps,
        guidance_scale=asked.guidance_scale,
        keep_trajectory=True,
        progress=False,
    )
    return theirs, ours, asked


def _compared(theirs: Ran, ours: Images, w: float) -> Compared:
    """What differs."""
    assert ours.trajectory is not None
    a, b = ours.trajectory.cpu().double(), theirs.trajectory.cpu().double()
    off = (a[-1] - b[-1]).square().mean().sqrt() / b[-1].square().mean().sqrt()
    pictures = (ours.images.cpu() - theirs.images.cpu().clamp(0, 1)).abs().max()
    return Compared(w, dict(theirs.arguments), _off(a[1], b[1]), _off(a[-1], b[-1]), float(off), 255 * float(pictures))


def _off(a: Tensor, b: Tensor) -> float:
    """Largest difference, to the largest value of the second."""
    return float((a - b).abs().max() / b.abs().max())


def _inverted(model: Model, ours: Images, asked: Asked) -> Inverted:
    """The noise that is found again, and what it makes."""
    how: dict[str, Any] = {
        "method": get_method("fixed_point", {"num_iters": ITERATIONS}),
        "guidance_scale": asked.guidance_scale,
    }
    how |= {"num_inference_steps": asked.num_inference_steps, "class_labels": asked.label, "progress": False}
    found = invert(model, prompt=asked.prompt, latents=ours.latents, **how)
    again = reconstruct(model, found, progress=False)
    off = (found.noise.cpu().double() - ours.noise.cpu().double()).square().mean()
    (made,) = psnr(again.images.cpu(), ours.images.cpu())
    figures = found.health[0]
    return Inverted(found.status[0], found.nfe[0], float(off), figures["std"], finite(made), asked.guidance_scale)


def _first_step(model: Model, ours: Images, asked: Asked) -> Contraction:
    """Of the picture that was made, and of others from other seeds."""
    from unsample.numbers.spectrum import first_step_radius
    from unsample.verbs.prompts import Prompts
    from unsample.verbs.running import Run, Watching, quiet

    assert ours.trajectory is not None
    w, steps = asked.guidance_scale, asked.num_inference_steps
    how: dict[str, Any] = {"class_labels": asked.label, "num_inference_steps": steps, "guidance_scale": w}
    how |= {"height": asked.height, "width": asked.width, "keep_trajectory": True, "progress": False}
    runs = [ours.trajectory]
    for k in range(1, PICTURES):  # one at a time, as a large model may need
        made = sample(model, asked.prompt, generator=asked.seed + k, **how).trajectory
        assert made is not None
        runs.append(made)
    model = model.at(tuple(ours.latents.shape[1:]), steps)
    grid, radii = model.grid(steps), []
    with quiet(model):
        for trajectory in runs:
            x0, x1 = (trajectory[-1 - i].to(model.device) for i in (0, 1))
            prompts = Prompts(asked.prompt, class_labels=asked.label)
            scales = [(w,) * (grid.num_steps + 1)]
            run = Run(model, grid, grid.num_steps, prompts, 1, scales, Watching("check", progress=False))
            radii.append(finite(float(first_step_radius(run.predict, x0, x1))))
    return Contraction(radii, w)


def _round_trip(model: Model, ours: Images) -> float | None:
    """PSNR of a picture through the autoencoder alone; None for a model of pixels."""
    import torch

    if model.family == "pixel":
        return None
    height, width = ours.images.shape[2:]
    model = model.at(model.shape_of(height, width), ours.meta["num_inference_steps"])
    with torch.no_grad():
        images = ours.images.to(model.device)
        (found,) = psnr(model.decode(model.encode(images)).float().clamp(0, 1).cpu(), images.cpu())
    return finite(found)


def _problems(found: Check) -> list[str]:
    """What is not as it should be, in words."""
    problems = []
    for one in found.compared:
        for what, value in (("after the first step", one.first_step), ("at the end", one.latents)):
            if not value <= found.tolerance:
                problems.append(
                    f"at guidance {one.guidance_scale:g} latents differ {what} by {value:.1e} of their largest value "
                    f"(at most {found.tolerance:g} is taken for rounding in {found.dtype})"
                )
                break
    if found.inverted.status == "diverged":
        problems.append("the inversion of our own picture diverged")
    return problems


def forget_peak(model: Model) -> None:
    """The device's peak memory is counted from here on; that of a process cannot be forgotten."""
    import torch

    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)


def peak(model: Model) -> int:
    """Bytes: of the device since `forget_peak`, or of this process so far."""
    import torch

    if model.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(model.device))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 2**10
