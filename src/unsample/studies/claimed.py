"""Claims as data: what a study says beforehand of its rows, so that a verdict cannot be fitted to a result."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

FOLDER = Path(__file__).parent / "claims"
Where = dict[str, str | int | float | bool]


class Claim(BaseModel):
    """One sentence and how it is judged.

    The effect is taken over units (column `unit` of rows; pairs are of the same unit): with A the column `value` of the
    rows that fit `of`, and B of those that fit `against` (or the number `against_value`),

    - "value": mean A; "difference": mean (A - B); "ratio": mean A / mean B; "share": the share of units with A > B
      (A true where there is no B); "median": the median of A.

    It holds where the effect lies beyond `least` on the side of `direction`, or ("within") inside +- `least` of no
    effect (0, of ratios 1: between 1 / least and least).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern="^[a-z0-9_]+$")
    says: str
    value: str
    of: Where
    against: Where | None = None
    against_value: float | None = None
    effect: Literal["value", "difference", "ratio", "share", "median"]
    direction: Literal["above", "below", "within"]
    least: float  # the least effect that counts, or the limit that is claimed
    n: int = Field(ge=1)  # units below which nothing is said
    nature: bool = False  # about the nature of inversion: judged over all models by their signs
    exact: bool = False  # no sampling: one computed number a model, without an interval
    models: tuple[str, ...] = ()  # the only ones it is about; none: all that ran
    published: str = ""  # the paper's own values

    @model_validator(mode="after")
    def _check(self) -> Claim:
        pairs = self.against is not None or self.against_value is not None
        if self.effect in ("difference", "ratio") and not pairs:
            raise ValueError(f"claim {self.name}: {self.effect} needs against or against_value")
        if self.effect in ("value", "median") and pairs:
            raise ValueError(f"claim {self.name}: {self.effect} takes no against; least is the limit")
        if self.effect in ("value", "median") and self.direction == "within":
            raise ValueError(
                f"claim {self.name}: within is around no effect; a {self.effect} has none, take difference"
            )
        return self

    @property
    def null(self) -> float:
        """No effect: below it, or above, an effect is on the other side."""
        return {"ratio": 1.0, "difference": 0.0, "share": 0.5}.get(self.effect, self.least)


@cache
def claims_of(study: str) -> tuple[Claim, ...]:
    """The claims of a study, in order; none where it only shows."""
    path = FOLDER / f"{study}.toml"
    if not path.is_file():
        return ()
    return tuple(Claim(**each) for each in tomllib.loads(path.read_text(encoding="utf-8"))["claim"])
