"""The methods on `scenes-sd`: reconstruction at four guidance scales, editing with known truth, and the whiteness of
what `forward_first` recovers; and on `scenes-mixture`, where noise, attributes and the true edit are known at once.

    python -m benchmarks.methods_on_scenes [reconstruction|editing|whiteness|mixture ...] [--methods NAME,NAME]

Finished rows are skipped, so it can be stopped and started again. Methods above 500 network evaluations a picture are
measured on 16 scenes, the exact `dpm_solver` on 4, the others on 64; n stands in every row. What is ranked on the noise
alone and what on the record stand in columns of their own.
"""

from __future__ import annotations

import argparse
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

import unsample
from benchmarks.editing import Table
from benchmarks.ledger import dates, finished, markdown, write_section
from benchmarks.tables import batch, load
from unsample.datasets import Scenes
from unsample.methods import METHODS, Method, Walked, get_method
from unsample.metrics.pixels import psnr, ssim
from unsample.metrics.recovery import cosine, mean_interval, mse, std
from unsample.numbers.health import lag1_correlation

STEPS, BATCH, SCALES, PAIRS = 50, 16, (1.0, 3.0, 5.0, 7.5), 256
LEFT_OUT = {"oracle": "needs the sampling run that made the picture; a rendered scene has none"}
SETTINGS = {"gradient": {"preset": "first_step"}}  # every step optimised would take 50,000 passes a picture and way
GENTLE = dict.fromkeys(
    ("ddim", "edict", "edit_friendly", "negative_prompt", "proximal", "forward_first"), (1.5,)
)  # guidance below 3 for edits, too


def configured(name: str) -> Method:
    """A row's method: the defaults, but for `SETTINGS`."""
    return get_method(name, SETTINGS.get(name))


def count(name: str) -> int:
    """Scenes for a method."""
    if name == "dpm_solver":
        return 4
    walked = Walked(STEPS, 1, 2, tuple(range(1, 1000, 20)))
    return 16 if configured(name).passes(walked) > 500 else 64


def about(model: Any, name: str, n: int, **more: Any) -> dict[str, Any]:
    """What a row depends on."""
    method = configured(name)
    return {"model": model.weights_sha256(), "method": name, "settings": dict(method.settings), "n": n} | more


def shown(value: Any) -> str:
    """A cell."""
    if isinstance(value, list | tuple):
        return f"{value[0]:.3g} ± {value[1]:.1g}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


# ---------------------------------------------------------------- reconstruction


@lru_cache(maxsize=4)
def inversions(model: Any, name: str, inverting: float, w: float | None, n: int) -> list[tuple[Any, Tensor, Tensor]]:
    """The scenes' inversions, in batches, with pictures and ceilings; `w` where the record depends on it."""
    found = []
    size = batch(model, BATCH)
    for k in range(0, n, size):
        items = [Scenes("report", n)[i] for i in range(k, min(k + size, n))]
        images, prompts = torch.stack([i.image for i in items]), [i.prompt for i in items]
        given: dict[str, Any] = {"method": configured(name), "num_inference_steps": STEPS, "strength": 1.0}
        given |= {"guidance_scale": inverting, "sampling_guidance_scale": w}
        inversion = unsample.invert(model, images, prompts, **given)
        with torch.no_grad():
            found.append((inversion, images, model.decode(inversion.latents).clamp(0, 1).cpu()))
    return found


def reconstructed(model: Any, name: str, w: float, n: int) -> dict[str, Any]:
    """Inverted at guidance 1 and played back at w; at w both ways where the method solves the guided equation."""
    found: dict[str, list[Tensor]] = {}
    method = configured(name)
    bound = method.solves_guidance or method.fitted or method.guidance_bound  # else one inversion serves every w
    inverting = w if method.solves_guidance else 1.0
    for inversion, images, ceiling in inversions(model, name, inverting, w if bound else None, n):
        made = {"noise": unsample.reconstruct(model, inversion, use="noise", guidance_scale=w).images}
        alone = method.stepwise  # then the record is the noise
        made["record"] = made["noise"] if alone else unsample.reconstruct(model, inversion, guidance_scale=w).images
        for use, picture in made.items():
            picture = picture.cpu()
            found.setdefault(f"{use} dB to ceiling", []).append(torch.tensor(psnr(picture, ceiling)))
            found.setdefault(f"{use} dB to source", []).append(torch.tensor(psnr(picture, images)))
            found.setdefault(f"{use} SSIM", []).append(torch.tensor(ssim(picture, images)))
        found.setdefault("std", []).append(std(inversion.noise))
    medians = {key: float(torch.cat(parts).median()) for key, parts in found.items()}
    return medians | {"nfe": inversion.nfe[0], "backward": inversion.backward[0], "inverting": inverting, "n": n}


RECONSTRUCTION = (
    "method", "w", "inverting w", "noise dB to source", "noise SSIM", "record dB to source", "record dB to ceiling",
    "record SSIM", "std", "NFE", "backward", "n",
)  # fmt: skip


def reconstruction(names: list[str]) -> None:
    """Every method at every guidance."""
    model = load("scenes-sd")
    rows = []
    for name in names:
        for w in SCALES:
            n = count(name)
            key = about(model, name, n, w=w, steps=STEPS)
            r = finished(
                "reconstruction", f"{name} w={w:g}", key, lambda m=name, w=w, n=n: reconstructed(model, m, w, n)
            )  # type: ignore[misc]
            cells = [r[c] for c in RECONSTRUCTION[3:9]]
            same = configured(name).stepwise
            rows.append(
                [
                    name,
                    f"{w:g}",
                    f"{r['inverting']:g}",
                    *(shown(c) for c in cells),
                    str(r["nfe"]),
                    str(r["backward"]),
                    str(n),
                ]
            )
            if same:
                rows[-1][5:8] = ["= noise", rows[-1][6], "= noise"]
    note = (
        f"`python -m benchmarks.methods_on_scenes reconstruction`, {dates('reconstruction')}: "
        f"held-out report scenes "
        f"on scenes-sd, {STEPS} steps, medians. `noise`: sampled plainly from the recovered noise alone; `record`: "
        "played back by the method's own rule with all that it stored. The ceiling is the autoencoder's own round trip."
    )
    write_section("reconstruction", f"{note}\n\n{markdown(RECONSTRUCTION, rows)}")


# ---------------------------------------------------------------- editing


EDITING = (
    "row",
    "w",
    "render_fit",
    "scenes-clip",
    "judges agree",
    "edit_gain",
    "inside",
    "outside",
    "median gain",
    "n",
)


def editing(names: list[str]) -> None:
    """One attribute changed, at 3 and at the method's own guidance; some at less."""
    table = Table()
    model = table.model
    n = len(table.scenes)
    fixed = {
        "identity": lambda: table.source,
        "vae(source)": lambda: table.through_vae(table.source),
        "vae(truth)": lambda: table.through_vae(table.truth),
        "fresh noise w=5": lambda: table.fresh(5.0),
    }
    rows = []
    for label, make in fixed.items():
        key = {"model": model.weights_sha256(), "n": n, "row": label}
        r = finished("editing", label, key, lambda make=make: table.figures(make()))  # type: ignore[misc]
        rows.append([label, "-", *(shown(r[c]) for c in EDITING[2:9]), str(n)])
    for name in names:
        if configured(name).refuses_edit:
            continue
        m = count(name)
        for w in (*GENTLE.get(name, ()), 3.0, None):
            method = configured(name)
            fitted = {"sampling_guidance_scale": w} if method.edits_as_fitted and w else {}
            scale = (
                w or method.edit_guidance_scale or (method.sampling_guidance_scale if method.edits_as_fitted else 5.0)
            )
            if w is None and scale == 3:
                continue
            key = about(model, name, m, w=w, steps=STEPS)

            def make(name: str = name, w: float | None = w, m: int = m, fitted: Any = fitted) -> dict[str, Any]:
                return table.figures(table.edited(configured(name), w, m, fitted), m)

            r = finished("editing", f"{name} w={w or 'own'}", key, make)
            rows.append([name, shown(scale), *(shown(r[c]) for c in EDITING[2:9]), str(m)])
    note = (
        f"`python -m benchmarks.methods_on_scenes editing`, {dates('editing')}: "
        f"colour, shape or background of "
        f"held-out report scenes changed by prompt on scenes-sd, {STEPS} steps, inverted at guidance 1, edited at w. "
        "Gains are pooled over pixels: 1 is the true edit, 0 did nothing. Read each row against the first four."
    )
    write_section("editing", f"{note}\n\n{markdown(EDITING, rows)}")


# ---------------------------------------------------------------- whiteness


def white(model: Any, method: Method) -> dict[str, Any]:
    """Signed lag-1 correlation of the recovered noise, and the reconstruction."""
    parts: dict[str, list[Tensor]] = {"lag-1": [], "std": [], "dB to source": [], "dB to ceiling": []}
    size = batch(model, BATCH)
    for k in range(0, PAIRS, size):
        items = [Scenes("report", PAIRS, size=model.picture_size[0])[i] for i in range(k, k + size)]
        images = torch.stack([i.image for i in items])
        prompts = [i.prompt for i in items] if model.takes_prompt else None
        found = unsample.invert(model, images, prompts, method=method, num_inference_steps=STEPS)
        made = unsample.reconstruct(model, found).images.cpu()
        with torch.no_grad():
            ceiling = model.decode(found.latents).clamp(0, 1).cpu()
        parts["lag-1"].append(lag1_correlation(found.noise))
        parts["std"].append(std(found.noise))
        parts["dB to source"].append(torch.tensor(psnr(made, images)))
        parts["dB to ceiling"].append(torch.tensor(psnr(made, ceiling)).clamp(max=200))
    return {key: mean_interval(torch.cat(values)) for key, values in parts.items()}


def whiteness(names: list[str]) -> None:
    """Is the recovered noise white? `ddim` beside `forward_first` at 4 %, on both trained models; more on one."""
    columns = ("model", "method", "lag-1", "std", "dB to source", "dB to ceiling", "n")
    rows = []
    for id in ("scenes-sd", "scenes-ddpm"):
        model = load(id)
        shown_as = {"ddim": configured("ddim"), "forward_first": configured("forward_first")}
        if id == "scenes-ddpm":
            shown_as |= {
                f"forward_first {100 * f:.0f} %": get_method("forward_first", {"fraction": f}) for f in (0.1, 0.2)
            }
        for label, method in shown_as.items():
            key = about(model, method.name, PAIRS, steps=STEPS) | {"settings": dict(method.settings)}
            r = finished("whiteness", f"{id} {label}", key, lambda m=model, n=method: white(m, n))  # type: ignore[misc]
            rows.append([id, label, *(shown(r[c]) for c in columns[2:6]), str(PAIRS)])
    note = (
        f"`python -m benchmarks.methods_on_scenes whiteness`, {dates('whiteness')}: signed correlation of all adjacent "
        f"pairs of the recovered noise, {PAIRS} report scenes, {STEPS} steps, guidance 1; means ± half width of the 95 "
        "% interval; dB over pictures, those above 200 dB counted as 200."
    )
    write_section("whiteness", f"{note}\n\n{markdown(columns, rows)}")


# ---------------------------------------------------------------- the mixture


def on_mixture(model: Any, name: str, n: int) -> dict[str, Any]:
    """Pictures that the mixture made itself: the noise is known, and its eps is exact."""
    from unsample.models.gaussian import mixture_scenes

    captions = [s.caption for s in mixture_scenes()][:: 512 // n][:n]
    seeds = [torch.Generator().manual_seed(2**20 + k) for k in range(n)]
    made = unsample.sample(model, captions, num_inference_steps=STEPS, generator=seeds, keep_trajectory=True)
    given: dict[str, Any] = {"trajectory": made.trajectory} if configured(name).needs_trajectory else {}
    given |= {"method": configured(name), "num_inference_steps": STEPS, "strength": 1.0, "sampling_guidance_scale": 1.0}
    found = unsample.invert(model, latents=made.latents, prompt=captions, **given)
    again = unsample.reconstruct(model, found, use="noise").latents
    record = unsample.reconstruct(model, found).latents
    values = {
        "E_latent": mse(found.noise, made.noise),
        "cosine": cosine(found.noise, made.noise),
        "std": std(found.noise),
        "E_recon, noise": mse(again, made.latents),
        "E_recon, record": mse(record, made.latents),
    }
    return {k: mean_interval(v) for k, v in values.items()} | {"nfe": found.nfe[0], "backward": found.backward[0]}


def mixture(names: list[str]) -> None:
    """Every method where the network makes no error of its own."""
    model = unsample.load("scenes-mixture")
    columns = ("method", "E_latent", "cosine", "std", "E_recon, noise", "E_recon, record", "NFE", "backward", "n")
    rows = []
    for name in [*names, *LEFT_OUT]:
        n = min(count(name), 16)
        key = about(model, name, n, steps=STEPS)
        r = finished("mixture", name, key, lambda m=name, n=n: on_mixture(model, m, n))  # type: ignore[misc]
        rows.append([name, *(shown(r[c]) for c in columns[1:6]), str(r["nfe"]), str(r["backward"]), str(n)])
    note = (
        f"`python -m benchmarks.methods_on_scenes mixture`, {dates('mixture')}: pictures that scenes-mixture made, "
        f"whose eps is exact, {STEPS} steps, guidance 1 with the true caption; means ± half width of the 95 % interval."
    )
    write_section("mixture", f"{note}\n\n{markdown(columns, rows)}")


TABLES = {"reconstruction": reconstruction, "editing": editing, "whiteness": whiteness, "mixture": mixture}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", choices=[*TABLES, []], help="default: all")
    parser.add_argument("--methods", default="", help="default: all")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    names = [n for n in options.methods.split(",") if n] or [n for n in METHODS if n not in LEFT_OUT]
    for name in options.tables or TABLES:
        TABLES[name](names)


if __name__ == "__main__":
    main()
