"""A floor imports lower floors only (house.md): read from the source, imports inside functions included."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import unsample

ROOT = Path(unsample.__file__).parent
FLOORS = {
    **dict.fromkeys(("errors", "numeric", "wording", "registry", "media"), 0),
    "numbers": 1,
    # Data sets read files and draw scenes, and need no model; models.gaussian draws its components from scenes.
    "datasets": 1,
    "watermarks": 1,
    "models": 2,
    "methods": 3,
    "edits": 3,
    "metrics": 4,
    "preflight": 4,
    **dict.fromkeys(("verbs", "experiment", "bench", "collections", "report", "studies", "testing"), 5),
    **dict.fromkeys(("cli", "web", "__main__"), 6),
}
FORBIDDEN = {("metrics", "methods"), ("datasets", "methods")}  # although it is a lower floor


def floor(module: str) -> int:
    """Of a module such as `unsample.models.latent`; the package itself only names others."""
    name = module.removeprefix("unsample.")
    package = name.split(".")[0]
    for key in (name, f"{package}.*" if "." in name else package, package):
        if key in FLOORS:
            return FLOORS[key]
    raise AssertionError(f"{module} stands on no floor; give it one here and in docs/architecture.md")


def imported(path: Path) -> set[str]:
    """Every module of ours that the file imports, anywhere in it; `from package import name` counts as both."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    files = {n: ROOT.parent / n.replace(".", "/") for n in found if n.startswith("unsample.")}
    return {n for n, at in files.items() if at.is_dir() or at.with_suffix(".py").is_file()}


def modules() -> list[str]:
    names = [".".join(p.relative_to(ROOT.parent).with_suffix("").parts) for p in ROOT.rglob("*.py")]
    return sorted(n.removesuffix(".__init__") for n in names if n != "unsample.__init__")


@pytest.mark.parametrize("module", modules())
def test_a_floor_imports_lower_floors_only(module: str) -> None:
    path = ROOT.parent / module.replace(".", "/")
    for other in imported(path / "__init__.py" if path.is_dir() else path.with_suffix(".py")):
        assert floor(other) <= floor(module), f"{module} (floor {floor(module)}) imports {other} (floor {floor(other)})"
        assert (module.split(".")[1], other.split(".")[1]) not in FORBIDDEN, f"{module} imports {other}"


def test_the_reader_of_imports_sees_those_inside_functions() -> None:
    assert "unsample.datasets.scenes" in imported(ROOT / "models/gaussian.py")
    assert "unsample.models.gaussian" in imported(ROOT / "models/loading.py")
