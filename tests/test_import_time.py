"""Names, settings and defaults are known before torch is: the heavy packages are imported where they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "diffusers", "transformers", "numpy", "PIL", "safetensors", "pydantic", "typer", "tqdm")
SNIPPETS = {
    "the package": "import unsample; unsample.__version__; dir(unsample)",
    "the table of methods": "import unsample; from unsample.methods import METHODS, get_method; get_method('ddim')",
    "its settings": "from unsample.methods import *; setting_defaults(METHODS['fixed_point'].factory)",
    "the errors and results": "from unsample import BadInput, Inversion, Images",
    "the numbers": "from unsample.numbers import grid, walk, prediction, health, slerp",
    "the steps": "import unsample.numbers.solvers.ddim, unsample.numbers.solvers.fixed_point",
    "the verbs, unused": "from unsample import invert, load",
    "a model's place": "from unsample.models.loading import find_model; find_model('scenes-sd')",
    "the studies": "from unsample.studies import NAMES, get_study; [get_study(name).question for name in NAMES]",
    "what is known of a model": "from unsample.preflight.known import known_model; known_model('scenes-sd')",
}


@pytest.mark.parametrize("what", SNIPPETS)
def test_no_heavy_package_is_imported_for(what: str) -> None:
    code = f"import sys; {SNIPPETS[what]}; print(*[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_a_mistake_in_a_name_costs_no_torch() -> None:
    code = (
        "import sys, unsample\n"
        "try: unsample.methods.get_method('ddmi')\n"
        "except unsample.UnknownName as error: print(error)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "did you mean 'ddim'" in done.stdout
    assert done.stdout.split()[-1] == "False"


def test_the_header_of_an_inversion_is_read_without_torch(tmp_path: object) -> None:
    code = (
        "import sys\n"
        "from unsample.verbs.saved import read_header\n"
        "from unsample import BadInput\n"
        f"path = {str(tmp_path)!r} + '/a.safetensors'\n"
        "open(path, 'wb').write(b'not one')\n"
        "try: read_header(path)\n"
        "except BadInput: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_every_public_name_can_be_had() -> None:
    import unsample

    for name in unsample.__all__:
        assert getattr(unsample, name) is not None
        assert name in dir(unsample)
    with pytest.raises(AttributeError, match="no attribute 'inverse'"):
        unsample.inverse  # noqa: B018
