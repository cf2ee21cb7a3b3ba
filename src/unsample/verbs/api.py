"""The verbs: look up, check, call, count, time. The work itself is on the floors below; most lines are docstrings."""

from __future__ import annotations

import warnings
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any

from unsample.edits import Editor, get_editor
from unsample.edits.choose import AUTO, METHOD
from unsample.edits.masks import MaskAsked
from unsample.edits.within import within
from unsample.errors import BadInput, BadOption, UnsampleWarning
from unsample.methods import Method, get_method
from unsample.models.guidance import Schedule, check_guidance, guidance_scales, schedule_name
from unsample.models.loading import load, wrap
from unsample.numbers.grid import check_end, check_steps
from unsample.numeric import is_whole
from unsample.preflight import rules
from unsample.verbs.choosing import edit_by_choice
from unsample.verbs.editing import edit_beside
from unsample.verbs.inputs import (
    as_generators,
    as_images,
    as_latents,
    as_trajectory,
    fresh_noise,
    outside_domain,
    seeds_given,
    shape_of,
)
from unsample.verbs.interpolating import between, check_ends
from unsample.verbs.masking import check_paste, with_record, with_source_pixels
from unsample.verbs.outcome import say_sampler, statuses
from unsample.verbs.playing import (
    check_model,
    drift,
    edit_guidance,
    guidance_of,
    method_of,
    opened,
    play,
    prompts_of,
    with_negatives,
)
from unsample.verbs.prompts import Prompts
from unsample.verbs.recording import inversion_of, sampled
from unsample.verbs.results import Images, Inversion
from unsample.verbs.running import Callback, Run, Watching, encoded, quiet, state_dtype

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
            `1 + (w - 1)(1 - s)`, "cosine" `1 + (w - 1)(1 + cos(pi s)) / 2`, "increasing" `1 + (w - 1) s`, or any
            callable of s.
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
    start = sampler.check_fresh()
    model = load(model)
    w = check_guidance(guidance_scale)
    latents = None if noise is None else as_latents(model, noise)
    shape = shape_of(model, height, width) if latents is None else tuple(latents.shape[1:])
    model = model.at(shape, num_inference_steps)
    grid = model.grid(num_inference_steps, clip=clip, timestep_spacing=sampler.spacing(model.scheduler))
    rules.check_levels(sampler, grid.is_flow)
    if sampler.check_grid is not None:
        sampler.check_grid(grid, grid.num_steps)
    check_end(grid, grid.num_steps, sampling=True)
    say_sampler(grid, sampler)
    prompts = Prompts(
        prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, class_labels, negative_class_labels
    )
    if not is_whole(num_images_per_prompt) or num_images_per_prompt < 1:
        raise BadOption(f"num_images_per_prompt must be a whole number of at least 1; got {num_images_per_prompt!r}")
    count, seeds = prompts.count() * num_images_per_prompt, None
    prompts = prompts.repeated(num_images_per_prompt)
    if latents is None:
        latents, seeds = fresh_noise(model, count, generator, height, width)
    elif height is not None or width is not None or generator is not None:
        raise BadOption("noise says what is sampled and at which size; leave generator, height and width out with it")
    if num_images_per_prompt > 1 and len(latents) != count:
        raise BadInput(f"noise holds {len(latents)} pictures, and {num_images_per_prompt} a prompt are {count}")
    x = latents.to(model.device, state_dtype(model, latents), copy=True)
    scales = guidance_scales(w, guidance_schedule, grid)
    watching = Watching("sample", keep_trajectory, callback_on_step_end, progress)
    with quiet(model):
        run = Run(model, grid, grid.num_steps, prompts, len(x), [scales], watching)
        outside = outside_domain(model, prompts, len(x))
        made = run.sample(x, sampler.sample_step, start(x))
    asked = {"guidance_scale": w, "guidance_schedule": schedule_name(guidance_schedule)}
    return sampled(made, run, sampler, asked | {"seeds": seeds, "out_of_domain": outside})


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
    first_step_radius: bool = False,
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
        method: a name (`unsample methods` lists them) or a configured method; "auto" is the one that edits as well as
            any at the lowest price (docs/editing.md), `ddim`, and is recorded as that.
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
        first_step_radius: ask whether the first step contracts where it ended, for 9 predictions a picture more, which
            are counted: without it, without `latents`, in fewer than 20 steps and under a strong guidance, none is
            graded "recovered" (`Inversion.health`).
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
    configured = get_method(METHOD if isinstance(method, str) and method == AUTO else method)
    rules.check_first_step_radius(configured, first_step_radius)
    null = negative_class_labels is not None or getattr(model, "null_class", None) is not None
    guidable = model.guidance != "none" and (model.takes_prompt or negative_prompt_embeds is not None or null)
    w = check_guidance(configured.inverts_at(guidance_scale, guidable))
    if sampling_guidance_scale is None:
        own = configured.sampling_guidance_scale if guidable else None  # else there is nothing to guide away from
        sampling = w if own is None else own
    else:
        sampling = check_guidance(sampling_guidance_scale, "sampling_guidance_scale")
    strength = (configured.strength or 1.0) if strength is None else strength
    stop = rules.check_strength(strength, check_steps(num_inference_steps))
    if (images is None) is (latents is None):
        raise BadInput("give images or latents, one of the two")
    given = None if latents is not None else as_images(model, images, fit)
    start = given.images if given else as_latents(model, latents)
    shape = model.shape_of(*start.shape[2:]) if given else tuple(start.shape[1:])
    model = model.at(shape, num_inference_steps)
    grid = model.grid(num_inference_steps, clip=clip, timestep_spacing=configured.spacing(model.scheduler))
    rules.check_levels(configured, grid.is_flow)
    if configured.check_grid is not None:
        configured.check_grid(grid, stop)
    check_end(grid, stop)
    say_sampler(grid, configured)
    scales = guidance_scales(sampling, guidance_schedule, grid)
    prompts = Prompts(
        prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, class_labels, negative_class_labels
    )
    prompted = prompts.prompt is not None or prompt_embeds is not None
    rules.check_needs_prompt(configured, model.id, model.takes_prompt or prompt_embeds is not None, prompted)
    rules.check_needs_trajectory(configured, trajectory is not None)
    if configured.drifts(w, scales):
        warnings.warn(UnsampleWarning("drift", drift(configured, w, scales)), stacklevel=2)
    rows = (given.images * 255).round().byte() if given else start
    count = len(rows)
    generators = as_generators(generator, count, rows)
    watching = Watching("invert", keep_trajectory, callback_on_step_end, progress)
    constant = (w,) * len(scales)
    with quiet(model):
        run = Run(model, grid, stop, prompts, count, [constant, scales], watching)  # refuses before the encoder runs
        outside = outside_domain(model, prompts, count, given)
        x0 = encoded(model, given, latents)
        recorded = None if trajectory is None else as_trajectory(trajectory, x0, grid)
        noise, state = run.invert(x0, configured, generators, recorded, given.images if given else None)
        radius = run.first_step_radius(x0) if first_step_radius else None
    found = (noise, state, statuses(run, noise, state, configured))
    asked = {
        "seeds": seeds_given(generator, count) or [g.initial_seed() for g in generators],
        "guidance_scale": w,
        "sampling_guidance_scale": sampling,
        "guidance_schedule": schedule_name(guidance_schedule),
        "sampling_scales": list(scales),
        "strength": float(strength),
        "out_of_domain": outside,
        "fit": fit,
    } | ({"first_step_radius": True} if first_step_radius else {})
    return inversion_of(run, configured, x0, given, found, radius, asked)


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
    watching = Watching("reconstruct", keep_trajectory, callback_on_step_end, progress)
    return play(load(model), inversion, prompts_of(inversion), guidance, use, allow_other_model, watching)


def edit(
    model: Any,
    inversion: Inversion | str | PathLike[str],
    prompt: str | list[str] | None = None,
    *,
    editor: str | Editor = "none",
    mask: Any = None,
    mask_feather: float = 0.0,
    mask_dilate: int = 1,
    paste: bool = False,
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
            `class_labels`) over an inversion of one picture make an edit each, as one batch. An editor whose settings
            say what is edited needs none; the source's own is taken.
        editor: what the edit takes of its source, which is then walked beside it by its own record, under its own
            prompt and guidance: a name (`unsample.edits.EDITORS`) or a configured editor, `unsample.edits.p2p(...)`;
            or "auto": editor, and guidance and mask where they are not given, by the kind of edit that the two prompts
            ask for (`unsample.edits.choose`, docs/editing.md), said in `meta["auto"]`.
        mask: where the pictures may change: white is edited, black is the source's reconstruction, which is put there
            after every step. A path, a PIL picture, an array or tensor (H, W), (B, H, W) or (B, 1, H, W), or a list of
            them; one for all, or one a picture. A mask of another size is resized, as the picture was (`fit`). Or
            "auto": where the predictions under the two prompts differ (arXiv:2210.11427; "auto:0.7" noises the picture
            to 0.7 of the steps for it, in place of 0.5). Or "attention": of the words that change; of others,
            "attention:large red circle". Name all words of the object where a word of the background, of size or of
            place changes: such words have their attention anywhere. A file of such a name is "./auto". A found mask
            costs 10 evaluations a prompt. Or "thing": found while edit and source are walked, where the phrase of the
            thing that changes has its attention, in the source or in the edit (`edits/within.py`); for moves and
            changes of size too.
        mask_feather: standard deviation of its soft edge, in pixels of the picture as the model sees it.
        mask_dilate: by how many cells of the state it grows first (a cell is what one number of the latents stands for:
            8x8 pixels of Stable Diffusion). With 0 the old picture often shines through around the edit.
        paste: put the source's own pixels outside the mask, in place of its reconstruction; the edge is feathered over
            at least a quarter of a cell. Latents are as without it.
        guidance_scale: of sampling; default: the editor's own, else the method's own for edits, else 5 (1 under class
            labels without `negative_class_labels`).
        guidance_schedule: as in `sample`; default: the inversion's.
        negative_prompt, negative_prompt_embeds, negative_class_labels: as in `sample`; default: the inversion's.
        prompt_embeds, class_labels, keep_trajectory, callback_on_step_end, progress: as in `sample`.
        allow_other_model: play back with other weights.

    Raises:
        Incompatible: a model that takes no condition, a method that cannot edit, or guidance other than that which the
            record was fitted with. BadInput: made by another model.
    """
    if get_editor(editor).name == AUTO:
        more = {n: v for n, v in locals().items() if n not in ("inversion", "prompt", "editor", "more")}
        return edit_by_choice(edit, opened(inversion), prompt, **more)
    chosen, silent = get_editor(editor), prompt is None and prompt_embeds is None and class_labels is None
    masked = asked_mask = MaskAsked.of(mask, mask_feather, mask_dilate)
    if masked is not None and masked.how == "thing":
        chosen, masked = within(chosen, masked.dilate, masked.feather), None
    if silent and chosen.needs_prompt:
        raise BadOption("edit needs what the picture shall show: prompt, prompt_embeds or class_labels")
    source = opened(inversion)
    prompt = [own or "" for own in source.meta.prompt] if silent else prompt
    prompts = Prompts(
        prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, class_labels, negative_class_labels
    )
    rules.check_paste(paste, chosen, masked is not None)
    several = len(source) == 1 < prompts.count()
    inversion = source.repeated(prompts.count()) if several else source
    rules.check_edits(method_of(inversion), chosen, masked is not None)
    rules.check_source_prompt(chosen, source.meta.prompt)
    model = load(model)
    prompts = with_negatives(prompts, inversion)
    own = None if method_of(inversion).edits_as_fitted else chosen.edit_guidance_scale
    asked = own if guidance_scale is None else guidance_scale
    guidance = guidance_of(inversion, edit_guidance(model, inversion, asked, negative_class_labels), guidance_schedule)
    watching = Watching("edit", keep_trajectory, callback_on_step_end, progress)
    outside = outside_domain(model, prompts, len(inversion))
    if paste:
        check_paste(source)
    if chosen.steer is None and masked is None:
        made = play(model, inversion, prompts, guidance, "record", allow_other_model, watching)
    else:
        if chosen.check is not None:  # of an editor; without one a mask alone needs the source beside the edit
            texts = zip(inversion.meta.prompt, prompts.texts(len(inversion)), strict=True)
            chosen.check(model, [(own or "", target or "") for own, target in texts])
        made = edit_beside(model, source, prompts, guidance, chosen, masked, allow_other_model, watching)
    made = with_record(made, asked_mask)
    made = with_source_pixels(made, inversion) if paste else made
    kept = inversion.meta.out_of_domain or [[]] * len(inversion)
    both = [list(dict.fromkeys([*a, *b])) for a, b in zip(kept, outside, strict=True)]
    told = {"out_of_domain": both, "mask_given": masked is not None and masked.how == "given"}
    return replace(made, meta=made.meta.model_copy(update=told))


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
    if not is_whole(num_frames) or num_frames < 2:
        raise BadOption(f"num_frames must be a whole number of at least 2; got {num_frames!r}")
    a, b = opened(inversion_a), opened(inversion_b)
    check_ends(a, b, guidance_scale)
    model = load(model)
    guidance = guidance_of(a, guidance_scale, None)
    for inversion in (a, b):
        check_model(model, inversion, allow_other_model)
    watching = Watching("interpolate", callback=callback_on_step_end, progress=progress)
    return between(model, a, b, int(num_frames), guidance, watching)
