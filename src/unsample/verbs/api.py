"""The verbs: look up, check, call, count, time. The work itself is on the floors below; most lines are docstrings."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from importlib.metadata import version
from numbers import Integral
from os import PathLike
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput, BadOption, Incompatible, UnsampleWarning
from unsample.methods import Method, get_method
from unsample.models.base import Model
from unsample.models.calling import evaluating
from unsample.models.guidance import Schedule, check_guidance, guidance_scales, schedule_name
from unsample.models.loading import load, wrap
from unsample.numbers.draws import draw_noise
from unsample.numbers.grid import Grid, check_end, grid_from_scheduler
from unsample.numbers.health import health
from unsample.numbers.solvers.ddim import ddim_sample
from unsample.numeric import is_whole
from unsample.preflight import rules
from unsample.verbs.inputs import (
    Prompts,
    as_generators,
    as_images,
    as_latents,
    generators_given,
    outside_domain,
    seeds_given,
)
from unsample.verbs.outcome import find_lost, residuals, status
from unsample.verbs.playing import (
    changes_of,
    check_model,
    drift,
    edit_guidance,
    grid_of,
    guidance_of,
    method_of,
    opened,
    play,
    prompts_of,
    with_negatives,
)
from unsample.verbs.results import PER_PICTURE_META, Images, Inversion, check_pair
from unsample.verbs.running import Callback, Run, Watching, encoded, state_dtype
from unsample.verbs.running import recorded as as_recorded

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.media.pictures import Fit

__all__ = ["edit", "interpolate", "invert", "load", "reconstruct", "sample", "wrap"]


def sample(
    model: Any,
    prompt: str | list[str] | None = None,
    *,
    method: str | Method | None = None,
    num_inference_steps: int = 50,
    guidance_scale: float = 1.0,
    guidance_schedule: Schedule = "constant",
    noise: Tensor | None = None,
    generator: Any = None,
    negative_prompt: str | list[str] | None = None,
    prompt_embeds: Tensor | None = None,
    negative_prompt_embeds: Tensor | None = None,
    class_labels: Any = None,
    negative_class_labels: Any = None,
    num_images_per_prompt: int = 1,
    height: int | None = None,
    width: int | None = None,
    keep_trajectory: bool = False,
    callback_on_step_end: Callback | None = None,
    clip: str = "off",
    progress: bool | None = None,
) -> Images:
    """Generate pictures with deterministic DDIM, or with the sampler that a method of inversion has of its own.

    A picture that `edict`, `bdia` or `belm` made is one whose inversion by the same method comes back to it, as any
    picture does. The noise found then is another than the one it was sampled from, because a sampling run ends in two
    latents (`edict`) or two points (`bdia`, `belm`), of which the picture is one. `dpm_solver` solves for that very
    noise: of order 1 it finds it, of order 2 as near as its anchors are.

    Args:
        model: from `load` or `wrap`, or anything that `load` takes.
        prompt: one, or one a picture.
        method: None is DDIM; or `edict` (its two latents both start as the noise), `bdia` or `belm` (their first step
            is DDIM), `dpm_solver`: by name, or configured. Others are refused: they are played back by DDIM, or need
            what they stored of a picture.
        num_inference_steps: 1 to what the model was trained with.
        guidance_scale: w >= 0, `eps_u + w (eps_c - eps_u)`; 1 is one pass (conditional only).
        guidance_schedule: how w runs from the noisiest step (s = 0) to the last (s = 1): "constant", "linear"
            `1 + (w - 1)(1 - s)`, "cosine" `1 + (w - 1)(1 + cos(pi s)) / 2`, or any callable of s.
        noise: (B, C, H, W) to start from, in place of `generator`.
        generator: one `torch.Generator` (split among the pictures of a batch), or a whole number (the k-th picture has
            that seed + k, as `unsample sample --seed`), or a list with one of them a picture; without it a fresh seed
            a picture is drawn and recorded in `meta`.
        negative_prompt, prompt_embeds, negative_prompt_embeds, class_labels, num_images_per_prompt, height, width,
            callback_on_step_end: as in diffusers; `height` and `width` in pixels of the picture.
        negative_class_labels: the class that guidance leads away from (the one that stands for none), one, or one a
            picture; default: the model's own, where its config tells of one (DiT).
        keep_trajectory: keep every latent, on the CPU.
        clip: "off", or "config" to clamp the predicted x0 as the scheduler's config says.
        progress: show a bar; default: on a terminal.

    Returns:
        `Images`, with `.images` (B, 3, H, W) in [0, 1], `.latents`, `.noise`, `.trajectory` (noisiest first).

    Raises:
        BadOption, Incompatible, BadInput: what was asked cannot be done.
        Diverged: every picture stopped being finite.

    Reference:
        Song, Meng and Ermon, 2021, arXiv:2010.02502, Eq. 12 with eta = 0.

    Example:
        >>> import torch, unsample
        >>> model = unsample.load("scenes-mixture")
        >>> g = torch.Generator().manual_seed(0)
        >>> unsample.sample(model, "a red circle", num_inference_steps=5, generator=g).images.shape
        torch.Size([1, 3, 32, 32])
    """
    sampler = get_method("ddim" if method is None else method)
    start, spacing = sampler.check_fresh(), sampler.timestep_spacing
    model = load(model)
    w = check_guidance(guidance_scale)
    grid = grid_from_scheduler(model.scheduler, num_inference_steps, clip=clip, timestep_spacing=spacing)
    if sampler.check_grid is not None:
        sampler.check_grid(grid, grid.num_steps)
    check_end(grid, grid.num_steps, sampling=True)
    prompts = Prompts(
        prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, class_labels, negative_class_labels
    )
    seeds: list[int] | None = None
    if not isinstance(num_images_per_prompt, Integral) or num_images_per_prompt < 1:
        raise BadOption(f"num_images_per_prompt must be a whole number of at least 1; got {num_images_per_prompt!r}")
    count = prompts.count() * num_images_per_prompt
    if prompts.count() not in (1, count):
        prompts = _repeat(prompts, num_images_per_prompt)
    if noise is None:
        if count == 1:
            count = generators_given(generator)
        generators = as_generators(generator, count)
        seeds = [g.initial_seed() for g in generators]
        noise = draw_noise(generators, _shape(model, height, width))
    elif height is not None or width is not None or generator is not None:
        raise BadOption("noise says what is sampled and at which size; leave generator, height and width out with it")
    noise = as_latents(model, noise)
    if num_images_per_prompt > 1 and len(noise) != count:
        raise BadInput(f"noise holds {len(noise)} pictures, and {num_images_per_prompt} a prompt are {count}")
    x = noise.to(model.device, state_dtype(model, noise), copy=True)
    watching = Watching(keep_trajectory, callback_on_step_end, progress)
    scales = guidance_scales(w, guidance_schedule, grid)
    run = Run(model, grid, prompts, len(x), scales, grid.num_steps, watching, "sample")
    outside = outside_domain(model, prompts, len(x))
    made = run.sample(x, sampler.sample_step, start(x))
    about = _meta(model, grid, grid.num_steps, prompts, len(x), seeds) | {"out_of_domain": outside}
    about |= {"verb": "sample", "method": {"name": sampler.name, "settings": dict(sampler.settings)}}
    about |= {"guidance_scale": w, "guidance_schedule": schedule_name(guidance_schedule)}
    return replace(made, meta=made.meta | about)


def invert(
    model: Any,
    images: Any = None,
    prompt: str | list[str] | None = None,
    *,
    method: str | Method = "ddim",
    num_inference_steps: int = 50,
    guidance_scale: float | None = None,
    sampling_guidance_scale: float | None = None,
    guidance_schedule: Schedule = "constant",
    strength: float | None = None,
    generator: Any = None,
    latents: Tensor | None = None,
    trajectory: Tensor | None = None,
    negative_prompt: str | list[str] | None = None,
    prompt_embeds: Tensor | None = None,
    negative_prompt_embeds: Tensor | None = None,
    class_labels: Any = None,
    negative_class_labels: Any = None,
    keep_trajectory: bool = False,
    callback_on_step_end: Callback | None = None,
    fit: Fit = "aspect",
    clip: str = "off",
    progress: bool | None = None,
) -> Inversion:
    """Recover the noise from which the model makes these pictures.

    Args:
        model: from `load` or `wrap`, or anything that `load` takes.
        images: a path, a PIL image, a numpy array, a list of them, or a tensor (B, 3, H, W) in [0, 1]. Arrays are
            (H, W), (H, W, 3), (H, W, 4) or batches (B, H, W, C), uint8 or floats from 0 to 1; 8 bits of them are kept.
        prompt: what the pictures show; one, or one a picture.
        method: a name (`unsample methods` lists them) or a configured method.
        num_inference_steps: 1 to what the model was trained with.
        guidance_scale: w >= 0 used while inverting; default: the method's own, else 1.
        sampling_guidance_scale: what a method optimises for and `reconstruct` uses; default: the method's own, else
            `guidance_scale`.
        guidance_schedule: of sampling, as in `sample`; the inversion itself walks under the constant `guidance_scale`.
        strength: in (0, 1]; below 1 the inversion stops at step int(num_inference_steps * strength). Default: the
            method's own, else 1.
        generator: as in `sample`, but by a whole number, as by default by 0, every picture is seeded by that number
            and its own content, so that no two different pictures share a noise.
        latents: in place of `images`: (B, C, H, W) in the model's own range; float64 makes the whole walk float64.
        trajectory: (N + 1, B, C, H, W), noisiest first, as `sample(keep_trajectory=True)` gives: for the methods that
            need the sampling run which made the pictures (`oracle`).
        negative_prompt, prompt_embeds, negative_prompt_embeds, class_labels, callback_on_step_end: as in diffusers.
        negative_class_labels: as in `sample`.
        keep_trajectory: keep every latent, on the CPU.
        fit: "aspect" keeps a picture's aspect ratio at the model's pixel count; "crop" or "pad" makes a square.
        clip: "off", or "config" to clamp the predicted x0 as the scheduler's config says (not invertible).
        progress: show a bar; default: on a terminal.

    Returns:
        `Inversion`. A picture that stopped being finite has status "diverged" and no usable noise.

    Raises:
        BadInput, BadOption, Incompatible: what was asked cannot be done; nothing was run.
        Diverged: every picture stopped being finite.

    Example:
        >>> import unsample
        >>> from unsample.datasets import Scenes
        >>> model = unsample.load("scenes-mixture")
        >>> image = Scenes("tune", 1, size=32)[0].image[None]
        >>> unsample.invert(model, image, num_inference_steps=5).nfe
        [5]
    """
    model = load(model)
    configured = get_method(method)
    null = negative_class_labels is not None or getattr(model, "null_class", None) is not None
    guidable = model.takes_prompt or negative_prompt_embeds is not None or null
    w = check_guidance(configured.inverts_at(guidance_scale, guidable))
    if sampling_guidance_scale is None:
        own = configured.sampling_guidance_scale if guidable else None  # else there is nothing to guide away from
        sampling = w if own is None else own
    else:
        sampling = check_guidance(sampling_guidance_scale, "sampling_guidance_scale")
    strength = (configured.strength or 1.0) if strength is None else strength
    spacing = configured.timestep_spacing
    grid = grid_from_scheduler(model.scheduler, num_inference_steps, clip=clip, timestep_spacing=spacing)
    stop = rules.check_strength(strength, grid.num_steps)
    if configured.check_grid is not None:
        configured.check_grid(grid, stop)
    check_end(grid, stop)
    scales = guidance_scales(sampling, guidance_schedule, grid)
    prompts = Prompts(
        prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, class_labels, negative_class_labels
    )
    if (images is None) is (latents is None):
        raise BadInput("give images or latents, one of the two")
    _check_needs(configured, model, prompts, trajectory, scales, w)
    given = None if latents is not None else as_images(model, images, fit)
    rows = (given.images * 255).round().byte() if given else as_latents(model, latents)
    count = len(rows)
    generators = as_generators(generator, count, rows)
    begin = time.perf_counter()
    watching = Watching(keep_trajectory, callback_on_step_end, progress)
    run = Run(model, grid, prompts, count, w, stop, watching, "invert", scales)  # refuses before the encoder runs
    outside = outside_domain(model, prompts, count, given)
    x0 = encoded(model, given, latents)
    recorded = None if trajectory is None else _recorded(trajectory, x0, grid)
    noise, state = run.invert(x0, configured, generators, recorded)
    cost, seconds = run.predict.cost, time.perf_counter() - begin
    find_lost(run.watch, noise, state, configured, pure_noise=stop == grid.num_steps)
    verdicts = status(run.watch, state, configured, count)
    kept = {name: state[name] for name in configured.keeps}
    sizes = given.sizes if given else [tuple(reversed(x0.shape[2:]))] * count
    seeds = seeds_given(generator, count) or [g.initial_seed() for g in generators]
    about = _meta(model, grid, stop, prompts, count, seeds)
    about |= {
        "method": {"name": configured.name, "settings": dict(configured.settings)},
        "guidance_scale": w,
        "sampling_guidance_scale": sampling,
        "guidance_schedule": schedule_name(guidance_schedule),
        "sampling_scales": list(scales),
        "strength": float(strength),
        "source_sizes": [list(s) for s in sizes],
        "names": given.names if given else [f"latents-{k}" for k in range(count)],
        "notes": given.notes if given else [""] * count,
        "out_of_domain": outside,
        "source_sha256": given.sha256 if given else [None] * count,
        "fit": fit,
        "residual": residuals(state),
        "stored": {
            "what": configured.stores,
            "size_over_noise": _bytes(noise, *kept.values()) / _bytes(noise),
            "fitted_to_picture": configured.fitted,
        },
        "nfe": cost.nfe,
        "backward": cost.backward,
        "nonfinite_at": cost.nonfinite,
        "lost_at": as_recorded(run.watch.places(count)),
        "seconds": seconds,
        **(configured.notes(grid, stop) if configured.notes else {}),
    }
    return Inversion(
        noise=noise,
        state=kept,
        nfe=cost.nfe,
        backward=cost.backward,
        seconds=seconds,
        status=verdicts,
        health=health(noise, pure_noise=stop == grid.num_steps),
        meta=about,
        source=None if given is None else (given.images * 255).round().byte().permute(0, 2, 3, 1).cpu(),
        prompt_embeds=_row_each(prompt_embeds, count),
        negative_prompt_embeds=_row_each(negative_prompt_embeds, count),
        class_labels=run.condition.class_labels,
        negative_class_labels=prompts.all_labels(count).get("negative_class_labels"),
        latents=x0,
        trajectory=run.watch.kept(),
    )


def reconstruct(
    model: Any,
    inversion: Inversion | str | PathLike[str],
    *,
    use: str = "record",
    guidance_scale: float | None = None,
    guidance_schedule: Schedule | None = None,
    allow_other_model: bool = False,
    keep_trajectory: bool = False,
    callback_on_step_end: Callback | None = None,
    progress: bool | None = None,
) -> Images:
    """Make the pictures again.

    Args:
        model: the one that inverted (its weights' hash is compared).
        inversion: from `invert`, or the path of a saved one.
        use: "record" plays back all that the method stored, by its own rule; "noise" samples plainly from the
            recovered noise alone.
        guidance_scale: default: the inversion's `sampling_guidance_scale`.
        guidance_schedule: as in `sample`; default: the inversion's.
        allow_other_model: play back with other weights.
        keep_trajectory, callback_on_step_end, progress: as in `sample`.

    Returns:
        `Images`; `.pil()` gives PIL pictures.

    Raises:
        BadInput: made by another model. BadOption: another value of `use`.
        Incompatible: guidance other than that which the record was fitted with.
    """
    if use not in ("record", "noise"):
        raise BadOption(f"use must be 'record' or 'noise'; got {use!r}")
    inversion = opened(inversion)
    guidance = guidance_of(inversion, guidance_scale, guidance_schedule)
    watching = Watching(keep_trajectory, callback_on_step_end, progress)
    return play(model, inversion, prompts_of(inversion), guidance, use, allow_other_model, watching, "reconstruct")


def edit(
    model: Any,
    inversion: Inversion | str | PathLike[str],
    prompt: str | list[str] | None = None,
    *,
    guidance_scale: float | None = None,
    guidance_schedule: Schedule | None = None,
    negative_prompt: str | list[str] | None = None,
    prompt_embeds: Tensor | None = None,
    negative_prompt_embeds: Tensor | None = None,
    class_labels: Any = None,
    negative_class_labels: Any = None,
    allow_other_model: bool = False,
    keep_trajectory: bool = False,
    callback_on_step_end: Callback | None = None,
    progress: bool | None = None,
) -> Images:
    """Play an inversion back under another prompt (or other class labels).

    Args:
        model: the one that inverted.
        inversion: from `invert`, or the path of a saved one.
        prompt: what the pictures shall show; one, or one a picture. Several prompts (or rows of `prompt_embeds`, or
            `class_labels`) over an inversion of one picture make an edit each, as one batch.
        guidance_scale: of sampling; default: the method's own for edits, else 5 (1 under class labels without
            `negative_class_labels`).
        guidance_schedule: as in `sample`; default: the inversion's.
        negative_prompt, negative_prompt_embeds, negative_class_labels: as in `sample`; default: the inversion's.
        prompt_embeds, class_labels, keep_trajectory, callback_on_step_end, progress: as in `sample`.
        allow_other_model: play back with other weights.

    Raises:
        Incompatible: a model that takes no condition, a method that cannot edit, or guidance other than that which the
            record was fitted with. BadInput: made by another model.
    """
    prompts = Prompts(
        prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, class_labels, negative_class_labels
    )
    if prompt is None and prompt_embeds is None and class_labels is None:
        raise BadOption("edit needs what the picture shall show: prompt, prompt_embeds or class_labels")
    inversion = opened(inversion)
    if len(inversion) == 1 < prompts.count():
        inversion = inversion.repeated(prompts.count())
    prompts = with_negatives(prompts, inversion)
    method = method_of(inversion)
    rules.check_edits(method)
    guidance = guidance_of(
        inversion, edit_guidance(inversion, guidance_scale, negative_class_labels), guidance_schedule
    )
    watching = Watching(keep_trajectory, callback_on_step_end, progress)
    model = load(model)
    outside = outside_domain(model, prompts, len(inversion))
    made = play(model, inversion, prompts, guidance, "record", allow_other_model, watching, "edit")
    kept = inversion.meta.get("out_of_domain") or [[]] * len(inversion)
    both = [list(dict.fromkeys([*a, *b])) for a, b in zip(kept, outside, strict=True)]
    return replace(made, meta=made.meta | {"out_of_domain": both})


def interpolate(
    model: Any,
    inversion_a: Inversion | str | PathLike[str],
    inversion_b: Inversion | str | PathLike[str],
    *,
    num_frames: int = 9,
    guidance_scale: float | None = None,
    allow_other_model: bool = False,
    callback_on_step_end: Callback | None = None,
    progress: bool | None = None,
) -> Images:
    """Pictures between two: slerp of the noises, linear interpolation of the prompts' embeddings, plain sampling.

    Args:
        model: the one that inverted both.
        inversion_a, inversion_b: of as many pictures each, at the same grid point; or the paths of saved ones.
        num_frames: at least 2; the first and the last are the two reconstructions from the noise alone.
        guidance_scale: default: the sampling guidance of `inversion_a`.
        allow_other_model, callback_on_step_end, progress: as in `reconstruct`.

    Returns:
        `Images` of `num_frames` pictures a pair, pair by pair.

    Raises:
        Incompatible: inversions of different shape, grid, strength, class labels or guidance.
    """
    import torch

    from unsample.numbers.slerp import slerp

    if not is_whole(num_frames) or num_frames < 2:
        raise BadOption(f"num_frames must be a whole number of at least 2; got {num_frames!r}")
    a, b = opened(inversion_a), opened(inversion_b)
    check_pair((tuple(a.noise.shape), a.meta), (tuple(b.noise.shape), b.meta), guidance_scale)
    for name in ("class_labels", "negative_class_labels"):
        p, q = (None if (t := getattr(i, name)) is None else t.tolist() for i in (a, b))
        if p != q:
            raise Incompatible(f"cannot interpolate between {name} {p} and {q}; invert with the same")
    model = load(model)
    w, schedule, scales = guidance_of(a, guidance_scale, None)
    for inversion in (a, b):
        check_model(model, inversion, allow_other_model)
    ts = torch.linspace(0, 1, num_frames, dtype=torch.float64).tolist()
    noise = torch.cat(
        [torch.cat([slerp(p[None], q[None], t) for t in ts]) for p, q in zip(a.noise, b.noise, strict=True)]
    )
    with torch.no_grad(), evaluating(model):
        grid = grid_of(a, model)
        scales = guidance_scales(w, schedule, grid) if scales is None else scales
        guided = max((v for v in scales if v != 1), default=1.0)
        conditions = [prompts_of(i).conditions(model, len(i), guided) for i in (a, b)]
    embeds = _blend([c.prompt_embeds for c, _ in conditions], ts)
    negative = _blend([None if u is None else u.prompt_embeds for _, u in conditions], ts)
    labels = {n: getattr(a, n) for n in ("class_labels", "negative_class_labels")}
    repeated = {n: None if t is None else t.repeat_interleave(num_frames) for n, t in labels.items()}
    x = noise.to(model.device, state_dtype(model, noise))
    prompts = Prompts(prompt_embeds=embeds, negative_prompt_embeds=negative, **repeated)
    watching = Watching(callback=callback_on_step_end, progress=progress)
    run = Run(model, grid, prompts, len(x), scales, a.meta["stop_index"], watching, "interpolate")
    about = {key: value for key, value in a.meta.items() if key not in PER_PICTURE_META}
    about |= {"verb": "interpolate", "num_frames": num_frames, "guidance_scale": w}
    about |= {f"{name}s": [i.meta[name] for i in (a, b)] for name in ("prompt", "negative_prompt")}
    about |= {"inversion_guidance_scale": a.meta["guidance_scale"]}
    made = run.sample(x, ddim_sample)
    return replace(made, meta=about | made.meta)


# ---------------------------------------------------------------- what the verbs share


def _bytes(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _check_needs(
    method: Method, model: Model, prompts: Prompts, trajectory: Tensor | None, scales: tuple[float, ...], w: float
) -> None:
    """Refuse what the method cannot do, and warn of guidance that it does not account for."""
    prompted = prompts.prompt is not None or prompts.prompt_embeds is not None
    rules.check_needs_prompt(method, model.id, model.takes_prompt or prompts.prompt_embeds is not None, prompted)
    rules.check_needs_trajectory(method, trajectory is not None)
    if method.drifts(w, scales):
        warnings.warn(UnsampleWarning("drift", drift(method, w, scales)), stacklevel=3)


def _recorded(trajectory: Tensor, x0: Tensor, grid: Grid) -> Tensor:
    """A recorded sampling run, checked against what is inverted."""
    wanted = (grid.num_steps + 1, *x0.shape)
    if tuple(trajectory.shape) != wanted:
        raise BadInput(
            f"trajectory must be {wanted}, noisiest first, one point a grid point; got {tuple(trajectory.shape)}"
        )
    if not bool(trajectory.isfinite().all()):
        raise BadInput("trajectory must be finite")
    return trajectory.to(x0)


def _shape(model: Model, height: int | None, width: int | None) -> tuple[int, int, int]:
    """The network's sample shape for a picture of that size."""
    channels, rows, columns = model.sample_shape
    factor = model.picture_size[1] // rows
    for name, side in (("height", height), ("width", width)):
        if side is not None and (not isinstance(side, int) or side < 8 or side % model.multiple):
            raise BadOption(f"{name} must be a multiple of {model.multiple}, at least 8, for {model.id}; got {side!r}")
    return channels, (height or rows * factor) // factor, (width or columns * factor) // factor


def _repeat(prompts: Prompts, times: int) -> Prompts:
    """Each prompt `times` times in a row, as diffusers does."""
    texts = {
        name: [p for p in value for _ in range(times)] if isinstance(value, list | tuple) else value
        for name, value in (("prompt", prompts.prompt), ("negative_prompt", prompts.negative_prompt))
    }
    names = ("prompt_embeds", "negative_prompt_embeds")
    tensors = {n: None if (t := getattr(prompts, n)) is None else t.repeat_interleave(times, 0) for n in names}
    labels = {
        n: prompts.labels(n).repeat_interleave(times)
        for n in ("class_labels", "negative_class_labels")
        if getattr(prompts, n) is not None and prompts.labels(n).numel() > 1
    }
    alone = {n: getattr(prompts, n) for n in ("class_labels", "negative_class_labels")}
    return Prompts(**texts, **tensors, **alone | labels)  # type: ignore[arg-type]


def _blend(pair: list[Tensor | None], ts: list[float]) -> Tensor | None:
    """Rows of two conditions, linearly interpolated, frame by frame within each pair."""
    import torch

    a, b = pair
    if a is None and b is None:
        return None
    if a is None or b is None:
        raise Incompatible("cannot interpolate: one inversion has embeddings, the other none; invert both alike")
    return torch.cat([torch.stack([(1 - t) * p + t * q for t in ts]) for p, q in zip(a, b, strict=True)])


def _row_each(tensor: Tensor | None, count: int) -> Tensor | None:
    """One row a picture, so that an inversion can be split and saved."""
    return None if tensor is None else tensor.detach().expand(count, *tensor.shape[1:])


def _meta(model: Model, grid: Grid, stop: int, prompts: Prompts, count: int, seeds: list[int] | None) -> dict[str, Any]:
    lists = {n: list(getattr(grid, n)) for n in ("alpha", "sigma", "timesteps", "eval_alpha", "eval_sigma")}
    told = {"changes": changes_of(model), "unread": list(getattr(model, "unread", ()))}
    about = {"id": model.id, "family": model.family, "sha256": model.weights_sha256(), "dtype": str(model.dtype)}
    return {
        "model": about | {name: value for name, value in told.items() if value},
        "num_inference_steps": grid.num_steps,
        "stop_index": stop,
        "grid": lists | {"prediction_type": grid.prediction_type, "clip": grid.clip, "meta": grid.meta},
        "prompt": prompts.texts(count),
        "negative_prompt": prompts.negatives(count),
        **{name: labels.tolist() for name, labels in prompts.all_labels(count).items()},
        "seeds": seeds,
        "versions": {p: version(p) for p in ("torch", "diffusers", "transformers")} | {"unsample": _own_version()},
    }


def _own_version() -> str:
    from unsample import __version__

    return __version__
