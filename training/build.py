"""`make models`: train every part in order, resumably, then write the model cards and the manifest.

Parts that have reached their number of steps, in a checkpoint or in the committed weights, are passed over.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from training.run import BUNDLED
from unsample.media.files import atomic_write

PARTS = (["clip"], ["vae", "all"], ["vae", "decoder"], ["sd"], ["ddpm"], ["flow"])


def write_manifest() -> None:
    """SHA-256 of every bundled file that is loaded, once the folder that it was made in is taken out of it."""
    for path in BUNDLED.rglob("config.json"):
        config = json.loads(path.read_text())
        if config.pop("_name_or_path", None) is not None:
            _write(path, json.dumps(config, indent=2))
    files = sorted(p for p in BUNDLED.rglob("*") if p.is_file() and p.suffix in (".safetensors", ".json"))
    listed = [p for p in files if p.name not in ("manifest.json", "evaluation.json") and "training-" not in p.name]
    digests = {p.relative_to(BUNDLED).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in listed}
    _write(BUNDLED / "manifest.json", json.dumps(digests, indent=1))


def _write(path: Path, text: str) -> None:
    atomic_write(path, lambda temporary: temporary.write_text(text + "\n"))


def main() -> None:
    for module, *stage in PARTS:
        subprocess.run([sys.executable, "-m", f"training.{module}", *stage, *sys.argv[1:]], check=True)
    write_manifest()


if __name__ == "__main__":
    main()
