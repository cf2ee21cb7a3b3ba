"""A wrapped function is told from others by what it is, in every process alike; a wrapped network is in eval mode."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

import unsample
from tests.problems import normal, sd14, smooth_network
from unsample.errors import BadInput, BadOption, Incompatible
from unsample.models.identity import identity

SHAPE = (3, 8, 8)
pytestmark = pytest.mark.filterwarnings("ignore:the noisiest of . grid points")


def wrapped(network: Any, **more: Any) -> Any:
    return unsample.wrap(network, DDIMScheduler(clip_sample=False), sample_shape=SHAPE, **more)


def half(x: Tensor, t: Tensor) -> Tensor:
    return FACTOR * x


def third(x: Tensor, t: Tensor) -> Tensor:
    return helper(x) / 3


def helper(x: Tensor) -> Tensor:
    return x


FACTOR = 0.5
PAIR = (lambda x, t: 0.1 * x), (lambda x, t: 0.2 * x)  # two of one line


def closing(over: Any) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, t: x * float(len(str(over)) > 0)


def linear(weight: float) -> nn.Module:
    layer = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        layer.weight.fill_(weight)
        layer.bias.zero_()
    return layer


class Callee:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def method(self, x: Tensor, t: Tensor) -> Tensor:
        return self.inner(x)

    def inner(self, x: Tensor) -> Tensor:
        return self.factor * x

    __call__ = method


class OtherCallee(Callee):
    def inner(self, x: Tensor) -> Tensor:
        return self.factor * x + 0


class Bare(nn.Module):
    """A network without weights."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.factor * x


def from_text(text: str) -> Any:
    """A function without source."""
    names: dict[str, Any] = {}
    exec(text, names)
    return names["f"]


def kinds() -> dict[str, Any]:
    """Networks that differ from each other, each in one thing."""
    return {
        "a function": half,
        "another": third,
        "a lambda": PAIR[0],
        "the other lambda of its line": PAIR[1],
        "closed over a number": closing(1),
        "over another": closing(2),
        "over a tensor": closing(torch.ones(2)),
        "over another tensor": closing(torch.zeros(2)),
        "over an array": closing(np.ones(2)),
        "over a set": closing({"a", "b", "c"}),
        "over a pattern": closing(re.compile("a")),
        "over another pattern": closing(re.compile("b")),
        "over a network": closing(linear(0.1)),
        "over a network of other weights": closing(linear(0.2)),
        "a partial": functools.partial(smooth_network, encoder_hidden_states=None),
        "another partial": functools.partial(smooth_network, encoder_hidden_states=torch.ones(1, 1, 1)),
        "a bound method": Callee(0.1).method,
        "of another object": Callee(0.2).method,
        "an object": Callee(0.1),
        "an object of a class that differs": OtherCallee(0.1),
        "a network without weights": Bare(0.1),
        "of another setting": Bare(0.2),
        "without source": from_text("def f(x, t): return 0.1 * x"),
        "without source, another": from_text("def f(x, t): return 0.2 * x"),
        "decorated": torch.no_grad()(half),
        "jitted": torch.jit.script(_scripted),
    }


def _scripted(x: Tensor, t: Tensor) -> Tensor:
    return 0.1 * x


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_every_function_has_an_identity_of_its_own_and_the_same_one_again() -> None:
    found = {name: wrapped(network).weights_sha256() for name, network in kinds().items()}
    assert len({*found.values()}) == len(found)
    assert {name: wrapped(network).weights_sha256() for name, network in kinds().items()} == found
    assert all(wrapped(network).unread == () for network in kinds().values())


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_an_identity_is_the_same_in_another_process() -> None:
    """Whatever the order of sets there, and wherever objects lie."""
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from tests.models.test_identity import kinds, wrapped\n"
        "for name, network in kinds().items(): print(wrapped(network).weights_sha256())"
    )
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": f"{root / 'src'}:{root}", "OMP_NUM_THREADS": "1", "HOME": str(root)},
    )
    assert ended.stdout.split() == [wrapped(network).weights_sha256() for network in kinds().values()]


def test_globals_and_helpers_are_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {f: identity(f).sha256 for f in (half, third)}
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 0.7)
    monkeypatch.setattr(sys.modules[__name__], "helper", lambda x: 2 * x)
    assert all(identity(f).sha256 != sha256 for f, sha256 in before.items())


def test_layout_and_comments_are_not_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    monkeypatch.syspath_prepend(tmp_path)
    texts = {"one": "def f(x, t):\n    return 2 * x\n", "two": "# why\n\ndef f(x,t):\n  # twice\n  return (2*x)\n"}
    texts["three"] = "def f(x, t):\n    return 3 * x\n"
    for name, text in texts.items():
        (tmp_path / f"identity_{name}.py").write_text(text)
    found = {name: identity(importlib.import_module(f"identity_{name}").f).sha256 for name in texts}
    assert found["one"] == found["two"] != found["three"]
    (tmp_path / "identity_four.py").write_text(texts["one"])
    four = importlib.import_module("identity_four").f
    (tmp_path / "identity_four.py").write_text(texts["three"])  # what was imported is what it was
    assert identity(four).sha256 != found["three"]


def test_weights_of_a_network_within_a_function_are_looked_at_at_every_verb() -> None:
    layer = linear(0.1)
    model = wrapped(lambda x, t: layer(x))
    before = model.weights_sha256()
    with torch.no_grad():
        layer.weight.data.mul_(2)
    assert model.weights_sha256() != before


def test_an_inversion_by_one_function_is_not_reconstructed_by_another(tmp_path: Path) -> None:
    inversion = unsample.invert(wrapped(half), latents=normal(1, *SHAPE, dtype=torch.float32), num_inference_steps=3)
    inversion.save(tmp_path / "a.safetensors")
    with pytest.raises(BadInput, match=r"was made by wrap\(function\)"):
        unsample.reconstruct(wrapped(third), tmp_path / "a.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unsample.reconstruct(wrapped(half), tmp_path / "a.safetensors")


def test_an_id_stands_in_place_of_what_can_be_read(tmp_path: Path) -> None:
    x = normal(1, *SHAPE, dtype=torch.float32)
    inversion = unsample.invert(wrapped(half, id="mine"), latents=x, num_inference_steps=3)
    unsample.reconstruct(wrapped(third, id="mine"), inversion)
    assert inversion.meta["model"]["id"] == "wrap(mine)"
    for other in (wrapped(half), wrapped(half, id="yours")):
        with pytest.raises(BadInput, match="was made by"):
            unsample.reconstruct(other, inversion)
    one, other = (wrapped(linear(0.1), id=name).weights_sha256() for name in ("one", "other"))
    assert one != other  # networks of the same weights and other code
    for bad in ("", 5):
        with pytest.raises(BadOption, match="id must be a text"):
            wrapped(half, id=bad)


class Opaque:
    """What pickle cannot take, held by a class that is not Python's."""

    def __init__(self) -> None:
        self.file = open(__file__)  # noqa: SIM115

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return 0.1 * x


def test_what_cannot_be_read_is_said_at_reconstruction() -> None:
    network = Opaque()
    x = normal(1, *SHAPE, dtype=torch.float32)
    inversion = unsample.invert(wrapped(network), latents=x, num_inference_steps=3)
    assert inversion.meta["model"]["unread"] == ["an object of _io.TextIOWrapper"]
    with pytest.warns(
        UserWarning, match=r"not known: an object of _io.TextIOWrapper cannot be read; give .* id='a name"
    ):
        unsample.reconstruct(wrapped(network), inversion)
    network.file.close()
    known = unsample.invert(wrapped(half), latents=x, num_inference_steps=3)
    of_nothing = {"sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
    known = replace(known, meta=known.meta | {"model": known.meta["model"] | of_nothing})
    with pytest.warns(UserWarning, match="is not known"):  # as earlier versions wrote it
        unsample.reconstruct(wrapped(half), known)


# ---------------------------------------------------------------- train mode


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout(0.5))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 0.1 * self.inner(x)


@pytest.mark.parametrize("where", ["whole", "a layer", "within a function"])
def test_a_network_in_train_mode_is_in_eval_for_the_call_and_put_back(where: str) -> None:
    network: Any = Dropping().eval()
    reference = wrapped(network)
    x = normal(1, *SHAPE, dtype=torch.float32)
    noise = unsample.invert(reference, latents=x, num_inference_steps=3).noise
    network = Dropping().eval()
    network.load_state_dict(reference.unet.state_dict())
    model = wrapped((lambda x, t: network(x, t)) if where == "within a function" else network)
    (network.inner[1] if where == "a layer" else network).train()
    modes = [layer.training for layer in network.modules()]
    with pytest.warns(UserWarning, match="Dropping was in train mode .* put back afterwards"):
        inversion = unsample.invert(model, latents=x, num_inference_steps=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it was said
        made = unsample.reconstruct(model, inversion)
    assert [layer.training for layer in network.modules()] == modes
    assert torch.equal(inversion.noise, noise)
    assert torch.equal(unsample.reconstruct(model, inversion).latents, made.latents)


def test_a_network_that_fails_is_put_back_too() -> None:
    class Broken(Dropping):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            raise KeyError("no")

    network = Broken().train()
    with pytest.warns(UserWarning, match="train mode"), pytest.raises(Incompatible, match="KeyError"):
        unsample.sample(wrapped(network), num_inference_steps=2)
    assert all(layer.training for layer in network.modules())


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_live_pipeline_in_train_mode_is_in_eval_for_every_verb(part: str) -> None:
    pipeline = sd14()
    model = unsample.load(pipeline)
    for layer in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        for inner in layer.modules():
            if isinstance(inner, nn.Dropout):
                inner.p = 0.5
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    noise = unsample.invert(model, x, "a", num_inference_steps=2).noise
    getattr(pipeline, part).train()
    with pytest.warns(UserWarning, match="train mode"):
        inversion = unsample.invert(model, x, "a", num_inference_steps=2)
    assert torch.equal(inversion.noise, noise)
    for verb in (
        lambda: unsample.reconstruct(model, inversion),
        lambda: unsample.edit(model, inversion, "b", guidance_scale=2),
        lambda: unsample.interpolate(model, inversion, inversion, num_frames=2),
    ):
        assert torch.equal(verb().latents, verb().latents)
    assert getattr(pipeline, part).training
