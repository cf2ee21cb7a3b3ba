"""Every row of the table of editors does what every editor does. A new row is tested with no new line here.

The contract is said in `unsample.testing.editors`, for the editors of others too. Rows run at their own settings.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import cache

import pytest

import unsample
from unsample.edits import BUILT_IN
from unsample.methods.citations import arxiv_ids, bibtex
from unsample.testing import editors, table
from unsample.testing.editors import EditorCase

EVERY = pytest.mark.parametrize("name", BUILT_IN, scope="module")
pytestmark = pytest.mark.filterwarnings("ignore")
case = cache(EditorCase)  # each row's edits are made once


@EVERY
@pytest.mark.parametrize("check", table.CHECKS, ids=lambda check: check.__name__)
def test_its_row(name: str, check: Callable[[table.Named], None]) -> None:
    check(table.Named("editor", name))


@EVERY
def test_the_factory_is_public_and_its_paper_can_be_cited(name: str) -> None:
    facts = BUILT_IN[name]
    assert getattr(unsample.edits, name) is facts.factory
    assert "Example:" in (inspect.getdoc(facts.factory) or "")
    if facts.factory().steer is not None:
        assert re.search(r"arXiv:\d{4}\.\d{5}", facts.reference)
        assert bibtex(arxiv_ids(facts.reference)).count("@misc") >= 1


@EVERY
@pytest.mark.parametrize("check", editors.CHECKS, ids=lambda check: check.__name__)
def test_it(name: str, check: Callable[[EditorCase], None]) -> None:
    check(case(name))
