"""The server: what the page asks for, as HTTP. Work is not done here; requests read, check, queue and send."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from unsample.cli.main import explain
from unsample.cli.options import Placement
from unsample.cli.talk import finite
from unsample.errors import UnsampleError
from unsample.preflight.known import KnownModel
from unsample.web.asked import Asked, checked_as, commands
from unsample.web.commands import Options, python
from unsample.web.facts import facts
from unsample.web.guard import Asgi, Guard, Hosts, Refused
from unsample.web.jobs import Job, Jobs, QueueFull
from unsample.web.keep import MOST_BYTES, SAVED, Keep, KeptFile, fresh_id
from unsample.web.reports import SANDBOX, Reports
from unsample.web.words import formed, told
from unsample.web.work import Work, check, explained

HERE = Path(__file__).parent / "page"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
PAGE = {
    name: KINDS[Path(name).suffix]
    for name in ("style.css", "script.js", "ask.js", "form.js", "mask.js", "view.js", "past.js", "elements.js")
}
BEAT = 0.1  # seconds between two looks at what has changed
QUIET = 15.0  # seconds after which a line is sent though nothing has, so that a page that went away is noticed
MOST_LISTENERS = 64
FILE_KINDS = {".png": "image/png", SAVED: "application/octet-stream", ".json": "application/json", ".csv": "text/csv"}


@dataclass(frozen=True)
class Served:
    """What a server is started with."""

    folder: Path  # of the session
    models: Mapping[str, KnownModel]
    hosts: Hosts
    token: str = ""
    reports: Path | None = None
    placed: Options | None = None  # how models are loaded


class NotPossible(UnsampleError):
    """What a verb refuses; `exit_code` is what the command would end with."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = code


class Json(Response):
    """JSON in ASCII: what files say of themselves may hold letters that UTF-8 has not."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(finite(content), allow_nan=False).encode()


def refused(status: int, message: str, **more: Any) -> Json:
    """An answer that says no, and why."""
    return Json({"error": {"message": message, **more}}, status)


class Session:
    """The state behind the routes: files, jobs, models, reports."""

    def __init__(self, served: Served) -> None:
        self.served, self.keep, self.reports = served, Keep(served.folder), Reports(served.reports)
        self.placed: Options = served.placed or {}
        self._work = work = Work(shows=self.placed.get("offload") in (None, "none"))
        self.jobs = work.jobs = Jobs(work, explained, lambda folder: shutil.rmtree(folder, ignore_errors=True))
        self.facts, self.listeners = facts(served.models), 0

    def queued(self, asked: Asked) -> Job:
        """A job that was checked, in the queue.

        Raises:
            UnsampleError: what it asks cannot be. QueueFull: too many wait. HTTPException: a file that is not there.
        """
        self.jobs.check_room()
        if asked.model not in self.served.models:
            raise HTTPException(400, f"no model {asked.model[:80]!r} here; start the server with --model to add one")
        source, mask = self._file(asked.source), self._file(asked.mask_file)
        id = fresh_id()
        folder = self.keep.job_folder(id)
        try:
            names = self._linked(folder, source, mask)
            found = commands(asked, *names, self.placed)
            try:
                check(checked_as(asked, found, names[1], self.placed), folder)
            except Exception as error:  # Typer's own too
                code, message = explain(error)
                if code == 1:
                    raise
                raise NotPossible(code, told(message, found[-1].verb, folder)) from error
            job = Job(id, asked, found, folder, _title(asked), python(found))
            self.jobs.add(job)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return job

    def _file(self, id: str | None) -> KeptFile | None:
        if id is None:
            return None
        if (file := self.keep.file(id)) is None:
            raise HTTPException(404, "that picture is not in this session any more; send it again")
        return file

    def _linked(self, folder: Path, source: KeptFile | None, mask: KeptFile | None) -> tuple[str | None, str | None]:
        """The names of a job's files in its folder."""
        name = None if source is None else source.path.name
        if source is not None and name is not None:
            self.keep.link(source, folder, name)
        drawn = None
        if mask is not None:
            drawn = f"{Path(name or 'picture').stem}-drawn-mask{mask.path.suffix}"
            self.keep.link(mask, folder, drawn)
        return name, drawn

    def adopted(self, job: Job, name: str) -> KeptFile:
        """A picture or an inversion that a job made, as one that was sent."""
        path = job.files[name]
        coming = self.keep.coming()
        shutil.copyfile(path, coming)
        return self.keep.take(coming, path.name)

    def warm(self) -> None:
        """Load the first model meanwhile, so that the first job need not wait for it."""
        threading.Thread(target=self._warmed, name="unsample-warm", daemon=True).start()

    def _warmed(self) -> None:
        known, where = next(iter(self.served.models.values())), Placement(**self.placed)
        with suppress(Exception):  # the first job tells of it
            self._work.shelf.take(known, where, lambda: None)

    def close(self) -> None:
        """End what runs."""
        self.jobs.close()


def _title(asked: Asked) -> str:
    """A job in a line."""
    if asked.kind == "sample":
        return f"drawn: {asked.prompt or 'a picture'}"
    if asked.kind == "compare":
        return f"compared: {', '.join(asked.methods)}"
    what = asked.target_prompt or asked.prompt or "a picture"
    by = asked.method if asked.editor == "none" or not asked.edits else f"{asked.method}, {asked.editor}"
    return f"{'edited' if asked.edits else 'inverted'}: {what} ({by})"


def guarded(session: Session) -> Asgi:
    """The application behind its guard."""
    served = session.served
    return Guard(application(session), served.hosts, served.token, {"/api/files": MOST_BYTES})  # type: ignore[arg-type]


def application(session: Session) -> FastAPI:
    """The routes. Nothing that a client names is a path: all is looked up."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, default_response_class=Json)
    jobs, keep = session.jobs, session.keep

    @app.exception_handler(Refused)
    async def _refused(request: Request, error: Exception) -> Json:
        assert isinstance(error, Refused)
        answer = refused(error.status, error.message)
        answer.headers["connection"] = "close"
        return answer

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: Exception) -> Json:
        assert isinstance(error, HTTPException)
        return refused(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def _not_so(request: Request, error: Exception) -> Json:
        assert isinstance(error, RequestValidationError)
        return refused(400, formed(error.errors()[0]))

    @app.exception_handler(QueueFull)
    async def _full(request: Request, error: Exception) -> Json:
        return refused(429, str(error))

    @app.exception_handler(UnsampleError)
    async def _ours(request: Request, error: Exception) -> Json:
        assert isinstance(error, UnsampleError)
        return refused(400, str(error), code=error.exit_code)

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> Json:
        return refused(500, f"unexpected {type(error).__name__}; the terminal of the server has the details")

    def found(id: str) -> Job:
        if (job := jobs.get(id)) is None:
            raise HTTPException(404, "there is no such job in this session")
        return job

    @app.get("/")
    async def page() -> Response:
        return FileResponse(HERE / "index.html", media_type=KINDS[".html"])

    @app.get("/page/{name}")
    async def page_file(name: str) -> Response:
        if name not in PAGE:
            raise HTTPException(404, "there is no such file")
        return FileResponse(HERE / name, media_type=PAGE[name])

    @app.get("/favicon.ico")
    async def no_icon() -> Response:
        return Response(status_code=204)

    @app.get("/api/facts")
    async def told_facts() -> Json:
        return Json(session.facts)

    @app.post("/api/files")
    async def send(request: Request, name: Annotated[str, Query(max_length=500)] = "picture") -> Json:
        coming = keep.coming()
        try:
            with open(coming, "wb") as file:
                async for chunk in request.stream():
                    await run_in_threadpool(file.write, chunk)
            kept = await run_in_threadpool(keep.take, coming, name)
        finally:
            coming.unlink(missing_ok=True)
        return Json(kept.told(), 201)

    @app.get("/api/files/{id}")
    async def file_told(id: str) -> Json:
        if (file := keep.file(id)) is None:
            raise HTTPException(404, "there is no such picture in this session")
        return Json(file.told())

    @app.get("/api/files/{id}/preview")
    async def preview(id: str) -> Response:
        file = keep.file(id)
        if file is None or not file.preview.is_file():
            raise HTTPException(404, "there is no such picture in this session")
        return FileResponse(file.preview, media_type="image/png")

    @app.post("/api/jobs")
    async def add(asked: Asked) -> Json:
        job = await run_in_threadpool(session.queued, asked)
        return Json(job.whole(), 202)

    @app.get("/api/jobs")
    async def every() -> Json:
        revision, told_jobs, waiting = jobs.since(0)
        return Json({"revision": revision, "jobs": told_jobs, "waiting": waiting})

    @app.get("/api/jobs/{id}")
    async def one(id: str) -> Json:
        return Json(found(id).whole())

    @app.delete("/api/jobs/{id}")
    async def cancel(id: str) -> Json:
        jobs.cancel(job := found(id))
        return Json(job.brief())

    @app.get("/api/jobs/{id}/preview")
    async def forming(id: str) -> Response:
        if (picture := found(id).preview) is None:
            raise HTTPException(404, "nothing is seen of it now")
        return Response(picture, media_type="image/png")

    @app.get("/api/jobs/{id}/files/{name}")
    async def file_of(id: str, name: str, download: bool = False) -> Response:
        path = found(id).files.get(name)
        if path is None or not path.is_file():
            raise HTTPException(404, "that job has no such file")
        answer = FileResponse(path, media_type=FILE_KINDS.get(path.suffix, "application/octet-stream"))
        if download:
            answer.headers["content-disposition"] = f"attachment; filename*=UTF-8''{quote(path.name)}"
        return answer

    @app.post("/api/jobs/{id}/files/{name}")
    async def adopt(id: str, name: str) -> Json:
        job = found(id)
        if name not in job.files or job.files[name].suffix not in (".png", SAVED):
            raise HTTPException(404, "that job has no such picture")
        return Json((await run_in_threadpool(session.adopted, job, name)).told(), 201)

    @app.get("/api/events")
    async def events(request: Request) -> Response:
        if session.listeners >= MOST_LISTENERS:
            raise HTTPException(429, "too many pages listen already; close one")
        return StreamingResponse(_events(session, request), media_type="text/event-stream")

    @app.get("/api/reports")
    async def listed() -> Json:
        return Json({"reports": await run_in_threadpool(session.reports.listed)})

    @app.get("/reports/{name:path}")
    async def report(name: str) -> Response:
        file = await run_in_threadpool(session.reports.file, name)
        if file is None:
            raise HTTPException(404, "no such report is listed")
        return FileResponse(file.path, media_type=file.kind, headers={"content-security-policy": SANDBOX})

    return app


async def _events(session: Session, request: Request) -> AsyncIterator[str]:
    """Server-sent events: the jobs that have changed, as they do."""
    session.listeners += 1
    try:
        seen, said = -1, 0.0
        while not await request.is_disconnected():
            revision, changed, waiting = session.jobs.since(max(seen, 0))
            if revision != seen:
                seen, said = revision, time.monotonic()
                told_now = {"jobs": changed, "waiting": waiting}
                yield f"data: {json.dumps(finite(told_now))}\n\n"
            elif time.monotonic() - said > QUIET:
                said = time.monotonic()
                yield ": here\n\n"
            await asyncio.sleep(BEAT)
    finally:
        session.listeners -= 1
