"""A loaded model, and what it made. Here torch is imported, where something is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from unsample.cli import talk
from unsample.cli.options import Placement
from unsample.errors import BadInput
from unsample.models.domain import REAL_MODELS
from unsample.models.loading import MIXTURE, quiet_libraries
from unsample.preflight.known import KnownModel
from unsample.verbs.fidelity import OUT_OF_DOMAIN, Fidelity, fidelity

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from unsample.models.base import Model
    from unsample.verbs.results import Inversion


_by: ContextVar[Callable[[KnownModel, Placement], Model] | None] = ContextVar("by", default=None)


@contextmanager
def loaded_by(by: Callable[[KnownModel, Placement], Model]) -> Iterator[None]:
    """While it lasts, this thread's verbs take their models from `by`, which may keep them from verb to verb.

    It is called after all that a verb refuses without a model: what it raises ends one that is only to be checked.
    """
    token = _by.set(by)
    try:
        yield
    finally:
        _by.reset(token)


def load(known: KnownModel, where: Placement) -> Model:
    """The model of a verb: loaded now, or from whoever keeps it (`loaded_by`)."""
    by = _by.get()
    return load_now(known, where) if by is None else by(known, where)


def load_now(known: KnownModel, where: Placement) -> Model:
    """Load a model, with the libraries' own bars and log lines silenced."""
    from unsample.verbs.api import load as load_model

    if not talk.hears_everything():
        quiet_libraries()
    if known.folder is None and known.name != MIXTURE:
        talk.say(f"fetching {known.name} from the hub ...")
    model: Model = load_model(
        known.name,
        device=where.device,
        dtype=where.dtype,
        offload=where.offload,
        vae_tiling=where.vae_tiling,
        quantize=where.quantize,
        free_text_encoders=where.free_text_encoders,
        config=where.config,
        local_files_only=known.from_file,
    )
    return model


def measured(model: Model, inversion: Inversion, picture: Tensor) -> Fidelity:
    """Of one picture (1, 3, H, W)."""
    return fidelity(model, inversion, picture)[0]


def open_inversion(model: Model, path: str, allow_other_model: bool) -> Inversion:
    """A saved inversion, compared with the model before anything is played."""
    from unsample.verbs.playing import check_model
    from unsample.verbs.results import Inversion

    inversion = Inversion.load(path)
    try:
        check_model(model, inversion, allow_other_model)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
    return inversion


def as_pil(picture: Tensor) -> Image:
    """One picture (1, 3, H, W) in [0, 1] as the 8 bits that were measured."""
    from unsample.metrics.pixels import as_pil as pictures

    return pictures(picture)[0]


def warn_out_of_domain(model: Model, found: Sequence[tuple[str, Fidelity]]) -> None:
    """One warning for the pictures that a model's encoder cannot hold."""
    outside = [f"{name} ({figures.ceiling:.1f} dB)" for name, figures in found if figures.out_of_domain]
    if outside:
        talk.warn(
            f"{', '.join(outside)}: outside the world of {model.id}, whose encoder alone brings it back at under "
            f"{OUT_OF_DOMAIN:.0f} dB; give a model that knows such pictures: {REAL_MODELS}"
        )
