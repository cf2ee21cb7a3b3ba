"""Which pipelines of diffusers are served, and why the others are not; told from names and configs, without torch.

Three adapters: one written for `UNet2DModel` ("pixel"), one for Stable Diffusion 1.x/2.x ("latent"), and one that
records what any other pipeline asks of its denoiser and replays it ("pipeline"). A pipeline is refused by name when it
cannot be inverted by what the adapter would ask, since something would be left out without a word.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unsample.errors import Incompatible, WeightsMissing

SUPPORTED = (
    "any text-to-image, class-to-image or unconditional pipeline of diffusers with one denoiser "
    "('unsample models families' lists them)"
)
Adapter = Literal["pixel", "latent", "pipeline"]


@dataclass(frozen=True)
class Family:
    """Pipelines that are served alike."""

    name: str
    pipelines: tuple[str, ...]  # classes of diffusers
    adapter: Adapter = "pipeline"
    note: str = ""  # what is particular
    tried: str = ""  # what was run, and how; "" for nothing


def _of(name: str, *pipelines: str, adapter: Adapter = "pipeline", note: str = "", tried: str = "") -> Family:
    return Family(name, tuple(f"{p}Pipeline" for p in pipelines), adapter, note, tried)


TINY = "tiny, of random weights (tests/zoo)"
TRAINED = "the bundled, trained"
FAMILIES = (
    _of("Stable Diffusion 1.x, 2.x", "StableDiffusion", adapter="latent", tried=f"{TRAINED} scenes-sd; {TINY}"),
    _of(
        "DDPM, DDIM",
        "DDPM",
        "DDIM",
        adapter="pixel",
        note="unconditional, or by class (UNet2DModel)",
        tried=f"{TRAINED} scenes-ddpm; {TINY}",
    ),
    _of("SDXL", "StableDiffusionXL", note="SDXL Turbo, Lightning and fine-tunes too", tried=TINY),
    _of("Stable Diffusion 3, 3.5", "StableDiffusion3", tried=f"{TRAINED} scenes-flow; {TINY}"),
    _of("FLUX.1 dev, schnell", "Flux", note="guidance is distilled: a row of the condition, one pass", tried=TINY),
    _of("FLUX.1 Kontext", "FluxKontext", note="as text to image", tried=TINY),
    _of("FLUX.2", "Flux2", "Flux2Klein", tried=TINY),
    _of("Qwen-Image", "QwenImage", note="its guidance keeps the norm of the conditional output", tried=TINY),
    _of("Z-Image", "ZImage", note="its own guidance number s is our w = 1 + s", tried=TINY),
    _of("Sana", "Sana", tried=TINY),
    _of("PixArt alpha, sigma", "PixArtAlpha", "PixArtSigma", note="learned variance is left out", tried=TINY),
    _of("DiT", "DiT", note="by class; learned variance is left out", tried=TINY),
    _of("Latent diffusion", "LDM", "LDMTextToImage", tried=TINY),
    _of("DeepFloyd IF, first stage", "IF", note="learned variance is left out", tried=TINY),
    _of("Lumina 2", "Lumina2", tried=TINY),
    _of("Lumina Next", "Lumina", tried=TINY),
    _of("HiDream", "HiDreamImage", tried=TINY),
    _of("CogView3 plus, CogView4", "CogView3Plus", "CogView4", note="CogView4 pads prompts without a mask", tried=TINY),
    _of("Chroma", "Chroma", tried=TINY),
    _of("Kandinsky 3", "Kandinsky3"),
    _of("Kandinsky 5", "Kandinsky5T2I", note="pads prompts without a mask", tried=TINY),
    _of("HunyuanDiT", "HunyuanDiT", tried=TINY),
    _of("HunyuanImage", "HunyuanImage", note="with classifier-free guidance, not with APG", tried=TINY),
    _of("AuraFlow", "AuraFlow", tried=TINY),
    _of("Kolors", "Kolors", tried=TINY),
    _of("Ovis-Image", "OvisImage", tried=TINY),
)
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
    ("Controlnet", "the ControlNet's residuals"),
    ("SparseControl", "the ControlNet's residuals"),
    ("Control", "the picture that controls it"),
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
    ("Refiner", "the picture to refine"),
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
NO_INVERSION = (  # part of a class's name, and why no adapter serves it
    ("Combined", "it is two pipelines in one, with two denoisers; give the one that makes the picture"),
    ("UniDiffuser", "it denoises picture and text together"),
    ("VersatileDiffusion", "it has two denoisers"),
    ("SanaSprint", "its sampler (SCM) draws new noise at every step"),
    ("ConsistencyModel", "its sampler draws new noise at every step"),
    ("Prior", "it makes image embeddings, no pictures"),
    ("Decoder", "it needs the image embedding that its prior makes"),
    ("KandinskyPipeline", "it needs the image embedding that its prior makes"),
    ("KandinskyV22Pipeline", "it needs the image embedding that its prior makes"),
    ("Amused", "it fills in discrete tokens and has no noise"),
    ("VQDiffusion", "it fills in discrete tokens and has no noise"),
    ("ShapE", "it makes shapes, no pictures"),
    *((name, "it makes sound") for name in ("Audio", "MusicLDM", "DanceDiffusion", "AceStep")),
    *(
        (name, "it makes videos")
        for name in (
            *("Video", "I2V", "T2V", "Animate", "Wan", "LTX", "Mochi", "Allegro", "Latte", "SkyReels", "I2VGen"),
            *(
                "CosmosTextToWorld",
                "VideoToWorld",
                "Cosmos2_5",
                "Cosmos3",
                "LucyEdit",
                "AnyFlow",
                "SanaWM",
                "Kandinsky6",
            ),
        )
    ),
)
WITH_A_PICTURE = ("Img2Img", "I2I", "Inpaint", "Fill", "Edit", "VisualCloze", "Layered", "Redux", "RePaint")
STATEFUL_GUIDERS = (  # part of a class's name
    ("AdaptiveProjected", "adaptive projected guidance (APG) carries momentum from step to step"),
    ("MagnitudeAware", "magnitude-aware guidance depends on the step"),
    ("Perturbed", "perturbed-attention guidance is not served"),
    ("SkipLayer", "skip-layer guidance is not served"),
    ("Smoothed", "smoothed energy guidance is not served"),
    ("AutoGuidance", "auto guidance is not served"),
)
DENOISERS = ("transformer", "unet")
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
SERVED = f"served is {SUPPORTED}, and unsample.wrap takes any network"
WRAP = (
    "give unsample.wrap a function that asks it with them, "
    "lambda x, t, encoder_hidden_states=None: unet(x, t, encoder_hidden_states, ...).sample"
)


def family_of(pipeline: str | None) -> Family | None:
    """The row of the table that a pipeline's class stands in."""
    return next((row for row in FAMILIES if pipeline in row.pipelines), None)


def family(parts: Mapping[str, str | None]) -> Adapter | None:
    """Which adapter stands for a pipeline with these parts (name to class), if any."""
    present = {part for part, kind in parts.items() if kind}
    if parts.get("unet") == "UNet2DModel" and not present & {"vae", "vqvae"}:
        return "pixel"
    texts = parts.get("text_encoder"), parts.get("text_encoder_2")
    if parts.get("unet") == "UNet2DConditionModel" and texts == ("CLIPTextModel", None) and "vae" in present:
        return "latent"
    if present & {*DENOISERS} and "scheduler" in present:
        return "pipeline"
    return None


def check_pipeline(id: str, name: str | None, parts: Mapping[str, str | None]) -> Adapter:
    """The adapter of a pipeline, told from its class's name and its parts (name to class, None for one left out).

    Raises:
        Incompatible: something goes into its prediction that would be left out, or it cannot be inverted.
    """
    for start, what in NOT_PYTORCH.items():
        if (name or "").startswith(start) or any((kind or "").startswith(start) for kind in parts.values()):
            raise Incompatible(f"{id} is {what} ({name}): only PyTorch weights (.safetensors) are read; take those")
    found, row = family(parts), family_of(name)
    if found == "pixel" or (found == "latent" and name in SAME_PREDICTION):
        _check_vae(id, parts)
        return found
    if row is None:
        _check_name(id, name or "", plain="a StableDiffusionPipeline" if found == "latent" else None)
    if found is None:
        raise Incompatible(f"{id} is a {name} without a denoiser (transformer or unet) and a scheduler; {SERVED}")
    if found == "latent":
        _check_parts(id, name, parts)
        _check_vae(id, parts)
        return found
    _check_guider(id, name, parts)
    twice = [part for part in parts if part.startswith(("transformer_", "unet_")) and parts[part]]
    if twice:
        raise Incompatible(f"{id} is a {name} with a second denoiser ({', '.join(twice)}), and one is served")
    return found


def _check_name(id: str, name: str, plain: str | None) -> None:
    """Refuse what a class's name tells."""
    for part_of_name, what in OTHER_PREDICTION:
        if part_of_name in name:
            raise Incompatible(
                f"{id} is a {name}, whose prediction depends on {what}; that is not served yet and would be left out. "
                f"If you mean the model without it, give its parts as {plain or 'the plain text-to-image pipeline'}"
            )
    for part_of_name, why in NO_INVERSION:
        if part_of_name in name:
            raise Incompatible(f"{id} is a {name}, which is not served: {why}")
    if plain is None and any(part_of_name in name for part_of_name in WITH_A_PICTURE):
        raise Incompatible(
            f"{id} is a {name}, which starts from a picture; what is inverted is the text-to-image pipeline of the "
            f"same parts: AutoPipelineForText2Image.from_pipe(pipeline) of diffusers makes it, where there is one"
        )


def _check_parts(id: str, name: str | None, parts: Mapping[str, str | None]) -> None:
    more = [f"{part} ({kind})" for part, kind in parts.items() if kind and part not in SD_PARTS]
    if more:
        raise Incompatible(
            f"{id} is a {name} with {', '.join(more)}, which would be left out; if you mean the model without it, give "
            "its parts as a StableDiffusionPipeline"
        )


def _check_guider(id: str, name: str | None, parts: Mapping[str, str | None]) -> None:
    for part, kind in parts.items():
        for part_of_name, why in STATEFUL_GUIDERS:
            if part.endswith("guider") and part_of_name in (kind or ""):
                raise Incompatible(
                    f"{id} is a {name} with the guider {kind}: {why}; set ClassifierFreeGuidance() in its place"
                )


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
    check_channels(id, config.get("in_channels", 4), latent_channels)


def check_channels(id: str, channels: int, latent_channels: int | None) -> None:
    """Refuse a U-Net that takes more than the VAE's latents (`Incompatible`): an inpainting model and the like."""
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


# ---------------------------------------------------------------- what lies in a file or folder that is no pipeline

SINGLE = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx")
CONVERT = (
    "StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER) of diffusers makes a folder of it, to be "
    "given in its place"
)


def not_a_folder(name: str) -> str | None:
    """What a name that is no folder is, and what to do; None where that cannot be told."""
    lowered = name.lower()
    if lowered.startswith(("http://", "https://", "hf://", "s3://", "git@")):
        at = name.partition("huggingface.co/")[2].split("/")
        hub = f"; give the hub id {at[0]}/{at[1].partition('?')[0]}" if len(at) > 1 and all(at[:2]) else ""
        return f"is a URL, and those are not followed{hub or '; give a hub id owner/name, or a folder'}"
    if not lowered.endswith(SINGLE):
        return None
    if lowered.endswith((".gguf", ".onnx")):
        return "is a file of weights for other programs; give a diffusers folder with .safetensors"
    keys = _keys(Path(name).expanduser()) if lowered.endswith(".safetensors") else []
    if keys is None:
        return "is an inversion of unsample, no model; give it to 'unsample reconstruct' or 'unsample edit'"
    if any("lora" in key for key in keys):
        return "is a LoRA, which changes a model: load_lora_weights it into a pipeline of diffusers and give that"
    if lowered.endswith((".safetensors", ".ckpt")):
        return None  # `models.single_file` reads it
    return f"is a file of pickled weights, which can run code when it is read; of those that you trust, {CONVERT}"


def _keys(path: Path) -> list[str] | None:
    """The names in a safetensors file; none of one that cannot be read, None for a saved inversion."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return None if "unsample_format" in (file.metadata() or {}) else list(file.keys())
    except Exception:  # missing, or not what its name says: safetensors raises many kinds
        return []


def folder_without_index(folder: Path) -> str:
    """What a folder without `model_index.json` is, and what to do."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    config = read_json(folder / "config.json")
    if config.get("_class_name"):
        return f"it holds one part of a pipeline ({config['_class_name']}); give the folder above it"
    if names & {"adapter_config.json", "pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin"}:
        return "it holds a LoRA, which changes a model: load_lora_weights it into a pipeline of diffusers and give that"
    if config.get("model_type") or config.get("architectures"):
        return (
            f"it holds a model of transformers ({config.get('model_type') or config['architectures'][0]}), no diffusion"
        )
    if any(name.endswith(".onnx") for name in names):
        return "it holds an ONNX model; give the PyTorch weights (.safetensors)"
    if any(name.endswith(".xml") for name in names):
        return "it holds an OpenVINO model; give the PyTorch weights (.safetensors)"
    single = sorted(name for name in names if name.endswith((".safetensors", ".ckpt")))
    if single:
        return f"it holds {single[0]}, a single file of weights; {CONVERT}"
    return "a diffusers pipeline folder is needed"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def weights_variant(id: str, folder: Path, part: str) -> str | None:
    """Which variant of a part's weights to load: None, or "fp16" where no other is there.

    Raises:
        WeightsMissing: none that is read, with what is there instead.
    """
    names = sorted(path.name for path in (folder / part).glob("*")) if (folder / part).is_dir() else []
    plain = [n for n in names if n.endswith(".safetensors") and not variants_in(n)]
    missing = [
        shard for n in names if n.endswith(".json") and ".index." in n for shard in _shards(folder / part / n, names)
    ]
    if missing:
        raise WeightsMissing(f"{id}: {part} lacks {', '.join(missing[:3])} of its shards; fetch them again")
    if plain:
        return None
    variants = sorted({v for n in names if n.endswith(".safetensors") for v in variants_in(n)})
    if variants:
        return "fp16" if "fp16" in variants else variants[0]
    kinds = {
        ".bin": "pickled weights (.bin), which can run code when they are read and are never loaded here; if you trust "
        "them, load the folder with use_safetensors=False in diffusers and save_pretrained it anew",
        ".msgpack": "Flax weights (.msgpack); take the PyTorch ones (.safetensors)",
        ".onnx": "ONNX weights; take the PyTorch ones (.safetensors)",
        ".xml": "OpenVINO weights; take the PyTorch ones (.safetensors)",
    }
    for ending, what in kinds.items():
        if any(n.endswith(ending) for n in names):
            raise WeightsMissing(f"{id}: {part} holds only {what}")
    return None  # what is read next says what is missing


def variants_in(name: str) -> Iterator[str]:
    """`fp16` of diffusion_pytorch_model.fp16.safetensors, and of its shards."""
    middle = name.removesuffix(".safetensors").partition(".")[2]
    if middle:
        yield middle.partition("-")[0]


def _shards(index: Path, there: list[str]) -> list[str]:
    """The shards that an index names and that are not there."""
    named = read_json(index).get("weight_map")
    return sorted({n for n in named.values() if isinstance(n, str)} - {*there}) if isinstance(named, dict) else []
