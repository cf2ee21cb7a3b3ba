"""The small networks of `training/mini`: twelve of one kind, for claims that one network cannot carry.

They are not in the wheel: found in `$UNSAMPLE_MINI`, beside the source tree, or in the current folder, and loaded by
name (`mini-ink-linear-epsilon-0`) like the bundled models.
"""

from __future__ import annotations

import os
from pathlib import Path

PREFIX = "mini-"
COUNT = 12  # 3 seeds, 2 schedules, 2 kinds of prediction


def mini_folder() -> Path | None:
    """Where they lie; None: they are not here."""
    asked = os.environ.get("UNSAMPLE_MINI")
    beside = Path(__file__).parents[3] / "training" / "mini"
    places = [Path(asked).expanduser()] if asked else [beside, Path("training") / "mini"]
    return next((place for place in places if place.is_dir()), None)


def is_mini(model: str) -> bool:
    """Whether a name is that of one of them, here or not."""
    return model.startswith(PREFIX)


def minis() -> tuple[str, ...]:
    """The names of those that are here, in order."""
    folder = mini_folder()
    if folder is None:
        return ()
    return tuple(PREFIX + each.name for each in sorted(folder.iterdir()) if (each / "model_index.json").is_file())


def mini(name: str) -> Path | None:
    """The folder of one of them by its name; None where it is none, or not here."""
    folder = mini_folder()
    return folder / name.removeprefix(PREFIX) if folder is not None and name in minis() else None
