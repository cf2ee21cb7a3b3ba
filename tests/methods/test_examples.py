"""The examples in the docstrings of methods are run."""

from __future__ import annotations

import doctest

import pytest

from unsample.methods import METHODS


@pytest.mark.parametrize("name", METHODS)
def test_an_example_gives_what_it_says(name: str) -> None:
    text = METHODS[name].factory.__doc__ or ""
    found = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    assert found.examples
    assert doctest.DocTestRunner().run(found).failed == 0
