"""Results as one line of text, and in a notebook as their pictures. Whatever they hold, this does not raise."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

    from unsample.verbs.results import Images, Inversion

SHOWN = 16  # pictures in a notebook
SIDE = 160  # of a picture there
LONGEST = 80  # letters of a text


def of_images(made: Images) -> str:
    """`<Images: 2 pictures of 64x64, edit by fixed_point, scenes-sd, 50 steps, guidance 3; ok>`."""
    height, width = made.images.shape[2:]
    how = [_by(made.meta.get("verb", ""), made.meta), *_made_with(made.meta)]
    size = f"{width}x{height}" if width else f"latents {tuple(made.latents.shape[1:])}"
    return f"<Images: {_count(len(made))} of {size}{_listed(how)}; {_statuses(made.status)}>"


def of_inversion(inversion: Inversion) -> str:
    """`<Inversion: 1 picture, by ddim, scenes-sd, 50 steps, guidance 1; noise (1, 4, 16, 16), std 0.93; ok>`."""
    stds = _few([f"{h['std']:.3g}" for h in inversion.health if isinstance(h.get("std"), float)])
    noise = f"noise {tuple(inversion.noise.shape)}" + (f", std {stds}" if stds else "")
    kept = f" and {', '.join(inversion.state)}" if inversion.state else ""
    how = _listed([_by("", inversion.meta), *_made_with(inversion.meta)])
    return (
        f"<Inversion: {_count(len(inversion))}{how}; {noise}{kept}; {_statuses(inversion.status)}{_grades(inversion)}>"
    )


def images_as_html(made: Images) -> str:
    """The pictures, each with its prompt."""
    prompts = made.meta.get("prompt") or []
    pictures = made.pil()[:SHOWN] if made.images.numel() else []
    captions = [_short(prompts[k]) if k < len(prompts) and prompts[k] else made.status[k] for k in range(len(made))]
    return _html(of_images(made), zip(pictures, captions, strict=False), len(made))


def inversion_as_html(inversion: Inversion) -> str:
    """Of each picture the source and the recovered noise."""
    from PIL import Image

    from unsample.media.figures import noise_picture

    panels: list[tuple[Image.Image | None, str]] = []
    names = inversion.meta.get("names") or [f"picture {k}" for k in range(len(inversion))]
    for k in range(min(len(inversion), SHOWN)):
        if inversion.source is not None:
            panels.append((Image.fromarray(inversion.source[k].cpu().numpy()), _short(names[k])))
        noise = inversion.noise[k].detach().float().cpu()
        size = (noise.shape[2], noise.shape[1])
        panels.append((noise_picture(noise.tolist(), size), f"noise of {_short(names[k])}, {_judged(inversion, k)}"))
    return _html(of_inversion(inversion), panels, len(inversion))


def _html(title: str, panels: Iterable[tuple[Image.Image | None, str]], count: int) -> str:
    cells = "".join(
        f'<figure style="display:inline-block;margin:4px;width:{SIDE}px;vertical-align:top">{_img(image)}'
        f'<figcaption style="font-size:smaller">{escape(caption)}</figcaption></figure>'
        for image, caption in panels
    )
    more = f"<div>and {count - SHOWN} more</div>" if count > SHOWN else ""
    return f"<div><div>{escape(title)}</div>{cells}{more}</div>"


def _img(image: Image.Image | None) -> str:
    """The picture in the page itself, shrunk if it is large."""
    if image is None:
        return "<div>diverged</div>"
    small = image.copy()
    small.info = {}
    small.thumbnail((2 * SIDE, 2 * SIDE))
    buffer = io.BytesIO()
    small.save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    style = "image-rendering:pixelated;" if max(small.size) < SIDE else ""
    return f'<img style="{style}width:{SIDE}px" src="data:image/png;base64,{data}">'


def _by(verb: str, meta: Any) -> str:
    method = (meta.get("method") or {}).get("name")
    return f"{verb} by {method}".strip() if method else verb


def _made_with(meta: Any) -> list[str]:
    model, steps, guidance = (
        (meta.get("model") or {}).get("id"),
        meta.get("num_inference_steps"),
        meta.get("guidance_scale"),
    )
    stop = meta.get("stop_index", steps)
    told = [_short(model)] if model else []
    told += [f"{steps} steps" if stop == steps else f"{stop} of {steps} steps"] if steps else []
    return told + ([f"guidance {guidance:g}"] if isinstance(guidance, int | float) else [])


def _listed(parts: Sequence[str]) -> str:
    return "".join(f", {part}" for part in parts if part)


def _statuses(status: Sequence[str]) -> str:
    """`ok`, or how many of each."""
    different = list(dict.fromkeys(status))
    return ", ".join(f"{status.count(s)} {s}" for s in different) if len(different) > 1 else "".join(different)


def _grades(inversion: Inversion) -> str:
    """`; recovered`, or how many of each; nothing where no picture has a grade."""
    grades = [str(h.get("grade") or "no grade") for h in inversion.health]
    return f"; {_statuses(grades)}" if {*grades} - {"no grade"} else ""


def _judged(inversion: Inversion, k: int) -> str:
    """The status of a picture, and its grade where it has one."""
    grade = inversion.health[k].get("grade") if k < len(inversion.health) else None
    return f"{inversion.status[k]}, {grade}" if grade else inversion.status[k]


def _few(values: Sequence[str]) -> str:
    return ", ".join(values[:4]) + (", ..." if len(values) > 4 else "")


def _short(text: object) -> str:
    return str(text) if len(str(text)) <= LONGEST else f"{str(text)[:LONGEST]}..."


def _count(number: int) -> str:
    return f"{number} picture{'s' * (number != 1)}"
