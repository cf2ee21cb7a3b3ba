"""What tells a picture of a model's making: what comes back of it, and the watermark in its noise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import unsample
from tests.problems import seeded
from unsample.metrics import METRICS, Settings, Subject
from unsample.metrics.trunks import TAPS
from unsample.watermarks import GaussianShading, TreeRing

SHAPE = (4, 16, 16)


def test_dire_is_the_mean_of_its_map() -> None:
    generator = seeded(0)
    a, b = (torch.rand(3, 3, 20, 24, generator=generator) for _ in range(2))
    subject = Subject(images=a, reference=b)
    found = METRICS["dire"].map(subject, Settings())  # type: ignore[misc]
    assert found.shape == (3, 20, 24)
    assert torch.allclose(found, (a.double() - b.double()).abs().mean(1))
    assert unsample.measure(["dire"], subject)["dire"].values == pytest.approx(found.mean((1, 2)).tolist())
    assert unsample.measure(["dire"], Subject(images=a, reference=a))["dire"].values == [0.0] * 3


def test_aeroblade_is_the_second_layer_of_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    from unsample.metrics import lpips

    class Identity(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.repeat(1, 1, 1, 1)

    trunk = [torch.nn.Conv2d(3, 64, 3, 2) if k == TAPS["vgg"][0] else Identity() for k in range(TAPS["vgg"][-1] + 1)]
    trunk[TAPS["vgg"][1]] = torch.nn.Conv2d(64, 128, 3, 2)
    widths = iter((256, 512, 512))
    for tap in TAPS["vgg"][2:]:
        trunk[tap] = torch.nn.LazyConv2d(next(widths), 1)
    monkeypatch.setattr(lpips, "load", lambda net, path, device: trunk if net == "vgg" else None)
    monkeypatch.setattr(lpips, "find_weights", lambda name, folder: Path(f"{name}.pth"))
    generator = seeded(1)
    a, b = (torch.rand(2, 3, 32, 32, generator=generator) for _ in range(2))
    score = unsample.measure(["aeroblade"], Subject(images=a, autoencoded=b))["aeroblade"]
    assert score.name == "aeroblade[vgg]"
    assert score.reasons == [None] * 2
    layers = lpips.layers(a, b, "vgg", Settings())
    assert score.values == pytest.approx(layers[1].mean((1, 2, 3)).tolist(), rel=1e-6)
    assert METRICS["aeroblade"].map(Subject(images=a, autoencoded=b), Settings(lpips_net="vgg")).shape == (2, 32, 32)  # type: ignore[misc]


def test_the_marks_are_found_in_the_noise_by_a_file_or_by_the_key_itself(tmp_path: Path) -> None:
    noise = torch.randn(3, *SHAPE, generator=seeded(2))
    for key in (TreeRing.drawn(SHAPE, 4, seed=3), GaussianShading.drawn(SHAPE, seed=3)):
        file = f"{tmp_path}/key.json"
        key.save(file)
        names = [key.kind, f"{key.kind}_p"]
        by_key = unsample.measure(names, Subject(noise=key.embed(noise)), Settings(key=key))
        by_file = unsample.measure([f"{n}[{file}]" for n in names], Subject(noise=key.embed(noise)))
        for name in names:
            assert by_key[name].values == by_file[f"{name}[{file}]"].values
            assert by_file[f"{name}[{file}]"].name == f"{name}[key.json]"
        assert max(by_key[f"{key.kind}_p"].values) < 1e-4  # type: ignore[type-var]
        without = unsample.measure(names, Subject(noise=noise), Settings(key=key))
        assert min(without[f"{key.kind}_p"].values) > 1e-3  # type: ignore[type-var]


def test_without_its_key_or_with_another_kind_a_mark_is_a_reason() -> None:
    noise = torch.randn(2, *SHAPE, generator=seeded(4))
    assert "needs a key" in str(unsample.measure(["tree_ring"], Subject(noise=noise))["tree_ring"].reasons[0])
    shades = Settings(key=GaussianShading.drawn(SHAPE, seed=0))
    assert "gaussian_shading" in str(
        unsample.measure(["tree_ring_p"], Subject(noise=noise), shades)["tree_ring_p"].reasons[0]
    )
    score = unsample.measure(["gaussian_shading"], Subject(noise=noise[:, :, :8]), shades)["gaussian_shading"]
    assert "for a noise of (4, 16, 16)" in str(score.reasons[0])
