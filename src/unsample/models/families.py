"""Which pipelines of diffusers are served, and why the others are not; told from names and configs, without torch.

A pipeline is served when its prediction is that of its network and its prompt, whatever its own loop does around it
(pictures to pictures, masks kept by blending, other inversions). It is refused by name when something else goes into
the prediction, since that would be left out without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unsample.errors import Incompatible

FAMILIES = "UNet2DModel pipelines (DDPM, DDIM) and the Stable Diffusion 1.x/2.x layout"
VAES = ("AutoencoderKL", "AsymmetricAutoencoderKL", "AutoencoderTiny", "VQModel")
SD_PARTS = frozenset(
    ("unet", "vae", "text_encoder", "tokenizer", "scheduler", "safety_checker", "feature_extractor", "image_encoder")
)
SAME_PREDICTION = frozenset(  # their own loops differ, and parts beside `SD_PARTS` serve those
    (
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",  # of a four-channel U-Net; others are refused by their channels
        "StableDiffusionDiffEditPipeline",
        "StableDiffusionPix2PixZeroPipeline",
        "StableDiffusionParadigmsPipeline",
        "StableDiffusionModelEditingPipeline",  # what it edits are the weights
        "CycleDiffusionPipeline",
        "LEditsPPPipelineStableDiffusion",
    )
)
OTHER_PREDICTION = (  # part of a class's name, and what goes into its prediction beside network and prompt
    ("ControlNet", "the ControlNet's residuals"),
    ("SparseControl", "the ControlNet's residuals"),
    ("AdapterPipeline", "the T2I-Adapter's features"),
    ("PAG", "perturbed-attention guidance"),
    ("SAG", "self-attention guidance"),
    ("AttendAndExcite", "a gradient on its attention maps"),
    ("Panorama", "overlapping windows (MultiDiffusion)"),
    ("PipelineSafe", "safety guidance"),
    ("Semantic", "semantic guidance"),
    ("GLIGEN", "the boxes that ground it"),
    ("LDM3D", "a depth map"),
    ("LatentConsistencyModel", "an embedding of the guidance scale (time_cond_proj_dim)"),
    ("InstructPix2Pix", "the picture to change, and a guidance of its own for it"),
    ("Depth2Img", "a depth map"),
    ("Upscale", "the small picture"),
    ("SuperResolution", "the small picture"),
    ("UnCLIP", "an image embedding"),
    ("ImageVariation", "an image embedding"),
    ("Marigold", "the picture to look at"),
    ("TextToVideo", "the frames around it"),
    ("VideoToVideo", "the frames around it"),
    ("AnimateDiff", "the frames around it"),
    ("PIAPipeline", "the frames around it"),
    ("PaintByExample", "an example picture and a mask"),
    ("BlipDiffusion", "a subject's picture"),
)
CHANNELS = {  # of a U-Net whose VAE makes four
    9: "an inpainting model: mask and masked picture go in beside the latents",
    8: "a model that is shown a picture (InstructPix2Pix, latent upscaler, Marigold)",
    7: "an upscaler: the small picture goes in beside the latents",
    5: "a depth-to-image model: a depth map goes in beside the latents",
}
CONFIG = {  # an entry of a U-Net's config that asks for an input which is not given, and which
    "time_cond_proj_dim": "an embedding of the guidance scale (a latent consistency model); use its base model",
    "addition_embed_type": "added_cond_kwargs (SDXL and others: pooled embeddings, sizes)",
    "class_embed_type": "class embeddings (an upscaler's noise level, or unCLIP's image embedding)",
    "num_class_embeds": "class labels beside its prompt (an upscaler's noise level)",
    "encoder_hid_dim_type": "an image embedding (an IP-Adapter, Kandinsky); unload_ip_adapter() takes the former away",
}
NOT_PYTORCH = {
    "Onnx": "an ONNX pipeline",
    "ORT": "an ONNX pipeline (optimum)",
    "OV": "an OpenVINO pipeline (optimum)",
    "Flax": "a Flax pipeline",
}
WRAP = (
    "give unsample.wrap a function that asks it with them, "
    "lambda x, t, encoder_hidden_states=None: unet(x, t, encoder_hidden_states, ...).sample"
)


def family(parts: Mapping[str, str | None]) -> str | None:
    """Which adapter stands for a pipeline with these parts (name to class), if any."""
    present = {part for part, kind in parts.items() if kind}
    if parts.get("unet") == "UNet2DModel" and not present & {"vae", "vqvae"}:
        return "pixel"
    texts = parts.get("text_encoder"), parts.get("text_encoder_2")
    if parts.get("unet") == "UNet2DConditionModel" and texts == ("CLIPTextModel", None) and "vae" in present:
        return "latent"
    return None


def check_pipeline(id: str, name: str | None, parts: Mapping[str, str | None]) -> str:
    """The family of a pipeline, told from its class's name and its parts (name to class, None for one left out).

    Raises:
        Incompatible: something goes into its prediction that would be left out, or no family of ours.
    """
    for start, what in NOT_PYTORCH.items():
        if (name or "").startswith(start) or any((kind or "").startswith(start) for kind in parts.values()):
            raise Incompatible(f"{id} is {what} ({name}): only PyTorch weights (.safetensors) are read; take those")
    found = family(parts)
    if found is None:
        raise Incompatible(f"{id} is a {name}; supported are {FAMILIES}")
    if found == "pixel" or name in SAME_PREDICTION:
        _check_vae(id, parts)
        return found
    for part_of_name, what in OTHER_PREDICTION:
        if part_of_name in (name or ""):
            raise Incompatible(
                f"{id} is a {name}, whose prediction depends on {what}; that is not served yet and would be left out. "
                "If you mean the model without it, give its parts as a StableDiffusionPipeline"
            )
    more = [f"{part} ({kind})" for part, kind in parts.items() if kind and part not in SD_PARTS]
    if more:
        raise Incompatible(
            f"{id} is a {name} with {', '.join(more)}, which would be left out; if you mean the model without it, give "
            "its parts as a StableDiffusionPipeline"
        )
    _check_vae(id, parts)
    return found


def _check_vae(id: str, parts: Mapping[str, str | None]) -> None:
    kind = parts.get("vae")
    if kind and kind not in VAES:
        raise Incompatible(f"{id} has a VAE of class {kind}; {', '.join(VAES)} are served")


def check_unet(id: str, config: Mapping[str, Any], latent_channels: int | None = None) -> None:
    """Refuse a U-Net that asks for an input which it would not be given.

    Args:
        id: of the model.
        config: the U-Net's.
        latent_channels: what the VAE makes; None where there is none, or it is not known.

    Raises:
        Incompatible: it does.
    """
    for entry, what in CONFIG.items():
        if config.get(entry) is not None and not (entry == "encoder_hid_dim_type" and config[entry] == "text_proj"):
            raise Incompatible(
                f"{id}'s U-Net ({entry}={config[entry]!r}) needs {what}, which is not served yet; {WRAP}"
            )
    if str(config.get("attention_type") or "default") != "default":
        raise Incompatible(f"{id}'s U-Net (attention_type={config['attention_type']!r}) needs GLIGEN's boxes; {WRAP}")
    channels = config.get("in_channels", 4)
    if latent_channels is not None and channels != latent_channels:
        what = CHANNELS.get(channels, "an inpainting or upscaling model?")
        raise Incompatible(
            f"{id}'s U-Net takes {channels} channels and its VAE makes {latent_channels} ({what}); a text-to-image "
            "model is needed"
        )


def check_pixel_unet(id: str, config: Mapping[str, Any]) -> None:
    """Refuse a `UNet2DModel` that is conditioned on anything but whole class labels.

    Raises:
        Incompatible: its class embedding takes numbers or vectors.
    """
    kind = config.get("class_embed_type")
    if kind is not None:
        raise Incompatible(
            f"{id}'s U-Net has class_embed_type={kind!r}: it takes numbers or embeddings for classes, and only whole "
            "class labels (num_class_embeds alone) are served; give unsample.wrap a function that asks it with them"
        )
