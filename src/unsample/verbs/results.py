"""What the verbs return. An `Inversion` is saved as one safetensors file: tensors and JSON, never pickle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput, Incompatible, LostAt, UnsampleWarning
from unsample.verbs import notebook, saved
from unsample.verbs.settings import settings
from unsample.wording import argument

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from unsample.verbs.continuing import Continuation
    from unsample.verbs.provenance import Provenance, SamplingProvenance


@dataclass(frozen=True, eq=False)
class Images:
    """Pictures that a model made.

    `images` (B, 3, H, W) in [0, 1], (B, 3, 0, 0) of a wrapped network that works on no pictures; `latents` (B, C, h, w)
    what the network ended with; `noise` what it started from; `trajectory` (N + 1, B, C, h, w), noisiest first, if
    kept; `status` "ok" or "diverged" a picture; `nfe` and `backward` one integer a picture; `seconds` of the whole
    call; `meta` how they were made, as a mapping too. Of an edit beside its source: `reconstruction` (B, 3, H, W) what
    the source's own row came to, `mask` (B, 1, H, W) in [0, 1] where the picture was let change, if there was one, and
    `attention_maps` a mapping a picture, of words to (h, w) in [0, 1], where attention was used.
    """

    images: Tensor
    latents: Tensor
    noise: Tensor
    status: list[str]
    nfe: list[int]
    backward: list[int]
    seconds: float
    trajectory: Tensor | None = None
    meta: SamplingProvenance = field(default_factory=dict)  # type: ignore[assignment]
    reconstruction: Tensor | None = None
    mask: Tensor | None = None
    attention_maps: Sequence[Mapping[str, Tensor]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "meta", _record(self.meta, "SamplingProvenance"))

    @property
    def nonfinite_at(self) -> list[dict[str, Any] | None]:
        """Where the network's answer was not finite, picture by picture; None where all of them were.

        `what` ("answer", or the "gradient" through the network), `timestep`, `evaluation` (the picture's how-manieth),
        `half` ("conditional", "unconditional", None for both or where there are no two), `input_finite` (whether the
        network was asked about a finite point) of the first time, and how many `times` it happened. A method that goes
        on without such an answer still calls the picture "ok" or "not_converged".
        """
        return self.meta.get("nonfinite_at") or [None] * len(self)

    @property
    def lost_at(self) -> list[LostAt | None]:
        """Where each picture stopped being finite; None for one that did not."""
        return lost_at(self.meta, len(self))

    def pil(self) -> list[Image | None]:
        """8-bit PIL pictures; None for one that diverged.

        Their `info` holds the settings as `PIL.Image.open` gives those of a saved one ("unsample" and "parameters"),
        but Pillow's own `save` leaves them out: `Images.save` writes them.

        Raises:
            Incompatible: of a model that makes no pictures.
        """
        from PIL import Image

        from unsample.media.pictures import png_texts

        if 0 in self.images.shape:
            model = (self.meta.get("model") or {}).get("id", "the model")
            raise Incompatible(f"{model} makes no pictures; take .latents")
        pixels = (self.images.nan_to_num().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        made = [Image.fromarray(p) if s != "diverged" else None for p, s in zip(pixels, self.status, strict=True)]
        for k, image in enumerate(made):
            if image is not None and self.meta:
                image.info.update(png_texts(self.settings(k)))
        return made

    def settings(self, index: int) -> dict[str, Any]:
        """How one picture was made, flat: prompt, model, method, steps, guidance ...; `save` writes it into its PNG."""
        height, width = self.images.shape[2:]
        return settings(self.meta.get("verb", "sample"), self.meta, index, size=(width, height))

    def save(self, path: str | PathLike[str]) -> list[Path | None]:
        """Write the pictures as PNGs that carry their settings, as the command line does; `unsample show` prints them.

        Args:
            path: of a PNG (several pictures become STEM.png, STEM-2.png ...), or a folder, for sample-SEED.png,
                frame-00.png, or the sources' names. Folders are made when missing, files that exist are replaced.

        Returns:
            The files; None, and a warning, for a picture that diverged.

        Raises:
            BadInput: another kind of file than PNG, or it cannot be written.
        """
        import warnings

        from unsample.media.files import check_writable_folder, png_files
        from unsample.media.pictures import write_png

        files = png_files(path, [self._stem(k) for k in range(len(self))])
        for folder in dict.fromkeys(file.parent for file in files):
            check_writable_folder(folder)
        written: list[Path | None] = []
        for k, (image, file) in enumerate(zip(self.pil(), files, strict=True)):
            if image is None:
                warnings.warn(_unwritten(k, file), stacklevel=2)
            else:
                write_png(image, file, self.settings(k))
            written.append(None if image is None else file)
        return written

    def _stem(self, index: int) -> str:
        """The name of one picture in a folder."""
        if "num_frames" in self.meta:
            return f"frame-{index:0{max(2, len(str(len(self) - 1)))}}"
        names = self.meta.get("names") or [f"sample-{seed}" for seed in self.meta.get("seeds") or ()]
        return str(names[index]) if index < len(names) else f"image-{index}"

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return notebook.of_images(self)

    def _repr_html_(self) -> str:
        return notebook.images_as_html(self)


@dataclass(frozen=True, eq=False)
class Inversion:
    """What `invert` recovered: the noise, what else the method needs to play it back, and how it was made.

    `noise` (B, C, H, W), at the noisiest grid point reached; `nfe`, `backward`, `status` ("ok", "not_converged",
    "diverged") and `health` one entry a picture (the noise's own figures with the bands of true noise; `residual` and
    `residual_step`, the largest relative residual of a step, that of the best point asked (what is kept is one
    iteration on), and the grid point that the step led to, None where nothing is solved; `first_step`, with `shell`,
    the RMS of the eps that the first step went along, `outer`, whether it is above 1.1, and `radius`, if it was asked
    for; `grade`, "recovered", "reconstructs only", "neither" or None, and `grade_reason`, see
    `unsample.numbers.verdict`); `seconds` of the whole call; `meta` how it was made, with attributes and as a mapping
    (`meta.prompt`, `meta["prompt"]`; `meta | {...}` is a plain dict); `state` what the method stored beside the noise;
    `source` the pictures as the model saw them, 8 bit (B, H, W, 3); `prompt_embeds`, `negative_prompt_embeds`,
    `class_labels` and `negative_class_labels` if they were given as such, and in `more` the other rows of embeddings
    that were (`prompt_embeds.NAME`); `latents` (not saved) the start of the walk; `trajectory` (N + 1, B, C, H, W),
    clean first, if kept.
    """

    noise: Tensor
    nfe: list[int]
    backward: list[int]
    seconds: float
    status: list[str]
    health: list[dict[str, Any]]
    meta: Provenance
    state: dict[str, Tensor] = field(default_factory=dict)
    source: Tensor | None = None
    prompt_embeds: Tensor | None = None
    negative_prompt_embeds: Tensor | None = None
    class_labels: Tensor | None = None
    negative_class_labels: Tensor | None = None
    latents: Tensor | None = None
    trajectory: Tensor | None = None
    more: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "meta", _record(self.meta, "Provenance"))

    def __len__(self) -> int:
        return len(self.noise)

    @property
    def nonfinite_at(self) -> list[dict[str, Any] | None]:
        """Where the network's answer was not finite while inverting; as `Images.nonfinite_at`."""
        return self.meta.get("nonfinite_at") or [None] * len(self)

    @property
    def lost_at(self) -> list[LostAt | None]:
        """Where each picture stopped being finite; None for one that did not."""
        return lost_at(self.meta, len(self))

    def __repr__(self) -> str:
        return notebook.of_inversion(self)

    @property
    def seen(self) -> Tensor | None:
        """The source as the model saw it, (B, 3, H, W) in [0, 1]; None of one that was made from latents."""
        return None if self.source is None else self.source.permute(0, 3, 1, 2).float() / 255

    def _repr_html_(self) -> str:
        return notebook.inversion_as_html(self)

    def to_diffusers(self, model: Any = None, scheduler: Any = None) -> Continuation:
        """What a pipeline of diffusers is given to play this back: the call makes what `reconstruct` makes.

        Args:
            model: the one that inverted, as `load` gives it. Needed of pipelines that are replayed (SDXL, SD3, Flux
                ...), whose packing of latents and count of guidance it knows; of the others it is compared.
            scheduler: one of diffusers of yours, that stays in the pipeline; it is seen to walk this very grid, or
                refused. Default: one that is made of the grid, to be put into the pipeline.

        Returns:
            `latents` (divided by the scheduler's init_noise_sigma, by which the pipeline multiplies, in the network's
            dtype), `scheduler`, `arguments` of the call beside `latents`, and `code`, the lines that do it.

        Raises:
            Incompatible: a method that keeps more than the noise or has a sampler of its own, a model that is no
                pipeline, guidance that no call takes, a scheduler of another grid. BadInput: another model.

        Example:
            >>> import unsample
            >>> model = unsample.load("scenes-sd")
            >>> picture = unsample.sample(model, "a large red circle", num_inference_steps=2).images
            >>> there = unsample.invert(model, picture, "a large red circle", num_inference_steps=10).to_diffusers()
            >>> there.arguments["prompt"], len(there.scheduler.timesteps)
            (['a large red circle'], 10)
        """
        from unsample.verbs.continuing import continuation

        return continuation(self, model, scheduler)

    def to_comfyui(self, path: str | PathLike[str], model: Any) -> None:
        """Write the noise as a `.latent` file, which ComfyUI's LoadLatent reads (from its folder input/).

        There KSampler (Advanced), told not to add noise, begins at it: as many steps, the same guidance, sampler euler
        and, of Stable Diffusion 1.x and 2.x, scheduler ddim_uniform, whose levels are those of timestep_spacing
        "leading" with steps_offset 1. It is the noise alone: of a method that keeps more, not the record.

        Args:
            path: ends in .latent; a file that exists is replaced.
            model: the one that inverted; its autoencoder's scale is undone, as ComfyUI does it again.

        Raises:
            BadInput: another model, a picture that diverged, or a path that cannot be written. Incompatible: a model
                without an autoencoder, or a noise at alpha = 0 (of a flow, all of it), to which no latent leads.
        """
        from unsample.verbs.comfyui import to_comfyui

        to_comfyui(self, path, model)

    def repeated(self, count: int) -> Inversion:
        """An inversion of one picture, `count` times."""
        if len(self) != 1:
            raise BadInput(f"an inversion of one picture can be repeated; this one holds {len(self)}")
        return self._of_pictures(lambda rows: rows * count, lambda rows: rows.repeat_interleave(count, 0))

    def picked(self, rows: Sequence[int]) -> Inversion:
        """The inversion of some pictures, in the order of `rows`."""
        return self._of_pictures(lambda values: [values[k] for k in rows], lambda tensor: tensor[list(rows)])

    def __getitem__(self, index: int | slice) -> Inversion:
        """The inversion of one picture, or of some."""
        rows = index if isinstance(index, slice) else slice(int(index), int(index) + 1 or None)
        if not isinstance(index, slice) and not -len(self) <= index < len(self):
            raise IndexError(index)
        seconds = self.seconds * len(self.status[rows]) / len(self)
        part = self._of_pictures(lambda values: values[rows], lambda tensor: tensor[rows], seconds=seconds)
        return replace(part, seconds=seconds)

    def _of_pictures(
        self, pick: Callable[[list[Any]], list[Any]], pick_rows: Callable[[Tensor], Tensor], **more: Any
    ) -> Inversion:
        """The same of other pictures, picked from every list and every tensor; `more` is set in its meta."""
        from unsample.verbs.provenance import Header, Provenance, per_picture

        whole = self if isinstance(self.meta, Provenance) else saved.check_whole(self)
        parts: dict[str, Any] = {name: pick(getattr(self, name)) for name in per_picture(Header)}
        for name in (*saved.TENSORS, "latents"):
            tensor = getattr(self, name)
            if tensor is not None:
                swapped = name == "trajectory"
                parts[name] = pick_rows(tensor.transpose(0, 1)).transpose(0, 1) if swapped else pick_rows(tensor)
        parts |= {n: {k: pick_rows(v) for k, v in getattr(self, n).items()} for n in ("state", "more")}
        return replace(self, **parts, meta=whole.meta.of_pictures(pick, **more))

    def save(self, path: str | Path) -> None:
        """Write one `.safetensors` file, atomically.

        Raises:
            BadInput: a picture diverged (there is nothing to save), the inversion was changed to one that could not be
                loaded, or the path cannot be written.
        """
        import torch
        from safetensors.torch import save

        from unsample.media.files import atomic_write

        if "diverged" in self.status:
            raise BadInput(f"cannot save {path}: a picture of this inversion diverged; save the others one by one")
        # copied, because two of them may be one (a belm of one step), which safetensors does not write
        tensors = {
            n: t.detach().cpu().clone(memory_format=torch.contiguous_format) for n, t in saved.tensors_of(self).items()
        }
        header = {"unsample_format": str(saved.FORMAT_VERSION), "unsample": saved.text_of(self)}
        content = save(tensors, metadata=header)  # its save_file turns a full disk into an error of its own kind
        atomic_write(path, lambda temporary: temporary.write_bytes(content))

    @staticmethod
    def load(path: str | Path) -> Inversion:
        """Read a saved inversion.

        Raises:
            BadInput: missing, corrupt, not an inversion, or of a later version.
        """
        from safetensors.torch import load_file

        header = saved.read_header(path)
        try:
            # copied, because a file's tensors lie at any address, and kernels round by alignment
            tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        except Exception as error:  # safetensors raises its own kind, OSError and ValueError
            raise BadInput(f"cannot read inversion {path}: {error}") from error
        try:
            saved.check_finite(tensors, header["status"])
        except ValueError as error:
            raise BadInput(f"{path}: {error}; invert the picture again") from error
        noise = tensors.pop("noise")
        state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
        more = {k: v for k, v in tensors.items() if k.startswith(saved.MORE)}
        rest = {k: v for k, v in tensors.items() if k in saved.TENSORS}
        return Inversion(noise=noise, state=state, more=more, **{**header, **rest})


def _record(meta: Mapping[str, Any], kind: str) -> Any:
    """A mapping as the record it stands for; one that is none is kept as given, and refused where it is used."""
    from unsample.verbs import provenance

    cls = getattr(provenance, kind)
    if not meta or isinstance(meta, cls):
        return meta
    try:
        return cls.model_validate(dict(meta))
    except (ValueError, TypeError):
        return meta


def _unwritten(picture: int, file: Path) -> UnsampleWarning:
    return UnsampleWarning("diverged", lambda name: f"{name(picture)} diverged; {file} was not written", [picture])


def lost_at(meta: Mapping[str, Any], count: int) -> list[LostAt | None]:
    """The places that a meta records; inversions saved by earlier versions hold none."""
    return [None if where is None else LostAt(**where) for where in meta.get("lost_at") or [None] * count]


def check_pair(
    a: tuple[tuple[int, ...], Provenance],
    b: tuple[tuple[int, ...], Provenance],
    guidance_scale: float | None,
) -> None:
    """Whether two inversions, each the shape of its noise and its meta, can be interpolated.

    Raises:
        Incompatible: other shapes, grids or strengths, or guidance that differs where none is given.
    """
    if a[0] != b[0] or any(getattr(a[1], key) != getattr(b[1], key) for key in ("grid", "stop_index")):
        (shape, steps), (other, others) = ((s, f"{m.stop_index} of {m.num_inference_steps}") for s, m in (a, b))
        raise Incompatible(
            f"cannot interpolate: shapes {shape} and {other}, steps {steps} and {others}; invert both with the same "
            "model, size, steps and strength"
        )
    scales = [(m.sampling_guidance_scale, m.guidance_schedule or "constant") for _, m in (a, b)]
    if guidance_scale is None and scales[0] != scales[1]:
        told = " and ".join(f"{w:g} ({schedule})" for w, schedule in scales)
        raise Incompatible(f"cannot interpolate: sampling guidance {told}; give {argument('guidance_scale')}")
