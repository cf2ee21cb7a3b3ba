"""What a job wrote, laid out for the page: pictures to compare, files to fetch, health and cost.

Whatever of it is there is shown, so that a job that was ended half-way shows what it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.cli.talk import finite
from unsample.errors import BadInput
from unsample.web.asked import Asked
from unsample.web.commands import Command
from unsample.web.keep import SAVED, stored

if TYPE_CHECKING:
    from PIL.Image import Image

Files = dict[str, Path]
PANELS = "panels"  # a folder of their own: a picture that was sent may be called as one of them
COST = ("nfe", "backward", "seconds", "inversion_nfe")
FIGURES = ("psnr", "exact", "ssim", "ceiling_psnr", "grade")


def panels(
    asked: Asked, commands: Sequence[Command], folder: Path, rows: Sequence[Mapping[str, Any]]
) -> tuple[Files, dict[str, Any]]:
    """The files of a job by our names, and what the page is told of them.

    Args:
        asked, commands: the job.
        folder: its files'.
        rows: of the verbs' JSON documents.
    """
    if asked.kind == "compare":
        return _compared(folder, rows)
    files: Files = {}
    if asked.kind == "sample":
        _add(files, "picture", folder / "scene.png")
        return files, {"panels": _panels([("picture", "picture")], files), "cost": _costs(rows)}
    stem = Path(str(commands[0].input)).stem
    saved = folder / f"{stem}{SAVED}" if str(commands[0].input).endswith(SAVED) else folder / "out" / f"{stem}{SAVED}"
    named = {"inversion": saved, "reconstruction": folder / "out" / f"{stem}.png"}
    named |= {
        "edit": folder / "out" / f"{stem}-edit.png",
        "source-size": folder / "out" / f"{stem}-edit-source-size.png",
    }
    drawn = next((c.options.get("mask") for c in commands if c.options.get("mask")), None)
    named["mask"] = folder / "out" / f"{stem}-edit-mask.png"
    if asked.mask == "file" and drawn:
        named["mask"] = folder / str(drawn)
    for name, path in named.items():
        _add(files, name, path)
    health = None
    if "inversion" in files:
        health = _of_inversion(files, folder)
    names = [("source", "source"), ("reconstruction", "reconstruction"), ("edit", "edit")]
    shown = _panels(names, files) + _differences(files, folder, ("edit", "reconstruction"))
    shown += _panels([("noise", "recovered noise"), ("mask", "mask")], files)
    return files, {"panels": shown, "health": health, "cost": _costs(rows), "figures": _figures(rows)}


def _add(files: Files, name: str, path: Path) -> None:
    if path.is_file():
        files[name] = path


def _panels(names: Sequence[tuple[str, str]], files: Files) -> list[dict[str, Any]]:
    return [{"name": name, "label": label} for name, label in names if name in files]


def _costs(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"what": _whose(row), **{n: row.get(n) for n in COST}} for row in rows]


def _whose(row: Mapping[str, Any]) -> str:
    """Whose cost a row of a verb tells; that of `invert` is without what it plays back to be looked at."""
    if "reconstruction" in row:
        return "reconstruction" if row.get("input") == row.get("inversion") else "inversion"
    return next((kind for kind in ("edit", "image") if kind in row), "")


def _figures(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    kinds = ("reconstruction", "edit")
    told = [{"what": next((k for k in kinds if k in row), ""), **{n: row.get(n) for n in FIGURES}} for row in rows]
    return [t | {"editor": row.get("editor"), "auto": row.get("auto")} for t, row in zip(told, rows, strict=True)]


def _of_inversion(files: Files, folder: Path) -> dict[str, Any] | None:
    """Source and noise of an inversion as pictures; its health, with the bands of true noise."""
    from PIL import Image

    from unsample.media.figures import noise_picture
    from unsample.verbs.saved import read_header

    try:
        header = read_header(files["inversion"])
    except BadInput:  # half written
        return None
    source, noise = stored(files["inversion"], "source"), stored(files["inversion"], "noise")
    size = (noise.shape[3], noise.shape[2])
    if source is not None:
        picture = Image.fromarray(source[0])
        size = picture.size
        _write(files, "source", picture, folder)
    _write(files, "noise", noise_picture(noise[0], size), folder)
    health = dict(header["health"][0])
    return {**finite(health), "status": header["status"][0], "nfe": header["nfe"][0]}


def _differences(files: Files, folder: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """Of the source and each of `names`, with the factor that it was brightened by."""
    from unsample.media.figures import difference

    shown = []
    for name in names:
        if name in files and "source" in files:
            before, after = (_opened(files[n]) for n in ("source", name))
            if before.size == after.size:
                heat, factor = difference(before, after)
                _write(files, f"difference-{name}", heat, folder)
                by = "none" if factor is None else f"x{factor}"
                shown.append({"name": f"difference-{name}", "label": f"difference of the {name} ({by})"})
    return shown


def _compared(folder: Path, rows: Sequence[Mapping[str, Any]]) -> tuple[Files, dict[str, Any]]:
    """Every method's pictures, and the table."""
    from unsample.media.figures import difference

    files: Files = {}
    for name, file in (("source", "source.png"), ("figure", "compare.png"), ("table", "compare.csv")):
        _add(files, name, folder / "compared" / file)
    shown = _panels([("source", "source")], files)
    made = [(row["method"], row.get("pictures") or {}) for row in rows]
    for method, pictures in made:
        for what in pictures:
            _add(files, f"{method}-{what}", folder / "compared" / f"{method}-{what}.png")
    again = {m: _opened(files[f"{m}-reconstruction"]) for m, _ in made if f"{m}-reconstruction" in files}
    if "source" in files:
        source = _opened(files["source"])
        factor = min((n for n in (difference(source, image)[1] for image in again.values()) if n), default=1)
        for method, image in again.items():
            _write(files, f"{method}-difference", difference(source, image, factor)[0], folder)
        labels = (("reconstruction", ""), ("edit", ""), ("difference", f" (x{factor})"), ("noise", ""))
        names = [(f"{m}-{what}", f"{m}: {what}{more}") for m, _ in made for what, more in labels]
        shown += [panel | {"method": panel["name"].rpartition("-")[0]} for panel in _panels(names, files)]
    table = [{k: v for k, v in row.items() if k != "pictures"} for row in rows]
    return files, {"panels": shown, "table": table, "cost": []}


def _opened(path: Path) -> Image:
    from PIL import Image

    with Image.open(path, formats=("PNG",)) as image:
        return image.convert("RGB")


def _write(files: Files, name: str, image: Image, folder: Path) -> None:
    """A panel that is made here."""
    path = folder / PANELS / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    image.save(path, format="PNG")
    files[name] = path


def relative(value: Any, folder: Path) -> Any:
    """Plain JSON whose files are named from the job's folder on."""
    if isinstance(value, dict):
        return {key: relative(each, folder) for key, each in value.items()}
    if isinstance(value, list):
        return [relative(each, folder) for each in value]
    return value.replace(f"{folder}/", "") if isinstance(value, str) else value
