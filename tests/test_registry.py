"""A package outside this repository: its method, editor and metric are found by their entry points, and only then."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import unsample
from unsample.edits import EDITORS
from unsample.errors import BadInput, BadOption, UnknownName
from unsample.methods import METHODS, Method, configured, ddim, get_method, register
from unsample.metrics import METRICS, MetricFacts, Subject

pytestmark = [pytest.mark.usefixtures("tables_restored"), pytest.mark.filterwarnings("ignore::UserWarning")]
FACTS: dict[str, Any] = {"summary": "s", "equation": "e", "cost": "T", "year": 2026, "reference": "unpublished"}
MODULE = '''
from dataclasses import replace
from typing import Annotated

import unsample
from unsample.edits import Editor, Steering
from unsample.methods import Method, Setting, configured
from unsample.metrics import MetricFacts

FACTS = {"summary": "theirs", "equation": "x = x", "cost": "T", "year": 2026, "reference": "unpublished"}


@unsample.methods.register(**FACTS, presets={"twice": {"times": 2}})
@configured
def their_method(times: Annotated[int, Setting("how often.", low=1)] = 1) -> Method:
    """Theirs."""
    return replace(unsample.methods.fixed_point(num_iters=times), handles_guidance=False)


class Steered(Steering):
    def after(self, k, j, x, state):
        return x + 0.01, state


@unsample.edits.register(**FACTS)
@configured
def their_editor() -> Editor:
    """Theirs."""
    return Editor(steer=lambda branches: Steered())


def brightness(subject, settings):
    return subject.images.mean((1, 2, 3)).tolist()


unsample.metrics.register(MetricFacts(
    "their_metric", "mean of all values", 0, 1, "neither", kind="pair", needs=("images",), convention="RGB in [0, 1]",
    reference="definition", compute=brightness,
))
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with an installed distribution of theirs, and one whose module cannot be imported."""
    site = tmp_path / "site"
    points = {
        "their_inversion": "[unsample.methods]\ntheir_method = their_inversion:their_method\n"
        "[unsample.editors]\ntheir_editor = their_inversion:their_editor\n"
        "[unsample.metrics]\ntheir_metric = their_inversion\n",
        "broken_inversion": "[unsample.methods]\nbroken_method = broken_inversion:broken_method\nddim = nowhere:ddim\n",
    }
    for name, text in points.items():
        about = site / f"{name}-0.3.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 0.3\n")
        (about / "entry_points.txt").write_text(text)
    (site / "their_inversion.py").write_text(MODULE)
    (site / "broken_inversion.py").write_text("import a_module_that_is_not_there\n")
    return site


@pytest.fixture
def installed(package: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, in this process."""
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.delitem(sys.modules, "their_inversion", raising=False)
    return package


def test_a_name_of_a_package_is_found_where_it_is_asked_for(installed: Path) -> None:
    get_method("ddim")
    assert "their_inversion" not in sys.modules  # nobody asked for anything of it
    assert get_method("their_method", {"preset": "twice"}).settings["times"] == 2
    assert METHODS.origin("their_method") == "their-inversion 0.3"
    assert "their_editor" in EDITORS
    images = unsample.sample("scenes-mixture", num_inference_steps=2, progress=False).images
    found = unsample.measure(["their_metric"], Subject(images=images))["their_metric"].values
    assert found == pytest.approx(images.mean((1, 2, 3)).tolist())
    assert [name for name in METRICS if name.startswith("their")] == ["their_metric"]


def test_what_cannot_be_imported_is_warned_of_in_lists_and_said_where_it_is_asked_for(installed: Path) -> None:
    with pytest.warns(UserWarning, match="broken_method of broken-inversion 0.3 .* cannot be imported: ModuleNotF"):
        assert "broken_method" not in list(METHODS)
    assert "their_method" in list(METHODS)
    with pytest.raises(BadOption, match="broken_method of broken-inversion 0.3 .*a_module_that_is_not_there"):
        get_method("broken_method")
    assert METHODS["ddim"].factory is ddim


def test_a_saved_inversion_needs_the_package_that_made_it(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = unsample.load("scenes-mixture")
    made = unsample.sample(model, num_inference_steps=3, progress=False)
    inversion = unsample.invert(model, latents=made.latents, method="their_method", num_inference_steps=3)
    inversion.save(tmp_path / "a.safetensors")
    again = unsample.reconstruct(model, str(tmp_path / "a.safetensors"))
    assert again.latents.equal(unsample.reconstruct(model, inversion).latents)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(installed)])
    METHODS.registered.clear()
    with pytest.raises(BadInput, match=r"unknown method 'their_method'.* others come with a package \(install it\)"):
        unsample.reconstruct(model, str(tmp_path / "a.safetensors"))


def test_a_name_is_taken_once() -> None:
    def own() -> Method:
        return ddim()

    first = register(configured(own), **FACTS)
    register(configured(own), **FACTS)  # a cell of a notebook, run again
    assert METHODS["own"].factory is not first
    for name, said in {"ddim": "built in", "auto": "built in", "own": "registered already"}.items():

        def other() -> Method:
            return ddim()

        other.__name__ = name
        with pytest.raises(BadOption, match=said):
            register(configured(other), **FACTS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"summary": " "}, "summary must be said in words"),
        ({"year": "now"}, "year must be a whole number"),
        ({"quick": {"no": 1}}, "preset quick has no"),
        ({"presets": {"one": {"eps_at": "nowhere"}}}, "preset one is refused"),
    ],
)
def test_facts_that_cannot_be_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadOption, match=said):
        register(ddim, **{**FACTS, **change})
    with pytest.raises(BadOption, match="put @configured above its factory"):
        register(lambda: ddim(), **FACTS)
    assert "<lambda>" not in METHODS.registered


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "psnr"}, "built in"),
        ({"needs": ("pictures",)}, "fields of Subject"),
        ({"kind": "own"}, "kind is one of"),
        ({"compute": None}, "every other kind compute"),
        ({"convention": ""}, "convention must be a line"),
    ],
)
def test_rows_of_metrics_that_cannot_be_are_refused(change: dict[str, Any], said: str) -> None:
    row: dict[str, Any] = {"name": "own", "title": "t", "low": 0, "high": 1, "better": "lower", "kind": "pair"}
    row |= {"needs": ("images",), "convention": "c", "reference": "r", "compute": lambda subject, settings: []}
    with pytest.raises(BadOption, match=said):
        unsample.metrics.register(MetricFacts(**{**row, **change}))


def test_a_plugin_that_is_not_there_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from unsample.registry import use_plugins

    monkeypatch.setenv("UNSAMPLE_PLUGINS", "")
    with pytest.raises(BadOption, match=r"plugin .*nowhere.py cannot be imported: FileNotFoundError"):
        use_plugins(["nowhere.py"])
    with pytest.raises(BadOption, match=r"plugin a_module_that_is_not_there cannot be imported"):
        use_plugins(["a_module_that_is_not_there"])
    monkeypatch.setenv("UNSAMPLE_PLUGINS", "nowhere.py")
    get_method("ddim")
    with pytest.raises(BadOption, match=r"nowhere.py"):
        get_method("their_method")
    monkeypatch.setenv("UNSAMPLE_PLUGINS", "")
    with pytest.raises(UnknownName, match="their_method"):
        get_method("their_method")


def test_the_command_line_knows_a_package_too_in_worker_processes(package: Path, tmp_path: Path) -> None:
    def unsample_(*arguments: str, path: str = str(package)) -> subprocess.CompletedProcess[str]:
        code = "import sys; from unsample.cli.main import main; code = main(sys.argv[1:]); "
        code += "print('torch' in sys.modules, file=sys.stderr); sys.exit(code)"
        return subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": path}, timeout=300,
        )  # fmt: skip

    shown = unsample_("methods", "their_method", "--json")
    assert json.loads(shown.stdout)["methods"][0]["registered_by"] == "their-inversion 0.3"
    listed = unsample_("methods")
    assert listed.returncode == 0
    assert "\ntheir_method " in listed.stdout
    assert "warning: the method broken_method of broken-inversion 0.3" in listed.stderr
    assert shown.stderr.split()[-1] == listed.stderr.split()[-1] == "False", "torch was imported for a list"
    (tmp_path / "plan.toml").write_text(
        'dataset = "scenes:2"\nmodels = ["scenes-mixture"]\nsteps = 3\n'
        'methods = ["ddim", {name = "their_method", settings = {times = 2}}]\nmetrics = ["psnr", "their_metric"]\n'
    )
    ran = unsample_("bench", "run", "plan.toml", "--workers", "2", "--artefacts", "none", "-o", "run", "--json")
    assert ran.returncode == 0, ran.stderr
    statuses = json.loads(ran.stdout)["statuses"]
    assert set(statuses) <= {"ok", "not_converged"}
    assert sum(statuses.values()) == 4
    told = unsample_("report", "run", "-o", "page.html")
    assert told.returncode == 0, told.stderr


def test_the_page_on_extending_is_true() -> None:
    page = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    names: dict[str, Any] = {"__name__": "page"}
    for block in (b for b in blocks if not b.startswith("# a file of its own")):
        exec(block, names)
    names["test_mine"]()
