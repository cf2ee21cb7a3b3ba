"""All checks of a row, run one after the other; what fails is said together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from unsample.edits import EDITORS, Editor
from unsample.methods import METHODS, Method
from unsample.metrics import METRICS, Subject
from unsample.testing import editors, failures, methods, metrics, table, trained
from unsample.testing.problems import KINDS
from unsample.testing.words import heard, must

LEVELS = {"vp": "on noise levels that preserve the variance", "flow": "on noise levels of a flow"}
Check = Callable[[Any], None]


def check_method(method: str | Method | Callable[..., Method], *, networks: bool = True) -> None:
    """Hold a registered method to what every method of the table does.

    Its facts, settings and presets; a round trip, from a file too; edits; counted cost; exactness as declared; a
    batch as single pictures; seeds; strength; guidance; wrong use; networks that fail; and that nothing global
    changes. On ten steps of a mixture in closed form, with noise levels that preserve the variance and with those of a
    flow, unless `refuses_vp` or `refuses_flow` says why not.

    Args:
        method: a name, its factory, or a configured method. The first two are tried at their preset `quick`.
        networks: also three steps of a bundled trained network, in float32 and bfloat16.

    Raises:
        AssertionError: what does not hold, a line each.

    Example:
        >>> import unsample.testing
        >>> unsample.testing.check_method("ddim", networks=False)
    """
    name, settings = _named(method, METHODS, Method)
    row = table.Named("method", name)
    runs: list[tuple[str, Check, Any]] = [("", check, row) for check in table.CHECKS]
    cases = {kind: methods.Case(name, kind, settings or {"preset": "quick"}) for kind in KINDS}
    home = methods.kinds_of(cases["vp"].method)
    must(home, f"{name} runs on no noise levels: refuses_vp and refuses_flow are both set")
    for kind in KINDS:
        run = methods.CHECKS if kind in home else (failures.noise_levels_that_it_refuses_are_refused_before_any_work,)
        runs += [(LEVELS[kind], check, cases[kind]) for check in run]
    runs += [(LEVELS[home[0]], check, cases[home[0]]) for check in failures.CHECKS]
    runs += [("", check, cases[home[0]]) for check in trained.CHECKS if networks]
    run_all(name, runs)


def check_editor(
    editor: str | Editor | Callable[..., Editor],
    *,
    model: str = "scenes-sd",
    pairs: tuple[tuple[str, str], tuple[str, str]] = editors.PAIRS,
) -> None:
    """Hold a registered editor to what every editor of the table does.

    Its facts, settings and presets; that the source beside its edit is the reconstruction, and so is an edit under the
    source's own prompt and guidance; that it edits otherwise than the prompt alone; a batch as single pictures, and
    several prompts of one source; counted cost; the same bits twice; a record in plain JSON; that nothing global
    changes, after an error and Ctrl-C too; and that methods, models and prompts that it cannot serve are refused. On
    three steps of a bundled trained network.

    Args:
        editor: a name, its factory, or a configured editor, which is tried at its settings.
        model: the bundled model that it is tried on.
        pairs: prompts of two sources and of their edits, of the world of that model.

    Raises:
        AssertionError: what does not hold, a line each.

    Example:
        >>> import unsample.testing
        >>> unsample.testing.check_editor("none")
    """
    name, settings = _named(editor, EDITORS, Editor)
    case, row = editors.EditorCase(name, settings, model, pairs), table.Named("editor", name)
    runs: list[tuple[str, Check, Any]] = [("", check, row) for check in table.CHECKS]
    run_all(name, [*runs, *(("", check, case) for check in editors.CHECKS)])


def check_metric(name: str, subject: Subject | None = None) -> None:
    """Hold a registered metric to what every metric of the table does.

    Values within its range, one a picture, or null with a reason; a value where all is known of a picture; what it
    needs, said where that is missing; and a picture alone as in a batch. On six edited scenes of 64 x 64.

    Args:
        name: of the metric.
        subject: what it is tried on in place of the scenes, which may be too small for it, or too few.

    Raises:
        AssertionError: what does not hold, a line each.

    Example:
        >>> import unsample.testing
        >>> unsample.testing.check_metric("mae")
    """
    must(name in METRICS, f"no metric {name!r} is registered: call unsample.metrics.register with its row")
    run_all(name, (("", check, metrics.MetricCase(name, given=subject)) for check in metrics.CHECKS))


def _named(given: Any, known: Mapping[str, Any], made: type) -> tuple[str, dict[str, Any]]:
    """The name of a row, and the settings that were given with it."""
    what = made.__name__.lower()
    name = given if isinstance(given, str) else getattr(given, "name", None) or getattr(given, "__name__", None)
    must(name in known, f"no {what} {name!r} is registered: call unsample.{what}s.register with its factory")
    if callable(given):
        other = f"{given!r} is not the factory that is registered as {name}"
        must(known[name].factory is given, other)  # type: ignore[index]
    return str(name), dict(given.settings) if isinstance(given, made) else {}  # type: ignore[attr-defined]


def run_all(name: str, runs: Iterable[tuple[str, Check, Any]]) -> None:
    """Run checks; each is (where, check, what it is given).

    Raises:
        AssertionError: what does not hold, a line each.
    """
    failed, count, first = [], 0, None
    for where, check, given in runs:
        count += 1
        try:
            with heard():
                check(given)
        except Exception as error:
            said = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            place = f" ({where})" if where else ""
            failed.append(f"- {check.__name__.replace('_', ' ')}{place}: {said}")
            first = first or error
    if failed:
        text = "\n".join([f"{name}: {len(failed)} of {count} checks fail", *failed])
        raise AssertionError(text) from first
