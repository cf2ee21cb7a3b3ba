"""The settings of one picture for its PNG, flat, as A1111 has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def settings(verb: str, meta: Mapping[str, Any], index: int, **more: Any) -> dict[str, Any]:
    """The settings of one picture for its PNG, flat, as A1111 has them; `more` wins.

    Args:
        verb: what made it.
        meta: of an `Inversion` (then for its reconstruction), or of `Images`.
        index: which picture of the batch.
    """

    def own(name: str) -> Any:
        values = meta.get(name)
        return values[index] if isinstance(values, Sequence) and len(values) > index else None

    method, model, editor = (meta.get(name) or {} for name in ("method", "model", "editor"))
    steered = editor if editor.get("name") != "none" else {}
    given = meta.get("guidance_scale")
    inverted = "sampling_guidance_scale" in meta and "verb" not in meta  # `guidance_scale` is then of inverting
    kept = {
        "verb": verb,
        "prompt": own("prompt"),
        "negative_prompt": own("negative_prompt"),
        "class_labels": own("class_labels"),
        "negative_class_labels": own("negative_class_labels"),
        "source_prompt": own("source_prompt") if verb == "edit" else None,
        "model": model.get("id"),
        "model_family": model.get("family"),
        "model_sha256": model.get("sha256"),
        "dtype": model.get("dtype"),
        "method": method.get("name"),
        "method_settings": method.get("settings"),
        "num_inference_steps": meta.get("num_inference_steps"),
        "guidance_scale": meta["sampling_guidance_scale"] if inverted else given,
        "inversion_guidance_scale": given if inverted else meta.get("inversion_guidance_scale"),
        "strength": meta.get("strength"),
        "seed": own("seeds"),
        "guidance_schedule": meta.get("guidance_schedule"),
        "fit": meta.get("fit"),
        "clip": meta.get("grid", {}).get("meta", {}).get("clip"),
        "use": meta.get("use"),
        "editor": steered.get("name"),
        "editor_settings": steered.get("settings"),
        "mask": own("mask"),
        "mask_given": meta.get("mask_given") if own("mask") else None,
        "paste": meta.get("paste"),
        "source_size": own("source_sizes"),
        "out_of_domain": own("out_of_domain") or None,
        "versions": meta.get("versions"),
        **_between(meta, index),
    }
    return {k: v for k, v in (kept | more).items() if v is not None}


def _between(meta: Mapping[str, Any], index: int) -> dict[str, Any]:
    """What is particular to a frame of an interpolation: both prompts, and where it stands."""
    if "num_frames" not in meta:
        return {}
    pair, place = divmod(index, meta["num_frames"])
    both = {name: [end[pair] for end in meta[name]] for name in ("prompts", "negative_prompts")}
    said = {name: texts for name, texts in both.items() if name == "prompts" or any(texts)}
    return {**said, "num_frames": meta["num_frames"], "position": place / (meta["num_frames"] - 1)}
