"""`unsample doctor`: is this installation fit to work, what does it run on, and is a model served as it should be?"""

from __future__ import annotations

import json as json_module
import os
import platform
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer

from unsample import __version__
from unsample.cli import checkup, options, talk
from unsample.cli.checkup import Checked
from unsample.cli.flat import command
from unsample.cli.methods import table
from unsample.cli.options import Placement
from unsample.errors import WeightsMissing, first_line

PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "safetensors",
    "torchmetrics",
    "numpy",
    "pillow",
    "typer",
)
OLDEST_TORCH = (2, 10)  # CVE-2026-24747 is fixed there


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    command(app, doctor, "unsample doctor", "unsample doctor --model ./sdxl --size 512 --steps 10")


def doctor(*, checked: Checked, place: Placement, json: options.Json = False, debug: options.Debug = False) -> int:
    """Check versions, devices and the bundled models' files; or, with --model, one model.

    Ends with 0 when all is well, 3 when a bundled model's files are missing or
    changed, 1 for any other problem. With --model: 0 when its own pipeline and
    we make the same latents from one noise, 5 when we do not.
    """
    if checked.model is not None:
        return checkup.run(checked, place, json)
    checkup.refuse_alone(checked, place)
    bundled, wrong_files = models()
    found = {"version": __version__, "python": platform.python_version(), "packages": packages()}
    machine, problems = hardware()
    problems += torchvision()
    report = found | machine | {"hub_offline": offline(), "models": bundled, "problems": [*wrong_files, *problems]}
    if json:
        talk.document(report | {"ok": not report["problems"]})
    else:
        _print(report)
    return 3 if wrong_files else 1 if problems else 0


def packages() -> dict[str, str | None]:
    """Versions, None for what is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def hardware() -> tuple[dict[str, Any], list[str]]:
    """Devices and threads, as torch sees them, and whether torch is recent enough."""
    try:
        import torch
    except Exception as error:  # a broken installation can raise anything
        return {"devices": [], "threads": None}, [f"torch cannot be imported ({error}); reinstall it"]
    problems = []
    numbers = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if numbers < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        problems.append(f"torch {torch.__version__} is older than {oldest}, which fixes CVE-2026-24747; upgrade it")
    cuda = [f"cuda:{k} ({torch.cuda.get_device_name(k)})" for k in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return {"devices": ["cpu", *cuda, *mps], "threads": torch.get_num_threads()}, problems


def torchvision() -> list[str]:
    """torchvision is not needed, but one that does not fit torch breaks what imports it."""
    problems = []
    if find_spec("torchvision"):
        try:
            import torchvision  # noqa: F401
        except Exception as error:
            reason = first_line(error, type(error).__name__)
            problems.append(
                f"torchvision is installed but broken ({reason}); uninstall it, or install one for this torch"
            )
    if not find_spec("torchmetrics"):
        problems.append("torchmetrics is not installed; LPIPS, whose linear heads it brings, will be missing")
    return problems


def offline() -> bool:
    """Whether the hub may not be asked."""
    return any(
        os.environ.get(n, "").upper() in ("1", "ON", "YES", "TRUE") for n in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def models() -> tuple[dict[str, str], list[str]]:
    """Each bundled model: "verified", or what is wrong with its files."""
    from unsample.models.loading import BUNDLED, BUNDLED_FOLDER, MIXTURE, check_manifest
    from unsample.preflight.known import known_model

    states: dict[str, str] = {}
    for name in dict.fromkeys([*BUNDLED, *listed(BUNDLED_FOLDER / "manifest.json")]):
        try:
            if name in BUNDLED:
                known_model(name)
            if name != MIXTURE:
                check_manifest(BUNDLED_FOLDER / name)
            states[name] = "nothing to verify" if name == MIXTURE else "verified"
        except WeightsMissing as error:
            states[name] = str(error)
        except (OSError, ValueError) as error:
            states[name] = (
                f"its manifest cannot be read ({first_line(error, type(error).__name__)}); reinstall unsample"
            )
    wrong = [f"{name}: {state}" for name, state in states.items() if state not in ("verified", "nothing to verify")]
    return states, wrong


def listed(manifest: Path) -> list[str]:
    """The folders that a manifest speaks of: judges too, which --model does not take."""
    try:
        return [name.partition("/")[0] for name in json_module.loads(manifest.read_text())]
    except (OSError, ValueError):
        return []


def _print(report: dict[str, Any]) -> None:
    """The report, for reading."""
    lines = [
        ("unsample", report["version"]),
        ("python", report["python"]),
        *((name, found or "not installed") for name, found in report["packages"].items()),
        ("devices", ", ".join(report["devices"]) or "unknown"),
        ("threads", str(report["threads"])),
        (
            "hub",
            "offline (nothing is fetched)" if report["hub_offline"] else "asked only for a hub id that is not cached",
        ),
        *(
            (name, state if state in ("verified", "nothing to verify") else "problem, see below")
            for name, state in report["models"].items()
        ),
    ]
    talk.answer(table(lines))
    talk.answer("\nall is well" if not report["problems"] else "")
    for problem in report["problems"]:
        talk.answer(f"problem: {problem}")
