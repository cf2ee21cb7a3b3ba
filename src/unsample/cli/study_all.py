"""`unsample study all`: every study into one site, resumably; one that fails does not end the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.cli import talk
from unsample.errors import Incompatible

if TYPE_CHECKING:
    from unsample.bench.run import How
    from unsample.studies.base import Asked, Study
    from unsample.studies.passes import Work


def run_all(
    names: Sequence[str],
    asked_of: Callable[[Study], Asked],
    how: How,
    site: Path,
    docs: str | None,
    json: bool,
    dry_run: bool = False,
) -> int:
    """Run studies into `site/NAME`, and write the index; the exit code is that of what failed, 1 for several."""
    from unsample.bench.local import Crew
    from unsample.cli.main import explain
    from unsample.cli.study import before, conducted, lacking, would_run
    from unsample.media.files import check_writable_folder
    from unsample.studies import get_study
    from unsample.studies.docs import check_document, write_docs
    from unsample.studies.running import WORTH
    from unsample.studies.site import FAILED, NOT_COMPARABLE, counts, write_site

    if docs is not None:
        check_document(docs)
    if not dry_run:
        check_writable_folder(site)
    wanted = {name: asked_of(get_study(name)) for name in names}
    states, planned, codes = _planned(wanted, None if dry_run else site, how.device)
    total = sum(work.total for work in planned.values())
    talk.say(f"{len(planned)} studies, {sum(w.cells for w in planned.values()):,} cells, {total:,} network evaluations")
    for name, reason in states.items():
        talk.note(f"{name}: {reason[0]}: {reason[1]}")
    if dry_run:
        for name, work in planned.items():
            before(get_study(name), wanted[name], work)
        would_run(planned, json)
        return _code(codes)
    found: dict[str, Any] = {}
    with Crew() as crew:
        several = crew if sum(work.seconds for work in planned.values()) > WORTH else None
        for name, work in planned.items():
            study = get_study(name)
            before(study, wanted[name], work)
            try:
                result, _, said = conducted(study, wanted[name], how, site / name, work, True, several)
            except Incompatible as error:
                states[name] = (NOT_COMPARABLE, str(error))
                talk.note(f"{name}: {NOT_COMPARABLE}: {error}")
                continue
            except Exception as error:
                code, message = explain(error)
                states[name] = (FAILED, message)
                codes.append(code)
                talk.error(f"{name}: {message}")
                continue
            for each in said:
                talk.warn(each)
            codes += [1] if lacking(result) else []
            answers = [verdict.answer for verdict in result.verdicts]
            found[name] = dict(Counter(answers))
            talk.say(f"{name}: {counts(answers)}")
    files = write_site(site, states)
    if docs is not None:
        files += write_docs(site, Path(docs))
    if json:
        apart = {name: {"state": state, "reason": reason} for name, (state, reason) in states.items()}
        talk.document({"site": str(site), "studies": found, "not_run": apart, "files": [str(file) for file in files]})
    talk.say(f"wrote {', '.join(str(file) for file in files)}")
    return _code(codes)


def _code(codes: Sequence[int]) -> int:
    """The exit code of all: that of what failed, 1 for several kinds."""
    return codes[0] if len({*codes}) == 1 else int(bool(codes))


def _planned(
    wanted: dict[str, Asked], site: Path | None, device: str | None
) -> tuple[dict[str, tuple[str, str]], dict[str, Work], list[int]]:
    """What is not run and why; what each of the others takes; exit codes of those that cannot be run."""
    from unsample.cli.main import explain
    from unsample.errors import UnsampleError
    from unsample.studies import get_study
    from unsample.studies.passes import work_of
    from unsample.studies.running import check_study
    from unsample.studies.site import FAILED, NOT_COMPARABLE

    states: dict[str, tuple[str, str]] = {}
    planned: dict[str, Work] = {}
    codes = []
    for name, asked in wanted.items():
        study = get_study(name)
        try:
            check_study(study, asked, None if site is None else site / name, device=device)
            planned[name] = work_of(study, asked)
        except Incompatible as error:
            states[name] = (NOT_COMPARABLE, str(error))
        except UnsampleError as error:
            code, message = explain(error)
            states[name] = (FAILED, message)
            codes.append(code)
    return states, planned, codes
