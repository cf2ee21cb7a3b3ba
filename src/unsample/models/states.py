"""States of a model's training: its network's weights after so many steps, for what is asked of training itself.

Those of scenes-ddpm lie in `training/ddpm-history` of the source tree (no part of the wheel) or in `$UNSAMPLE_STATES`;
those of a diffusers folder in its `states/`. Each is a file `step-N.safetensors`, the state dict of the network.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from unsample.models.variants import parted

WITH_STATES = "scenes-ddpm"


def states_of(name: str) -> dict[int, Path]:
    """The files by their number of steps, in order; none where none are here."""
    base, _ = parted(name)
    places = [Path(base).expanduser() / "states"]
    if base == WITH_STATES:
        asked = os.environ.get("UNSAMPLE_STATES")
        tree = Path(__file__).parents[3] / "training" / "ddpm-history"
        places = [Path(asked).expanduser()] if asked else [tree, Path("training") / "ddpm-history"]
    for place in places:
        named = ((re.fullmatch(r"step-(\d+)", path.stem), path) for path in place.glob("*.safetensors"))
        if found := {int(match[1]): path for match, path in named if match}:
            return dict(sorted(found.items()))
    return {}
