"""The structure distance against the definition written out, on a transformer of random weights in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import unsample
from unsample.metrics import Settings, Subject
from unsample.metrics.dino import prepared


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 layers, patches of 32, so that 224 pixels are 49 of them."""
    return saved(tmp_path_factory.mktemp("vit"), layers=12)


def saved(path: Path, layers: int) -> Path:
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=24, num_hidden_layers=layers, num_attention_heads=3, intermediate_size=32, patch_size=32
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(path)
    return path


def pictures() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return tuple((torch.rand(2, 3, 56, 56, generator=generator) * 255).round() / 255 for _ in range(2))  # type: ignore[return-value]


def written_out(folder: Path, x: Tensor, y: Tensor, scale: float) -> list[float]:
    """Keys from the hidden states that enter layer 11, by its own weights; cosines pair by pair; their mean square."""
    from transformers import ViTModel

    model = ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
    state = {k: v for k, v in model.state_dict().items() if ".11." in k}
    norm_w, norm_b = (
        next(v for k, v in state.items() if k.endswith(f"layernorm_before.{p}")) for p in ("weight", "bias")
    )
    key_w, key_b = (
        next(v for k, v in state.items() if k.endswith((f"k_proj.{p}", f"key.{p}"))) for p in ("weight", "bias")
    )

    def similarity(picture: Tensor) -> Tensor:
        big = torch.nn.functional.interpolate(picture[None] * scale, size=(224, 224), mode="bilinear", antialias=True)
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        pixels = (big - mean[None, :, None, None]) / std[None, :, None, None]
        with torch.no_grad():
            entering = model(pixel_values=pixels, output_hidden_states=True).hidden_states[11][0]
        normal = torch.nn.functional.layer_norm(entering, (24,), norm_w, norm_b, model.config.layer_norm_eps)
        keys = (normal @ key_w.T + key_b).double()
        return torch.stack([torch.stack([torch.dot(a, b) / a.norm() / b.norm() for b in keys]) for a in keys])

    return [float((similarity(a) - similarity(b)).square().mean()) for a, b in zip(x, y, strict=True)]


@pytest.mark.parametrize(("name", "scale"), [("dino_structure", 1.0), ("dino_structure_pie", 255.0)])
def test_the_distance_is_the_definition_written_out(folder: Path, name: str, scale: float) -> None:
    x, y = pictures()
    score = unsample.measure([name], Subject(images=x, reference=y), Settings(dino=str(folder)))[name]
    assert score.reasons == [None, None]
    assert score.values == pytest.approx(written_out(folder, x, y, scale), rel=1e-3)  # a float32 network
    assert min(score.values) > 0  # type: ignore[type-var]


def test_the_two_inputs_give_two_distances_and_equal_pictures_none(folder: Path) -> None:
    x, y = pictures()
    both = unsample.measure(
        ["dino_structure", "dino_structure_pie"], Subject(images=x, reference=y), Settings(dino=str(folder))
    )
    assert both["dino_structure"].values[0] != pytest.approx(both["dino_structure_pie"].values[0], rel=0.01)
    same = unsample.measure(["dino_structure"], Subject(images=x, reference=x), Settings(dino=str(folder)))
    assert same["dino_structure"].values == [0.0, 0.0]


def test_the_shorter_side_becomes_224_and_the_longer_at_most_480() -> None:
    assert prepared(torch.rand(1, 3, 100, 150), 1.0).shape[2:] == (224, 336)
    assert prepared(torch.rand(1, 3, 300, 100), 1.0).shape[2:] == (480, 160)
    assert prepared(torch.rand(1, 3, 224, 224), 1.0).shape[2:] == (224, 224)


def test_a_transformer_of_fewer_layers_and_a_missing_one_are_reasons(tmp_path: Path) -> None:
    x, y = pictures()
    short = saved(tmp_path / "short", layers=2)
    for dino, words in ((str(short), "has 2 layers"), ("dino-vitb8", "343 MB")):
        settings = Settings(dino=dino, weights_dir=str(tmp_path))
        score = unsample.measure(["dino_structure"], Subject(images=x, reference=y), settings)["dino_structure"]
        assert score.values == [None, None]
        assert words in str(score.reasons[0])
