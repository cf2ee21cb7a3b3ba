"""The site of all studies: its index follows from what lies in the folders of the studies."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unsample.errors import BadInput
from unsample.media.files import atomic_write
from unsample.models.families import read_json
from unsample.studies.passes import pictures_told
from unsample.studies.verdicts import FAILS, FEW, HOLDS, NOT

FAILED, NOT_COMPARABLE = "failed", "not comparable"
STATES, INDEX = "states.json", "index.html"


def write_site(site: Path, states: Mapping[str, tuple[str, str]]) -> list[Path]:
    """Write the index of a site.

    Args:
        site: with a folder a study.
        states: of the studies that were not run now: what became of them, and why.

    Raises:
        BadInput: it cannot be written.
    """
    from unsample.studies.page import render

    before = {name: tuple(value) for name, value in read_json(site / STATES).items() if not done(site, name)}
    now: dict[str, tuple[str, str]] = {**before, **states}
    _write(site / STATES, json.dumps({name: list(state) for name, state in now.items()}, indent=1) + "\n")
    papers = papers_of(site, now)
    every = [str(each["answer"]) for paper in papers for study in paper["studies"] for each in study["verdicts"]]
    lead = f"{sum(bool(s['link']) for p in papers for s in p['studies'])} studies, {counts(every)}."
    _write(site / INDEX, render("index.html.jinja", title="Studies of diffusion inversion", lead=lead, papers=papers))
    return [site / STATES, site / INDEX]


def done(site: Path, name: str) -> bool:
    """Whether a study's files are there."""
    return (site / name / "verdicts.json").is_file()


def papers_of(site: Path, states: Mapping[str, tuple[str, str]]) -> list[dict[str, Any]]:
    """Every study, by paper, with what its folder says."""
    from unsample.studies import NAMES, get_study

    papers: dict[str, list[dict[str, Any]]] = {}
    for name in NAMES:
        study = get_study(name)
        about: dict[str, Any] = {
            "name": name,
            "question": study.question,
            "shows": study.shows,
            "link": "",
            "verdicts": [],
        }
        if name in states:
            about["told"] = f"{states[name][0].capitalize()}: {states[name][1]}"
        elif not done(site, name):
            about["told"] = "Not run yet."
        if done(site, name):
            try:
                about |= {"link": f"{name}/index.html", "verdicts": verdicts_of(site, name)}
                about.setdefault("told", told_of(site, name))
            except BadInput as error:
                about |= {"verdicts": [], "told": f"Damaged: {error}"}
        papers.setdefault(study.paper, []).append(about)
    return [
        {
            "id": f"paper-{k}",
            "name": paper,
            "studies": studies,
            "counted": counts([str(each["answer"]) for study in studies for each in study["verdicts"]]) + ".",
        }
        for k, (paper, studies) in enumerate(papers.items(), 1)
    ]


def verdicts_of(site: Path, name: str) -> list[dict[str, Any]]:
    """What `verdicts.json` of a study says.

    Raises:
        BadInput: it is not what a study writes.
    """
    from unsample.studies.page import KINDS

    path = site / name / "verdicts.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [each | {"answer": each["verdict"], "kind": KINDS[each["verdict"]]} for each in found]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged(path) from error


def counts(answers: Sequence[str]) -> str:
    """`12 claims: 3 hold, 1 does not hold, 8 with too few samples`."""
    if not answers:
        return "no claims judged"
    found = Counter(answers)
    words = {HOLDS: ("holds", "hold"), FAILS: ("does not hold", "do not hold")}
    words |= {FEW: ("with too few samples",) * 2, NOT: ("not comparable",) * 2}
    said = [
        f"{found[answer]} {one if found[answer] == 1 else more}"
        for answer, (one, more) in words.items()
        if found[answer]
    ]
    return f"{len(answers)} claim{'s' if len(answers) > 1 else ''}: {', '.join(said)}"


def told_of(site: Path, name: str) -> str:
    """Models, pictures, steps and seed of a study's run.

    Raises:
        BadInput: its study.json is not what a study writes.
    """
    path = site / name / "study.json"
    try:
        return _told(read_json(path))
    except (TypeError, ValueError, AttributeError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> BadInput:
    return BadInput(f"{str(path)!r} is not what a study writes; 'unsample study {path.parent.name}' writes it anew")


def _told(about: Mapping[str, Any]) -> str:
    models = about.get("models") or []
    said = f"{len(models)} model{'s' if len(models) != 1 else ''}, {pictures_told(about.get('pictures') or {})}, "
    return (
        said
        + f"{about.get('steps')} steps, seed {about.get('seed')}"
        + (", quick presets." if about.get("quick") else ".")
    )


def _write(path: Path, text: str) -> None:
    atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
