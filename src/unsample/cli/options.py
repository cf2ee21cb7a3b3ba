"""The options, each declared once: name, help, panel, default. What verbs share stands in groups (`cli.flat`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from typer import Argument, Option

MODEL, EDIT, INVERSION, PLAYBACK, OUTPUT = "Model", "Edit", "Inversion", "Playback", "Output"
MEASURING, METHODS, RUNNING = "Measuring", "Methods", "Running"

FitName = Literal["aspect", "crop", "pad"]
DtypeName = Literal["float32", "float64", "bfloat16", "float16"]
OffloadName = Literal["none", "model", "group", "sequential"]
QuantizeName = Literal[
    "bitsandbytes_4bit", "bitsandbytes_8bit", "torchao_int8", "torchao_float8", "quanto_int8", "quanto_float8"
]
ClipName = Literal["off", "config"]
UseName = Literal["record", "noise"]
EngineName = Literal["local", "ray"]
ScheduleName = Literal["constant", "linear", "cosine", "increasing"]

STEPS = ("--num-inference-steps", "--steps")  # diffusers' name, and ours for short
OUT = ("--output", "-o")
STEPS_HELP = "From 1 to what the model was trained with."
AWAY = "What guidance leads away from."
OWN_PROMPT = "the one in the picture's own metadata, if any"
SET_HELP = "A setting of the method; may be repeated. 'unsample methods NAME' lists them."
EDITOR_SET_HELP = "A setting of the editor; may be repeated. 'unsample editors NAME' lists them."
SCHEDULE_HELP = (
    "How guidance runs from the noisiest step to the last: constant, linear or cosine down to 1, or increasing from 1."
)


def examples(*commands: str) -> str:
    """The end of a help page: commands to copy."""
    return "\n".join(["[bold]Examples[/bold]", *(f"  {c}".replace("[", "\\[") for c in commands)])


def opt(panel: str, metavar: str | None, help: str, *names: str, default: str | bool = True) -> Any:
    """An option: `default` is what its help says of it where the value does not say it, False for nothing."""
    return Option(*names, metavar=metavar, help=help, rich_help_panel=panel, show_default=default)


def argument(metavar: str, help: str) -> Any:
    """An argument that must be given."""
    return Argument(metavar=metavar, help=help, show_default=False)


# ---------------------------------------------------------------- model


def _model(default: str | bool) -> Any:
    help = (
        "A bundled name ('unsample models' lists them), a diffusers folder, a hub id owner/name, or a single file "
        "(.safetensors, .ckpt)."
    )
    return opt(MODEL, "NAME", help, "--model", "-m", default=default)


ModelName = Annotated[str | None, _model("the one the picture's own metadata names, else scenes-sd")]
RecordedModel = Annotated[str | None, _model("the one recorded in the inversion")]
EitherModel = Annotated[
    str | None, _model("the one that the inversion or the picture's own metadata names, else scenes-sd")
]
OwnModel = Annotated[str, _model(True)]
AllowOther = Annotated[
    bool, opt(MODEL, None, "Play back with other weights than those that inverted.", "--allow-other-model")
]
Device = Annotated[
    str | None, opt(MODEL, "NAME", "cpu, cuda, cuda:1, mps ...", default="the first CUDA device, else the CPU")
]
Dtype = Annotated[
    DtypeName, opt(MODEL, "NAME", "Of the network and the text encoder: float32, float64, bfloat16 or float16.")
]
Offload = Annotated[
    OffloadName,
    opt(
        MODEL,
        "NAME",
        "Keep idle parts on the CPU (with an accelerator): none, model, group or sequential, from fast to small.",
    ),
]
VaeTiling = Annotated[bool, opt(MODEL, None, "Decode large pictures in tiles.", "--vae-tiling")]
Quantize = Annotated[
    QuantizeName | None,
    opt(
        MODEL,
        "NAME",
        "Of the denoiser's weights, by the package of that name: bitsandbytes_4bit, bitsandbytes_8bit, torchao_int8, "
        "torchao_float8, quanto_int8 or quanto_float8.",
        default="none",
    ),
]
FreeTextEncoders = Annotated[
    bool,
    opt(
        MODEL,
        None,
        "Keep text encoders in memory only while a prompt is read; a new one has them read from the disk again.",
        "--free-text-encoders",
    ),
]
Config = Annotated[
    str | None,
    opt(
        MODEL,
        "NAME",
        "For a single file: folder or hub id of the pipeline whose configs, and parts that the file lacks, are taken.",
        default="diffusers' own choice, from the local cache",
    ),
]


@dataclass(frozen=True)
class Placement:
    """Where and how a model is loaded."""

    device: Device = None
    dtype: Dtype = "float32"
    offload: Offload = "none"
    vae_tiling: VaeTiling = False
    quantize: Quantize = None
    free_text_encoders: FreeTextEncoders = False
    config: Config = None


# ---------------------------------------------------------------- inversion


@dataclass(frozen=True)
class PromptOptions:
    """What pictures show that are to be inverted."""

    prompt: Annotated[str | None, opt(INVERSION, "TEXT", "What the pictures show.", default=OWN_PROMPT)] = None
    negative_prompt: Annotated[str | None, opt(INVERSION, "TEXT", AWAY, default="empty")] = None


@dataclass(frozen=True)
class LabelOptions:
    """The same of a model that draws classes."""

    class_labels: Annotated[
        str | None,
        opt(
            INVERSION,
            "N[,N...]",
            "For a model that draws classes: one for all pictures, or one each, in their order.",
            default=False,
        ),
    ] = None
    negative_class_labels: Annotated[
        str | None,
        opt(
            INVERSION,
            "N[,N...]",
            "The class that guidance leads away from: the one that stands for none.",
            default=False,
        ),
    ] = None


@dataclass(frozen=True)
class WalkOptions:
    """How pictures are inverted."""

    method: Annotated[str, opt(INVERSION, "NAME", "'unsample methods' lists them.")] = "ddim"
    set: Annotated[list[str] | None, opt(INVERSION, "KEY=VALUE", SET_HELP, default="the method's own")] = None
    steps: Annotated[int, opt(INVERSION, "N", STEPS_HELP, *STEPS)] = 50
    guidance_scale: Annotated[
        float | None, opt(INVERSION, "W", "Guidance while inverting.", default="the method's own, else 1")
    ] = None
    sampling_guidance_scale: Annotated[
        float | None,
        opt(
            INVERSION,
            "W",
            "Guidance of the reconstruction, and what a method optimises for.",
            default="the method's own, else --guidance-scale",
        ),
    ] = None
    guidance_schedule: Annotated[ScheduleName, opt(INVERSION, "NAME", f"Of sampling. {SCHEDULE_HELP}")] = "constant"
    strength: Annotated[
        float | None,
        opt(
            INVERSION,
            "S",
            "In (0, 1]; below 1 the inversion stops part of the way.",
            default="the method's own, else 1",
        ),
    ] = None
    seed: Annotated[int, opt(INVERSION, "N", "For methods that draw noise.")] = 0
    fit: Annotated[
        FitName,
        opt(INVERSION, "NAME", "aspect keeps the aspect ratio at the model's pixel count; crop or pad makes a square."),
    ] = "aspect"
    clip: Annotated[
        ClipName,
        opt(
            INVERSION,
            "NAME",
            "off, or config: clamp the predicted picture as the model's config says (not invertible).",
        ),
    ] = "off"


Trajectory = Annotated[
    str | None,
    opt(
        INVERSION,
        "FILE",
        "What 'unsample sample --keep-trajectory' wrote of this picture, for methods that need it (oracle).",
    ),
]
FirstStepRadius = Annotated[
    bool,
    opt(
        INVERSION,
        None,
        "Ask whether the first step contracts where it led, for 9 evaluations a picture.",
        "--first-step-radius",
    ),
]
SourcePrompt = Annotated[
    str | None, opt(INVERSION, "TEXT", "What the picture shows.", default=f"the recorded one, or {OWN_PROMPT}")
]
SourceClassLabels = Annotated[
    str | None,
    opt(INVERSION, "N", "What the picture shows, for a model that draws classes.", default="the recorded one"),
]

# ---------------------------------------------------------------- playing back


@dataclass(frozen=True)
class EditOptions:
    """What an edit shall show."""

    target_prompt: Annotated[
        list[str] | None,
        opt(EDIT, "TEXT", "What the edit shall show; may be repeated, for an edit each.", default=False),
    ] = None
    prompt: Annotated[
        list[str] | None, opt(EDIT, "TEXT", "The same as --target-prompt, as diffusers calls it.", default=False)
    ] = None
    class_labels: Annotated[
        str | None, opt(EDIT, "N", "What the edit shall show, for a model that draws classes.", default=False)
    ] = None
    editor: Annotated[
        str,
        opt(EDIT, "NAME", "What the edit takes of its source: 'unsample editors' lists them; auto: by the prompts."),
    ] = "none"
    editor_set: Annotated[list[str] | None, opt(EDIT, "KEY=VALUE", EDITOR_SET_HELP, default="the editor's own")] = None
    guidance_scale: Annotated[
        str | None,
        opt(
            EDIT,
            "W[,W...]",
            "Guidance of the edit; several make one labelled sheet.",
            default="the editor's own, else the method's own for edits, else 5",
        ),
    ] = None
    guidance_schedule: Annotated[
        ScheduleName | None, opt(EDIT, "NAME", SCHEDULE_HELP, default="the recorded one, else constant")
    ] = None
    negative_prompt: Annotated[
        str | None,
        opt(EDIT, "TEXT", "What guidance leads away from, in both directions.", default="the recorded one, else empty"),
    ] = None
    negative_class_labels: Annotated[
        str | None,
        opt(
            EDIT,
            "N",
            "The class that guidance leads away from, in both directions: the one that stands for none.",
            default="the recorded one",
        ),
    ] = None


@dataclass(frozen=True)
class MaskOptions:
    """Where an edit may change the picture."""

    mask: Annotated[
        str | None,
        opt(
            EDIT,
            "FILE|NAME",
            "Where the picture may change, elsewhere it is its reconstruction: a picture, white where it is edited; "
            "auto, where the two prompts disagree (auto:0.7 noises the picture further for it than 0.5); attention, of "
            "the words that change; of others, attention:'large red circle'; thing, of the phrase of what changes, on "
            "the way, for moves too. A found one is written as STEM-mask.png.",
            default="none",
        ),
    ] = None
    mask_feather: Annotated[
        float,
        opt(EDIT, "PIXELS", "Standard deviation of the mask's soft edge, in pixels as the model sees them."),
    ] = 0.0
    mask_dilate: Annotated[
        int,
        opt(
            EDIT,
            "N",
            "Cells of the latents by which the mask grows first; with 0 the old picture often shines through.",
        ),
    ] = 1
    paste: Annotated[
        bool, opt(EDIT, None, "Put the picture's own pixels outside the mask, with a soft edge.", "--paste")
    ] = False


@dataclass(frozen=True)
class PlayOptions:
    """How an inversion is reconstructed."""

    use: Annotated[
        UseName,
        opt(
            PLAYBACK,
            "NAME",
            "record plays back all that the method stored; noise samples from the recovered noise alone.",
        ),
    ] = "record"
    guidance_scale: Annotated[
        float | None, opt(PLAYBACK, "W", "Guidance while sampling.", default="the recorded sampling guidance")
    ] = None
    guidance_schedule: Annotated[
        ScheduleName | None, opt(PLAYBACK, "NAME", SCHEDULE_HELP, default="the recorded one")
    ] = None


# ---------------------------------------------------------------- measuring

WeightsDir = Annotated[
    str | None,
    opt(MEASURING, "DIR", "Looked into first for weights of metrics.", default="$UNSAMPLE_WEIGHTS, then the caches"),
]

# ---------------------------------------------------------------- input and output

Pictures = Annotated[
    list[str],
    argument(
        "IMAGE",
        "PNG, JPEG, WEBP, BMP, TIFF, GIF, AVIF or JPEG 2000 files; or a collection: a folder, a .csv, .tsv or .jsonl "
        "list, .parquet, .tar, or a data set such as scenes:200.",
    ),
]
Inversions = Annotated[
    list[str], argument("INVERSION", "What 'unsample invert' wrote: .safetensors files, or the folder of a collection.")
]
EditInput = Annotated[
    str,
    argument("IMAGE_OR_INVERSION", "A picture, or what 'unsample invert' wrote; or a collection, as invert takes it."),
]
Grid = Annotated[
    bool,
    opt(
        OUTPUT,
        None,
        "Write a figure too, STEM-grid.png: source, reconstruction, mask, edit, difference, and maps of the changed "
        "words where attention was used; a row a target prompt.",
        "--grid",
    ),
]
EditOutput = Annotated[
    str,
    opt(
        OUTPUT,
        "PNG",
        "The edit at the model's size, several as STEM-2.png ...; STEM-source-size.png has it at the source's, "
        "where the two differ.",
        *OUT,
    ),
]
BatchSize = Annotated[
    str,
    opt(
        OUTPUT,
        "N|auto",
        "Pictures of one size that go through the model together; auto begins at 8 and halves when memory is short.",
    ),
]
CollectionBatch = Annotated[
    str,
    opt(RUNNING, "N|auto", "Pictures of a collection at once; auto begins at 8 and halves when memory is short."),
]
Quick = Annotated[bool, opt(METHODS, None, "Each method's quick preset, for a look.", "--quick")]
DryRun = Annotated[bool, opt(RUNNING, None, "Say what would be run, and end.", "--dry-run")]
Engine = Annotated[EngineName, opt(RUNNING, "NAME", "local, or ray (pip install 'unsample\\[ray]').")]
RayAddress = Annotated[str | None, opt(RUNNING, "HOST:PORT", "Of a Ray cluster.", default="one of its own")]
Folder = Annotated[str, opt(OUTPUT, "DIR", "Folder to write to; it is made when missing.", *OUT)]
Force = Annotated[bool, opt(OUTPUT, None, "Go on although the model does not know such pictures or words.", "--force")]
Overwrite = Annotated[bool, opt(OUTPUT, None, "Replace files that exist.", "--overwrite")]
RawCsv = Annotated[bool, opt(OUTPUT, None, "In CSV, no apostrophe before what a spreadsheet would run.", "--raw-csv")]
Json = Annotated[bool, opt(OUTPUT, None, "Print one JSON document to stdout; all else goes to stderr.", "--json")]
Debug = Annotated[bool, opt(OUTPUT, None, "Show tracebacks and every library's warnings.", "--debug")]


@dataclass(frozen=True)
class EndOptions:
    """How a verb ends; `debug` is read where errors are told."""

    force: Force = False
    overwrite: Overwrite = False
    json: Json = False
    debug: Debug = False
