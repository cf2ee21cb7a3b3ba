"""A bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from typing import Any

from unsample.cli import talk

QUIET = 10.0  # seconds between lines of progress where there is no terminal


class Progress:
    """Of things that are counted; `what` they are stands before the bar, or in the line."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> Progress:
        self._bar: Any = None
        self._begin = self._said = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def at(self, done: int, total: int, found: int, failed: int) -> None:
        """How far it is; `found` of those that are done were there before."""
        said = f"{failed} failed" if failed else "none failed"
        if sys.stderr is not None and sys.stderr.isatty():
            from tqdm import tqdm

            if self._bar is None:
                self._bar = tqdm(total=total, desc=self._what, initial=found)
            self._bar.n = done
            self._bar.set_postfix_str(said)
            return
        now = time.perf_counter()
        if now - self._said >= QUIET:
            self._said = now
            rate = (done - found) / (now - self._begin)
            speed = (
                f"{rate:.2f} a second, {(total - done) / rate:.0f} s left" if rate else "none of them by this run yet"
            )
            talk.say(f"{done:,} of {total:,} {self._what}, {speed}, {said}")
