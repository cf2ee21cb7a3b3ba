"""What is kept of a run: the rows of the JSON document, and how a verb ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from unsample import __version__
from unsample.cli import talk
from unsample.verbs.fidelity import Fidelity

if TYPE_CHECKING:
    from unsample.errors import Diverged, LostAt
    from unsample.verbs.results import Images, Inversion

HEALTH = (
    *("mean", "std", "kl", "lag1_correlation"),
    *("residual", "residual_step", "first_step", "grade", "grade_reason"),
)


def row(
    kind: str,
    *,
    input: str | None = None,
    inversion: object = None,
    picture: object = None,
    figures: Fidelity | None = None,
    nfe: int | None = None,
    backward: int | None = None,
    seconds: float | None = None,
    status: str = "ok",
    nonfinite_at: Mapping[str, Any] | None = None,
    health: Mapping[str, Any] | None = None,
    outside: Sequence[str] = (),
    lost_at: LostAt | None = None,
    **more: Any,
) -> dict[str, Any]:
    """One entry of "images"; `kind` names the picture: "reconstruction", "edit", "frame", "image"."""
    figures = figures or Fidelity()
    lost = {} if lost_at is None else {"diverged_at": str(lost_at), "lost_at": asdict(lost_at)}
    return {
        "input": input,
        "inversion": None if inversion is None else str(inversion),
        kind: None if picture is None else str(picture),
        **figures.entries(),
        "nfe": nfe,
        "backward": backward,
        "seconds": seconds,
        "status": status,
        "nonfinite_at": nonfinite_at,
        "out_of_domain": figures.out_of_domain or bool(outside),
        "out_of_domain_reasons": [*outside, *figures.reasons],
        "health": {name: None if health is None else health.get(name) for name in HEALTH},
        **lost,
        **more,
    }


def cost(made: Images | Inversion, k: int) -> dict[str, Any]:
    """What a picture of a batch took, and where the network failed it."""
    about = {"nfe": made.nfe[k], "backward": made.backward[k], "seconds": made.seconds / len(made)}
    return about | {"nonfinite_at": made.nonfinite_at[k]}


def lost(kind: str, found: Images | Inversion | Diverged, k: int, **more: Any) -> dict[str, Any]:
    """The row of a picture that was lost, in a batch or with all of it."""
    about = {"status": "diverged", "nonfinite_at": found.nonfinite_at[k], "lost_at": found.lost_at[k]}
    return row(kind, **about | more)


def outside_of(meta: Mapping[str, Any], index: int) -> list[str]:
    """Why a picture of a batch, or its words, is outside what the model knows."""
    return [*(meta.get("out_of_domain") or {index: ()})[index]]


def noted(made: Inversion) -> list[str]:
    """What was done to the pictures of an inversion."""
    return [note for note in made.meta.get("notes") or [] if note]


def inverted(
    input: str, inversion: object, picture: object, made: Inversion, figures: Fidelity, *, skipped: bool
) -> dict[str, Any]:
    """The row of one picture that `invert` did, now or (`skipped`) before."""
    files: dict[str, Any] = {"input": input, "inversion": inversion, "picture": picture, "figures": figures}
    about: dict[str, Any] = {"status": made.status[0], "health": made.health[0], "outside": outside_of(made.meta, 0)}
    return row("reconstruction", **files, **cost(made, 0), **about, notes=noted(made), skipped=skipped)


def document(models: Sequence[str], method: str | None, rows: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """The JSON document; `model` is null when pictures used several, and then each row names its own."""
    different = list(dict.fromkeys(models))
    shown = [r | {"model": m} for r, m in zip(rows, models, strict=True)] if len(different) > 1 else list(rows)
    model = different[0] if len(different) == 1 else None
    return {"version": __version__, "model": model, "method": method, "images": shown, **more}


def diverged(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The document's "error" when pictures diverged, else nothing."""
    lost = [r for r in rows if r["status"] == "diverged"]
    if not lost:
        return {}
    where = "; ".join(f"{r['input']}: {r.get('diverged_at', 'not finite')}" for r in lost[:5])
    return {"error": {"code": 5, "message": f"{len(lost)} of {len(rows)} pictures diverged: {where}"}}


def ended(as_json: bool, models: Sequence[str], method: str | None, rows: Sequence[dict[str, Any]], **more: Any) -> int:
    """Print the document where it was asked for; the exit code."""
    lost = diverged(rows)
    if as_json:
        talk.document(document(models, method, rows, **more, **lost))
    return 5 if lost else 0
