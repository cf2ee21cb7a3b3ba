"""Help, version, --debug, and what the start of the command costs."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.cli.conftest import Run

COMMON = ("--json", "--debug", "--help")
PLACE = ("--model", "-m", "--device", "--dtype", "--offload", "--vae-tiling")
WALK = ("--method", "--set", "--steps", "--strength", "--seed", "--fit", "--clip", "--negative-prompt")
OPTIONS = {
    "invert": (
        *PLACE,
        *WALK,
        *("--prompt", "--guidance-scale", "--sampling-guidance-scale", "--batch-size", "--overwrite", "--output", "-o"),
    ),
    "reconstruct": (*PLACE, "--use", "--guidance-scale", "--allow-other-model", "--overwrite", "--output", "-o"),
    "edit": (
        *PLACE,
        *WALK,
        *("--source-prompt", "--target-prompt", "--prompt", "--guidance-scale", "--inversion-guidance-scale", "--grid"),
        *("--allow-other-model", "--overwrite", "--output", "-o"),
    ),
    "interpolate": (*PLACE, "--num-frames", "--guidance-scale", "--allow-other-model", "--overwrite", "--output", "-o"),
    "sample": (*PLACE, "--prompt", "--num-images", "--seed", "--steps", "--guidance-scale", "--overwrite", "--output"),
    "show": (),
    "compare": (
        *PLACE,
        "--methods",
        "--prompt",
        "--set",
        "--quick",
        "--steps",
        "--guidance-scale",
        "--seed",
        "--output",
        "--target-prompt",
        "--edit-guidance-scale",
        "--pictures",
    ),
    "report": ("--raw-csv", "--output", "-o"),
    "study": (
        *("--model", "-m", "--device", "--num-samples", "--steps", "--seed", "--quick", "--only", "--workers"),
        *("--threads", "--dry-run", "--engine", "--ray-address", "--docs", "--output", "-o"),
    ),
    "measure": (
        *("--metrics", "--truth", "--mask", "--prompt", "--target-prompt", "--prompts", "--dataset"),
        "--clip-model",
        "--weights-dir",
        *("--device", "--csv", "--raw-csv", "--overwrite"),
    ),
    "metrics": ("--weights-dir",),
    "datasets": ("--num-items", "-n", "--check", "--size", "--as", "--overwrite", "--output", "-o"),
    "bench run": (
        *("--dataset", "--model", "--dtype", "--device", "--methods", "--metrics", "--guidance", "--edit", "--seed"),
        *("--inversion-guidance", "--steps", "--quick", "--engine", "--ray-address", "--workers", "--threads"),
        *("--editors", "--masks", "--edit-guidance"),
        *("--batch-size", "--shard", "--artefacts", "--output", "-o", "--dry-run"),
    ),
    "bench verify": (),
    "bench merge": ("--output", "-o"),
    "bench export": ("--csv", "--raw-csv", "--parquet", "--output", "-o"),
    "methods": (),
    "cite": (),
    "models": (),
    "doctor": (*PLACE, "--prompt", "--class-labels", "--steps", "--guidance-scale", "--size", "--seed"),
}
DEFAULTS = {
    "invert": ("ddim", "50", "float32", "aspect", "none", "off", "out", "8", "0"),
    "reconstruct": ("record", "float32", "out"),
    "edit": ("ddim", "50", "edit.png"),
    "interpolate": ("9", "out"),
    "bench run": ("local", "1", "auto", "1/1", "pictures", "run"),
    "bench merge": ("merged",),
    "measure": ("psnr,ssim", "scenes-clip", "cpu"),
    "datasets": ("8", "64"),
    "sample": ("1", "0", "50", "1.0", "scenes-sd", "out"),
}


@pytest.fixture
def help_of(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A help page on a terminal of 80 columns, without colours."""
    monkeypatch.setenv("COLUMNS", "80")

    def page(*verb: str) -> str:
        ended = run(*verb, "--help")
        assert ended.code == 0
        return re.sub(r"\x1b\[[0-9;]*m", "", ended.out)

    return page


@pytest.mark.parametrize("verb", OPTIONS)
def test_the_help_of_a_verb_shows_every_option(help_of: Callable[..., str], verb: str) -> None:
    words = set(re.split(r"[\s,]+", help_of(*verb.split())))  # two names of one option are joined by a comma
    assert {*COMMON, *OPTIONS[verb]} <= words
    assert not any("…" in word for word in words)  # cut off


def test_the_help_of_serve_shows_every_option_and_two_examples(help_of: Callable[..., str]) -> None:
    text = help_of("serve")
    words = set(re.split(r"[\s,]+", text))
    assert {*PLACE, "--host", "--port", "--token", "--allow-host", "--reports", "--output", "-o", "--debug"} <= words
    assert not any("…" in word for word in words)
    begun = [line for line in text.partition("Examples")[2].splitlines() if line.strip()]
    assert [line.split()[:2] for line in begun] == [["unsample", "serve"]] * 2


@pytest.mark.parametrize("verb", DEFAULTS)
def test_the_help_of_a_verb_shows_its_defaults(help_of: Callable[..., str], verb: str) -> None:
    text = help_of(*verb.split())
    for default in DEFAULTS[verb]:
        assert f"[default: {default}]" in text


@pytest.mark.parametrize("verb", ["", *OPTIONS])
def test_the_help_shows_two_examples_that_can_be_copied_from_80_columns(help_of: Callable[..., str], verb: str) -> None:
    examples = help_of(*verb.split()).partition("Examples")[2].split("\n")
    begun = [line.strip() for line in examples if line.strip().startswith("unsample ")]
    assert len(begun) == 2
    assert all(line.startswith(f"unsample {verb}".strip()) for line in begun)
    assert len(list(filter(str.strip, examples))) == 2  # none is wrapped


@pytest.mark.parametrize("verb", [v for v in OPTIONS if v not in ("models", "doctor")])
def test_an_example_of_the_help_is_understood(help_of: Callable[..., str], run: Run, verb: str) -> None:
    examples = help_of(*verb.split()).partition("Examples")[2].splitlines()
    for line in filter(str.strip, examples):
        words = [word.strip("'") for word in re.findall(r"'[^']*'|\S+", line)]
        short = ["--dry-run"] if verb in ("bench run", "study") else []  # those take an hour
        ended = run(*words[1:], *short)  # there are no such files here, and no such model perhaps
        assert ended.code in (0, 3, 4), ended.err


def test_the_version_is_printed(run: Run) -> None:
    from unsample import __version__

    assert run("--version") == (ended := run("--version"))
    assert (ended.code, ended.out) == (0, f"unsample {__version__}\n")


def test_without_a_verb_the_help_is_shown(run: Run) -> None:
    ended = run()
    assert ended.code == 0
    assert "Usage: unsample" in ended.out


@pytest.mark.parametrize("arguments", [("--debug", "show", "gone.png"), ("show", "gone.png", "--debug")])
def test_debug_before_or_after_the_verb_shows_the_traceback(run: Run, arguments: tuple[str, ...]) -> None:
    ended = run(*arguments)
    assert ended.code == 4
    assert "Traceback" in ended.err
    assert "Traceback" not in run("show", "gone.png").err


def test_debug_after_two_dashes_is_a_file_name(run: Run) -> None:
    ended = run("show", "--", "--debug")
    assert ended.code == 4
    assert "Traceback" not in ended.err


def _cpu(*command: str) -> float:
    """Seconds of the processor that a child process takes; the least of three."""

    def once() -> float:
        start = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], env=_environment(), check=True, capture_output=True)
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        return end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime

    return min(once() for _ in range(3))


def _environment() -> dict[str, str]:
    """This process's, with compiled files kept as Python keeps them unless it is told not to."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return own | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


YARDSTICK = (
    "import typer, typer.rich_utils, rich.markdown, asyncio, http.client, unittest.mock, sqlite3, logging.config"
)


def test_help_takes_at_most_two_and_a_half_times_what_imports_take() -> None:
    """Measured 2.0 to 2.1 (0.48 to 0.55 s). A ratio within one run: the seconds are those of a shared machine."""
    assert _cpu("-m", "unsample", "--help") < 2.5 * _cpu("-c", YARDSTICK)


def test_help_imports_no_heavy_library() -> None:
    code = """
import sys
from unsample.cli.main import main
assert main(["invert", "--help"]) == 0
heavy = {"torch", "diffusers", "transformers", "numpy", "PIL", "safetensors", "huggingface_hub"}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    child = subprocess.run([sys.executable, "-c", code], env=_environment(), check=True, capture_output=True, text=True)
    assert child.stderr.strip() == "[]"
