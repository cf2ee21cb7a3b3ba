"""Folders of any pipeline: how they are read, hashed and placed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

import unsample
from tests.problems import ddpm, saved, sd14, seeded
from tests.zoo.pipelines import sdxl
from unsample.errors import BadOption, Incompatible, WeightsMissing
from unsample.models import digests
from unsample.models.loading import load


def pipeline_of(made: Any) -> Any:
    return made[0] if isinstance(made, tuple) else made


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("folders")
    makers = {"sdxl": sdxl, "sd14": sd14, "ddpm": ddpm}
    return {name: saved(pipeline_of(make()), root / name) for name, make in makers.items()}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(digests.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def forbidden(*args: Any, **more: Any) -> Any:
    raise AssertionError("the weights were hashed again")


@pytest.mark.parametrize("name", ["sdxl", "sd14"])
def test_a_folder_has_one_hash_in_every_dtype_which_is_that_of_its_pipeline(
    name: str, folders: dict[str, Path], cache: Path
) -> None:
    makers = {"sdxl": sdxl, "sd14": sd14}
    expected = load(pipeline_of(makers[name]())).weights_sha256()
    for file in cache.rglob("*.json"):
        file.unlink()
    for dtype in ("bfloat16", None, "float16"):
        model: Any = load(folders[name], dtype=dtype)
        assert model.weights_sha256() == expected
        assert model.unet.dtype is getattr(torch, dtype or "float32")
        assert model.vae.dtype is torch.float32
    assert not any(p.requires_grad for p in model.unet.parameters())


def test_a_hash_is_remembered_until_a_file_changes(
    folders: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folders["ddpm"]
    first = load(folder).weights_sha256()
    assert len(list(cache.rglob("*.json"))) == 1
    with monkeypatch.context() as patch:
        patch.setattr("unsample.models.weights.state_dict_sha256", forbidden)
        assert load(folder).weights_sha256() == first
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2] ^= 1
    weights.write_bytes(data)
    os.utime(weights, ns=(0, 0))
    assert load(folder).weights_sha256() != first


@pytest.mark.parametrize("content", ["", "[]", '{"files": 3}', "nonsense"])
def test_a_broken_or_forbidden_cache_is_no_hindrance(
    content: str, folders: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load(folders["sd14"]).weights_sha256()
    for file in cache.rglob("*.json"):
        file.write_text(content)
    assert load(folders["sd14"]).weights_sha256() == expected
    blocked = cache.parent / "a-file"
    blocked.touch()
    monkeypatch.setenv(digests.VARIABLE, str(blocked / "below"))
    assert load(folders["sd14"]).weights_sha256() == expected


@pytest.mark.parametrize("name", ["sd14", "sdxl"])
def test_text_encoders_are_dropped_when_the_denoiser_is_asked_and_read_again_for_a_new_prompt(
    name: str, folders: dict[str, Path]
) -> None:
    plain, freeing = load(folders[name]), load(folders[name], free_text_encoders=True)
    encoders = [m for part, m in freeing.weights.parts().items() if part.startswith("text_encoder")]  # type: ignore[attr-defined]
    assert all(sum(p.numel() for p in encoder.parameters()) for encoder in encoders)
    for prompt in ("a red circle", "a blue square", "a red circle"):
        a, b = (
            unsample.sample(m, prompt, num_inference_steps=2, generator=seeded(0)).latents for m in (plain, freeing)
        )
        assert torch.equal(a, b)
        assert not any(sum(p.numel() for p in encoder.parameters()) for encoder in encoders)
        assert freeing.weights_sha256() == plain.weights_sha256()


def test_what_cannot_be_had_is_said_before_anything_is_read(folders: dict[str, Path]) -> None:
    for options, says in (
        ({"free_text_encoders": True, "offload": "model"}, "moves the text encoders away already"),
        ({"quantize": "int3"}, "quantize must be one of none, bitsandbytes_4bit"),
        ({"offload": "group", "device": "cpu"}, "needs an accelerator"),
        ({"config": "x"}, "is for a single file of weights"),
    ):
        with pytest.raises(BadOption, match=says):
            load(folders["sd14"], **options)  # type: ignore[arg-type]
    with pytest.raises(BadOption, match="has no text encoder"):
        load(folders["ddpm"], free_text_encoders=True)


def test_a_package_that_quantizes_is_named_where_it_is_missing(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unsample.models.placing.find_spec", lambda name: None)
    for name, package in (("torchao_int8", "torchao"), ("quanto_int8", "optimum-quanto")):
        with pytest.raises(BadOption, match=f"needs the package {package}, .*pip install {package}"):
            load(folders["sd14"], quantize=name)


def test_an_inpainting_network_of_another_family_is_refused(folders: dict[str, Path]) -> None:
    pipeline = pipeline_of(sdxl())
    pipeline.unet.register_to_config(in_channels=9)
    with pytest.raises(Incompatible, match=r"takes 9 channels and its VAE makes 4 \(an inpainting model"):
        load(pipeline)


# ---------------------------------------------------------------- single files


def test_a_single_file_says_which_configs_it_needs(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "style.safetensors"
    save_file({"model.diffusion_model.time_embed.0.weight": torch.zeros(1, 1)}, file)
    with pytest.raises(WeightsMissing, match=r"of Stable Diffusion 1\.x.*hf download .*stable-diffusion-v1-5"):
        load(file)
    with pytest.raises(WeightsMissing, match="without model_index.json"):
        load(file, config=tmp_path)
    with pytest.raises(BadOption, match="free_text_encoders was asked for, and it needs a folder"):
        load(file, config=tmp_path, free_text_encoders=True)
    (tmp_path / "old.ckpt").touch()
    with pytest.raises(WeightsMissing, match="a pickled checkpoint, whose kind is not told before it is read"):
        load(tmp_path / "old.ckpt")
    with pytest.raises(WeightsMissing, match="is not there"):
        load(tmp_path / "gone.safetensors")
    save_file({"something.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(Incompatible, match="is no checkpoint that diffusers knows"):
        load(tmp_path / "other.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(WeightsMissing, match="is no readable safetensors file"):
        load(tmp_path / "cut.safetensors")


def test_a_ckpt_that_holds_code_is_refused_unread(folders: dict[str, Path], tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"state_dict": Trap()}, tmp_path / "trap.ckpt")
    with pytest.raises(WeightsMissing, match="could not be read as a single file"):
        load(tmp_path / "trap.ckpt", config=folders["sd14"])
    assert not (tmp_path / "sprung").exists()
