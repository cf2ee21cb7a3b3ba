"""The hash of a model's weights and of all that changes its predictions beside them.

A plain model's hash is that of its tensors. Adapters (LoRA) count as they are set: one that is switched off, or at
scale 0, is not there; one that was fused is in the weights. FreeU, attention processors, foreign layers, replaced
`forward`s and hooks are added where there are any. What makes a prediction depend on the calls before it is refused.
How a VAE tiles or slices, the scheduler (its grid is stored), attention that computes the same in another order, and
where things lie are not part of it.

Hashing reads gigabytes, so it is done once; at every call the bits of each tensor are summed, at the speed of memory,
and a model whose sums or settings have changed is hashed anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from unsample.errors import Incompatible
from unsample.models.base import state_dict_sha256

if TYPE_CHECKING:
    from torch import Tensor

SAME_NUMBERS = frozenset(  # attention processors of diffusers that compute the same in another order
    [
        *("AttnProcessor", "AttnProcessor2_0", "AttnAddedKVProcessor", "AttnAddedKVProcessor2_0"),
        *("XFormersAttnProcessor", "XFormersAttnAddedKVProcessor", "SlicedAttnProcessor", "SlicedAttnAddedKVProcessor"),
        *("FusedAttnProcessor2_0", "AttnProcessorNPU", "XLAFlashAttnProcessor2_0", "XFormersJointAttnProcessor"),
        *(
            f"{fused}{family}AttnProcessor2_0"
            for fused in ("", "Fused")
            for family in ("Joint", "AuraFlow", "Hunyuan", "CogVideoX")
        ),
        *(f"{family}AttnProcessor2_0" for family in ("Lumina", "SanaLinear", "SanaMultiscale")),
    ]
)
PLACING_HOOKS = (  # of diffusers: they move and cast, and leave the numbers alone
    *("group_offloading", "layer_execution_tracker", "lazy_prefetch_group_offloading", "lazy_leafs"),
    *("layerwise_casting", "peft_autocast_disable", "cp_", "tp_"),
)
AWAY = "_unsample_away"  # on a module whose weights were dropped (`models.encoders`): who has their sums, and `fetch`
LIBRARIES = ("torch", "diffusers", "transformers", "peft", "accelerate", "unsample")
UNUSED = ("safety_checker", "watermarker", "image_encoder", "feature_extractor", "prior")  # of no prediction here
Parts = Callable[[], Mapping[str, Any]]


def parts_of(pipeline: Any) -> dict[str, Any]:
    """What of a diffusers pipeline its hash covers: prefix ("unet.", "text_encoder_2.") to module.

    All that has weights, but for what takes no part in a prediction or in a picture (a safety checker, a watermark).
    """
    components = getattr(pipeline, "components", {})
    named = {name: getattr(part, "_orig_mod", part) for name, part in components.items() if name not in UNUSED}
    return {f"{name}.": part for name, part in named.items() if hasattr(part, "state_dict")}


class Weights:
    """Of the modules that `parts` names by their prefix; looked up anew at every call, since they can be replaced.

    Args:
        parts: prefix ("unet.", or "" for a lone network) to module; what is no module is passed over.
        foreign: whether a layer of a class that is in no known library counts (not in a network of the user's own).
    """

    def __init__(self, parts: Parts, foreign: bool = False) -> None:
        self.parts, self.foreign = parts, foreign
        self._known: dict[tuple[Any, ...], str] = {}
        self.seen: list[str] = []  # the changes, in words, that were there when it was hashed last

    def sha256(self) -> str:
        """SHA-256, from memory where nothing has changed since."""
        key = self._look()
        if key not in self._known:
            tensors: dict[str, Tensor] = {}
            for prefix, module in self._modules():
                if AWAY in getattr(module, "__dict__", ()):
                    vars(module)[AWAY].fetch()
                tensors |= {f"{prefix}{name}": value for name, value in effective_state(module).items()}
            self._known[key] = joined(state_dict_sha256(tensors), self._notes())
        return self._known[key]

    def changes(self) -> list[str]:
        """In words: what changes the predictions beside the weights as they were loaded."""
        return list(dict.fromkeys(words for _, words in self._settings() if words))

    def check(self) -> None:
        """Refuse what cannot be inverted.

        Raises:
            Incompatible: a cache, an IP-Adapter or another hook that makes predictions depend on more than their input.
        """
        for _ in self._settings():
            pass

    def adopt(self, sha256: str) -> None:
        """The weights as they are now (cast, moved) are those of that hash."""
        self._known[self._look()] = sha256

    def _modules(self) -> Iterator[tuple[str, Any]]:
        for prefix, module in self.parts().items():
            module = getattr(module, "_orig_mod", module)  # torch.compile's wrapper
            if hasattr(module, "state_dict"):
                yield prefix, module

    def _look(self) -> tuple[Any, ...]:
        looked, found = [sums(module) for _, module in self._modules()], list(self._settings())
        self.seen = list(dict.fromkeys(words for _, words in found if words))
        return (*looked, *(note for note, _ in found if note))

    def _notes(self) -> list[str]:
        return [note for note, _ in self._settings() if note]

    def _settings(self) -> Iterator[tuple[str, str]]:
        for prefix, module in self._modules():
            if hasattr(module, "named_modules"):
                yield from settings(prefix.rstrip("."), module, self.foreign)


def joined(sha256: str, notes: list[str]) -> str:
    """A hash with what changes predictions beside the tensors; that of a plain model is that of its tensors alone."""
    import hashlib

    return hashlib.sha256("\n".join([sha256, *notes]).encode()).hexdigest() if notes else sha256


def sums(module: Any) -> tuple[Any, ...]:
    """Name, shape and the sum of the bits of every tensor; one transfer a device."""
    import torch

    if AWAY in getattr(module, "__dict__", ()):
        return vars(module)[AWAY].sums  # type: ignore[no-any-return]
    found: list[Any] = []
    waiting: dict[Any, list[tuple[int, Tensor]]] = {}
    for name, value in module.state_dict().items():
        if type(value) not in (torch.Tensor, torch.nn.Parameter) or value.device.type == "meta":
            found.append((name, type(value).__name__))  # offloaded, quantized or no tensor: looked at by name only
            continue
        waiting.setdefault(value.device, []).append((len(found), _bits(value.detach())))
        found.append((name, tuple(value.shape), str(value.dtype)))
    for one in waiting.values():
        for (place, _), number in zip(one, torch.stack([s for _, s in one]).tolist(), strict=True):
            found[place] = (*found[place], number)
    return tuple(found)


def _bits(value: Tensor) -> Tensor:
    """The sum of a tensor's bits read as whole numbers, modulo 2^64: any single change shows."""
    import torch

    value = torch.view_as_real(value) if value.is_complex() else value
    value = value.int_repr() if value.is_quantized else value
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[value.element_size()]
    if value.is_contiguous() and value.dim() and value.numel() * value.element_size() % 8 == 0:
        return value.flatten().view(torch.int64).sum()
    return value.view(whole).sum(dtype=torch.int64)


def effective_state(module: Any) -> dict[str, Tensor]:
    """The tensors that go into a prediction, an adapted layer's under the name of the plain one's."""
    import torch

    if any(value.device.type == "meta" for value in module.state_dict().values() if isinstance(value, torch.Tensor)):
        from accelerate.utils.modeling import get_state_dict_offloaded_model

        state = module.state_dict() | get_state_dict_offloaded_model(module)
    else:
        state = module.state_dict()
    layers = dict(module.named_modules()) if hasattr(module, "named_modules") else {}
    adapted = {name: layer for name, layer in layers.items() if _is_adapted(layer)}
    fused = {
        name for name, layer in layers.items() if "fused_projections" in vars(layer) and _root(layer) == "diffusers"
    }
    kept: dict[str, Tensor] = {}
    for name, value in state.items():
        owner, _, own = name.rpartition(".")
        if own in ("weight", "bias") and owner.endswith((".to_qkv", ".to_kv")) and owner.rpartition(".")[0] in fused:
            continue  # the three matrices that it was put together from are there
        new = _effective_name(name, adapted)
        if new is not None and isinstance(value, torch.Tensor):
            kept[new] = value
    return kept


def _effective_name(name: str, adapted: Mapping[str, Any]) -> str | None:
    """A tensor's name without the wrapping of adapters; None for one of an adapter that does nothing."""
    if not adapted:
        return name
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        layer = adapted.get(".".join(parts[:cut]))
        if layer is None:
            continue
        if parts[cut] == "base_layer":
            return _effective_name(".".join(parts[:cut] + parts[cut + 1 :]), adapted) if cut + 1 < len(parts) else name
        adapters = _at_work(layer)
        if cut + 1 < len(parts) and parts[cut] in layer.adapter_layer_names:
            if parts[cut + 1] not in adapters:
                return None
            return ".".join([*parts[: cut + 1], str(adapters.index(parts[cut + 1])), *parts[cut + 2 :]])
    return name


def _is_adapted(layer: Any) -> bool:
    """A layer of PEFT's."""
    return hasattr(type(layer), "adapter_layer_names") and "base_layer" in vars(layer)["_modules"]


def _at_work(layer: Any) -> list[str]:
    """The adapters that change a layer's output beside its weights."""
    if layer.disable_adapters or layer.merged_adapters:
        return []
    present = {name for names in layer.adapter_layer_names for name in _keys(getattr(layer, names, None))}
    scales = getattr(layer, "scaling", {})
    return [a for a in layer.active_adapters if a in present and scales.get(a, 1) != 0]


def _keys(container: Any) -> list[str]:
    return list(container.keys()) if hasattr(container, "keys") else []


def settings(part: str, module: Any, foreign: bool) -> Iterator[tuple[str, str]]:
    """What changes the predictions of a module beside its tensors: (what is hashed, if anything, and what is said).

    Raises:
        Incompatible: what makes them depend on more than their input.
    """
    where = f" in {part}" if part else ""
    for name, layer in module.named_modules():
        place, own = f"{part}.{name}", vars(layer)  # its own attributes: asking a module for one it lacks is slow
        if _is_adapted(layer):
            yield from _adapters(place, layer, where)
        freeu = {k: own.get(k) for k in ("s1", "s2", "b1", "b2")}
        if all(isinstance(v, int | float) for v in freeu.values()):
            yield (
                f"{place}: FreeU {sorted(freeu.items())}",
                f"FreeU ({', '.join(f'{k}={v:g}' for k, v in freeu.items())}){where}",
            )
        processor = own.get("processor") or own.get("_modules", {}).get("processor")
        if processor is not None and _root(layer) == "diffusers":
            yield from _processor(place, processor, where)
        if foreign and _root(layer) not in LIBRARIES:
            yield f"{place}: {_class(layer)}", f"layers of class {type(layer).__qualname__}{where}"
        if "_tome_info" in own:
            yield f"{place}: ToMe {sorted(layer._tome_info.get('args', {}).items(), key=str)}", f"token merging{where}"
        yield from _replaced(place, layer, where)


def _adapters(place: str, layer: Any, where: str) -> Iterator[tuple[str, str]]:
    """The adapters at work in one layer, by their place in the order, not by their name; fused ones are only said."""
    for adapter in layer.merged_adapters:
        yield "", f"adapter {adapter!r} fused{where}"
    for k, adapter in enumerate(_at_work(layer)):
        held = {n: _keys_value(getattr(layer, n, None), adapter) for n in (*layer.other_param_names, "lora_variant")}
        numbers = {n: v for n, v in held.items() if isinstance(v, bool | int | float | str)}
        variant = held.get("lora_variant")
        kind = type(layer).__name__ + ("" if variant is None else f" {type(variant).__name__}")
        scale = numbers.get("scaling")
        said = f"adapter {adapter!r}" + (f" at scale {scale:g}" if isinstance(scale, int | float) else "")
        yield f"{place}: {kind} {k} {sorted(numbers.items())}", f"{said}{where}"


def _keys_value(container: Any, key: str) -> Any:
    return container[key] if key in _keys(container) else None


def _processor(place: str, processor: Any, where: str) -> Iterator[tuple[str, str]]:
    """An attention processor that is not one of the plain ones: its class, and settings that calls do not change.

    A transformer's own stand in its module.
    """
    kind, module = type(processor).__name__, type(processor).__module__
    own = module.startswith("diffusers.models.transformers.") and "IPAdapter" not in kind
    if own or (module.startswith("diffusers.") and kind in SAME_NUMBERS):
        return
    if "IPAdapter" in kind:
        raise Incompatible(
            f"an IP-Adapter ({kind}) is loaded{where}, and its image embedding would be left out; it is not served "
            "yet: call unload_ip_adapter() on the pipeline"
        )
    if "PAG" in kind:
        raise Incompatible(
            f"perturbed-attention guidance ({kind}) is set{where}; it is not served yet: load the model anew"
        )
    held = {k: v for k, v in sorted(vars(processor).items()) if isinstance(v, bool | float | str)}
    yield f"{place}: {_class(processor)} {held}", f"attention processor {kind}{where}"


def _replaced(place: str, layer: Any, where: str) -> Iterator[tuple[str, str]]:
    """A `forward` that is not its class's, and hooks."""
    placing = _placing(layer, where)
    own = vars(layer).get("forward")
    while _is_ours(own):
        own = getattr(own, "__wrapped__", None)  # what stands behind it
    if own is not None and not placing and getattr(own, "__func__", None) is not type(layer).forward:
        yield f"{place}: forward {_content(own)}", f"a replaced forward{where}"
    hook = vars(layer).get("_hf_hook")
    if hook is not None and _root(hook) not in LIBRARIES:
        yield f"{place}: {_class(hook)}", f"hook {type(hook).__qualname__}{where}"
    for kind in ("_forward_hooks", "_forward_pre_hooks"):
        for function in vars(layer).get(kind, {}).values():
            if not str(getattr(function, "__module__", "")).startswith(LIBRARIES):
                yield f"{place}: {kind} {_content(function)}", f"forward hooks{where}"


def _is_ours(forward: Any) -> bool:
    """Whether it leaves the numbers as they are: one of ours, that remembers, or asks an editor for a walk."""
    return str(getattr(forward, "__module__", "")).partition(".")[0] == "unsample"


def _placing(layer: Any, where: str) -> bool:
    """Whether accelerate's or diffusers' hooks, which only move and cast, stand around a layer's forward.

    Raises:
        Incompatible: a hook of diffusers that does more: caches and the like.
    """
    registry = vars(layer).get("_diffusers_hook")
    for name, hook in getattr(registry, "hooks", {}).items():
        if not name.startswith(PLACING_HOOKS):
            raise Incompatible(
                f"{type(hook).__name__} is set{where}: with it a prediction depends on the calls before it, and "
                "inversion asks in another order; call disable_cache() on it, or load the model anew"
            )
    return "_hf_hook" in vars(layer) or bool(getattr(registry, "hooks", {}))


def _root(layer: Any) -> str:
    return type(layer).__module__.partition(".")[0]


def _class(value: Any) -> str:
    """A class by name, and by content where it is the user's."""
    return f"{type(value).__module__}.{type(value).__qualname__} {_content(type(value))}"


def _content(value: Any) -> str:
    """What a function or a class is, with the weights of the networks that it holds."""
    from unsample.models.identity import identity

    found = identity(value)
    return joined(found.sha256, [state_dict_sha256(effective_state(n)) for n in found.networks])
