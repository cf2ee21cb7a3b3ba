"""The contract of methods, editors and metrics as functions, for the tests of those that others write.

    def test_my_method():
        unsample.testing.check_method("my_method")

Each runs in seconds, without the network, and raises an `AssertionError` that names in plain words all that does not
hold. Our own rows are held to the same checks (`tests/test_contract.py`).
"""

from __future__ import annotations

from unsample.testing.checking import check_editor, check_method, check_metric

__all__ = ["check_editor", "check_method", "check_metric"]
