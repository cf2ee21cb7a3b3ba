"""Run the README's own commands and Python, in an empty folder, as a reader would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, except those that set up the repository or need other weights."""
    found = re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    return [b for b in found if "make " not in b and "# needs" not in b]


def main() -> None:
    environment = os.environ | {"PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        for block in blocks("bash"):
            print(block, flush=True)
            subprocess.run(["bash", "-euo", "pipefail", "-c", block], cwd=folder, env=environment, check=True)
        for block in blocks("python"):
            print(block, flush=True)
            subprocess.run([sys.executable, "-c", block], cwd=folder, env=environment, check=True)


if __name__ == "__main__":
    main()
