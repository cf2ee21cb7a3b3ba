"""The errors a user can meet. A message says what was asked, what was found, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

LONGEST = 2000  # letters of a message, which may quote others' text


class UnsampleError(Exception):
    """Root of our errors. `exit_code` is what the command line ends with.

    Of a message over 2,000 letters the middle is left out: what was asked stands first, what to do last.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        half = LONGEST // 2
        super().__init__(message if len(message) <= LONGEST else f"{message[:half]} … {message[3 - half :]}")


class BadOption(UnsampleError):
    """An option or argument that cannot be (unknown setting, steps out of range, guidance nan)."""

    exit_code = 2


class UnknownName(BadOption):
    """A name that no table holds."""


class Incompatible(BadOption):
    """Things that exist but do not go together (a text method on a model without text)."""


class OutOfDomain(Incompatible):
    """Pictures or prompts that a drawn-scenes model does not know; `reasons` are one a picture or prompt."""

    def __init__(self, message: str, reasons: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details: dict[str, Any] = {"out_of_domain": True, "reasons": list(reasons)}


class WeightsMissing(UnsampleError):
    """A model or its weights were not found, or are not what their manifest says."""

    exit_code = 3


class BadInput(UnsampleError):
    """Something is wrong with a file's content or path, in or out."""

    exit_code = 4


@dataclass(frozen=True)
class LostAt:
    """Where a picture stopped being finite; as text, what is said after "diverged at".

    `where` is "encoder", "step", "end" (of the walk: what is kept is not finite, or no noise any more) or "decoder".
    `step` of `of` is counted from 1 in the order of the walk, `timestep` is that of the step's noisier end, and `what`
    says in words what was wrong.
    """

    where: Literal["encoder", "step", "end", "decoder"]
    step: int | None = None
    of: int | None = None
    timestep: float | None = None
    what: str | None = None

    def __str__(self) -> str:
        at = "" if self.timestep is None else f" (timestep {self.timestep:g})"
        place = {
            "encoder": "the encoder",
            "step": f"step {self.step} of {self.of}{at}",
            "end": f"the end of {self.of} steps",
            "decoder": "the end: the picture is not finite",
        }[self.where]
        return f"{place} ({self.what})" if self.what else place


class Diverged(UnsampleError):
    """Every picture of the call stopped being finite.

    `lost_at` says for each picture where, and `nonfinite_at` where the network's answer was not finite, as they do on
    `Inversion` and `Images`.
    """

    exit_code = 5

    def __init__(
        self,
        message: str,
        nonfinite_at: Sequence[dict[str, Any] | None] = (),
        lost_at: Sequence[LostAt | None] = (),
    ) -> None:
        super().__init__(message)
        self.nonfinite_at, self.lost_at = list(nonfinite_at), list(lost_at)


Told = Callable[[Callable[[int], str]], str]
"""A text, given what each picture of the call is named."""


class UnsampleWarning(UserWarning):
    """A warning of the verbs, as a value: its `kind`, the `pictures` of the call that it speaks of, and its text.

    `kind` is "diverged", "nonfinite", "not_converged", "noise", "constant", "drift", "model", "mask", "sampler" or
    "out_of_domain".
    """

    def __init__(self, kind: str, text: str | Told, pictures: Iterable[int] = ()) -> None:
        self.kind, self.pictures, self._text = kind, tuple(pictures), text
        super().__init__(self.told())

    def told(self, names: Sequence[str] = ()) -> str:
        """The text, with `names` for "picture 0", "picture 1" and so on, as far as they go."""
        if isinstance(self._text, str):
            return self._text
        return self._text(lambda k: names[k] if k < len(names) else f"picture {k}")


class OutOfDomainWarning(UnsampleWarning):
    """What `OutOfDomain` says, where the work goes on."""


def first_line(error: BaseException, otherwise: str = "") -> str:
    """The first line of what an exception says; `otherwise` where it says nothing."""
    return (str(error).strip().splitlines() or [otherwise])[0]


def shown(value: object, longest: int = 200) -> str:
    """A value as an error quotes it: its repr, cut; numbers of too many digits and endless nesting have none."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} too long to be shown"
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def out_of_memory(error: BaseException) -> bool:
    """Whether memory was short, on the device or the machine; told without importing torch."""
    texts = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")
    named = type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError)
    return named or (isinstance(error, RuntimeError | OSError) and any(t in str(error).lower() for t in texts))


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownName:
    """The error for a name that is not in a table, with the nearest one suggested."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name).lower(), names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UnknownName(f"unknown {kind} {shown(str(name))}; {hint}known: {', '.join(names)}")
