"""The zoo: every family that is tried, with the arguments that its pipeline's own call is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.zoo import pipelines as of

PROMPT = "a cat on a mat"
SMALL = {"height": 32, "width": 32}
MIDDLE = {"height": 128, "width": 128}  # of VAEs that make pictures smaller by 8
UNBINNED = {"use_resolution_binning": False}


def picture(size: int = 32) -> Image.Image:
    """What a pipeline is shown that changes pictures."""
    return Image.fromarray((np.random.RandomState(0).rand(size, size, 3) * 255).astype("uint8"))


@dataclass(frozen=True)
class Family:
    """A tiny pipeline and how it is called.

    `call` leaves out the prompts; `guidance` is the argument that carries the pipeline's own number, None where it has
    none; `own` is that number for a given w of ours.
    """

    build: Callable[[], Any]
    call: Mapping[str, Any] = field(default_factory=lambda: SMALL)
    guidance: str | None = "guidance_scale"
    kind: str = "cfg"  # cfg, distilled, none
    prompted: bool = True
    negative: bool = True
    own: Callable[[float], float] = float
    savable: bool = True
    refused: str | None = None  # by which word, where it is

    def arguments(self, w: float | None = None, prompt: Any = PROMPT) -> dict[str, Any]:
        """Of the pipeline's own call, at guidance w."""
        given = dict(self.call)
        if self.prompted:
            given["prompt"] = prompt
        if self.negative and w is not None:
            given["negative_prompt"] = "blurry" if isinstance(prompt, str) else ["blurry"] * len(prompt)
        if self.guidance and w is not None:
            given[self.guidance] = self.own(w)
        return given

    def built(self) -> Any:
        """The pipeline, without bars."""
        pipeline = self.build()
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def saved(self, folder: Path) -> Path:
        """Its folder, to be given to `load`."""
        self.build().save_pretrained(folder)
        return folder


def _plain(build: Callable[[], Any], **more: Any) -> Family:
    return Family(build, **{"guidance": None, "kind": "none", "negative": False, **more})


def _distilled(build: Callable[[], Any], **more: Any) -> Family:
    return Family(build, **{"kind": "distilled", "negative": False, **more})


ZOO: dict[str, Family] = {
    "sd": Family(of.sd),
    "sd_v": Family(of.sd_v),
    "sd_karras": Family(of.sd_karras),
    "sdxl": Family(of.sdxl),
    "kolors": Family(of.kolors, savable=False),
    "ldm": Family(of.ldm, call=MIDDLE, negative=False),
    "if": Family(of.deepfloyd, call={**SMALL, "clean_caption": False}),
    "ddim": _plain(of.ddim_pixels, call={}, prompted=False),
    "ddpm": _plain(of.ddpm_pixels, call={}, prompted=False),
    "pixart_sigma": Family(of.pixart, call={**SMALL, **UNBINNED, "clean_caption": False}),
    "pixart_alpha": Family(of.pixart_alpha, call={**SMALL, **UNBINNED, "clean_caption": False}),
    "dit": Family(of.dit, call={"class_labels": [7]}, prompted=False, negative=False),
    "sd3": Family(of.sd3),
    "sd3_dynamic": Family(of.sd3_dynamic),
    "flux": _distilled(of.flux),
    "flux_true": Family(of.flux, guidance="true_cfg_scale"),
    "flux_schnell": _plain(of.flux_schnell),
    "flux_karras": _distilled(of.flux_karras),
    "flux_inverted": _distilled(of.flux_inverted),
    "kontext": _distilled(of.kontext, call={**SMALL, "image": picture(), "max_area": 32 * 32, "_auto_resize": False}),
    "flux2": _distilled(of.flux2),
    "klein": Family(of.klein, negative=False),
    "qwen_image": Family(of.qwen_image, guidance="true_cfg_scale"),
    "z_image": Family(of.z_image, own=lambda w: w - 1),
    "sana": Family(of.sana, call={**SMALL, **UNBINNED}),
    "lumina2": Family(of.lumina2, call=MIDDLE),
    "hidream": Family(of.hidream, call=MIDDLE),
    "cogview4": Family(of.cogview4),
    "chroma": Family(of.chroma),
    "kandinsky5": Family(of.kandinsky5, call=MIDDLE),
    "hunyuan_image": Family(of.hunyuan_image, call=MIDDLE, guidance=None),
    "hunyuan_meanflow": _distilled(of.hunyuan_meanflow, call=MIDDLE, guidance="distilled_guidance_scale"),
    "auraflow": Family(of.auraflow),
    "lumina": Family(of.lumina, call={**MIDDLE, "clean_caption": False}),
    "cogview3": Family(of.cogview3),
    "hunyuan_dit": Family(of.hunyuan_dit, call={**MIDDLE, **UNBINNED}),
    "ovis": Family(of.ovis),
    # refused, by name
    "pix2pix": Family(
        of.instruct_pix2pix, call={"image": picture(), "image_guidance_scale": 1.5}, refused="the picture to change"
    ),
    "pag": Family(of.pag, refused="perturbed-attention"),
    "lcm": Family(of.lcm, refused="guidance scale", negative=False),
    "sana_sprint": Family(of.sana_sprint, call={**SMALL, **UNBINNED}, refused="draws new noise", negative=False),
    "hunyuan_apg": Family(of.hunyuan_apg, call=MIDDLE, guidance=None, refused="carries momentum"),
}
