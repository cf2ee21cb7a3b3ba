"""The trunk against its own reference outputs, the formula against a second implementation, files against mistakes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import unsample
from unsample.errors import BadInput, WeightsMissing
from unsample.metrics import Settings, Subject, trunks
from unsample.metrics.lpips import heads, lpips
from unsample.metrics.trunks import NETWORKS, TAPS, build, load

FOLDER = Path(os.environ.get("UNSAMPLE_WEIGHTS", "")) / "squeezenet1_1"
real = pytest.mark.skipif(
    not (os.environ.get("UNSAMPLE_WEIGHTS") and (FOLDER / "weights").is_dir()),
    reason="real SqueezeNet weights are not here; UNSAMPLE_WEIGHTS names the folder that holds squeezenet1_1/",
)


def classified(picture: Tensor) -> Tensor:
    """The whole SqueezeNet: our trunk and the classifier of the same folder."""
    last = {
        part: torch.from_numpy(np.load(FOLDER / "weights" / f"squeezenet0_conv25_{part}.npy"))
        for part in ("weight", "bias")
    }
    return nn.functional.conv2d(load("squeeze", FOLDER)(picture), **last).relu().mean((2, 3))


@real
@pytest.mark.parametrize("case", ["0", "1", "2"])
def test_the_squeezenet_trunk_reproduces_its_reference_outputs(case: str) -> None:
    folder = FOLDER / "test_data_set" / case
    found = classified(torch.from_numpy(np.load(folder / "input_0.npy")))
    assert torch.allclose(found, torch.from_numpy(np.load(folder / "output_0.npy")), atol=2e-4)  # its README: 1.4e-4


@real
def test_lpips_with_real_weights_gives_the_documented_distances() -> None:
    generator = torch.Generator().manual_seed(42)
    x, y = (torch.rand(2, 3, 100, 100, generator=generator) for _ in range(2))  # in [-1, 1] it is 2 x - 1
    found = lpips(x, y, "squeeze", Settings())
    assert found.tolist() == pytest.approx([0.2316, 0.2034], abs=5e-5)  # four digits are documented
    assert found.tolist() == pytest.approx(second_lpips(x, y, "squeeze", load("squeeze", FOLDER)).tolist(), abs=1e-6)


def second_lpips(x: Tensor, y: Tensor, net: str, trunk: nn.Sequential) -> Tensor:
    """LPIPS again, in numpy from the features on: Eq. 1, layer by layer, position by position."""
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    last = [(2 * p.numpy().transpose(0, 2, 3, 1) - 1 - shift) / scale for p in (x, y)]  # channels last
    inputs = [torch.from_numpy(p.transpose(0, 3, 1, 2)).float() for p in last]
    total = np.zeros(len(x))
    for k, end in enumerate(TAPS[net]):
        with torch.no_grad():
            f, g = (trunk[: end + 1](p).double().numpy() for p in inputs)
        unit = [v / np.sqrt(1e-8 + np.einsum("bchw,bchw->bhw", v, v))[:, None] for v in (f, g)]
        weight = heads(net)[k].double().numpy().reshape(-1)
        total += np.einsum("bchw,c->bhw", (unit[0] - unit[1]) ** 2, weight).mean((1, 2))
    return torch.from_numpy(total)


def saved(net: str, folder: Path, suffix: str, change: str = "") -> Path:
    """Random weights as a file of torchvision's names, perhaps with a mistake."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    state = {f"features.{k}": v.clone() for k, v in build(net).state_dict().items()}
    if change == "lacks":
        state.pop("features.0.bias")
    elif change == "more":
        state["features.99.weight"] = torch.zeros(1)
    elif change == "shape":
        state["features.0.bias"] = torch.zeros(7)
    else:
        state["classifier.1.weight"] = torch.zeros(3, 3)  # torchvision's files hold the classifier too
    path = folder / f"{NETWORKS[net]}{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    return path


@pytest.mark.parametrize(("net", "suffix"), [("alex", ".pth"), ("squeeze", ".safetensors"), ("vgg", ".safetensors")])
def test_the_formula_is_that_of_a_second_implementation_on_every_trunk(net: str, suffix: str, tmp_path: Path) -> None:
    path = saved(net, tmp_path, suffix)
    x, y = torch.rand(2, 3, 40, 48), torch.rand(2, 3, 40, 48)
    name = {"alex": "lpips", "vgg": "lpips_vgg", "squeeze": "lpips_squeeze"}[net]
    score = unsample.measure([name], Subject(images=x, reference=y), Settings(weights_dir=str(tmp_path)))[name]
    assert score.values == pytest.approx(
        second_lpips(x, y, net, load(net, path)).tolist(), rel=1e-4
    )  # float32 features
    assert path.name in score.details["trunk"]
    assert "ranks only" in score.details["trunk"]
    same = unsample.measure([name], Subject(images=x, reference=x), Settings(weights_dir=str(tmp_path)))[name]
    assert same.values == [0.0, 0.0]


# torchvision's own shapes, from its published state dicts
KNOWN = {
    "alex": {"0": (64, 3, 11, 11), "3": (192, 64, 5, 5), "6": (384, 192, 3, 3), "10": (256, 256, 3, 3)},
    "vgg": {"0": (64, 3, 3, 3), "5": (128, 64, 3, 3), "17": (512, 256, 3, 3), "28": (512, 512, 3, 3)},
    "squeeze": {"0": (64, 3, 3, 3), "3.squeeze": (16, 64, 1, 1), "12.expand3x3": (256, 64, 3, 3)},
}


@pytest.mark.parametrize("net", KNOWN)
def test_the_layers_have_torchvisions_names_and_shapes(net: str) -> None:
    state = build(net).state_dict()
    for name, shape in KNOWN[net].items():
        assert tuple(state[f"{name}.weight"].shape) == shape
    assert len(state) == {"alex": 10, "vgg": 26, "squeeze": 2 + 6 * 8}[net]
    channels = [len(head.flatten()) for head in heads(net)]
    x, found = torch.rand(1, 3, 64, 64), []
    for k, layer in enumerate(build(net)):
        x = layer(x)
        if k in TAPS[net]:
            found.append(x.shape[1])
            assert float(x.detach().min()) >= 0  # after a rectifier
    assert found == channels


@pytest.mark.parametrize("change", ["lacks", "more", "shape"])
def test_a_file_that_is_not_exactly_the_trunk_is_refused(change: str, tmp_path: Path) -> None:
    path = saved("alex", tmp_path, ".pth", change)
    with pytest.raises(WeightsMissing, match="is no alexnet"):
        load("alex", path)


def test_a_damaged_file_and_one_with_the_wrong_digest_are_refused(tmp_path: Path) -> None:
    (tmp_path / "alexnet.pth").write_bytes(b"not weights")
    with pytest.raises(WeightsMissing, match="cannot be read"):
        load("alex", tmp_path / "alexnet.pth")
    (tmp_path / "vgg16-397923af.pth").write_bytes(b"other weights")
    with pytest.raises(WeightsMissing, match="its SHA-256 begins"):
        load("vgg", tmp_path / "vgg16-397923af.pth")


def test_a_picture_too_small_for_the_trunk_has_a_reason(tmp_path: Path) -> None:
    saved("alex", tmp_path, ".pth")
    small = torch.rand(1, 3, 30, 40)
    score = unsample.measure(["lpips"], Subject(images=small, reference=small), Settings(weights_dir=str(tmp_path)))[
        "lpips"
    ]
    assert score.values == [None]
    assert "at least 31" in str(score.reasons[0])


@pytest.mark.parametrize("net", NETWORKS)
def test_the_smallest_side_is_the_smallest_that_works(net: str, tmp_path: Path) -> None:
    trunk, side = build(net), trunks.MIN_SIDE[net]
    last = trunk[: TAPS[net][-1] + 1]
    assert last(torch.rand(1, 3, side, side)).numel() > 0
    with pytest.raises((RuntimeError, ValueError)):
        last(torch.rand(1, 3, side - 1, side - 1))


def test_a_masked_distance_is_the_mean_of_the_map_outside(tmp_path: Path) -> None:
    saved("squeeze", tmp_path, ".safetensors")
    settings = Settings(weights_dir=str(tmp_path), lpips_net="squeeze")
    x, y, mask = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32), torch.zeros(2, 1, 32, 32)
    mask[1, :, :, :16] = 1
    subject = Subject(images=x, reference=y, mask=mask)
    scores = unsample.measure(["masked_lpips", "pie_lpips", "masked_lpips[squeeze]"], subject, settings)
    assert scores["masked_lpips"].name == "masked_lpips[squeeze]"
    assert scores["masked_lpips"].values == scores["masked_lpips[squeeze]"].values
    plain = lpips(x * (1 - mask), y * (1 - mask), "squeeze", settings)
    assert scores["pie_lpips"].values == pytest.approx(plain.tolist(), rel=1e-6)
    assert scores["masked_lpips"].values[0] == pytest.approx(float(lpips(x, y, "squeeze", settings)[0]), rel=0.2)


def test_unequal_pictures_are_refused(tmp_path: Path) -> None:
    saved("alex", tmp_path, ".pth")
    with pytest.raises(BadInput, match="one shape"):
        lpips(torch.rand(1, 3, 40, 40), torch.rand(1, 3, 40, 41), "alex", Settings(weights_dir=str(tmp_path)))
