"""`editor="auto"`: an edit by what `edits/choose.py` says of its two prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from unsample.edits import get_editor
from unsample.edits.choose import Choice, choose
from unsample.errors import BadOption
from unsample.verbs.results import Images, Inversion
from unsample.wording import argument


def chosen(inversion: Inversion, prompt: str | list[str] | None) -> Choice:
    """What `auto` stands for, of all edits of one call.

    Raises:
        BadOption: a prompt is not known, or the edits are of several kinds.
    """
    targets = [prompt] if isinstance(prompt, str) or prompt is None else list(prompt)
    sources = list(inversion.meta.prompt)
    count = max(len(sources), len(targets))
    each = [texts * count if len(texts) == 1 else texts for texts in (sources, targets)]
    found = {choice.kind: choice for choice in map(choose, *each)}
    if len(found) > 1:
        raise BadOption(
            f"{argument('editor')} auto takes one editor for all pictures of a call, and these edits are of several "
            f"kinds ({', '.join(found)}); edit them apart, or name an editor"
        )
    return next(iter(found.values()))


def edit_by_choice(
    edit: Callable[..., Images],
    inversion: Inversion,
    prompt: str | list[str] | None,
    mask: Any,
    paste: bool,
    guidance_scale: float | None,
    **more: Any,
) -> Images:
    """An edit with editor, mask and guidance that are chosen where they are not given.

    Args:
        edit: the verb.
        inversion, prompt, mask, paste, guidance_scale: as it takes them.
        more: all else that it takes.
    """
    choice = chosen(inversion, prompt)
    made = edit(
        inversion=inversion,
        prompt=prompt,
        editor=get_editor(choice.editor, dict(choice.settings)),
        mask=choice.mask if mask is None else mask,
        paste=paste or (mask is None and choice.paste and inversion.source is not None),
        guidance_scale=choice.guidance_scale if guidance_scale is None else guidance_scale,
        **more,
    )
    return replace(made, meta=made.meta.model_copy(update={"auto": choice.told()}))
