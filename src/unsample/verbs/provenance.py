"""What is recorded of an inversion and of pictures made: every field, its type and its bounds, said once.

Format 1: a field that older files lack has a default, and what is not named here is let through (as plain JSON).
Imported where a record is made or read, not before: pydantic takes its time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator

from unsample.numbers.grid import FLOW, PREDICTION_TYPES, Grid

DEEPEST = 64  # of lists and objects within each other: a method may hold 16 others, two levels each
T = TypeVar("T")


def _text(value: Any) -> str:
    """A string, of any letters: names of files may hold bytes that are none."""
    if not isinstance(value, str):
        raise ValueError("should be text")
    return value


def _prediction_type(value: str) -> str:
    if value not in LEVELS:
        raise ValueError(f"should be one of {', '.join(LEVELS)}")
    return value


EACH = "one entry a picture"
Each = Annotated[list[T], EACH]
"""A list with one entry a picture: it is sliced and repeated with them, and of their number."""
MaybeEach = Annotated[list[T] | None, EACH]
Name = Annotated[str, PlainValidator(_text)]
Unit = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**64)]
Timestep = Annotated[int, Field(ge=0, lt=2**31)] | Annotated[float, Field(ge=0, lt=2**31)]
Size = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=2)]
Pair = Annotated[list[float], Field(min_length=2, max_length=2)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class ModelRecord(_Part):
    """The model."""

    id: Name
    family: str | None = None
    sha256: str
    dtype: str | None = None
    changes: list[Name] | None = None  # what changes its predictions beside its weights
    unread: list[Name] | None = None  # what of it cannot be read, and so is not in the hash


class MethodRecord(_Part):
    """The method, whose settings its factory checks."""

    name: str
    settings: dict[str, Any]


def _variance_preserving(grid: GridRecord) -> None:
    """alpha^2 + sigma^2 = 1."""
    if any(abs(a * a + s * s - 1) > 1e-6 for a, s in grid.levels):
        raise ValueError("its levels should preserve the variance")
    if 0 in grid.eval_sigma and grid.prediction_type != "v_prediction":
        raise ValueError("only its clean end may hold no noise, and only its last point no picture")


def _interpolating(grid: GridRecord) -> None:
    """alpha + sigma = 1."""
    if any(abs(a + s - 1) > 1e-6 for a, s in grid.levels):
        raise ValueError("alpha and sigma of a level should add up to 1")


LEVELS: dict[str, Callable[[GridRecord], None]] = dict.fromkeys(PREDICTION_TYPES, _variance_preserving)
LEVELS |= {FLOW: _interpolating}  # what holds of a grid's levels, by the prediction type of its network


class GridRecord(_Part):
    """`unsample.numbers.grid.Grid`, number by number, from clean to noisy; `LEVELS` has the rule of each kind."""

    model_config = ConfigDict(extra="forbid")
    alpha: list[Unit]
    sigma: list[Unit]
    timesteps: list[Timestep]
    eval_alpha: list[Unit]
    eval_sigma: list[Unit]
    prediction_type: Annotated[str, AfterValidator(_prediction_type)]
    clip: Annotated[float, Field(gt=0)] | None
    meta: dict[str, Any]

    @staticmethod
    def of(grid: Grid) -> GridRecord:
        """What is recorded of a grid."""
        named = {name: getattr(grid, name) for name in GridRecord.model_fields}
        return GridRecord.model_validate({k: list(v) if isinstance(v, tuple) else v for k, v in named.items()})

    def grid(self, prediction_type: str) -> Grid:
        """The grid, for a network that predicts so."""
        named = {name: getattr(self, name) for name in GridRecord.model_fields}
        lists = {k: tuple(v) for k, v in named.items() if isinstance(v, list)}
        return Grid(**named | lists | {"prediction_type": prediction_type})

    @property
    def levels(self) -> list[tuple[float, float]]:
        """Every (alpha, sigma), those at which answers are converted too."""
        own = zip(self.alpha, self.sigma, strict=True)
        return [*own, *zip(self.eval_alpha, self.eval_sigma, strict=True)]

    @model_validator(mode="after")
    def _is_a_grid(self) -> GridRecord:
        lists: list[list[Any]] = [self.alpha, self.sigma, self.timesteps, self.eval_alpha, self.eval_sigma]
        if len({len(v) for v in lists}) > 1:
            raise ValueError("its lists should be of one length")
        if any(v != sorted(v) for v in (self.timesteps, self.sigma, [-a for a in self.alpha])):
            raise ValueError("its levels should run from clean to noisy")
        if self.timesteps[:1] != [0]:
            raise ValueError("its timesteps should begin with 0")
        if len(set(self.timesteps[1:])) < len(self.timesteps) - 1 and not self.meta.get("rounded"):
            raise ValueError("its timesteps should differ, where they are not said to be rounded")
        if 0 in (*self.sigma[1:], *self.alpha[:-1]):
            raise ValueError("only its clean end may hold no noise, and only its last point no picture")
        if self.eval_alpha[1:] != self.alpha[1:] or self.eval_sigma[1:] != self.sigma[1:]:
            raise ValueError("its answers should be converted at its own levels")
        turned = self.meta.get("invert_sigmas")
        if turned is not None and (type(turned) is not int or turned < self.timesteps[-1]):
            raise ValueError("its invert_sigmas should be a number of training steps")
        LEVELS[self.prediction_type](self)
        return self


class Stored(_Part):
    """What the record is."""

    what: str
    size_over_noise: Amount
    fitted_to_picture: bool


class Nonfinite(_Part):
    """Where the network's answer about a picture was not finite (`models.guidance.Cost`)."""

    what: Literal["answer", "gradient"]
    timestep: Timestep
    evaluation: Count
    half: Literal["conditional", "unconditional"] | None
    input_finite: bool
    times: Count


class Lost(_Part):
    """Where a picture stopped being finite (`unsample.errors.LostAt`)."""

    where: Literal["encoder", "step", "end", "decoder"]
    step: Count | None = None
    of: Count | None = None
    timestep: Timestep | None = None
    what: Name | None = None


class FirstStep(_Part):
    """Where the first step out of the clean end led (`unsample.numbers.verdict.first_steps`)."""

    shell: Amount | None
    outer: bool
    radius: Amount | None = None


class Health(_Part):
    """Figures of a recovered noise (`unsample.numbers.health`), and the verdict on it (`unsample.numbers.verdict`)."""

    mean: float | None
    std: Amount | None
    kl: float | None
    lag1_correlation: float | None
    bands: dict[str, Pair] = {}
    pure_noise: bool = False
    within: bool = False
    residual: Amount | None = None
    residual_step: Count | None = None
    first_step: FirstStep | None = None
    grade: Literal["recovered", "reconstructs only", "neither"] | None = None
    grade_reason: str | None = None


class MaskRecord(_Part):
    """Where an edit was let change its picture (`unsample.edits.masks`)."""

    how: Literal["given", "auto", "attention", "thing", "editor"]  # "editor": its own
    feather: Amount  # pixels of the picture as the model sees it
    dilate: Count  # cells of the state
    share: Unit  # of the picture
    sha256: str | None = None  # of a given one: its size and pixels
    words: list[Name] | None = None  # whose attention it was
    notes: list[Name] = []  # what was taken as the mask, and what was done to it


class _Record(_Part, Mapping[str, Any]):  # type: ignore[misc]
    """How something was made. Its fields are attributes; as a mapping it is the plain JSON of those that were given."""

    model_config = ConfigDict(frozen=True)
    model: ModelRecord
    num_inference_steps: Annotated[int, Field(ge=1)]
    stop_index: Annotated[int, Field(ge=1)]
    grid: GridRecord
    prompt: MaybeEach[str | None] = None
    negative_prompt: MaybeEach[str | None] = None
    class_labels: MaybeEach[Seed] = None
    negative_class_labels: MaybeEach[Seed] = None
    seeds: MaybeEach[Seed] = None
    versions: dict[str, str] | None = None
    method: MethodRecord
    guidance_scale: Amount
    sampling_guidance_scale: Amount | None = None
    guidance_schedule: str | None = None
    sampling_scales: list[Amount] | None = None
    strength: Annotated[float, Field(gt=0, le=1)] | None = None
    source_sizes: MaybeEach[Size] = None
    names: MaybeEach[Name] = None
    notes: MaybeEach[Name] = None
    out_of_domain: MaybeEach[list[Name]] = None
    source_sha256: MaybeEach[str | None] = None
    fit: str | None = None
    residual: MaybeEach[Amount | None] = None
    stored: Stored | None = None
    nfe: MaybeEach[Count] = None
    backward: MaybeEach[Count] = None
    nonfinite_at: MaybeEach[Nonfinite | None] = None
    lost_at: MaybeEach[Lost | None] = None
    seconds: Amount | None = None
    forward_steps: Count | None = None
    forward_timestep: Timestep | None = None
    x0_noise: Amount | None = None
    levels_passed: Count | None = None
    learned: str | None = None
    learned_kept: MaybeEach[bool] = None
    regularised: MethodRecord | None = None
    first_step_radius: bool = False

    @model_validator(mode="after")
    def _fits_its_grid(self) -> _Record:
        if len(self.grid.alpha) != self.num_inference_steps + 1 or self.stop_index > self.num_inference_steps:
            raise ValueError("its steps should be those of its grid")
        return self

    def __getitem__(self, name: str) -> Any:
        if name not in self.model_fields_set:
            raise KeyError(name)
        return _as_json(getattr(self, name))

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        return (n for n in (*type(self).model_fields, *(self.model_extra or ())) if n in self.model_fields_set)

    def __len__(self) -> int:
        return len(self.model_fields_set)

    def __eq__(self, other: object) -> bool:
        return dict(self) == dict(other) if isinstance(other, Mapping) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**self, **other}

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**other, **self}

    def of_pictures(self, pick: Callable[[list[Any]], list[Any]], **more: Any) -> Any:
        """The same of other pictures: `pick` is applied to every list with one entry a picture; `more` is set."""
        lists = {name: getattr(self, name) for name in per_picture(type(self))}
        return self.model_copy(update={n: pick(v) for n, v in lists.items() if v is not None} | more)


class Provenance(_Record):
    """How an inversion was made: `Inversion.meta`."""

    prompt: Each[str | None]
    negative_prompt: Each[str | None]
    sampling_guidance_scale: Amount

    @model_validator(mode="after")
    def _has_its_schedule(self) -> Provenance:
        if (self.guidance_schedule is None) is not (self.sampling_scales is None):
            raise ValueError("a guidance schedule should have its scales, and scales their schedule")
        if self.sampling_scales is not None and len(self.sampling_scales) != len(self.grid.alpha):
            raise ValueError("its guidance should fit its grid")
        if self.guidance_schedule == "constant" and {*(self.sampling_scales or ())} - {self.sampling_guidance_scale}:
            raise ValueError("a constant guidance should be its sampling_guidance_scale at every step")
        return self

    @model_validator(mode="after")
    def _stops_where_its_strength_says(self) -> Provenance:
        steps = self.num_inference_steps
        if self.strength is not None and self.stop_index != min(int(steps * self.strength), steps):
            raise ValueError("its stop_index should be that of its strength")
        return self


class SamplingProvenance(_Record):
    """How pictures were made: `Images.meta`. Of an inversion that was played back it holds what that records, too."""

    verb: Literal["sample", "reconstruct", "edit", "interpolate"]
    use: Literal["record", "noise"] | None = None
    inversion_guidance_scale: Amount | None = None
    source_prompt: MaybeEach[str | None] = None
    editor: MethodRecord | None = None
    auto: str | None = None  # what `editor="auto"` chose, and why
    editor_notes: dict[str, Any] | None = None  # what an editor found out: the kind of edit, ...
    mask: MaybeEach[MaskRecord | None] = None
    mask_given: bool | None = None  # of an edit: whether it was told where, by a mask that came with the picture
    paste: Amount | None = None  # the source's own pixels stand outside the mask; of its edge, in pixels
    num_frames: Annotated[int, Field(ge=2)] | None = None
    prompts: list[list[str | None]] | None = None  # of an interpolation: those of its first ends, and of its last
    negative_prompts: list[list[str | None]] | None = None


class Header(_Part):
    """The JSON of a file: `Provenance`, and what stands beside it a picture."""

    model_config = ConfigDict(extra="forbid")
    meta: Provenance
    seconds: Amount
    status: Annotated[Each[Literal["ok", "not_converged", "diverged"]], Field(min_length=1)]
    nfe: Each[Count]
    backward: Each[Count]
    health: Each[Health]


def per_picture(record: type[BaseModel]) -> list[str]:
    """The fields with one entry a picture."""
    return [name for name, field in record.model_fields.items() if EACH in field.metadata]


def _as_json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=True)
    return [_as_json(v) for v in value] if isinstance(value, list) else value


def checked_header(header: Any) -> Header:
    """The JSON of an inversion, or a refusal of what is not written so.

    Args:
        header: as `json.loads` gives it.

    Raises:
        ValueError: with the place and what should be there.
    """
    _plain(header)
    try:
        found = Header.model_validate(header)
    except ValidationError as error:
        raise ValueError(misfit(error)) from error
    for part, whose in ((found, ""), (found.meta, "meta.")):
        lists = {name: getattr(part, name) for name in per_picture(type(part))}
        for name, value in lists.items():
            if value is not None and len(value) != len(found.status):
                count = len(found.status)
                raise ValueError(f"{whose}{name} should speak of {count} pictures, and speaks of {len(value)}")
    return found


def misfit(error: ValidationError) -> str:
    """The place and what should be there."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place or 'it'}: {first['msg'].removeprefix('Value error, ')}"


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
