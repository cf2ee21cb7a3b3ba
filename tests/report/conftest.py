"""A whole run with pictures, made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.report import runs


@pytest.fixture(scope="session")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder and rows of a run with edits, five items at two guidances; not to be changed."""
    folder = tmp_path_factory.mktemp("run")
    return folder, runs.rows_with_pictures(folder, items=5, size=32, guidance=(1.0, 5.0))
