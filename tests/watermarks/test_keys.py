"""The file of a key: read as it was written, its owner's alone, and refused where it is none."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from unsample.errors import BadInput
from unsample.watermarks import GaussianShading, TreeRing, load_key
from unsample.watermarks.keys import Key

SHAPE = (4, 16, 16)


@pytest.mark.parametrize("key", [TreeRing.drawn(SHAPE, 4), GaussianShading.drawn(SHAPE)], ids=["rings", "shades"])
def test_a_key_is_read_as_it_was_written(tmp_path: Path, key: Key) -> None:
    key.save(tmp_path / "key.json")
    assert load_key(tmp_path / "key.json") == key
    assert stat.S_IMODE((tmp_path / "key.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unsample_watermark": 2}, "version"),
        ({"kind": "robin"}, "tree_ring"),
        ({"kind": ["robin"]}, "tree_ring"),
        ({"more": 1}, "holds"),
        ({"channel": 9}, "channel"),
        ({"channel": "x"}, "channel"),
        ({"rings": [0, 0]}, "zero"),
        ({"rings": "abc"}, "could not convert"),
        ({"rings": 7}, "not iterable"),
        ({"shape": [4, 16]}, "shape"),
        ({"shape": [4, 16, 10**9]}, "shape"),
    ],
)
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, change: dict[str, object], said: str) -> None:
    TreeRing.drawn(SHAPE, 4, seed=0).save(tmp_path / "key.json")
    told = json.loads((tmp_path / "key.json").read_text()) | change
    (tmp_path / "key.json").write_text(json.dumps(told))
    with pytest.raises(BadInput, match=said):
        load_key(tmp_path / "key.json")


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    for content in (b"", b"[]", b"{}", b"\xff\x00", b"[" * 100_000, b" " * (2**20 + 1)):
        (tmp_path / "key.json").write_bytes(content)
        with pytest.raises(BadInput, match="is not one"):
            load_key(tmp_path / "key.json")
    for path in (tmp_path / "none.json", tmp_path, "nul\0"):
        with pytest.raises(BadInput, match="cannot be read"):
            load_key(path)
