"""`unsample show`: what a PNG or a saved inversion says of itself. The text is others': it is shown, never obeyed."""

from __future__ import annotations

import json as json_module
from typing import Annotated, Any

import typer
from typer import Argument

from unsample.cli import options, places, talk
from unsample.cli.methods import table
from unsample.cli.options import examples
from unsample.errors import BadInput

GRID_LISTS = ("alpha", "sigma", "timesteps", "eval_alpha", "eval_sigma")


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    app.command("show", epilog=examples("unsample show out/scene.png", "unsample show out/scene.safetensors --json"))(
        show
    )


def show(
    file: Annotated[str, Argument(metavar="FILE", help="A PNG, or what 'unsample invert' wrote.", show_default=False)],
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Print the settings in a PNG, or how an inversion was made and its health."""
    file = places.the_one(file)
    found = of_inversion(file) if places.is_inversion(file) else of_picture(file)
    if json:
        talk.document(found)
    else:
        talk.answer("\n".join(spoken(found)))
    return 0


def of_picture(path: str) -> dict[str, Any]:
    """The texts of a PNG."""
    from unsample.media.pictures import read_metadata

    return {"file": path, "kind": "picture", **read_metadata(path)}


def of_inversion(path: str) -> dict[str, Any]:
    """The header of an inversion, without the grid's long lists."""
    recorded = places.open_inversions([path])[0]
    meta = dict(recorded.meta)
    meta["grid"] = {k: v for k, v in meta["grid"].items() if k not in GRID_LISTS}
    meta.pop("sampling_scales", None)
    return {"file": path, "kind": "inversion", **recorded.header, "meta": meta}


def spoken(found: dict[str, Any]) -> list[str]:
    """For reading."""
    if found["kind"] == "inversion":
        return [f"{found['file']}: an inversion of {_count(len(found['status']), 'picture')}", *_inversion(found)]
    lines = [f"{found['file']}: a picture"]
    if found["unsample"] is not None:
        lines += ["", "unsample:", *_indented(found["unsample"])]
    if found["parameters"] is not None:
        lines += ["", "parameters (as A1111 reads them):", *(f"  {line}" for line in found["parameters"].splitlines())]
    return lines if len(lines) > 1 else [f"{found['file']}: a picture without settings of unsample or A1111"]


def _inversion(found: dict[str, Any]) -> list[str]:
    lines = ["", *_indented(found["meta"])]
    for k, health in enumerate(found["health"]):
        cost = f"{found['nfe'][k]} nfe, {found['backward'][k]} backward passes"
        seconds = found["seconds"] / len(found["health"])
        lines += ["", f"picture {k}: {found['status'][k]}, {cost}, {seconds:.3g} s"]
        try:
            lines += _health(health)
        except (AttributeError, TypeError, ValueError) as error:  # figures that are no numbers, bands that are no pairs
            raise BadInput(f"{found['file']}: its health is not what is written; invert the picture again") from error
    return lines


def _health(health: dict[str, Any]) -> list[str]:
    """The four figures, each with the band of true noise."""
    rows = [("  noise", "value", "true noise", "")]
    for name, (low, high) in health.get("bands", {}).items():
        value = health.get(name)
        inside = value is not None and low <= value <= high
        mark = "" if not health.get("pure_noise") else "within" if inside else "OUTSIDE"
        rows.append((f"  {name}", "not finite" if value is None else f"{value:.4g}", f"{low:.4g} to {high:.4g}", mark))
    lines = table(rows).splitlines()
    if not health.get("pure_noise"):
        lines.append("  not pure noise (strength below 1): the bands do not apply")
    return lines + _verdict(health)


def _verdict(health: dict[str, Any]) -> list[str]:
    """The first step and the grade; nothing of a file that an earlier version wrote."""
    lines = []
    if (first := health.get("first_step")) is not None:
        shell = "not finite" if first["shell"] is None else f"{first['shell']:.3g}"
        outer = ", outside of noise" if first["outer"] else ""
        radius = f"; spectral radius {first['radius']:.3g}" if first.get("radius") is not None else ""
        lines.append(f"  first step: its eps has an RMS of {shell} (of noise: 1){outer}{radius}")
    if (reason := health.get("grade_reason")) is not None:
        lines.append(f"  grade: {health.get('grade') or 'none'}: {reason}")
    return lines


def _indented(values: dict[str, Any]) -> list[str]:
    """Names and values, one a line."""
    shown = {name: value for name, value in values.items() if not _empty(value)}
    width = max((len(name) for name, value in shown.items() if not isinstance(value, dict)), default=0)
    lines = []
    for name, value in shown.items():
        if isinstance(value, dict):
            lines += [f"  {name}", *(f"  {line}" for line in _indented(value))]
        else:
            lines.append(f"  {name.ljust(width)}  {_text(value)}")
    return lines


def _text(value: Any) -> str:
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, list) and len(value) == 1:
        return _text(value[0])
    if isinstance(value, float):
        return f"{value:.6g}"
    return json_module.dumps(value, ensure_ascii=False)


def _empty(value: Any) -> bool:
    return value is None or value == {} or (isinstance(value, list) and all(v is None or v == "" for v in value))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
