"""The table of editors: what an edit takes of its source beside the record. Importing it does not import torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from unsample.edits.base import Asked, Branches, Editor, EditorFacts, Steering
from unsample.edits.choose import AUTO
from unsample.edits.ledits import ledits
from unsample.edits.masactrl import masactrl
from unsample.edits.none import none
from unsample.edits.p2p import p2p
from unsample.edits.pix2pix_zero import pix2pix_zero
from unsample.edits.pnp import pnp
from unsample.edits.registering import register
from unsample.errors import BadOption
from unsample.methods.settings import Setting, configured, parse_setting, with_settings
from unsample.registry import Table

BUILT_IN: dict[str, EditorFacts] = {
    "none": EditorFacts(
        none,
        summary="prompt swap: the record under another prompt",
        equation="the method's own",
        cost="that of the method's sampling",
        year=2021,
        reference="definition",
    ),
    "p2p": EditorFacts(
        p2p,
        summary="words look where those of the source looked: replaced, refined or reweighted",
        equation="M*[:, t] = c_t sum_s M[:, s] A[s, t], new words their own",
        cost="that of edit and source",
        year=2022,
        reference="arXiv:2208.01626",
    ),
    "masactrl": EditorFacts(
        masactrl,
        summary="mutual self-attention: the edit's queries, the source's keys and values",
        equation="softmax(q_edit k_source^T / sqrt(d)) v_source",
        cost="that of the method's sampling for the edit and for its source, in both halves of guidance",
        year=2023,
        reference="arXiv:2304.08465",
    ),
    "pnp": EditorFacts(
        pnp,
        summary="plug-and-play: the source's features of one decoder block, its queries and keys of self-attention",
        equation="f_edit = f_source; softmax(q_source k_source^T / sqrt(d)) v_edit",
        cost="that of the method's sampling for the edit and for its source, in both halves of guidance",
        year=2022,
        reference="arXiv:2211.12572",
    ),
    "pix2pix_zero": EditorFacts(
        pix2pix_zero,
        summary="each step starts where the network looks at its words as in the source",
        equation="x_t - lambda grad_x sum_l ||M_l(x_t, c') - M_l(source)||^2",
        cost="that of edit and source, and T of each and T backward",
        year=2023,
        reference="arXiv:2302.03027",
    ),
    "ledits": EditorFacts(
        ledits,
        summary="each phrase guides the source's playback towards it or away, inside a mask of its own",
        equation="eps_source + sum_k s w_k M_k (eps_k - eps_u)",
        cost="that of the source twice, and T (1 + phrases)",
        year=2024,
        reference="arXiv:2311.16711",
    ),
}

EDITORS: Table[EditorFacts] = Table("editor", "unsample.editors", BUILT_IN, reserved=("auto",))


def _chosen_later(branches: Branches) -> Steering:
    raise AssertionError("editor auto stands for another one")


AUTOMATIC = Editor(name=AUTO, steer=_chosen_later, needs_source_prompt=True, makes_mask=True)
"""What `unsample.edit` puts another in the place of, by the kind of edit."""


def get_editor(editor: str | Editor, settings: dict[str, Any] | None = None) -> Editor:
    """An editor by name, configured; a configured one comes back as it is.

    Args:
        editor: a name, or a configured editor.
        settings: of the factory; `preset` names a set of them that the others go over.

    Raises:
        UnknownName: no such editor, setting or preset; the nearest name is suggested.
    """
    if isinstance(editor, Editor):
        return editor
    if editor == AUTO:
        if settings:
            raise BadOption("editor auto has no settings; name the editor that they are of")
        return AUTOMATIC
    if not isinstance(editor, str):
        raise BadOption(f"editor must be a name or a configured editor such as edits.p2p(); got {editor!r}")
    if editor not in EDITORS:
        raise EDITORS.unknown(editor)
    made: Editor = with_settings(EDITORS[editor].factory, EDITORS[editor].presets, settings)
    return made


def parse_settings(editor: str, pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Settings written as text, as `get_editor` takes them.

    Raises:
        UnknownName: no such editor or setting. BadOption: a text that is not of the setting's type.
    """
    if editor == AUTO:
        return dict(pairs)  # refused by `get_editor`
    factory = EDITORS[get_editor(editor).name].factory
    return {name: text if name == "preset" else parse_setting(factory, name, text) for name, text in pairs}


__all__ = [
    "EDITORS",
    "Asked",
    "Branches",
    "Editor",
    "EditorFacts",
    "Setting",
    "Steering",
    "configured",
    "get_editor",
    "parse_settings",
    "register",
    *BUILT_IN,
]
