"""The options, each declared once: name, help, panel. Defaults stand in the verbs' signatures and so in their help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from typer import Argument, Option

MODEL, EDIT, INVERSION, PLAYBACK, OUTPUT = "Model", "Edit", "Inversion", "Playback", "Output"
MEASURING, METHODS = "Measuring", "Methods"

FitName = Literal["aspect", "crop", "pad"]
DtypeName = Literal["float32", "float64", "bfloat16", "float16"]
OffloadName = Literal["none", "model", "sequential"]
ClipName = Literal["off", "config"]
UseName = Literal["record", "noise"]
ScheduleName = Literal["constant", "linear", "cosine"]


def examples(*commands: str) -> str:
    """The end of a help page: commands to copy."""
    return "\n".join(["[bold]Examples[/bold]", *(f"  {c}".replace("[", "\\[") for c in commands)])


# ---------------------------------------------------------------- model

ModelName = Annotated[
    str | None,
    Option(
        "--model",
        "-m",
        metavar="NAME",
        help="A bundled name ('unsample models' lists them), a diffusers folder, or a hub id owner/name.",
        rich_help_panel=MODEL,
        show_default="the one the picture's own metadata names, else scenes-sd",
    ),
]
RecordedModel = Annotated[
    str | None,
    Option(
        "--model",
        "-m",
        metavar="NAME",
        help="A bundled name ('unsample models' lists them), a diffusers folder, or a hub id owner/name.",
        rich_help_panel=MODEL,
        show_default="the one recorded in the inversion",
    ),
]
EitherModel = Annotated[
    str | None,
    Option(
        "--model",
        "-m",
        metavar="NAME",
        help="A bundled name ('unsample models' lists them), a diffusers folder, or a hub id owner/name.",
        rich_help_panel=MODEL,
        show_default="the one that the inversion or the picture's own metadata names, else scenes-sd",
    ),
]
OwnModel = Annotated[
    str,
    Option(
        "--model",
        "-m",
        metavar="NAME",
        help="A bundled name ('unsample models' lists them), a diffusers folder, or a hub id owner/name.",
        rich_help_panel=MODEL,
    ),
]
AllowOther = Annotated[
    bool,
    Option("--allow-other-model", help="Play back with other weights than those that inverted.", rich_help_panel=MODEL),
]
Device = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="cpu, cuda, cuda:1, mps ...",
        rich_help_panel=MODEL,
        show_default="the first CUDA device, else the CPU",
    ),
]
Dtype = Annotated[
    DtypeName,
    Option(
        metavar="NAME",
        help="Of the network and the text encoder: float32, float64, bfloat16 or float16.",
        rich_help_panel=MODEL,
    ),
]
Offload = Annotated[
    OffloadName,
    Option(
        metavar="NAME",
        help="Keep idle parts on the CPU (with an accelerator): none, model or sequential.",
        rich_help_panel=MODEL,
    ),
]
VaeTiling = Annotated[bool, Option("--vae-tiling", help="Decode large pictures in tiles.", rich_help_panel=MODEL)]


@dataclass(frozen=True)
class Placement:
    """Where and how a model is loaded."""

    device: str | None = None
    dtype: str = "float32"
    offload: str = "none"
    vae_tiling: bool = False


# ---------------------------------------------------------------- inversion

Prompt = Annotated[
    str | None,
    Option(
        metavar="TEXT",
        help="What the pictures show.",
        rich_help_panel=INVERSION,
        show_default="the one in the picture's own metadata, if any",
    ),
]
NegativePrompt = Annotated[
    str | None,
    Option(metavar="TEXT", help="What guidance leads away from.", rich_help_panel=INVERSION, show_default="empty"),
]
ClassLabels = Annotated[
    str | None,
    Option(
        "--class-labels",
        metavar="N[,N...]",
        help="For a model that draws classes: one for all pictures, or one each, in their order.",
        rich_help_panel=INVERSION,
        show_default=False,
    ),
]
NegativeClassLabels = Annotated[
    str | None,
    Option(
        "--negative-class-labels",
        metavar="N[,N...]",
        help="The class that guidance leads away from: the one that stands for none.",
        rich_help_panel=INVERSION,
        show_default=False,
    ),
]
MethodName = Annotated[str, Option(metavar="NAME", help="'unsample methods' lists them.", rich_help_panel=INVERSION)]
Settings = Annotated[
    list[str] | None,
    Option(
        "--set",
        metavar="KEY=VALUE",
        help="A setting of the method; may be repeated. 'unsample methods NAME' lists them.",
        rich_help_panel=INVERSION,
        show_default="the method's own",
    ),
]
STEPS = ("--num-inference-steps", "--steps")  # diffusers' name, and ours for short
Steps = Annotated[
    int, Option(*STEPS, metavar="N", help="From 1 to what the model was trained with.", rich_help_panel=INVERSION)
]
Guidance = Annotated[
    float | None,
    Option(
        metavar="W",
        help="Guidance while inverting.",
        rich_help_panel=INVERSION,
        show_default="the method's own, else 1",
    ),
]
SamplingGuidance = Annotated[
    float | None,
    Option(
        metavar="W",
        help="Guidance of the reconstruction, and what a method optimises for.",
        rich_help_panel=INVERSION,
        show_default="the method's own, else --guidance-scale",
    ),
]
Strength = Annotated[
    float | None,
    Option(
        metavar="S",
        help="In (0, 1]; below 1 the inversion stops part of the way.",
        rich_help_panel=INVERSION,
        show_default="the method's own, else 1",
    ),
]
SCHEDULE_HELP = "How guidance runs from the noisiest step to the last: constant, or linear or cosine down to 1."
GuidanceSchedule = Annotated[
    ScheduleName, Option(metavar="NAME", help=f"Of sampling. {SCHEDULE_HELP}", rich_help_panel=INVERSION)
]
Trajectory = Annotated[
    str | None,
    Option(
        metavar="FILE",
        help="What 'unsample sample --keep-trajectory' wrote of this picture, for methods that need it (oracle).",
        rich_help_panel=INVERSION,
    ),
]
Seed = Annotated[int, Option(metavar="N", help="For methods that draw noise.", rich_help_panel=INVERSION)]
Fit = Annotated[
    FitName,
    Option(
        metavar="NAME",
        help="aspect keeps the aspect ratio at the model's pixel count; crop or pad makes a square.",
        rich_help_panel=INVERSION,
    ),
]
Clip = Annotated[
    ClipName,
    Option(
        metavar="NAME",
        help="off, or config: clamp the predicted picture as the model's config says (not invertible).",
        rich_help_panel=INVERSION,
    ),
]


SourcePrompt = Annotated[
    str | None,
    Option(
        metavar="TEXT",
        help="What the picture shows.",
        rich_help_panel=INVERSION,
        show_default="the recorded one, or the one in the picture's own metadata, if any",
    ),
]

# ---------------------------------------------------------------- playing back

TargetPrompts = Annotated[
    list[str] | None,
    Option(
        "--target-prompt",
        metavar="TEXT",
        help="What the edit shall show; may be repeated, for an edit each.",
        rich_help_panel=EDIT,
        show_default=False,
    ),
]
TargetAlias = Annotated[
    list[str] | None,
    Option(
        "--prompt",
        metavar="TEXT",
        help="The same as --target-prompt, as diffusers calls it.",
        rich_help_panel=EDIT,
        show_default=False,
    ),
]
TargetClassLabels = Annotated[
    str | None,
    Option(
        "--class-labels",
        metavar="N",
        help="What the edit shall show, for a model that draws classes.",
        rich_help_panel=EDIT,
        show_default=False,
    ),
]
SourceClassLabels = Annotated[
    str | None,
    Option(
        "--source-class-labels",
        metavar="N",
        help="What the picture shows, for a model that draws classes.",
        rich_help_panel=INVERSION,
        show_default="the recorded one",
    ),
]
EditNegativeClassLabels = Annotated[
    str | None,
    Option(
        "--negative-class-labels",
        metavar="N",
        help="The class that guidance leads away from, in both directions: the one that stands for none.",
        rich_help_panel=EDIT,
        show_default="the recorded one",
    ),
]
EditNegativePrompt = Annotated[
    str | None,
    Option(
        "--negative-prompt",
        metavar="TEXT",
        help="What guidance leads away from, in both directions.",
        rich_help_panel=EDIT,
        show_default="the recorded one, else empty",
    ),
]
Scales = Annotated[
    str | None,
    Option(
        "--guidance-scale",
        metavar="W[,W...]",
        help="Guidance of the edit; several make one labelled sheet.",
        rich_help_panel=EDIT,
        show_default="the method's own for edits, else 5",
    ),
]
EditSchedule = Annotated[
    ScheduleName | None,
    Option(
        "--guidance-schedule",
        metavar="NAME",
        help=SCHEDULE_HELP,
        rich_help_panel=EDIT,
        show_default="the recorded one, else constant",
    ),
]
Use = Annotated[
    UseName,
    Option(
        metavar="NAME",
        help="record plays back all that the method stored; noise samples from the recovered noise alone.",
        rich_help_panel=PLAYBACK,
    ),
]
RecordedGuidance = Annotated[
    float | None,
    Option(
        metavar="W",
        help="Guidance while sampling.",
        rich_help_panel=PLAYBACK,
        show_default="the recorded sampling guidance",
    ),
]

RecordedSchedule = Annotated[
    ScheduleName | None,
    Option(
        "--guidance-schedule",
        metavar="NAME",
        help=SCHEDULE_HELP,
        rich_help_panel=PLAYBACK,
        show_default="the recorded one",
    ),
]

# ---------------------------------------------------------------- measuring

WeightsDir = Annotated[
    str | None,
    Option(
        metavar="DIR",
        help="Looked into first for weights of metrics.",
        rich_help_panel=MEASURING,
        show_default="$UNSAMPLE_WEIGHTS, then the caches",
    ),
]

# ---------------------------------------------------------------- input and output

Pictures = Annotated[
    list[str],
    Argument(metavar="IMAGE", help="PNG, JPEG, WEBP, BMP, TIFF, GIF, AVIF or JPEG 2000 files.", show_default=False),
]
Inversions = Annotated[
    list[str],
    Argument(metavar="INVERSION", help=".safetensors files that 'unsample invert' wrote.", show_default=False),
]
EditInput = Annotated[
    str, Argument(metavar="IMAGE_OR_INVERSION", help="A picture, or what 'unsample invert' wrote.", show_default=False)
]
Grid = Annotated[
    bool,
    Option(
        "--grid",
        help="Write a figure too, STEM-grid.png: source, reconstruction, edit, difference; a row a target prompt.",
        rich_help_panel=OUTPUT,
    ),
]
EditOutput = Annotated[
    str,
    Option(
        "--output",
        "-o",
        metavar="PNG",
        help="The edit at the model's size, several as STEM-2.png ...; STEM-source-size.png has it at the source's, "
        "where the two differ.",
        rich_help_panel=OUTPUT,
    ),
]
BatchSize = Annotated[
    int, Option(metavar="N", help="Pictures of one size that go through the model together.", rich_help_panel=OUTPUT)
]
Folder = Annotated[
    str,
    Option(
        "--output", "-o", metavar="DIR", help="Folder to write to; it is made when missing.", rich_help_panel=OUTPUT
    ),
]
Force = Annotated[
    bool,
    Option("--force", help="Go on although the model does not know such pictures or words.", rich_help_panel=OUTPUT),
]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace files that exist.", rich_help_panel=OUTPUT)]
RawCsv = Annotated[
    bool,
    Option("--raw-csv", help="In CSV, no apostrophe before what a spreadsheet would run.", rich_help_panel=OUTPUT),
]
Json = Annotated[
    bool, Option("--json", help="Print one JSON document to stdout; all else goes to stderr.", rich_help_panel=OUTPUT)
]
Debug = Annotated[bool, Option("--debug", help="Show tracebacks and every library's warnings.", rich_help_panel=OUTPUT)]
