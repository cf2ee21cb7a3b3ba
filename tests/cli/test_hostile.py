"""Files and names that others chose: nothing in them is obeyed, and whatever they claim ends in a clean error."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.cli.conftest import Run, draw
from unsample.cli import places, talk


def rewritten(path: str, **changed: Any) -> str:
    """A saved inversion with another JSON; a dict is merged."""
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    header = json.loads(metadata["unsample"])
    for name, value in changed.items():
        header[name] = header[name] | value if isinstance(value, dict) else value
    save_file(load_file(path), "evil.safetensors", metadata=metadata | {"unsample": json.dumps(header)})
    return "evil.safetensors"


@pytest.fixture
def saved(run: Run, scene: Path, tiny_sd: Path) -> str:
    """An inversion."""
    assert run("invert", scene, "-m", tiny_sd, "--steps", 2).code == 0
    return "out/scene.safetensors"


@pytest.mark.parametrize("bands", [{"mean": "x"}, {"mean": ["a", "b"]}, [1], {"mean": 3}])
def test_health_that_is_not_what_is_written_is_a_bad_file(run: Run, saved: str, bands: Any) -> None:
    health = {"mean": 0.0, "std": 1.0, "kl": 0.0, "lag1_correlation": 0.0, "bands": bands, "pure_noise": True}
    ended = run("show", rewritten(saved, health=[health]))
    assert ended.code == 4
    assert "evil.safetensors" in ended.err


@pytest.mark.parametrize("size", ["ab", [-5, -5], [0, 9], [9], [1.5, 2], [10**6, 10**6], None, [True, 9]])
def test_a_source_size_that_cannot_be_is_a_bad_file(run: Run, saved: str, tiny_sd: Path, size: Any) -> None:
    evil = rewritten(saved, meta={"source_sizes": [size]})
    ended = run("edit", evil, "-m", tiny_sd, "--target-prompt", "a star", "-o", "edit.png")
    assert ended.code == 4
    assert "corrupt" in ended.err
    assert not Path("edit.png").exists()


def test_a_long_prompt_in_a_picture_is_shortened_where_it_is_said(run: Run, tmp_path: Path, tiny_sd: Path) -> None:
    from PIL import Image

    from unsample.media.pictures import write_png

    write_png(Image.open(draw(tmp_path / "plain.png")), tmp_path / "a.png", {"prompt": "red " * 2000})
    ended = run("invert", "a.png", "-m", tiny_sd, "--steps", 2)
    assert ended.code == 0
    assert max(len(line) for line in ended.err.splitlines()) < 600


def test_a_name_of_several_lines_is_said_in_one(run: Run, tmp_path: Path, tiny_ddpm: Path) -> None:
    draw(tmp_path / "a\nerror: all is lost.png")
    ended = run("invert", "a\nerror: all is lost.png", "-m", tiny_ddpm, "--steps", 2)
    assert ended.code == 0
    assert not any(line.startswith("error") for line in ended.err.splitlines())
    assert Path("out/a\nerror: all is lost.safetensors").exists()


def test_letters_that_turn_the_direction_of_writing_are_not_shown() -> None:
    assert talk.printable("photo\u202egnp.exe\u2066x\u2069") == "photognp.exex"
    assert (
        talk.printable("\u0645\u0631\u062d\u0628\u0627 \U0001f468\u200d\U0001f469")
        == "\u0645\u0631\u062d\u0628\u0627 \U0001f468\u200d\U0001f469"
    )


def test_with_stderr_closed_stdout_is_still_one_document(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    ended = run("show", "gone.png", "--json")
    assert ended.code == 4
    assert ended.json["error"]["code"] == 4


def test_a_model_without_a_name_is_exit_3(run: Run, scene: Path) -> None:
    ended = run("invert", scene, "-m", "")
    assert ended.code == 3
    assert "without a name" in ended.err


def test_many_equal_names_cost_no_search() -> None:
    start = time.process_time()
    stems = places.free_stems(["a"] * 50_000)
    assert time.process_time() - start < 2  # 0.1 s; minutes when each name is searched for from the first number on
    assert len(set(stems)) == len(stems)
    assert places.free_stems(["a", "a-2", "A", "a", "a-2"]) == ["a", "a-2", "A-3", "a-4", "a-2-2"]


def test_a_picture_is_not_taken_for_an_inversion_nor_the_reverse(run: Run, saved: str, tmp_path: Path) -> None:
    content = Path(saved).read_bytes()
    length = int.from_bytes(content[:8], "little")
    wanted = int.from_bytes(b"BM\0\0\0\0\0\0", "little")  # a header of this length begins as a bitmap does
    assert length < wanted
    Path("bitmap.safetensors").write_bytes(
        b"BM\0\0\0\0\0\0" + content[8 : 8 + length].ljust(wanted) + content[8 + length :]
    )
    assert run("show", "bitmap.safetensors", "--json").json["kind"] == "inversion"


def test_a_model_that_only_a_file_names_is_taken_from_the_cache_and_never_fetched(
    run: Run, scene: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers

    from unsample.media.pictures import write_png
    from unsample.preflight import known

    asked: list[bool] = []

    def download(name: str, *, local_files_only: bool, **_: object) -> str:
        asked.append(local_files_only)
        return str(tiny_sd)

    monkeypatch.setattr(known, "cached", lambda name: tiny_sd if name == "evil/hub" else None)
    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", download)
    write_png(Image.open(scene), Path("hub.png"), {"model": "evil/hub", "prompt": "a red circle"})
    assert run("invert", "hub.png", "--steps", 1).code == 0
    assert asked == [True]
    assert run("invert", scene, "-m", "evil/hub", "--steps", 1, "-o", "o").code == 0
    assert asked == [True, False]  # what the user names may be fetched


@pytest.mark.parametrize("name", ["tiny-ddpm", "./tiny-ddpm", "{folder}", "evil/hub", 7, ["tiny-ddpm"], ""])
def test_a_folder_that_a_picture_names_is_not_loaded_and_that_is_said(
    run: Run, tmp_path: Path, tiny_ddpm: Path, monkeypatch: pytest.MonkeyPatch, name: object
) -> None:
    from unsample.cli import session
    from unsample.datasets import Scenes
    from unsample.media.pictures import write_png
    from unsample.metrics.pixels import as_pil
    from unsample.preflight import known as preflight

    asked: list[str] = []

    def load(known: preflight.KnownModel, where: object) -> None:
        asked.append(known.name)
        raise KeyboardInterrupt

    (tmp_path / "evil").mkdir()
    for link in ("tiny-ddpm", "evil/hub"):  # a folder of that name is here, beside a hub id that is in the cache
        (tmp_path / link).symlink_to(tiny_ddpm)
    monkeypatch.setattr(preflight, "cached", lambda name: tiny_ddpm if name == "evil/hub" else None)
    monkeypatch.setattr(session, "load", load)
    named = str(tiny_ddpm) if name == "{folder}" else name
    picture = as_pil(Scenes("tune", 1)[0].image[None])[0]
    write_png(picture, Path("a.png"), {"verb": "sample"})
    write_png(picture, Path("b.png"), {"model": named, "verb": "sample"})
    verbs = (("invert",), ("compare",), ("edit", "--target-prompt", "a star"))
    for verb, *more in verbs:
        for file, notes in (("a.png", 0), ("b.png", 1)):
            ended = run(verb, file, *more, "--steps", 1, "-o", f"{verb}.png" if verb == "edit" else verb)
            assert ended.err.count("was not followed") == notes
            assert ended.err.count("scenes-sd is used") == notes
    assert asked == ["scenes-sd"] * 6


@pytest.mark.parametrize("name", ["./tiny-sd", "{folder}", "../tiny-sd", "evil/hub"])
def test_a_path_that_a_saved_inversion_names_is_not_followed(
    run: Run, saved: str, tmp_path: Path, tiny_sd: Path, name: str
) -> None:
    (tmp_path / "evil").mkdir()
    for link in ("tiny-sd", "evil/hub"):
        (tmp_path / link).symlink_to(tiny_sd)
    sha = {"sha256": run("show", saved, "--json").json["meta"]["model"]["sha256"]}
    evil = rewritten(saved, meta={"model": {"id": name.format(folder=tiny_sd), **sha}})
    for arguments in (("reconstruct", evil), ("edit", evil, "--target-prompt", "a star"), ("interpolate", evil, evil)):
        ended = run(*arguments, "-o", "x.png" if arguments[0] == "edit" else "x")
        assert ended.code == 3
        assert "--model" in ended.err
    assert run("reconstruct", saved, "-o", "x").code == 0  # its own bare name, of a folder that is here
