"""Jobs: what they write is what their commands and their lines of Python write; they wait, run and end in order."""

from __future__ import annotations

import io
import json
import os
import shlex
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.web.conftest import BLUE, CAPTION, Page
from unsample.cli import session as cli_session
from unsample.cli.main import main
from unsample.errors import BadOption
from unsample.media.pictures import open_picture, read_metadata
from unsample.models.listening import Listener, listened
from unsample.web.asked import Asked, commands
from unsample.web.commands import Command, python
from unsample.web.jobs import MOST_KEPT, MOST_WAITING, Job, Jobs
from unsample.web.settings import as_texts, of_picture


@pytest.fixture(scope="module")
def model() -> Any:
    import unsample

    return unsample.load("scenes-sd")


@pytest.fixture(scope="module", autouse=True)
def _loaded_once(page: Page, model: Any) -> None:
    """The page's model is the one of the tests; loading takes most of their time."""
    known = page.session.served.models["scenes-sd"]
    page.session._work.shelf._model = model
    page.session._work.shelf._key = (known.name, cli_session.Placement())


def picture(content: bytes) -> bytes:
    return Image.open(io.BytesIO(content)).convert("RGB").tobytes()


DONE: dict[str, dict[str, Any]] = {
    "an inversion": {"prompt": CAPTION, "method": "fixed_point", "settings": {"num_iters": "2"}, "seed": 3},
    "an edit": {"prompt": CAPTION, "target_prompt": BLUE, "edit_guidance_scale": 0.5, "negative_prompt": "red"},
    "an edit by an editor": {
        **{"prompt": CAPTION, "target_prompt": BLUE, "editor": "p2p", "editor_settings": {"cross_steps": "0.5"}},
        **{"mask": "auto", "mask_dilate": 2, "mask_feather": 1.0, "paste": True},
    },
    "a record that is fitted": {
        **{"prompt": CAPTION, "target_prompt": BLUE, "method": "null_text", "settings": {"preset": "quick"}},
        **{"edit_guidance_scale": 2.0, "guidance_schedule": "cosine"},
    },
}


@pytest.mark.parametrize("what", DONE)
def test_the_command_and_the_lines_of_python_do_the_same_to_the_bit(
    page: Page, drawn: bytes, model: Any, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = page.send(drawn, "a scene.png")["id"]
    job = page.done(source=source, steps=3, **DONE[what])
    names = ["reconstruction", *(["edit"] if "target_prompt" in DONE[what] else [])]
    made = {name: picture(page.file(job, name)) for name in names}
    files = {"reconstruction": "out/a scene.png", "edit": "out/a scene-edit.png"}
    monkeypatch.setattr(cli_session, "load_now", lambda known, where: model)
    monkeypatch.setattr("unsample.load", lambda name: model)
    for door in ("shell", "python"):
        (tmp_path / door).mkdir()
        monkeypatch.chdir(tmp_path / door)
        Path("a scene.png").write_bytes(drawn)
        if door == "shell":
            for line in job["shell"]:
                words = shlex.split(line)
                assert words[0] == "unsample"
                assert main(words[1:]) == 0, line
        else:
            exec(job["python"], {})
        for name in names:
            assert picture(Path(files[name]).read_bytes()) == made[name], (door, name)


def test_a_comparison_is_that_of_the_command(
    page: Page, drawn: bytes, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = page.send(drawn)["id"]
    asked = {"prompt": CAPTION, "target_prompt": BLUE, "methods": ["ddim", "edict"], "edit_guidance_scale": 2.0}
    job = page.done(kind="compare", source=source, steps=2, **asked)
    monkeypatch.setattr(cli_session, "load_now", lambda known, where: model)
    monkeypatch.setattr("unsample.load", lambda name: model)
    monkeypatch.chdir(tmp_path)
    Path("scene.png").write_bytes(drawn)
    assert main(shlex.split(job["shell"][0])[1:]) == 0
    exec(job["python"], {})
    for name in ("ddim-reconstruction", "edict-edit"):
        made = picture(page.file(job, name))
        assert made == picture(Path(f"compared/{name}.png").read_bytes())
        assert made == picture(Path(f"{name}.png").read_bytes())
    panels = [panel["name"] for panel in job["result"]["panels"]]
    assert panels[:4] == ["source", "ddim-reconstruction", "ddim-edit", "ddim-difference"]
    assert [row["method"] for row in job["result"]["table"]] == ["ddim", "edict"]


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"kind": "compare", "methods": ["ddim"], "strength": 0.5}, "strength"),
        ({"kind": "compare", "methods": ["ddim"], "target_prompt": BLUE, "mask": "thing"}, "mask"),
        ({"kind": "compare", "methods": ["ddim"], "settings": {"num_iters": "9"}}, "settings"),
        ({"kind": "sample", "target_prompt": BLUE}, "target_prompt"),
        ({"kind": "run", "methods": ["ddim"]}, "methods"),
    ],
)
def test_what_a_kind_of_job_does_not_take_is_refused_by_name(page: Page, drawn: bytes, asked: Any, named: str) -> None:
    source = {} if asked["kind"] == "sample" else {"source": page.send(drawn)["id"]}
    answer = page.http.post("/api/jobs", json=source | asked)
    assert answer.status_code == 400, answer.text
    assert named in answer.json()["error"]["message"].partition(": ")[0]


def test_a_picture_may_be_called_as_a_panel_of_ours(page: Page, drawn: bytes) -> None:
    """What was sent is linked into the job's folder: writing over it would change it for every later job."""
    source = page.send(drawn, "noise.panel.png")["id"]
    first = page.done(source=source, prompt=CAPTION, steps=2)
    again = page.done(source=source, prompt=CAPTION, steps=2)
    assert page.file(first, "source") == page.file(again, "source")


def test_a_drawn_mask_keeps_the_rest_of_the_picture(page: Page, drawn: bytes) -> None:
    source = page.send(drawn, "mask.png")["id"]  # a name that the mask's own file must not take
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 64, 32))
    buffer = io.BytesIO()
    mask.save(buffer, format="PNG")
    painted = page.send(buffer.getvalue(), "mask.png")["id"]
    asked = {"prompt": CAPTION, "target_prompt": BLUE, "mask": "file", "mask_file": painted, "mask_dilate": 0}
    job = page.done(source=source, steps=3, edit_guidance_scale=5.0, paste=True, **asked)
    before, after = (Image.open(io.BytesIO(content)).convert("RGB") for content in (drawn, page.file(job, "edit")))
    below, above = (0, 40, 64, 64), (0, 0, 64, 24)
    assert after.crop(below).tobytes() == before.crop(below).tobytes()
    assert after.crop(above).tobytes() != before.crop(above).tobytes()
    assert "--mask mask-drawn-mask.png" in job["shell"][1]


def test_an_inversion_is_gone_on_from(page: Page, drawn: bytes) -> None:
    first = page.done(source=page.send(drawn)["id"], prompt=CAPTION, steps=3)
    whole = page.done(source=page.send(drawn)["id"], prompt=CAPTION, steps=3, target_prompt=BLUE)
    adopted = page.http.post(f"/api/jobs/{first['id']}/files/inversion").json()
    assert adopted["kind"] == "inversion"
    assert adopted["settings"]["prompt"] == CAPTION
    assert adopted["settings"]["steps"] == 3
    assert page.http.get(f"/api/files/{adopted['id']}/preview").status_code == 200
    edited = page.done(source=adopted["id"], target_prompt=BLUE)
    assert [line.split()[1] for line in edited["shell"]] == ["reconstruct", "edit"]
    assert picture(page.file(edited, "edit")) == picture(page.file(whole, "edit"))
    refused = page.http.post("/api/jobs", json={"source": adopted["id"], "kind": "compare", "methods": ["ddim"]})
    assert "this is an inversion" in refused.json()["error"]["message"]


def test_a_drawn_picture_is_that_of_the_seed_and_goes_on(page: Page, model: Any) -> None:
    import unsample

    job = page.done(kind="sample", prompt=CAPTION, steps=3, seed=7, guidance_scale=3.0)
    made = unsample.sample(model, CAPTION, num_inference_steps=3, generator=7, guidance_scale=3)
    assert made.pil()[0].tobytes() == picture(page.file(job, "picture"))
    assert page.http.post(f"/api/jobs/{job['id']}/files/picture").json()["settings"]["seed"] == 7


def test_health_cost_and_notes_are_those_of_the_verbs(page: Page, drawn: bytes) -> None:
    job = page.done(source=page.send(drawn)["id"], prompt=CAPTION, steps=3, target_prompt=BLUE)
    result = job["result"]
    assert set(result["health"]["bands"]) == {"mean", "std", "kl", "lag1_correlation"}
    assert [(row["what"], row["nfe"]) for row in result["cost"]] == [("inversion", 3), ("edit", 6)]
    assert result["rows"][0]["input"] == "scene.png"
    document = json.loads(page.file(job, "json"))
    assert document["rows"] == result["rows"]
    assert str(page.session.keep.folder) not in json.dumps(document)
    said = {note["text"].split(": ")[1].split(",")[0] for note in result["notes"] if ": " in note["text"]}
    assert {"inverted", "edited at guidance 5"} <= said


def test_who_looks_on_changes_no_bit(page: Page, drawn: bytes, model: Any) -> None:
    import unsample

    class Looking(Listener):
        def __init__(self) -> None:
            self.asked, self.seen, self.steps = 0, 0, []

        def asking(self) -> None:
            self.asked += 1

        def predicted(self, model: Any, prediction: Any) -> None:
            self.seen += 1
            model.decode(prediction.x0[:1])

        def stepped(self, what: str, done: int, of: int) -> None:
            self.steps.append((what, done, of))

    image, looking = Image.open(io.BytesIO(drawn)), Looking()
    alone = unsample.invert(model, image, CAPTION, num_inference_steps=3)
    with listened(looking):
        seen = unsample.invert(model, image, CAPTION, num_inference_steps=3)
        edited = unsample.edit(model, seen, BLUE, editor="p2p", guidance_scale=2)
    assert (alone.noise == seen.noise).all()
    assert alone.nfe == seen.nfe
    assert (unsample.edit(model, alone, BLUE, editor="p2p", guidance_scale=2).images == edited.images).all()
    assert looking.asked == 6  # a guided pair, and an edit beside its source, are one call
    assert looking.seen == 6
    assert looking.steps == [(verb, k + 1, 3) for verb in ("invert", "edit") for k in range(3)]


# ---------------------------------------------------------------- one at a time


def test_a_job_is_cancelled_within_one_call_of_the_network(page: Page, drawn: bytes, model: Any) -> None:
    calls: list[float] = []
    network = type(model).network

    def slow(self: Any, *given: Any) -> Any:
        calls.append(time.monotonic())
        time.sleep(0.2)
        return network(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "network", slow)
        job = page.ask(source=page.send(drawn)["id"], prompt=CAPTION, steps=100)
        while len(calls) < 3:
            time.sleep(0.01)
        stopped = time.monotonic()
        assert page.http.delete(f"/api/jobs/{job['id']}").status_code == 200
        told = page.ended(job)
    assert told["state"] == "cancelled"
    assert told["error"] is None
    assert sum(at > stopped for at in calls) <= 1
    assert page.done(source=page.send(drawn)["id"], prompt=CAPTION, steps=1)["state"] == "done"


def test_sixteen_wait_and_the_next_is_refused_with_429(page: Page, drawn: bytes, model: Any) -> None:
    assert MOST_WAITING == 16
    gate, network = threading.Event(), type(model).network

    def held(self: Any, *given: Any) -> Any:
        gate.wait(60)
        return network(self, *given)

    source = page.send(drawn)["id"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "network", held)
        jobs = [page.ask(source=source, prompt=CAPTION, steps=1, seed=0)]
        while page.http.get(f"/api/jobs/{jobs[0]['id']}").json()["state"] != "running":
            time.sleep(0.01)
        jobs += [page.ask(source=source, prompt=CAPTION, steps=1, seed=k) for k in range(MOST_WAITING)]
        refused = page.http.post("/api/jobs", json={"source": source, "prompt": CAPTION, "steps": 1})
        assert refused.status_code == 429
        assert page.http.get("/api/jobs").json()["waiting"] == [job["id"] for job in jobs[1:]]
        assert page.http.delete(f"/api/jobs/{jobs[5]['id']}").json()["state"] == "cancelled"
        assert page.http.post("/api/jobs", json={"source": source, "prompt": CAPTION, "steps": 1}).status_code == 202
        gate.set()
    states = [page.ended(job)["state"] for job in jobs]
    assert states == ["cancelled" if k == 5 else "done" for k in range(len(jobs))]


def test_a_failure_is_told_and_the_next_job_is_done(page: Page, drawn: bytes, model: Any) -> None:
    def broken(self: Any, *given: Any) -> Any:
        raise ValueError(f"inside of {page.session.keep.folder}")

    source = page.send(drawn)["id"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "decode", broken)
        told = page.ended(page.ask(source=source, prompt=CAPTION, steps=1))
    assert told["state"] == "failed"
    assert told["error"] == {"code": 1, "message": "unexpected ValueError; the terminal of the server has the details"}
    assert page.done(source=source, prompt=CAPTION, steps=1)["error"] is None


def test_what_diverged_is_a_failure_with_its_reason(page: Page, drawn: bytes, model: Any) -> None:
    network = type(model).network
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "network", lambda self, *given: network(self, *given) * float("nan"))
        told = page.ended(page.ask(source=page.send(drawn)["id"], prompt=CAPTION, steps=2))
    assert told["state"] == "failed"
    assert told["error"]["code"] == 5
    assert "1 of 1 pictures diverged: scene.png: step 1 of 2" in told["error"]["message"]


def test_the_oldest_jobs_are_forgotten_with_their_folders(tmp_path: Path) -> None:
    forgotten: list[Path] = []
    jobs = Jobs(lambda job: None, lambda error, job: (1, str(error)), forgotten.append)
    for k in range(MOST_KEPT + 5):
        job = Job(str(k), Asked(kind="sample"), [], tmp_path / str(k), "", "")
        jobs.add(job)
        while job.state != "done":
            time.sleep(0.001)
    assert forgotten == [tmp_path / str(k) for k in range(5)]
    assert jobs.get("4") is None
    assert jobs.get("5") is not None
    jobs.close()


def test_a_file_that_is_gone_stays_with_the_jobs_that_were_made_of_it(
    page: Page, drawn: bytes, monkeypatch: Any
) -> None:
    monkeypatch.setattr("unsample.web.keep.MOST_FILES", 2)
    source = page.send(drawn)["id"]
    job = page.done(source=source, prompt=CAPTION, steps=1)
    for _ in range(2):
        page.send(drawn)
    assert page.http.get(f"/api/files/{source}").status_code == 404
    assert page.http.post("/api/jobs", json={"source": source, "prompt": CAPTION}).status_code == 404
    assert page.file(job, "source")
    assert len(os.listdir(page.session.keep.folder / "sent")) == 2


# ---------------------------------------------------------------- what is asked, and what files say


def test_commands_say_what_is_particular_and_no_more() -> None:
    asked = Asked(source="x", prompt=CAPTION, target_prompt=BLUE, guidance_scale=0.0, seed=0, strength=0.5)
    shown = [command.shell() for command in commands(asked, "a.png", None, {})]
    assert shown == [
        f"unsample invert a.png --model scenes-sd --prompt '{CAPTION}' --method ddim --steps 50 --guidance-scale 0 "
        "--strength 0.5 --output out",
        f"unsample edit out/a.safetensors --model scenes-sd --target-prompt '{BLUE}' --output out/a-edit.png",
    ]
    placed = commands(Asked(kind="sample"), None, None, {"dtype": "bfloat16", "vae_tiling": True})
    assert placed[0].shell().startswith("unsample sample --model scenes-sd --dtype bfloat16 --vae-tiling")
    assert "unsample.load('scenes-sd', dtype='bfloat16', vae_tiling=True)" in python(placed)


def test_the_lines_of_python_write_settings_as_code() -> None:
    options = {
        "model": "m",
        "method": "forward_first",
        "set": ["base=fixed_point", "base.num_iters=5"],
        "output": "out",
    }
    lines = python([Command("invert", "a.png", options)])
    assert "method=unsample.methods.get_method('forward_first', {'base': {'name': 'fixed_point'" in lines


def test_what_does_not_go_together_is_refused() -> None:
    for asked, said in (
        (Asked(source="x", editor="p2p", prompt=CAPTION), "editor p2p is of edits"),
        (Asked(source="x", mask="auto", prompt=CAPTION), "a mask is of edits"),
        (Asked(kind="compare", source="x"), "no method to compare"),
        (Asked(), "there is no picture yet"),
        (
            Asked(source="x", method="null_text", target_prompt=BLUE, edit_guidance_scale=2, sampling_guidance_scale=3),
            "3 of the reconstruction and 2 of the edit differ",
        ),
    ):
        with pytest.raises(BadOption, match=said):
            commands(asked, "a.png" if asked.source else None, None, {})


def test_settings_that_a_png_carries_are_those_that_made_it(page: Page, drawn: bytes, tmp_path: Path) -> None:
    asked = {
        "prompt": CAPTION,
        "target_prompt": BLUE,
        "method": "easyinv",
        "settings": {"eta": "0.4", "base": "anderson"},
    }
    asked |= {"steps": 3, "edit_guidance_scale": 1.5, "seed": 4, "strength": 0.7, "editor": "p2p"}
    job = page.done(source=page.send(drawn)["id"], **asked)
    (tmp_path / "edit.png").write_bytes(page.file(job, "edit"))
    fields, made = of_picture(open_picture(tmp_path / "edit.png").metadata)
    for name in ("method", "steps", "edit_guidance_scale", "seed", "strength", "editor"):
        assert fields[name] == asked[name], name
    assert fields["settings"]["eta"] == "0.4"
    assert fields["settings"]["base"] == "anderson"
    assert fields["prompt"] == BLUE
    assert CAPTION in made
    assert read_metadata(tmp_path / "edit.png")["unsample"]["source_prompt"] == CAPTION


def test_every_default_of_every_method_and_editor_is_written_as_it_is_read() -> None:
    from unsample import edits, methods

    for table, rows in ((methods, methods.METHODS), (edits, edits.EDITORS)):
        for name, facts in rows.items():
            defaults = {k: v for k, v in methods.setting_defaults(facts.factory).items() if v is not None}
            assert table.parse_settings(name, as_texts(defaults).items()) == defaults, name


def test_the_fields_have_the_labels_that_messages_use() -> None:
    from unsample.web.server import HERE
    from unsample.web.words import LABELS

    page = (HERE / "index.html").read_text("utf-8").lower() + (HERE / "form.js").read_text("utf-8").lower()
    page += "settings of the method settings of the editor"
    for label in LABELS.values():
        assert label.lower() in page, label


def test_events_tell_what_has_changed(served: str, drawn: bytes) -> None:
    import http.client
    from urllib.parse import urlsplit

    place = urlsplit(served)
    first = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
    first.request("GET", "/api/events")
    stream = first.getresponse()
    assert stream.headers["content-type"].startswith("text/event-stream")
    second = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
    body = json.dumps({"kind": "sample", "prompt": CAPTION, "steps": 2}).encode()
    second.request("POST", "/api/jobs", body, {"content-type": "application/json"})
    id = json.loads(second.getresponse().read())["id"]
    states: list[str] = []
    while not states or states[-1] not in ("done", "failed"):
        line = stream.readline().decode()
        if line.startswith("data: "):
            states += [job["state"] for job in json.loads(line[6:])["jobs"] if job["id"] == id]
    assert states[-1] == "done"
    assert "running" in states


def test_a_server_for_others_needs_a_token_and_says_so(capsys: Any) -> None:
    assert main(["serve", "--host", "0.0.0.0"]) == 2
    assert "$UNSAMPLE_TOKEN" in capsys.readouterr().err
    assert main(["serve", "--token", "short"]) == 2
    assert main(["serve", "--port", "70000"]) == 2
    assert main(["serve", "--reports", "/nowhere"]) == 4
    assert main(["serve", "-m", "./nowhere"]) == 3


def test_a_folder_of_a_session_is_kept_and_must_be_empty(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "a").write_text("there")
    assert main(["serve", "-o", str(tmp_path), "--port", "0"]) == 4
    assert "is not empty" in capsys.readouterr().err


def test_a_server_that_is_told_to_end_leaves_nothing(tmp_path: Path) -> None:
    from tests.web.conftest import serving

    server = serving(TMPDIR=str(tmp_path))
    next(server)
    assert len(list(tmp_path.glob("unsample-*"))) == 1
    server.close()  # SIGTERM
    assert not list(tmp_path.glob("unsample-*"))


def test_the_temporary_folder_of_a_session_is_gone_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from unsample.cli import serve

    seen: list[Path] = []

    def run(app: Any, listening: Any) -> None:
        seen.extend(tmp_path.iterdir())

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(serve, "_run", run)
    monkeypatch.setattr("unsample.web.server.Session.warm", lambda self: None)
    assert main(["serve", "--port", "0"]) == 0
    assert len(seen) == 1
    assert not list(tmp_path.iterdir())


def test_a_model_that_the_page_does_not_offer_is_of_the_server(tmp_path: Path) -> None:
    from unsample.web.words import told

    said = told("give a model that knows them: '--model some/model'; --force goes on", "invert", tmp_path)
    assert "start the server with 'unsample serve --model some/model'" in said
    assert "“Go on with what the model does not know” goes on" in said
