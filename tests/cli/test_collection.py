"""Collections at the command line: when it is one, what is refused by name, what is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import unsample
from tests.cli.conftest import Run, draw
from tests.metrics.test_lpips import saved
from unsample.watermarks import GaussianShading

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def photos(tmp_path: Path) -> str:
    """Three pictures in a folder, and a list of them."""
    rows = ["file,source_prompt,target_prompt"]
    for name, colour in (("a", "red"), ("b", "lime"), ("c", "blue")):
        draw(tmp_path / "photos" / f"{name}.png", colour=colour)
        rows.append(f"photos/{name}.png,a {colour} circle,a blue star")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    return "photos"


def index(folder: str) -> list[dict[str, Any]]:
    """The rows of the index."""
    import pyarrow.parquet as pq

    found: list[dict[str, Any]] = pq.read_table(Path(folder) / "index.parquet").to_pylist()
    return found


def test_a_folder_is_inverted_reconstructed_and_measured(run: Run, photos: str, tiny_ddpm: Path) -> None:
    invert = ("invert", photos, "-m", tiny_ddpm, "--steps", 2, "--json", "-o", "inv")
    ended = run(*invert, "--metrics", "psnr")
    assert ended.code == 0, ended.err
    told = ended.json
    assert (told["pictures"], told["skipped"], told["statuses"], told["shards"]) == (3, 0, {"ok": 3}, 1)
    assert [(row["name"], row["psnr"] > 0) for row in index("inv")] == [("a", True), ("b", True), ("c", True)]
    assert "1 shard and index.parquet in inv/" in ended.err
    again = run(*invert, "--metrics", "psnr")
    assert (again.code, again.json["skipped"], again.json["statuses"]) == (0, 3, {})
    other = run(*invert, "--metrics", "none")
    assert (other.code, "metrics ['psnr'], not []" in other.err) == (4, True)
    assert run(*invert, "--metrics", "none", "--overwrite").json["statuses"] == {"ok": 3}
    assert "psnr" not in index("inv")[0]
    assert run("reconstruct", "inv", "-m", tiny_ddpm, "-o", "again").code == 0
    ended = run("measure", "again", photos, "--metrics", "psnr,ssim", "-o", "told")
    assert ended.code == 0, ended.err
    for one, other_row in zip(index("told"), index("again"), strict=True):
        assert one["psnr"] == pytest.approx(other_row["psnr"], rel=1e-6)
    assert not list(Path("told").glob("shard*"))


def test_rows_of_a_list_have_prompts_and_target_prompts(run: Run, photos: str, tiny_sd: Path) -> None:
    draw(Path("photos/d.png"))
    with open("list.csv", "a") as table:
        table.write("\nphotos/d.png,a red circle,\nphotos/gone.png,,\n")
    ended = run("edit", "list.csv", "-m", tiny_sd, "--steps", 2, "--editor", "p2p", "--json", "-o", "edited")
    assert ended.code == 4, ended.err
    assert "statuses" in ended.json, ended.err
    assert ended.json["statuses"] == {"ok": 3, "unreadable": 2}
    rows = {row["input"].rpartition("/")[2]: row for row in index("edited")}
    assert (rows["b.png"]["prompt"], rows["b.png"]["target_prompt"]) == ("a lime circle", "a blue star")
    assert "no target prompt" in rows["d.png"]["reason"]
    assert sorted(path.name for path in Path("edited").glob("shard*")) == ["shard-00000.tar"]


def test_the_code_is_that_of_all_that_the_folder_holds(run: Run, photos: str, tiny_ddpm: Path) -> None:
    Path("photos/broken.png").write_bytes(b"no picture")
    invert = ("invert", photos, "-m", tiny_ddpm, "--steps", 2, "--metrics", "none", "--json", "-o", "inv")
    assert run(*invert).code == 4
    again = run(*invert)
    assert (again.code, again.json["skipped_statuses"]) == (4, {"ok": 3, "unreadable": 1})
    assert "4 done before (1 unreadable)" in again.err


def test_a_metric_that_has_no_value_is_said(run: Run, photos: str, tiny_sd: Path) -> None:
    ended = run("edit", "list.csv", "-m", tiny_sd, "--steps", 2, "--metrics", "psnr", "-o", "edited")
    assert ended.code == 0, ended.err
    assert "psnr has no value for 3 pictures: " in ended.err


def test_a_row_without_a_file_is_one_that_cannot_be_read(run: Run, photos: str, tiny_ddpm: Path) -> None:
    Path("list.jsonl").write_text('{"file": "photos/a.png"}\n{"source_prompt": "a circle"}\n')
    ended = run("invert", "list.jsonl", "-m", tiny_ddpm, "--steps", 2, "--metrics", "none", "--json", "-o", "inv")
    assert (ended.code, ended.json["statuses"]) == (4, {"ok": 1, "unreadable": 1}), ended.err
    assert "its row names no file" in ended.err


def test_measuring_a_collection_takes_the_key_and_says_what_it_cannot(run: Run, photos: str, tiny_ddpm: Path) -> None:
    shape = tuple(unsample.load(str(tiny_ddpm)).sample_shape)
    GaussianShading.drawn(shape, channel_copies=1, side_copies=2, seed=1).save("key.json")
    assert run("invert", photos, "-m", tiny_ddpm, "--steps", 2, "--metrics", "none", "-o", "inv").code == 0
    ended = run("measure", "inv", "--metrics", "gaussian_shading", "--key", "key.json", "-o", "marks")
    assert ended.code == 0, ended.err
    assert all(0 <= row["gaussian_shading"] <= 1 for row in index("marks"))
    Path("key.json").rename("moved.json")
    again = run("measure", "inv", "--metrics", "gaussian_shading", "--key", "moved.json", "-o", "marks", "--json")
    assert (again.code, again.json["skipped"]) == (0, 3), again.err
    GaussianShading.drawn(shape, channel_copies=1, side_copies=2, seed=2).save("other.json")
    other = run("measure", "inv", "--metrics", "gaussian_shading", "--key", "other.json", "-o", "marks")
    assert (other.code, "key sha256" in other.err) == (4, True), other.err
    ended = run("measure", "inv", photos, "--metrics", "lpips_vgg", "--weights-dir", "gone", "-o", "a", "--json")
    assert ended.code == 3, ended.err
    refused = run("measure", "inv", "--metrics", "dire", "--maps", "maps", "-o", "b")
    assert (refused.code, "--maps is of files and folders" in refused.err) == (2, True), refused.err
    refused = run("measure", "inv", "--metrics", "std", "--key", "gone.json", "-o", "b")
    assert (refused.code, "--key is for metrics that" in refused.err) == (2, True), refused.err


def test_aeroblade_of_a_collection_is_that_of_its_files(run: Run, photos: str, tiny_sd: Path) -> None:
    for name in "abc":
        draw(Path(f"photos/{name}.png"), (32, 32), "red" if name == "a" else "lime", "blue" if name == "b" else "white")
    draw(Path("photos/odd.png"), (31, 32))
    saved("squeeze", Path("."), ".safetensors")  # random weights
    asked = ("--metrics", "aeroblade[squeeze]", "--weights-dir", ".", "-m", tiny_sd, "--json")
    files = run("measure", photos, *asked)
    assert files.code == 4, files.err
    ended = run("measure", photos, "--sharded", *asked, "-o", "told")
    assert (ended.code, ended.json["statuses"]) == (4, {"ok": 3, "unreadable": 1}), ended.err
    by_file = {Path(pair["file"]).stem: pair["values"]["aeroblade[squeeze]"] for pair in files.json["pairs"]}
    rows = {row["name"]: row for row in index("told")}
    assert [rows[name]["aeroblade[squeeze]"] for name in "abc"] == pytest.approx([by_file[n] for n in "abc"], rel=1e-6)
    assert (rows["odd"]["aeroblade[squeeze]"], "31x32" in rows["odd"]["reason"]) == (None, True)
    refused = run("measure", photos, "--sharded", *asked[:4], "-o", "b")
    assert (refused.code, "--model, whose autoencoder" in refused.err) == (2, True), refused.err
    refused = run("measure", photos, "--sharded", *asked[:4], "-m", "scenes-ddpm", "-o", "b")
    assert (refused.code, "no autoencoder" in refused.err) == (2, True), refused.err
    assert not Path("b").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("invert", "photos/a.png", "--workers", 2), 2, "--workers is of a collection"),
        (("invert", "gone", "--workers", 2), 4, "'gone' is not there"),
        (("measure", "gone", "-o", "told"), 4, "'gone' is not there"),
        (("invert", "photos/a.png", "--metrics", "psnr"), 2, "--metrics is of a collection"),
        (("invert", "photos", "--batch-size", "some"), 2, "--batch-size takes a number from 1 to 4096, or auto"),
        (("invert", "photos", "--workers", 0), 2, "--workers must be at least 1"),
        (("invert", "photos", "--shard-size", 0), 2, "--shard-size must be at least 1"),
        (("invert", "photos", "--metrics", "fid"), 2, "of whole sets"),
        (("invert", "photos", "--trajectory", "t.safetensors"), 2, "--trajectory is of one picture"),
        (("invert", "photos", "--ray-address", "x:1"), 2, "ray"),
        (("invert", "generated:3"), 2, "sample"),
        (("reconstruct", "photos"), 4, "no collection that 'unsample invert' made"),
        (("edit", "photos", "--target-prompt", "x", "--grid"), 2, "--grid is of one picture"),
        (("edit", "photos", "--target-prompt", "x", "--mask", "m.png"), 2, "--mask given"),
        (("edit", "photos/a.png", "--target-prompt", "x", "--batch-size", 2), 2, "--batch-size is of a collection"),
        (("measure", "photos", "photos", "-o", "out"), 2, "--output is of a collection"),
        (("measure", "list.csv", "photos", "--csv", "x.csv"), 2, "--csv is of files"),
        (("measure", "list.csv", "scenes:3"), 4, "made on the spot"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    run: Run, photos: str, arguments: tuple[Any, ...], code: int, said: str
) -> None:
    before = set(Path().rglob("*"))
    ended = run(*arguments)
    assert (ended.code, said in ended.err) == (code, True), ended.err
    assert set(Path().rglob("*")) == before


def test_auto_halves_a_batch_of_files_that_is_too_large(
    run: Run, photos: str, tiny_ddpm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from unsample.verbs import api

    own, sizes = api.invert, []

    def invert(model: Any, images: Any, *given: Any, **more: Any) -> Any:
        sizes.append(len(images))
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return own(model, images, *given, **more)

    monkeypatch.setattr(api, "invert", invert)
    files = [f"photos/{name}.png" for name in "abc"]
    assert run("invert", *files, "-m", tiny_ddpm, "--steps", 2, "--batch-size", "auto").code == 0
    assert sizes == [3, 2, 1, 1, 1]
    assert run("invert", *files, "-m", tiny_ddpm, "--steps", 2, "--batch-size", 3, "--overwrite").code == 6
