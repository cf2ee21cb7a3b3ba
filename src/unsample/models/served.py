"""The table of families in words, for `unsample models families` and README: what is served, how, what was tried."""

from __future__ import annotations

from unsample.models.families import FAMILIES, NO_INVERSION, OTHER_PREDICTION, STATEFUL_GUIDERS, Family

HOW = {"pixel": "by hand", "latent": "by hand", "pipeline": "replayed"}
HEAD = ("family", "pipelines of diffusers", "served", "tried", "particular")
NOT_TRIED = "never"


def cells(family: Family) -> tuple[str, ...]:
    """A row, under `HEAD`."""
    pipelines = ", ".join(family.pipelines)
    return family.name, pipelines, HOW[family.adapter], family.tried or NOT_TRIED, family.note


def refused() -> dict[str, list[str]]:
    """Why pipelines are refused, with the parts of their classes' names."""
    found: dict[str, list[str]] = {}
    for name, what in OTHER_PREDICTION:
        found.setdefault(f"its prediction depends on {what}", []).append(name)
    for name, why in (*NO_INVERSION, *STATEFUL_GUIDERS):
        found.setdefault(why, []).append(name)
    return found


def markdown() -> str:
    """The table of README: `python -m unsample.models.served` prints it."""
    lines = [HEAD, tuple("-" * 3 for _ in HEAD)]
    lines += [(name, f"`{names.replace(', ', '`, `')}`", *rest) for name, names, *rest in map(cells, FAMILIES)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
