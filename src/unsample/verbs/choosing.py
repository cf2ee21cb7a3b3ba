"""`editor="auto"`: edits by what `edits/choose.py` says of their two prompts, those of one kind together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from unsample.edits import get_editor
from unsample.edits.choose import AUTO, Choice, choose
from unsample.errors import BadOption
from unsample.verbs.results import Images, Inversion
from unsample.wording import argument


def chosen(inversion: Inversion, prompt: str | list[str] | None) -> list[Choice]:
    """What `auto` stands for, of each edit.

    Raises:
        BadOption: a prompt is not known.
    """
    targets = [prompt] if isinstance(prompt, str) or prompt is None else list(prompt)
    sources = list(inversion.meta.prompt)
    count = max(len(sources), len(targets))
    each = [texts * count if len(texts) == 1 else texts for texts in (sources, targets)]
    return list(map(choose, *each))


def edit_by_choice(
    edit: Callable[..., Images],
    inversion: Inversion,
    prompt: str | list[str] | None,
    mask: Any,
    paste: bool,
    guidance_scale: float | None,
    **more: Any,
) -> Images:
    """Edits with editor, mask and guidance that are chosen where they are not given.

    Args:
        edit: the verb.
        inversion, prompt, mask, paste, guidance_scale: as it takes them.
        more: all else that it takes.

    Raises:
        BadOption: edits of several kinds, which want guidance of their own where none is given, or what cannot be told
            apart into kinds: a mask a picture, a negative prompt a picture.
    """
    choices = chosen(inversion, prompt)
    kinds = {choice.kind: choice for choice in choices}
    if len(kinds) == 1:
        return _edited(edit, choices[0], inversion, prompt, mask, paste, guidance_scale, more)
    given = [
        name for name, value in {"mask": mask, **more}.items() if isinstance(value, list) or hasattr(value, "shape")
    ]
    if given or (guidance_scale is None and len({choice.guidance_scale for choice in kinds.values()}) > 1):
        why = f"{argument(given[0])} is of each picture" if given else "they want guidance of their own"
        raise BadOption(
            f"{argument('editor')} auto: these edits are of several kinds ({', '.join(kinds)}), and {why}; edit each "
            f"kind apart{'' if given else ', or give ' + argument('guidance_scale')}"
        )
    targets = list(prompt or ()) if not isinstance(prompt, str) else [prompt] * len(choices)
    whole = inversion.repeated(len(choices)) if len(inversion) == 1 else inversion
    parts = []
    for kind, choice in kinds.items():
        rows = [k for k, own in enumerate(choices) if own.kind == kind]
        prompts = [targets[k] for k in rows]
        parts.append((rows, _edited(edit, choice, whole.picked(rows), prompts, mask, paste, guidance_scale, more)))
    return _joined(parts)


def _edited(
    edit: Callable[..., Images],
    choice: Choice,
    inversion: Inversion,
    prompt: Any,
    mask: Any,
    paste: bool,
    guidance_scale: float | None,
    more: Mapping[str, Any],
) -> Images:
    paste = paste or (mask is None and choice.paste and inversion.source is not None)
    given = {"mask": mask, "guidance_scale": guidance_scale}
    taken = replace(choice, paste=paste, **{name: value for name, value in given.items() if value is not None})
    made = edit(
        inversion=inversion,
        prompt=prompt,
        editor=get_editor(choice.editor, dict(choice.settings)),
        mask=taken.mask,
        paste=paste,
        guidance_scale=taken.guidance_scale,
        **more,
    )
    told = replace(
        taken,
        mask=taken.mask if mask is None or isinstance(mask, str) else getattr(mask, "how", "given"),
        measured=choice.measured and mask is None and guidance_scale is None,
    ).told()
    return replace(made, meta=made.meta.model_copy(update={"auto": told}))


def _joined(parts: Sequence[tuple[list[int], Images]]) -> Images:
    """Edits of several kinds as one result, each in its place; where a kind has no mask, all may have changed."""
    import torch

    from unsample.verbs.provenance import SamplingProvenance, per_picture

    places = [k for rows, _ in parts for k in rows]
    order = sorted(range(len(places)), key=places.__getitem__)
    images = [made for _, made in parts]

    def tensor(name: str, rows: int = 0) -> Any:
        own = [getattr(made, name) for made in images]
        if all(one is None for one in own):
            return None
        if name == "mask":
            own = [m if m is not None else torch.ones_like(i.images[:, :1]) for m, i in zip(own, images, strict=True)]
        if any(one is None for one in own):
            return None
        return torch.cat(own, rows).index_select(rows, torch.tensor(order, device=own[0].device))

    def listed(own: Sequence[Any]) -> list[Any]:
        flat = [value for values in own for value in values]
        return [flat[k] for k in order]

    several = {name: [getattr(made.meta, name) for made in images] for name in per_picture(SamplingProvenance)}
    if any(several["mask"]):
        several["mask"] = [own or [None] * len(made) for own, made in zip(several["mask"], images, strict=True)]
    meta: dict[str, Any] = {name: listed(own) for name, own in several.items() if all(v is not None for v in own)}
    meta |= {name: None for name in several if name not in meta}
    meta |= {"auto": "; ".join(str(made.meta.auto) for made in images), "editor_notes": None}
    pasted = {made.meta.paste for made in images}
    meta |= {"editor": {"name": AUTO, "settings": {}}, "paste": pasted.pop() if len(pasted) == 1 else None}
    kept = [made.attention_maps or [{}] * len(made) for made in images]
    each: dict[str, Any] = {n: tensor(n) for n in ("images", "latents", "noise", "reconstruction", "mask")}
    each |= {n: listed([getattr(made, n) for made in images]) for n in ("status", "nfe", "backward")}
    return replace(
        images[0],
        **each,
        trajectory=tensor("trajectory", 1),
        seconds=sum(made.seconds for made in images),
        attention_maps=listed(kept),
        meta=images[0].meta.model_copy(update=meta),
    )
