"""The table of a study's numbers: what tells groups apart, and what is a mean."""

from __future__ import annotations

import pytest

from unsample.studies.means import means_of, number


def test_a_measured_number_of_few_values_tells_no_groups_apart() -> None:
    rows = [
        {"model": "m", "unit": k, "steps": 10 * (k % 2), "dose": 0.5 * (k % 2), "accuracy": 0.25 * (k % 3)}
        for k in range(24)
    ]
    table = means_of(rows)[0]
    assert table.heads == ("model", "steps", "n", "dose", "accuracy")
    assert len(table.lines) == 2
    assert table.lines[0][table.heads.index("accuracy")] == number(0.25)
    claimed = means_of(rows, {"dose"})[0]
    assert "dose" in claimed.heads[: claimed.heads.index("accuracy")]


def test_n_counts_the_units_that_have_a_value() -> None:
    rows = [{"model": "m", "unit": k, "error": 0.1 * k if k < 3 else None} for k in range(8)]
    table = means_of(rows)[0]
    assert table.lines[0][table.heads.index("n")] == "3"


POWERS = [(0.9998, "1.00"), (1.0003, "1.00"), (0.09996, "0.100"), (99.96, "100"), (1234.0, "1234"), (0.5, "0.500")]


@pytest.mark.parametrize(("value", "text"), POWERS)
def test_three_digits_on_either_side_of_a_power_of_ten(value: float, text: str) -> None:
    assert number(value) == text
