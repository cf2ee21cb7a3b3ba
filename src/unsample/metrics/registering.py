"""A metric of somebody's own beside the built-in ones: `unsample.metrics.register`."""

from __future__ import annotations

from typing import get_args

from unsample.errors import BadOption
from unsample.metrics.facts import KINDS, Better, MetricFacts
from unsample.metrics.subject import Settings, Subject
from unsample.metrics.weights import WEIGHTS


def register(facts: MetricFacts) -> MetricFacts:
    """Put a metric into the table: `measure`, the command line, plans and reports then know it by its name.

    Args:
        facts: the row; `MetricFacts` says what it holds. `compute(subject, settings)` gives a number a picture, or in
            words why there is none; a metric of kind "set" has `tally` and `conclude` in its place.

    Returns:
        The row.

    Raises:
        BadOption: a name that is taken, or a row that says what cannot be.

    Example:
        >>> import unsample
        >>> from unsample.metrics import MetricFacts
        >>> def brightness(subject, settings):
        ...     return subject.images.mean((1, 2, 3)).tolist()
        >>> row = MetricFacts("brightness", "mean of all values", 0, 1, "neither", kind="pair", needs=("images",),
        ...                   convention="RGB in [0, 1]", reference="definition", compute=brightness)
        >>> unsample.metrics.register(row).range
        '0 to 1'
    """
    from unsample.metrics.table import METRICS

    if not isinstance(facts, MetricFacts):
        raise BadOption(f"register takes a MetricFacts; got {facts!r}")
    name = facts.name
    for what in ("title", "convention", "reference"):
        if not str(getattr(facts, what)).strip() or "\n" in getattr(facts, what):
            raise BadOption(f"metric {name}: {what} must be a line of words")
    if facts.kind not in KINDS or facts.better not in get_args(Better):
        raise BadOption(
            f"metric {name}: kind is one of {', '.join(KINDS)}, better one of {', '.join(get_args(Better))}; got "
            f"{facts.kind!r} and {facts.better!r}"
        )
    known = {field for field in Subject.__dataclass_fields__ if field != "start_kind"}
    strange = {field for need in facts.needs for field in need.split("|")} - known
    if strange or not facts.needs:
        raise BadOption(f"metric {name}: needs are fields of Subject, {', '.join(sorted(known))}; got {facts.needs!r}")
    if facts.depends is not None and facts.depends not in Settings.__dataclass_fields__:
        raise BadOption(f"metric {name}: depends is a field of Settings; got {facts.depends!r}")
    if missing := set(facts.weights) - set(WEIGHTS):
        raise BadOption(f"metric {name}: weights are names in unsample.metrics.WEIGHTS; got {', '.join(missing)}")
    whole = facts.kind == "set"
    maker = facts.conclude if whole else facts.compute
    if maker is None or (facts.compute is None) != whole or (facts.tally is not None) != whole:
        raise BadOption(f"metric {name}: kind set has tally and conclude, every other kind compute, and not both")
    METRICS.add(name, facts, maker)
    return facts
