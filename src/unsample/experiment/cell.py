"""`run_cells`: model, items and setup to rows. A pure function: no file, no global state, the same bits every time."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput
from unsample.experiment.findings import Findings
from unsample.experiment.making import make
from unsample.experiment.scoring import score
from unsample.experiment.setup import Setup
from unsample.experiment.shared import Shared, SharedModel

if TYPE_CHECKING:
    from unsample.datasets.item import Item


def run_cells(
    model: Any, items: Sequence[Item], setup: Setup, shared: Shared | None = None, *, progress: bool | None = False
) -> Findings:
    """Invert the items' pictures, reconstruct them, edit them, and measure all of it.

    Args:
        model: from `unsample.load`.
        items: of one batch; `image=None` where the model is to sample the picture from the item's `seed`.
        setup: the method, its guidance, the metrics.
        shared: what was computed for other setups, to be used and added to; results are the same to the bit without.
        progress: show bars; None: on a terminal.

    Returns:
        `Findings`; its `rows` are one a picture. A method that loses every picture, or cannot play back or edit, is
        found out there, with the reason.

    Raises:
        BadInput: no items. Incompatible, BadOption: the method cannot invert with this model or under this guidance.
    """
    if not items:
        raise BadInput("no items were given; give at least one")
    begin, owed = time.perf_counter(), shared.owed if shared else 0.0
    asked = SharedModel(model, shared) if shared else model
    found = make(asked, items, setup, shared, progress)
    found.seconds = time.perf_counter() - begin + (shared.owed - owed if shared else 0.0)
    found.values = score(found)
    if setup.probe:
        found.probed = _probed(found)
    return found


def _probed(found: Findings) -> Sequence[dict[str, Any]]:
    """What a study's probe finds, plain JSON a picture; nothing where there is no inversion."""
    from unsample.studies import get_study

    probe = get_study(found.setup.probe).probe
    assert probe is not None
    if found.inversion is None and not isinstance(found.setup.method, str):
        return [{}] * len(found.items)
    told = probe(found, found.setup.probe_settings)
    return [{} if state == "diverged" else plain(each) for state, each in zip(found.status, told, strict=True)]


def plain(value: Any) -> Any:
    """As JSON has it: plain numbers; one that is not finite is none."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
