"""A job done: its commands run as the command line runs them, with the model kept; what they wrote made into panels."""

from __future__ import annotations

import gc
import io
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.cli import session, talk
from unsample.cli.main import explain, run
from unsample.cli.options import Placement
from unsample.errors import UnsampleError
from unsample.media.files import atomic_write
from unsample.models.listening import Listener, listened
from unsample.preflight.known import KnownModel
from unsample.web.commands import Command
from unsample.web.jobs import Job, Jobs
from unsample.web.panels import panels, relative
from unsample.web.words import told
from unsample.wording import COMMAND_LINE, worded

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.models.base import Model
    from unsample.numbers.prediction import Prediction

PREVIEW = 256  # longest side of the picture of x0 as it forms
OFTEN = 0.2  # seconds between two of them, at least
SHARE = 8  # between two of them goes this many times what one took
STAGES = {"invert": "inverting", "reconstruct": "reconstructing", "edit": "editing", "sample": "drawing"}
log = logging.getLogger(__name__)


class Shelf:
    """The model that was used last, which stays loaded until another one is asked for."""

    def __init__(self) -> None:
        self._key: tuple[str, Placement] | None = None
        self._model: Model | None = None
        self._lock = threading.Lock()

    def take(self, known: KnownModel, where: Placement, loading: Callable[[], None]) -> Model:
        """A model; the one before it is given up first, so that two never stand in memory. `loading` is told of one."""
        with self._lock:
            key = (known.name, where)
            if self._model is None or self._key != key:
                loading()
                self._model = None
                gc.collect()
                self._model, self._key = session.load_now(known, where), key
            return self._model


class Sound(Exception):
    """A verb came as far as its model: nothing that can be told without one speaks against it."""


def _sound(known: KnownModel, where: Placement) -> Model:
    raise Sound


def check(commands: Sequence[Command], folder: Path) -> None:
    """Whether the commands can be done, as far as it can be told without a model.

    Raises:
        UnsampleError, TyperException: what they would end with.
    """
    for command in commands:
        try:
            with worded(COMMAND_LINE), talk.hearing(), session.loaded_by(_sound):
                run(command.argv(folder))
        except Sound:
            continue


def explained(error: BaseException, job: Job) -> tuple[int, str]:
    """The exit code and the sentence for an exception, in the words of the page."""
    code, message = explain(error)
    if code == 1 and not isinstance(error, UnsampleError):
        log.error("job %s failed unexpectedly", job.id, exc_info=error)
        message = f"unexpected {type(error).__name__}; the terminal of the server has the details"
    return code, told(message, job.commands[-1].verb, job.folder)


class Seeing(Listener):
    """Tells a job's page how far it is and shows x0 as it forms; ends it at a call of the network."""

    def __init__(self, job: Job, jobs: Jobs, shows: bool) -> None:
        self._job, self._jobs, self._shows, self._next = job, jobs, shows, 0.0

    def at(self, stage: str, done: int = 0, of: int = 0) -> None:
        """What is done now, and how far it is."""
        self._job.stage, self._job.step = stage, (done, of)
        self._jobs.changed(self._job)

    def asking(self) -> None:
        self._job.stop_here()

    def stepped(self, what: str, done: int, of: int) -> None:
        verb, _, part = what.partition(": ")
        self.at(part or STAGES.get(verb, verb), done, of)

    def predicted(self, model: Any, prediction: Prediction) -> None:
        begin = time.perf_counter()
        if not self._shows or begin < self._next:
            return
        self._job.preview, self._job.previews = _seen(model, prediction.x0), self._job.previews + 1
        self._jobs.changed(self._job)
        now = time.perf_counter()
        self._next = now + max(OFTEN, SHARE * (now - begin))


def _seen(model: Any, x0: Tensor) -> bytes:
    """The first picture of a prediction, as a small PNG."""
    import torch
    from PIL import Image

    with torch.no_grad():
        picture = model.decode(x0[:1].detach())[0].float().nan_to_num().clamp(0, 1)
    image = Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).cpu().numpy())
    image.thumbnail((PREVIEW, PREVIEW))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


class Work:
    """What does jobs, one after the other.

    Args:
        shows: whether x0 is shown as it forms; not where every decoding would move the model.
    """

    def __init__(self, shows: bool = True) -> None:
        self.shelf, self._shows = Shelf(), shows
        self.jobs: Jobs | None = None

    def __call__(self, job: Job) -> None:
        """Run the commands of a job and lay out what they wrote."""
        assert self.jobs is not None
        notes: list[dict[str, str]] = []
        documents: list[dict[str, Any]] = []
        listener = Seeing(job, self.jobs, self._shows)
        try:
            for command in job.commands:
                job.stop_here()
                listener.at("getting ready")
                with _as_a_verb(self.shelf, listener) as heard:
                    run(command.argv(job.folder))
                notes += [{"tag": tag, "text": told(text, command.verb, job.folder)} for tag, text in heard.lines]
                documents += heard.documents
                if failed := next((d["error"] for d in heard.documents if "error" in d), None):
                    message = told(failed["message"], command.verb, job.folder)
                    job.error = {"code": failed["code"], "message": message}
                    return
        finally:
            _lay_out(job, documents, notes)


@contextmanager
def _as_a_verb(shelf: Shelf, listener: Seeing) -> Iterator[talk.Heard]:
    """All that stands around a verb: its wording, its warnings, its models, and who listens."""

    def take(known: KnownModel, where: Placement) -> Model:
        return shelf.take(known, where, lambda: listener.at(f"loading {known.name}"))

    own = session.loaded_by(take)
    with worded(COMMAND_LINE), talk.hearing() as heard, talk.listening(), own, listened(listener):
        yield heard


def _lay_out(job: Job, documents: Sequence[dict[str, Any]], notes: list[dict[str, str]]) -> None:
    """Fill the job with what was written so far."""
    rows = [row for document in documents for row in document.get("images", ())]
    job.files, job.result = panels(job.asked, job.commands, job.folder, rows)
    job.result |= {"notes": notes, "rows": relative(rows, job.folder)}
    shown = {"shell": [c.shell() for c in job.commands], "asked": job.asked.model_dump(), **job.result}
    text = json.dumps(shown, indent=2, allow_nan=False)
    atomic_write(job.folder / "result.json", lambda temporary: temporary.write_text(text, encoding="utf-8"))
    job.files["json"] = job.folder / "result.json"
