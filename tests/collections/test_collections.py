"""A collection: every picture once, whatever is killed; only what is new; shards that every verb reads."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import unsample
from tests.cli.conftest import draw
from unsample.collections import making, run, shards, work
from unsample.collections.asking import walked
from unsample.collections.jobs import Job
from unsample.collections.opened import Collection
from unsample.collections.run import How, Summary, forget, run_collection
from unsample.collections.sources import open_source
from unsample.errors import BadInput, BadOption
from unsample.methods import get_method
from unsample.preflight.walk import Walk

MODEL = "scenes-mixture"
COLOURS = ("red", "lime", "blue", "yellow", "black", "purple", "orange")
HOW = How(batch_size=2, threads=1, shard_size=4)
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def loaded() -> dict[str, Any]:
    """The model, by its name."""
    return {MODEL: unsample.load(MODEL)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven pictures of 32x32."""
    for k, colour in enumerate(COLOURS):
        draw(tmp_path / "photos" / f"p{k}.png", (32, 32), colour)
    return tmp_path / "photos"


def job(**changes: Any) -> Job:
    """Invert, in two steps."""
    walk = Walk(get_method("ddim"), steps=2)
    asked = walked(walk, ("a red circle", None)) | {"metrics": ["psnr", "noise_std"], "dtype": "float32"}
    return Job("invert", MODEL, asked | changes)


def done(job: Job, source: Path | str, folder: Path, how: How = HOW, **more: Any) -> Summary:
    """Run it in this process."""
    return run_collection(job, open_source([str(source)]), folder, how, **more)


def files(folder: Path) -> list[str]:
    """What lies in it, but for the ledger and what stands beside it."""
    found = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return [name for name in found if not name.startswith(("ledger", "run.lock"))]


def index(folder: Path) -> list[dict[str, Any]]:
    """The rows of index.parquet."""
    import pyarrow.parquet as pq

    found: list[dict[str, Any]] = pq.read_table(folder / "index.parquet").to_pylist()
    return found


def test_every_picture_has_a_row_and_its_inversion_lies_in_a_shard(
    loaded: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    (photos / "bad.png").write_text("no picture")
    summary = done(job(), photos, tmp_path / "out", loaded=loaded)
    assert summary.statuses == {"ok": 7, "unreadable": 1}
    names = [f"shard-0000{k}.safetensors" for k in range(2)]
    assert files(tmp_path / "out") == ["collection.json", "index.parquet", *names]
    rows = {row["name"]: row for row in index(tmp_path / "out")}
    assert list(rows) == ["bad", *(f"p{k}" for k in range(7))]
    assert "picture" in rows["bad"]["reason"]
    assert Counter(row["shard"] for row in rows.values()) == {names[0]: 3, names[1]: 4, None: 1}
    alone = unsample.invert(loaded[MODEL], photos / "p3.png", "a red circle", num_inference_steps=2)
    found = Collection(tmp_path / "out")
    kept = found["p3"]
    assert len(found) == 8
    assert isinstance(kept, unsample.Inversion)
    assert torch.allclose(kept.noise, alone.noise, atol=1e-4)  # a batch rounds otherwise
    assert (kept.meta["names"], kept.meta["source_sha256"]) == (["p3"], alone.meta["source_sha256"])
    assert rows["p3"]["noise_std"] == pytest.approx(alone.noise.std(correction=0).item(), rel=1e-4)
    assert rows["p3"]["std"] == pytest.approx(alone.health[0]["std"], rel=1e-4)
    assert rows["p3"]["psnr"] > 0
    with pytest.raises(KeyError):
        found["bad"]
    whole = unsample.Inversion.load(tmp_path / "out" / names[0])  # a shard is a saved inversion as any other
    assert len(unsample.reconstruct(loaded[MODEL], whole)) == 3


def test_no_shard_holds_more_than_it_may_however_large_the_batches(
    loaded: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    done(job(), photos, tmp_path / "out", replace(HOW, batch_size=7, shard_size=3), loaded=loaded)
    assert sorted(Counter(row["shard"] for row in index(tmp_path / "out")).values()) == [1, 3, 3]


def test_a_second_run_does_what_is_new_and_what_has_changed(
    loaded: dict[str, Any], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def make(job: Job, model: Any, items: Any) -> making.Made:
        asked.extend(item.id for item in items)
        return making.make(job, model, items)

    monkeypatch.setattr(work, "make", make)
    assert done(job(), photos, tmp_path / "out", loaded=loaded).before == 0
    asked.clear()
    assert done(job(), photos, tmp_path / "out").before == 7  # no model is loaded for it
    draw(photos / "p9.png", (32, 32), "white", "black")
    draw(photos / "p1.png", (32, 32), "orange", "black")
    os.utime(photos / "p2.png", (1, 1))  # the same picture, copied
    (photos / "p3.png").rename(tmp_path / "p3.png")
    before = Collection(tmp_path / "out")["p1"].noise  # type: ignore[union-attr]
    summary = done(job(), photos, tmp_path / "out", loaded=loaded)
    assert sorted(asked) == ["p1", "p9"]
    assert (summary.before, summary.statuses) == (5, {"ok": 2})
    assert not torch.equal(before, Collection(tmp_path / "out")["p1"].noise)  # type: ignore[union-attr]
    assert [row["name"] for row in index(tmp_path / "out")] == [f"p{k}" for k in (0, 1, 2, 3, 4, 5, 6, 9)]
    asked.clear()
    assert done(job(), photos, tmp_path / "out", loaded=loaded).statuses == {}
    assert asked == []


def test_a_broken_row_that_has_the_name_of_a_good_one_does_not_take_its_place(
    loaded: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    import tarfile

    for number in (1, 2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as opened:
            opened.add(photos / f"p{number}.png", "same.png")
    source = f"webdataset:{tmp_path}/*.tar"
    for statuses in ({"ok": 1, "unreadable": 1}, {}):
        assert done(job(metrics=[]), source, tmp_path / "out", loaded=loaded).statuses == statuses
        assert [(row["name"], row["status"]) for row in index(tmp_path / "out")] == [
            ("same", "ok"), ("same-2", "unreadable"),
        ]  # fmt: skip


def killed(call: Callable[[], object]) -> None:
    """The call, in a process of its own that ends by SIGKILL."""
    pid = os.fork()
    if pid == 0:
        try:
            call()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def test_a_run_killed_three_times_has_every_row_once(
    loaded: dict[str, Any], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, whole = tmp_path / "out", tmp_path / "whole"
    torch.set_num_threads(1)

    def die(*ignored: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def after(count: int) -> Callable[[Summary], None]:
        return lambda summary: die() if sum(summary.statuses.values()) >= count else None

    def torn(name: str, before: bool) -> Callable[[], None]:
        """Killed around one step of the work."""

        def call() -> None:
            own = getattr(shards, name)
            setattr(shards, name, lambda *given: (None if before else own(*given), die()))
            done(job(), photos, folder, loaded=loaded)

        return call

    killed(lambda: done(job(), photos, folder, loaded=loaded, observe=after(2)))
    killed(torn("write_inversions", before=False))  # a part that no row names
    killed(torn("join", before=False))  # a shard that no row names
    assert [name for name in files(folder) if name.startswith("shard")] == ["shard-00000.safetensors"]
    for name in ("parts/0.safetensors", "shard-00007.safetensors"):  # as kills under another batch size leave them
        (folder / name).write_bytes((folder / "shard-00000.safetensors").read_bytes())
    summary = done(job(), photos, folder, loaded=loaded)
    assert summary.before == 4
    done(job(), photos, whole, loaded=loaded)
    assert files(folder) == files(whole)
    names = [row["name"] for row in index(folder)]
    assert names == [f"p{k}" for k in range(7)]
    for name in names:
        one, other = (Collection(f)[name] for f in (folder, whole))
        assert torch.equal(one.noise, other.noise)  # type: ignore[union-attr]


def test_a_batch_that_is_too_large_for_the_memory_is_halved_and_only_then(
    loaded: dict[str, Any], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def make(job: Job, model: Any, items: Any) -> making.Made:
        sizes.append(len(items))
        if len(items) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return making.make(job, model, items)

    monkeypatch.setattr(work, "make", make)
    summary = done(job(metrics=[]), photos, tmp_path / "auto", replace(HOW, batch_size=0, shard_size=16), loaded=loaded)
    assert (summary.statuses, sizes) == ({"ok": 7}, [7, 4, 2, 2, 2, 1])
    sizes.clear()
    done(job(metrics=[]), photos, tmp_path / "fixed", replace(HOW, batch_size=4), loaded=loaded)
    assert sizes[:3] == [4, 1, 1]  # tried again, each alone


def test_the_results_of_other_settings_are_refused_by_name_and_forgotten_when_told(
    loaded: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    done(job(), photos, folder, loaded=loaded)
    with pytest.raises(BadInput, match="num inference steps 2, not 3"):
        done(job(num_inference_steps=3), photos, folder, loaded=loaded)
    (folder / "mine.txt").write_text("kept")
    (folder / "shard-of-mine.txt").write_text("kept")
    forget(folder)
    assert files(folder) == ["mine.txt", "shard-of-mine.txt"]
    assert done(job(num_inference_steps=3), photos, folder, loaded=loaded).statuses == {"ok": 7}
    about = run.read_about(folder) or {}
    run.write_about(folder, about | {"model_sha256": "0" * 64})
    draw(photos / "new.png", (32, 32))
    with pytest.raises(BadInput, match="other weights"):
        done(job(num_inference_steps=3), photos, folder, loaded=loaded)


def test_a_collection_of_which_the_first_pictures_all_fail_is_given_up(
    loaded: dict[str, Any], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(job: Job, model: Any, items: Any) -> making.Made:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(work, "make", make)
    with pytest.raises(BadInput, match="first 3 pictures all failed.*no such kernel"):
        done(job(), photos, tmp_path / "out", loaded=loaded)
    monkeypatch.undo()
    assert done(job(), photos, tmp_path / "out", loaded=loaded).statuses == {"ok": 7}  # what failed is tried again


def test_without_pyarrow_nothing_is_begun(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unsample.collections.index.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"unsample\[parquet\]"):
        done(job(), photos, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_worker_that_dies_is_replaced_and_two_make_what_one_makes(
    loaded: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    from unsample.bench.local import Processes

    engines: list[Processes] = []
    dead: list[int] = []

    def engine(place: Any) -> Processes:
        engines.append(Processes(place, 2))
        return engines[0]

    def kill_one(summary: Summary) -> None:
        if summary.statuses.total() == 2 and not dead:
            dead.append(engines[0].pids()[0])
            os.kill(dead[0], signal.SIGKILL)

    summary = done(job(), photos, tmp_path / "two", replace(HOW, workers=2), observe=kill_one, engine=engine)
    assert (summary.statuses, len(dead)) == ({"ok": 7}, 1)
    done(job(), photos, tmp_path / "one", loaded=loaded)
    for row in Collection(tmp_path / "one").rows():
        one, two = (Collection(tmp_path / f)[row["name"]] for f in ("one", "two"))
        assert torch.equal(one.noise, two.noise)  # type: ignore[union-attr]


def test_a_collection_of_inversions_is_reconstructed_and_edited(
    loaded: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    small: dict[str, Any] = {"num_inference_steps": 2, "shard_size": 4, "batch_size": 2, "prompt": "a red circle"}
    inverted = unsample.invert_collection(loaded[MODEL], photos, tmp_path / "inv", **small)
    play = {"use": "record", "guidance_scale": None, "guidance_schedule": None, "allow_other_model": False}
    again = Job("reconstruct", MODEL, {**play, "of": inverted.made_with(), "metrics": ["psnr"], "dtype": "float32"})
    assert done(again, inverted.folder, tmp_path / "again", loaded=loaded).statuses == {"ok": 7}
    assert files(tmp_path / "again") == ["collection.json", "index.parquet", "shard-00000.tar", "shard-00001.tar"]
    picture = Collection(tmp_path / "again")["p5"]
    assert isinstance(picture, Image.Image)
    kept = inverted["p5"]
    expected = unsample.reconstruct(loaded[MODEL], kept).pil()[0]
    assert expected is not None
    difference = torch.tensor(list(picture.getdata())) - torch.tensor(list(expected.getdata()))
    assert difference.abs().max() <= 1  # 8 bits of a batch that rounds otherwise
    assert index(tmp_path / "again")[5]["psnr"] == pytest.approx(index(inverted.folder)[5]["psnr"], rel=1e-3)
    asked = {k: v for k, v in inverted.made_with().items() if k not in ("verb", "model")}
    asked |= {"editor": "none", "editor_settings": {}, "mask": "none", "edit_guidance_scale": 2.0, "metrics": []}
    edit = Job("edit", MODEL, asked | {"target_prompt": "a blue star"})
    assert done(edit, inverted.folder, tmp_path / "edited", loaded=loaded).statuses == {"ok": 7}
    assert {(row["target_prompt"], row["edit_guidance"]) for row in index(tmp_path / "edited")} == {
        ("a blue star", 2.0)
    }
    of_pictures = replace(
        edit, asked={**job(metrics=[]).asked, **{k: edit.asked[k] for k in edit.asked if "edit" in k}}
    )
    of_pictures = replace(of_pictures, asked={**of_pictures.asked, "mask": "none", "target_prompt": "a blue star"})
    done(of_pictures, photos, tmp_path / "both", loaded=loaded)
    one, other = (Collection(tmp_path / f)["p5"] for f in ("edited", "both"))
    difference = torch.tensor(list(one.getdata())) - torch.tensor(list(other.getdata()))  # type: ignore[union-attr]
    assert difference.abs().max() <= 1
    assert open_source([str(tmp_path / "both")]).ids == tuple(f"p{k}" for k in range(7))  # and is a collection itself


def test_what_the_door_of_python_cannot_do_is_refused_before_any_work(
    loaded: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(BadOption, match="batch_size"):
        unsample.invert_collection(MODEL, photos, out, batch_size="many")
    with pytest.raises(BadOption, match="this process alone"):
        unsample.invert_collection(loaded[MODEL], photos, out, workers=2)
    with pytest.raises(BadOption, match="of whole sets"):
        unsample.invert_collection(MODEL, photos, out, metrics=["fid"])
    with pytest.raises(BadOption, match="1 to"):
        unsample.invert_collection(MODEL, photos, out, shard_size=0)
    with pytest.raises(BadInput, match="no collection"):
        Collection(photos)
    with pytest.raises(BadInput, match="the collection itself"):
        unsample.invert_collection(MODEL, photos, photos)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "shard-00000.tar").write_text("mine")
    with pytest.raises(BadInput, match="called as a shard is"):
        unsample.invert_collection(MODEL, photos, tmp_path / "mine", prompt="a red circle", num_inference_steps=2)
    assert files(tmp_path / "mine") == ["shard-00000.tar"]
    assert not out.exists()
