"""Is a picture of a model's making? By what comes back of it, and by the watermark in its noise.

`dire` (Wang et al., 2023, arXiv:2303.09295): |x - R(I(x))|, a picture and what an inversion brings back of it; small
for pictures of the model. The paper has a classifier read the map, the value here is its mean. `aeroblade` (Ricker et
al., 2024, arXiv:2401.17879): the distance of a picture from what the autoencoder alone makes of it, by the second layer
of LPIPS; small for pictures that a decoder of that kind made. Of several autoencoders take the least. The watermarks
are `unsample.watermarks`'.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from unsample.errors import BadInput, BadOption, Incompatible
from unsample.metrics import lpips
from unsample.metrics.subject import Found, Settings, Subject
from unsample.watermarks import GaussianShading, TreeRing, load_key
from unsample.watermarks.keys import Key

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.models.base import Model

LAYER = 1  # of LPIPS, the second
K = TypeVar("K", bound=Key)


def dire_map(subject: Subject, settings: Settings) -> Tensor:
    """|reconstruction - picture|, mean over the channels: (B, H, W), float64."""
    images, reference = subject.given("images", "reference")
    return (images.double() - reference.double()).abs().mean(1)


def of_dire(subject: Subject, settings: Settings) -> list[float]:
    """The mean of the map."""
    return dire_map(subject, settings).mean((1, 2)).tolist()


def with_autoencoded(model: Model, subject: Subject) -> Subject:
    """With what the model's autoencoder alone makes of the images; as it was where there are none.

    Raises:
        BadInput: their sides are none that the autoencoder takes. Incompatible: the model has none.
    """
    from unsample.metrics.pixels import encoded_alone

    if getattr(model, "vae", None) is None:
        raise Incompatible(f"{model.id} has no autoencoder: it works on the pictures themselves; name another model")
    if subject.images is None:
        return subject
    height, width = subject.images.shape[2:]
    if height % model.multiple or width % model.multiple:
        sides = f"{model.id} takes sides that are multiples of {model.multiple}; crop or resize it"
        raise BadInput(f"it is {width}x{height}, and {sides}")
    return replace(subject, autoencoded=encoded_alone(model, subject.images).clamp(0, 1))


def _aeroblade(subject: Subject, settings: Settings) -> Tensor:
    images, alone = subject.given("images", "autoencoded")
    return lpips.layers(images, alone, settings.lpips_net, settings)[LAYER]


def aeroblade_map(subject: Subject, settings: Settings) -> Tensor:
    """LPIPS' second layer, enlarged (bilinear) to the picture: (B, H, W), float64."""
    from torch.nn.functional import interpolate

    size = subject.given("images")[0].shape[2:]
    return interpolate(_aeroblade(subject, settings), size=size, mode="bilinear", align_corners=False)[:, 0]


def of_aeroblade(subject: Subject, settings: Settings) -> Found:
    """The mean of the layer, at its own size."""
    values = _aeroblade(subject, settings).mean((1, 2, 3)).tolist()
    return Found(values, lpips.details(settings.lpips_net, settings))


# ---------------------------------------------------------------- watermarks


def key_of(kind: type[K], settings: Settings) -> K:
    """The key that is looked for.

    Raises:
        BadOption: none is given, or one of another kind. BadInput: a file that is none.
    """
    given = load_key(settings.key) if isinstance(settings.key, str) else settings.key
    if given is None:
        raise BadOption(f"{kind.kind} needs a key: Settings(key=...), --key FILE, or {kind.kind}[FILE]")
    if not isinstance(given, kind):
        raise BadOption(f"{kind.kind} takes a key of its own kind, and this one is of {given.kind}; name another file")
    return given


def lacking_key(kind: type[Key], settings: Settings) -> str | None:
    """Why there is no key, found without torch; None if there is one."""
    try:
        key_of(kind, settings)
    except (BadInput, BadOption) as error:
        return str(error)
    return None


def of_tree_ring(subject: Subject, settings: Settings) -> list[float]:
    """The distance from the key."""
    return key_of(TreeRing, settings).distance(*subject.given("noise"))


def of_gaussian_shading(subject: Subject, settings: Settings) -> list[float]:
    """The share of the message's bits."""
    return key_of(GaussianShading, settings).accuracy(*subject.given("noise"))


def p_of(kind: type[Key]) -> Callable[[Subject, Settings], list[float]]:
    """How likely a noise without the mark looks as much like it."""
    return lambda subject, settings: key_of(kind, settings).p_values(*subject.given("noise"))
