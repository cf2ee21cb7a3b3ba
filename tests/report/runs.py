"""A run as the benchmark leaves it, made by hand: scenes as pictures, and figures measured from them.

The methods are stand-ins whose results are the true picture with noise added, so what the report shows is known.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# label: (noise on the record, noise on what the noise alone gives, nfe, backward, stored ratio, facts)
METHODS: dict[str, tuple[float, float, int, int, float, dict[str, Any]]] = {
    "ddim": (0.10, 0.10, 50, 0, 1.0, {"stores": "noise"}),
    "fixed_point[num_iters=5]": (0.03, 0.03, 250, 0, 1.0, {"stores": "noise"}),
    "easyinv": (0.07, 0.07, 50, 0, 1.0, {"stores": "noise"}),
    "edict": (0.0, 0.05, 100, 0, 2.0, {"stores": "noise, second latent", "exact_by_construction": True}),
    "null_text": (0.02, 0.12, 650, 500, 26.0, {"stores": "noise, embeddings", "fitted": True}),
}
BASELINES = {"identity": 0.0, "vae(source)": 0.015, "vae(truth)": 0.015, "fresh": 0.3}
METRICS = ("psnr", "ssim", "lpips", "e_latent", "lag1_correlation", "edit_gain", "attribute_render_fit")


def plan(**more: Any) -> dict[str, Any]:
    """What `plan.json` holds."""
    return {
        "dataset": "scenes:8,split=report",
        "models": ["scenes-sd"],
        "methods": list(METHODS),
        "metrics": list(METRICS),
        "guidance": [1.0],
        "inversion_guidance": 1.0,
        "steps": 50,
        "edit": True,
        "seed": 0,
        "dtype": "float32",
        "quick": False,
        **more,
    }


def value(number: float | None, exact: bool = False, reason: str | None = None) -> dict[str, Any]:
    """An entry of a row's values."""
    return {"value": number, "exact": exact, "reason": reason}


def row(item: str, method: str, **more: Any) -> dict[str, Any]:
    """A row without figures, `ok` unless said otherwise."""
    return {
        "order": 0,
        "key": hashlib.sha256(f"{item}/{method}/{more.get('guidance')}".encode("utf-8", "replace")).hexdigest(),
        "item": item,
        "dataset": "scenes:8,split=report",
        "model": "scenes-sd",
        "method": method,
        "method_name": method.partition("[")[0],
        "settings": {},
        "guidance": 1.0,
        "inversion_guidance": 1.0,
        "steps": 50,
        "edit": True,
        "status": "ok",
        "error": None,
        "traceback": None,
        "attempts": 1,
        "deaths": 0,
        "values": {},
        "nfe": 50,
        "backward": 0,
        "seconds": 1.5,
        "peak_memory_mb": 800.0,
        "stores": "noise",
        "stored_ratio": 1.0,
        "fitted": False,
        "exact_by_construction": False,
        "baseline": False,
        "seed": 7,
        "batch_size": 8,
        "engine": "local",
        "workers": 1,
        "threads": 1,
        "artefacts": [],
        "started": "2026-01-01T00:00:00Z",
        "finished": "2026-01-01T00:00:02Z",
        **more,
    }


def values_of(
    method: str, numbers: Sequence[float | None], key: str = "noise.psnr", **more: Any
) -> list[dict[str, Any]]:
    """Rows of one method over items a, b, c ...: a number, `inf` for exact, None for diverged."""
    made = []
    for letter, number in zip("abcdefghijklmnopqrstuvwxyz", numbers, strict=False):
        if number is None:
            made.append(row(letter, method, status="diverged", **more))
        elif math.isinf(number):
            made.append(row(letter, method, values={key: value(None, exact=True)}, **more))
        else:
            made.append(row(letter, method, values={key: value(number)}, **more))
    return made


def rows_with_pictures(
    folder: Path, items: int = 8, size: int = 64, guidance: Sequence[float] = (1.0,)
) -> list[dict[str, Any]]:
    """A whole run with edits: artefacts under `folder`, figures measured from them."""
    from unsample.datasets import Scenes, render

    (folder / "artefacts").mkdir(parents=True, exist_ok=True)
    scenes = [Scenes("report", items).scene(k) for k in range(items)]
    targets = [s.replace(colour="cyan" if s.colour != "cyan" and s.background != "cyan" else "orange") for s in scenes]
    pairs = [render(s, size).images.permute(0, 2, 3, 1).double().numpy() for s in (scenes, targets)]
    made = []
    for w in guidance:
        for k in range(items):
            source, truth = pairs[0][k], pairs[1][k]
            for label in [*METHODS, *BASELINES]:
                made.append(_cell(folder, k, label, w, source, truth))
    return made


def _cell(folder: Path, k: int, label: str, w: float, source: Any, truth: Any) -> dict[str, Any]:
    random = np.random.default_rng([k, sum(label.encode()), int(w)])
    item, harder = f"report-{k}", 0.6 + 0.8 * ((k * 7) % 5) / 4 + (w > 1) * 0.8
    pictures = {"source": source, "truth": truth}
    figures: dict[str, dict[str, Any]] = {}
    if label in METHODS:
        record, noise, nfe, backward, ratio, facts = METHODS[label]
        cost = {"nfe": nfe * (2 if w > 1 else 1), "backward": backward, "stored_ratio": ratio, **facts}
        pictures["record"] = _noised(source, record * harder, random)
        pictures["noise"] = _noised(source, noise * harder, random)
        pictures["edit"] = _noised(0.8 * truth + 0.2 * source, noise * harder / 2, random)
        for stage in ("record", "noise"):
            figures |= {f"{stage}.{n}": v for n, v in _measured(pictures[stage], source).items()}
        figures["recovered.e_latent"] = value(float((noise * harder) ** 1.5 * random.uniform(0.8, 1.2)))
        figures["recovered.lag1_correlation"] = value(float(noise * harder * random.uniform(0.5, 1.2)))
    else:
        cost = {"nfe": 0, "stores": None, "stored_ratio": None, "baseline": True}
        start = {"identity": source, "vae(source)": source}.get(label, truth)
        pictures["edit"] = _noised(start, BASELINES[label], random)
    figures |= {f"edit.{n}": v for n, v in _measured(pictures["edit"], truth).items()}
    figures["edit.edit_gain"] = value(1 - _mse(pictures["edit"], truth) / _mse(source, truth))
    figures["edit.attribute_render_fit"] = value(float(_mse(pictures["edit"], truth) < 0.3 * _mse(source, truth)))
    artefacts = [_written(folder, f"{item}-{w:g}-{label}-{n}", n, p) for n, p in pictures.items()]
    seconds = 0.02 * cost["nfe"] + 0.05 * cost.get("backward", 0)
    return row(item, label, guidance=w, values=figures, seconds=seconds, artefacts=artefacts, **cost)


def _noised(picture: Any, scale: float, random: Any) -> Any:
    return np.clip(picture + scale * random.standard_normal(picture.shape), 0, 1) if scale else picture


def _mse(a: Any, b: Any) -> float:
    return float(((a - b) ** 2).mean())


def _measured(picture: Any, reference: Any) -> dict[str, dict[str, Any]]:
    mse = _mse(picture, reference)
    missing = value(
        None, reason="alexnet-owt-7be5be79.pth (233 MB, sha256 7be5be79…) is missing; put it in --weights-dir"
    )
    psnr = value(None, exact=True) if mse == 0 else value(-10 * math.log10(mse))
    return {"psnr": psnr, "ssim": value(1 / (1 + 30 * mse)), "lpips": missing}


def _written(folder: Path, name: str, kind: str, picture: Any) -> dict[str, Any]:
    path = Path("artefacts") / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.png"
    Image.fromarray((picture * 255).round().astype(np.uint8)).save(folder / path)
    digest = hashlib.sha256((folder / path).read_bytes()).hexdigest()
    return {"kind": kind, "path": str(path), "sha256": digest}
