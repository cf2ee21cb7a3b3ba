"""Run the README's own commands and Python, in an empty folder, as a reader would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def blocks() -> list[tuple[str, str]]:
    """(language, text) of the fenced blocks in order, except those that set up the repository or need other weights."""
    found = re.findall(r"```(bash|python)\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    return [(language, text) for language, text in found if "make " not in text and "# needs" not in text]


def main() -> None:
    """All in one folder, in the order in which they are read: a block must not be in the way of a later one."""
    environment = os.environ | {"PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        for language, text in blocks():
            print(text, flush=True)
            command = [sys.executable, "-c"] if language == "python" else ["bash", "-euo", "pipefail", "-c"]
            subprocess.run([*command, text], cwd=folder, env=environment, check=True)


if __name__ == "__main__":
    main()
