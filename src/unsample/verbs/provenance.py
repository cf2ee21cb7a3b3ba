"""What the JSON of a saved inversion holds: every field, its type and its bounds, said once.

Format 1: a field that older files lack has a default, and what is not named here is let through (as plain JSON).
Imported where an inversion is read, not before: pydantic takes its time.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator

from unsample.numbers.grid import PREDICTION_TYPES

DEEPEST = 64  # of lists and objects within each other: a method may hold 16 others, two levels each


def _text(value: Any) -> str:
    """A string, of any letters: names of files may hold bytes that are none."""
    if not isinstance(value, str):
        raise ValueError("should be text")
    return value


def _prediction_type(value: str) -> str:
    if value not in PREDICTION_TYPES:
        raise ValueError(f"should be one of {', '.join(PREDICTION_TYPES)}")
    return value


Name = Annotated[str, PlainValidator(_text)]
Unit = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Pair = Annotated[list[float], Field(min_length=2, max_length=2)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class ModelRecord(_Part):
    """The model that inverted."""

    id: Name
    sha256: str
    family: str | None = None
    dtype: str | None = None


class MethodRecord(_Part):
    """The method, whose settings its factory checks."""

    name: str
    settings: dict[str, Any]


class GridRecord(_Part):
    """`unsample.numbers.grid.Grid`, number by number: variance preserving, from clean to noisy."""

    model_config = ConfigDict(extra="forbid")
    alpha: list[Unit]
    sigma: list[Unit]
    timesteps: list[Annotated[int, Field(ge=0, lt=2**31)]]
    eval_alpha: list[Unit]
    eval_sigma: list[Unit]
    prediction_type: Annotated[str, AfterValidator(_prediction_type)]
    clip: Annotated[float, Field(gt=0)] | None
    meta: dict[str, Any]

    @model_validator(mode="after")
    def _is_a_grid(self) -> GridRecord:
        lists: list[list[Any]] = [self.alpha, self.sigma, self.timesteps, self.eval_alpha, self.eval_sigma]
        if len({len(v) for v in lists}) > 1:
            raise ValueError("its lists should be of one length")
        if any(v != sorted(v) for v in (self.timesteps, self.sigma, [-a for a in self.alpha])):
            raise ValueError("its levels should run from clean to noisy")
        if self.timesteps[:1] != [0] or len(set(self.timesteps[1:])) < len(self.timesteps) - 1:
            raise ValueError("its timesteps should begin with 0 and differ")
        if 0 in (*self.sigma[1:], *self.alpha[:-1], *self.eval_sigma):
            raise ValueError("only its clean end may hold no noise, and only its last point no picture")
        levels = [*zip(self.alpha, self.sigma, strict=True), *zip(self.eval_alpha, self.eval_sigma, strict=True)]
        if any(abs(a * a + s * s - 1) > 1e-6 for a, s in levels):
            raise ValueError("its levels should preserve the variance")
        if self.eval_alpha[1:] != self.alpha[1:] or self.eval_sigma[1:] != self.sigma[1:]:
            raise ValueError("its answers should be converted at its own levels")
        return self


class Stored(_Part):
    """What the record is."""

    what: str
    size_over_noise: Amount
    fitted_to_picture: bool


class Nonfinite(_Part):
    """Where the network's answer about a picture was not finite (`models.guidance.Cost`)."""

    what: Literal["answer", "gradient"]
    timestep: Count
    evaluation: Count
    half: Literal["conditional", "unconditional"] | None
    input_finite: bool
    times: Count


class Lost(_Part):
    """Where a picture stopped being finite (`unsample.errors.LostAt`)."""

    where: Literal["encoder", "step", "end", "decoder"]
    step: Count | None = None
    of: Count | None = None
    timestep: Count | None = None
    what: Name | None = None


class Health(_Part):
    """Figures of a recovered noise (`unsample.numbers.health`)."""

    mean: float | None
    std: Amount | None
    kl: float | None
    lag1_correlation: float | None
    bands: dict[str, Pair] = {}
    pure_noise: bool = False
    within: bool = False


class Provenance(_Part):
    """How an inversion was made: `Inversion.meta`."""

    model: ModelRecord
    method: MethodRecord
    grid: GridRecord
    num_inference_steps: Annotated[int, Field(ge=1)]
    stop_index: Annotated[int, Field(ge=1)]
    guidance_scale: Amount
    sampling_guidance_scale: Amount
    guidance_schedule: str | None = None
    sampling_scales: list[Amount] | None = None
    strength: Annotated[float, Field(gt=0, le=1)] | None = None
    prompt: list[str | None]
    negative_prompt: list[str | None]
    seeds: list[Annotated[int, Field(ge=-(2**63), lt=2**64)]] | None = None
    source_sizes: list[Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=2)]] | None = None
    out_of_domain: list[list[Name]] | None = None
    source_sha256: list[str | None] | None = None
    names: list[Name] | None = None
    notes: list[Name] | None = None
    fit: str | None = None
    residual: list[Amount | None] | None = None
    stored: Stored | None = None
    nfe: list[Count] | None = None
    backward: list[Count] | None = None
    nonfinite_at: list[Nonfinite | None] | None = None
    lost_at: list[Lost | None] | None = None
    seconds: Amount | None = None
    versions: dict[str, str] | None = None
    forward_steps: Count | None = None
    forward_timestep: Count | None = None
    regularised: MethodRecord | None = None

    @model_validator(mode="after")
    def _fits_its_grid(self) -> Provenance:
        if len(self.grid.alpha) != self.num_inference_steps + 1 or self.stop_index > self.num_inference_steps:
            raise ValueError("its steps should be those of its grid")
        if (self.guidance_schedule is None) is not (self.sampling_scales is None):
            raise ValueError("a guidance schedule should have its scales, and scales their schedule")
        if self.sampling_scales is not None and len(self.sampling_scales) != len(self.grid.alpha):
            raise ValueError("its guidance should fit its grid")
        return self


class Header(_Part):
    """The JSON of a file: `Provenance`, and what stands beside it a picture."""

    model_config = ConfigDict(extra="forbid")
    meta: Provenance
    seconds: Amount
    status: Annotated[list[Literal["ok", "not_converged", "diverged"]], Field(min_length=1)]
    nfe: list[Count]
    backward: list[Count]
    health: list[Health]


def check_header(header: Any, per_picture: tuple[str, ...], per_picture_meta: tuple[str, ...]) -> None:
    """Refuse the JSON of an inversion that is not what is written.

    Args:
        header: as `json.loads` gives it.
        per_picture, per_picture_meta: the lists, of the header and of its meta, with one entry a picture.

    Raises:
        ValueError: with the place and what should be there.
    """
    _plain(header)
    try:
        Header.model_validate(header)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{place or 'it'}: {first['msg'].removeprefix('Value error, ')}") from error
    count, meta = len(header["status"]), header["meta"]
    lists = {n: header[n] for n in per_picture} | {f"meta.{n}": meta.get(n) for n in per_picture_meta}
    for name, value in lists.items():
        if value is not None and len(value) != count:
            raise ValueError(f"{name} should speak of {count} pictures, and speaks of {len(value)}")


def _plain(value: Any) -> None:
    """Refuse numbers that are none of a machine, and nesting without end; counted without recursion."""
    level, depth = [value], 0
    while level:
        if depth > DEEPEST:
            raise ValueError(f"its JSON is nested deeper than {DEEPEST}")
        for item in level:
            if isinstance(item, float) and not math.isfinite(item):
                raise ValueError("a number in it is not finite")
            if isinstance(item, int) and not -(2**63) <= item < 2**64:
                raise ValueError(f"a whole number in it has {item.bit_length()} bits; at most 64 are written")
        inner = [v for item in level if isinstance(item, dict) for v in item.values()]
        level, depth = inner + [v for item in level if isinstance(item, list) for v in item], depth + 1
