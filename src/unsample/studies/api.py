"""`unsample.study`: a study from Python."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.errors import BadOption
from unsample.wording import argument

if TYPE_CHECKING:
    from unsample.bench.run import Summary
    from unsample.models.base import Model
    from unsample.studies.running import StudyResult


def study(
    name: str,
    model: str | Sequence[str] | Model | None = None,
    *,
    num_samples: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    quick: bool = False,
    output: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    device: str | None = None,
    progress: bool | None = None,
) -> StudyResult:
    """Run a study: an experiment of a paper, or one of ours, whose claims were fixed before any run.

    Args:
        name: of `unsample.studies.NAMES`; `unsample study` lists them.
        model: a bundled name, a diffusers folder or a hub id, several of them, or a model that `unsample.load` or
            `unsample.wrap` gave, which is then worked with in this process; None: those that the study takes by itself.
        num_samples: pictures of each model, at least 1; None: the study's own.
        steps: of the grid, each way; None: the study's own.
        seed: at least 0; another seed has other pictures.
        quick: every method's quick preset, for a look.
        output: a folder for rows, verdicts, figure and page, as the command writes them; what it holds already is gone
            on with. None: a temporary folder, and nothing stays.
        workers: processes; None: as many as cores where a part takes models that we bundle more than 15 seconds, else
            this process alone. Rows do not depend on it.
        device: as of `unsample.load`.
        progress: show a bar; None: on a terminal.

    Returns:
        `StudyResult`: `rows`, a list of dicts, which `pandas.DataFrame` takes as it is; `verdicts`, one a claim, with
        effect, 95 % interval, p-values and n of each model; `figure()`, by matplotlib; `about`, with versions and the
        SHA-256 of the weights.

    Raises:
        UnknownName: no such study. Incompatible: the model lacks what the study needs. BadOption: no samples, steps
            that the model does not take. WeightsMissing: no such model. BadInput: the folder cannot be used, or holds
            another run of the study.

    Example:
        >>> found = unsample.study("zeng_table1", "scenes-mixture", num_samples=4, steps=4, quick=True)
        >>> [verdict.answer for verdict in found.verdicts]
    """
    from unsample.bench.run import How
    from unsample.studies import get_study
    from unsample.studies.passes import work_of
    from unsample.studies.running import asked_of, check_study, run_study
    from unsample.studies.writing import write_study

    which, (names, loaded) = get_study(name), _models(model)
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise BadOption(f"{argument('workers')} must be at least 1; got {workers!r}")
    if loaded and (workers or 1) > 1:
        raise BadOption(
            f"a loaded model is worked with in this process; give its name, or leave {argument('workers')} out"
        )
    if loaded and device is not None:
        raise BadOption(f"a loaded model is where it is; leave {argument('device')} out")
    asked = asked_of(which, names, num_samples, steps, seed, quick)
    check_study(which, asked, None if output is None else Path(output), loaded, device)
    how = How(workers=workers or 0, artefacts="none", device=device)
    total = work_of(which, asked, loaded).cells
    place: Any = tempfile.TemporaryDirectory() if output is None else nullcontext(output)
    with place as folder, _Bar(name, total, progress) as bar:
        found = run_study(name, asked, Path(folder), how, bar.show, loaded)
        if output is not None:
            write_study(found, Path(folder))
    return found


def _models(model: object) -> tuple[list[str], Mapping[str, Any]]:
    """Names, and of a loaded model itself by its name."""
    if model is None or isinstance(model, str):
        return ([] if model is None else [model]), {}
    if isinstance(model, list | tuple):
        if not model or not all(isinstance(name, str) for name in model):
            raise BadOption(f"{argument('model')} takes a name, names, or one loaded model; got {model!r}")
        return list(model), {}
    if not hasattr(model, "network") or not hasattr(model, "id"):
        raise BadOption(
            f"{argument('model')} takes a name, names, or what unsample.load gives; got {type(model).__name__}"
        )
    return [str(model.id)], {str(model.id): model}


class _Bar:
    """Cells, on a terminal."""

    def __init__(self, name: str, total: int, shown: bool | None) -> None:
        self._name, self._total, self._shown = name, total, shown
        self._done: dict[str, int] = {}

    def __enter__(self) -> _Bar:
        from tqdm import tqdm

        self._bar = tqdm(total=self._total, desc=self._name, disable=None if self._shown is None else not self._shown)
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def show(self, run: str, summary: Summary) -> None:
        """After a batch."""
        self._done[run] = summary.done
        self._bar.n = sum(self._done.values())
        self._bar.refresh()
