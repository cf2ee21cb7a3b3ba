"""From a name, a folder or a pipeline to an adapter; and what is said when that cannot be."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DModel

import unsample
from tests.problems import ddpm, normal, rms, saved, sd14, sd21, seeded
from tests.zoo.pipelines import sd3
from unsample.errors import BadOption, Incompatible, WeightsMissing
from unsample.models import loading, pipelines
from unsample.models.base import Condition, state_dict_sha256
from unsample.models.loading import check_manifest, find_model, load

MAKERS = {"sd14": sd14, "sd21": sd21, "ddpm": ddpm}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pipelines")
    return {name: saved(make(), root / name) for name, make in MAKERS.items()}


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / folder.name))


# ---------------------------------------------------------------- folders and pipelines


@pytest.mark.parametrize("name", MAKERS)
def test_a_folder_and_the_pipeline_it_was_saved_from_are_the_same_model(name: str, folders: dict[str, Path]) -> None:
    from_folder, from_pipeline = load(folders[name]), load(MAKERS[name]())
    assert load(str(folders[name])).id == from_folder.id == name  # the folder's own name, not its path
    assert from_folder.weights_sha256() == from_pipeline.weights_sha256()
    assert from_folder.family == ("pixel" if name == "ddpm" else "latent")
    assert from_folder.picture_size == (16, 16)
    prompt = None if name == "ddpm" else "a red circle"
    a, b = (
        unsample.sample(m, prompt, num_inference_steps=3, generator=seeded(0)) for m in (from_folder, from_pipeline)
    )
    assert rms(a.latents - b.latents) < 1e-5 * rms(b.latents)  # weights at other addresses are summed in another order


def test_a_pipeline_saved_without_one_of_its_text_encoders_is_read_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = sd3()
    pipeline.register_modules(text_encoder_3=None, tokenizer_3=None)
    pipeline.save_pretrained(tmp_path)
    found: list[Any] = []

    def adapter(made: Any, id: str) -> Any:
        found.append(made)
        raise Incompatible("seen")

    monkeypatch.setattr(pipelines, "replayed", adapter)
    with pytest.raises(Incompatible, match="seen"):
        load(tmp_path)
    assert (found[0].text_encoder_3, found[0].tokenizer_3) == (None, None)
    assert found[0].text_encoder_2 is not None


@pytest.mark.parametrize("shown", [True, False])
def test_loading_draws_no_bar_of_another_library_and_leaves_its_switches_as_they_were(
    folders: dict[str, Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, shown: bool
) -> None:
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    from unsample.metrics.clip import Clip, load_clip

    for library in (of_diffusers, of_transformers):
        monkeypatch.setattr(library, "_tqdm_active", shown)
    judge = loading.BUNDLED_FOLDER / "scenes-clip"
    for read in (lambda: load(folders["sd14"]), lambda: load_clip(judge), lambda: Clip(judge, "cpu")):
        read()
        assert [x.is_progress_bar_enabled() for x in (of_diffusers, of_transformers)] == [shown, shown]
    assert "Loading" not in capfd.readouterr().err


def test_an_adapter_comes_back_as_it_is(folders: dict[str, Path]) -> None:
    model = load(folders["ddpm"])
    assert load(model) is model


def test_a_loaded_model_is_used_as_it_is_and_options_for_it_are_refused(folders: dict[str, Path]) -> None:
    for model in (ddpm(), load(folders["ddpm"])):
        for options in ({"device": "cpu"}, {"dtype": "bfloat16"}, {"vae_tiling": True}, {"offload": "model"}):
            with pytest.raises(BadOption, match="used as it is"):
                load(model, **options)


def test_a_loaded_model_is_frozen_and_in_evaluation_mode(folders: dict[str, Path]) -> None:
    model: Any = load(folders["sd14"])
    for module in (model.unet, model.vae, model.text_encoder):
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())


def test_stable_diffusion_2_predicts_v_by_its_configuration(folders: dict[str, Path]) -> None:
    inversion = unsample.invert(load(folders["sd21"]), torch.rand(1, 3, 16, 16), "a", num_inference_steps=20)
    assert inversion.meta["grid"]["prediction_type"] == "v_prediction"
    assert inversion.status == ["ok"]


# ---------------------------------------------------------------- dtypes


@pytest.mark.parametrize(("dtype", "network"), [("bfloat16", torch.bfloat16), ("float64", torch.float64)])
def test_the_network_computes_in_its_dtype_and_the_state_does_not(
    dtype: str, network: torch.dtype, folders: dict[str, Path]
) -> None:
    plain: Any = load(folders["sd14"])
    model: Any = load(folders["sd14"], dtype=dtype)
    assert model.unet.dtype is model.text_encoder.dtype is model.dtype is network
    assert model.vae.dtype is torch.float32
    images = torch.rand(1, 3, 16, 16, generator=seeded(0))
    inversion = unsample.invert(model, images, "left", num_inference_steps=5)
    state = torch.float64 if network is torch.float64 else torch.float32
    assert inversion.noise.dtype is inversion.latents.dtype is state
    # bfloat16 keeps 8 bits; float64 differs from float32 by the latter's rounding
    reference = unsample.invert(plain, images, "left", num_inference_steps=5)
    assert rms(inversion.noise - reference.noise) < (0.05 if network is torch.bfloat16 else 1e-5)
    assert inversion.noise.isfinite().all()


def test_a_model_in_another_dtype_is_the_same_model(folders: dict[str, Path]) -> None:
    """The hash is of the weights on disk, so that an inversion may be played back in another precision."""
    for name in ("sd14", "ddpm"):
        hashes = {load(folders[name], dtype=d).weights_sha256() for d in (None, "float64", "bfloat16", "float16")}
        assert len(hashes) == 1


def test_weights_stored_in_half_precision_are_used_in_float32(tmp_path: Path) -> None:
    pipeline = sd14()
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        module.half()
    model: Any = load(saved(pipeline, tmp_path / "half"))
    assert model.unet.dtype is model.vae.dtype is model.text_encoder.dtype is torch.float32
    assert torch.equal(model.unet.conv_in.weight.half(), pipeline.unet.conv_in.weight)
    unsample.invert(model, torch.rand(1, 3, 16, 16), "a", num_inference_steps=20)


def test_the_hash_tells_weights_apart() -> None:
    tensors = {"a": normal(3, 4, dtype=torch.float32), "b": torch.arange(3)}
    same = {"b": torch.arange(3), "a": tensors["a"].clone()}
    assert state_dict_sha256(tensors) == state_dict_sha256(same)
    for change in (
        {"a": tensors["a"] + 1e-6},
        {"a": tensors["a"].reshape(4, 3)},
        {"b": torch.arange(1, 4)},
        {"c": torch.zeros(1)},
    ):
        assert state_dict_sha256(tensors | change) != state_dict_sha256(tensors)
    renamed = {"z": tensors["a"], "b": tensors["b"]}
    assert state_dict_sha256(renamed) != state_dict_sha256(tensors)


def test_the_hash_is_computed_once(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folders["ddpm"])
    expected = model.weights_sha256()
    monkeypatch.setattr("unsample.models.weights.state_dict_sha256", lambda tensors: "again")
    assert model.weights_sha256() == expected


def test_gradient_checkpointing_and_vae_tiling_are_passed_on(folders: dict[str, Path]) -> None:
    model: Any = load(folders["sd14"], gradient_checkpointing=True, vae_tiling=True)
    assert model.unet.is_gradient_checkpointing
    assert model.vae.use_tiling
    plain: Any = load(folders["sd14"])
    assert not plain.unet.is_gradient_checkpointing
    assert not plain.vae.use_tiling
    with pytest.raises(BadOption, match="has no VAE"):
        load(folders["ddpm"], vae_tiling=True)
    for options in ({"vae_tiling": True}, {"offload": "model"}, {"gradient_checkpointing": True}):
        with pytest.raises(BadOption, match="closed form"):
            load("scenes-mixture", **options)


@pytest.mark.parametrize(
    "options",
    [{"dtype": "int8"}, {"dtype": "float31"}, {"device": "gpu"}, {"device": "cuda:77"}, {"offload": "all"}],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], folders: dict[str, Path]) -> None:
    with pytest.raises(BadOption, match=next(iter(options))):
        load(folders["ddpm"], **options)


def test_offload_needs_an_accelerator(folders: dict[str, Path]) -> None:
    for offload in ("model", "sequential"):
        with pytest.raises(BadOption, match="needs an accelerator"):
            load(folders["sd14"], device="cpu", offload=offload)


# ---------------------------------------------------------------- what is not there, or not what it should be


def test_the_bundled_judge_is_not_taken_for_a_misspelt_model() -> None:
    with pytest.raises(WeightsMissing, match="'scenes-clip': it judges pictures"):
        unsample.load("scenes-clip")


@pytest.mark.parametrize("name", ["scenes-dd", "scenes-sdd", "scene-sd", "Scenes-SD"])
def test_a_misspelt_bundled_name_gets_a_suggestion(name: str) -> None:
    with pytest.raises(WeightsMissing, match="did you mean 'scenes-"):
        find_model(name)


@pytest.mark.parametrize("name", ["nothing", "./nothing", "/no/such/folder", "a/b/c", "~/no such"])
def test_a_model_that_is_not_there_is_said_to_be_missing(name: str) -> None:
    with pytest.raises(WeightsMissing, match="no model .* bundled are scenes-sd"):
        load(name)


def test_a_hub_id_that_is_not_in_the_cache_is_said_to_be_missing() -> None:
    assert find_model("nobody/no-such-model") is None
    with pytest.raises(WeightsMissing, match="'nobody/no-such-model' is not in the local cache"):
        load("nobody/no-such-model")


def test_a_model_from_the_hub_keeps_its_hub_id(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = folders["ddpm"]  # a cache folder is named after a commit
    monkeypatch.setattr(loading, "_download", lambda hub_id, local_files_only: snapshot)
    assert load("somebody/some-model").id == "somebody/some-model"


def test_a_folder_without_a_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="without model_index.json"):
        load(tmp_path)


@pytest.mark.parametrize("index", ["", "[]", "{", '{"unet": 5}', "\xff", '{"unet": ["diffusers"]}'])
def test_a_corrupt_index_is_refused_in_our_words(index: str, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(index, encoding="latin-1")
    with pytest.raises((WeightsMissing, Incompatible)):
        load(tmp_path)


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("unet/config.json", None),
        ("unet/config.json", b"{"),
        ("unet/diffusion_pytorch_model.safetensors", None),
        ("unet/diffusion_pytorch_model.safetensors", b""),
        ("unet/diffusion_pytorch_model.safetensors", b"\0" * 1000),
        ("scheduler/scheduler_config.json", None),
        ("scheduler/scheduler_config.json", b"["),
    ],
)
def test_missing_and_corrupt_parts_are_refused_in_our_words(
    part: str, content: bytes | None, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = copied(folders["ddpm"], tmp_path)
    if content is None:
        (folder / part).unlink()
    else:
        (folder / part).write_bytes(content)
    with pytest.raises(WeightsMissing, match="model ddpm at ddpm could not be read"):
        load(folder)


@pytest.mark.parametrize("part", ["text_encoder", "vae", "tokenizer"])
def test_a_text_pipeline_with_a_part_missing_is_refused_in_our_words(
    part: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = copied(folders["sd14"], tmp_path)
    shutil.rmtree(folder / part)
    with pytest.raises(WeightsMissing, match="could not be read"):
        load(folder)


def test_weights_of_another_shape_are_refused_in_our_words(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["ddpm"], tmp_path)
    config = json.loads((folder / "unet/config.json").read_text())
    (folder / "unet/config.json").write_text(json.dumps(config | {"block_out_channels": [16, 48]}))
    with pytest.raises(WeightsMissing, match="could not be read"):
        load(folder)


def test_families_that_are_not_served_are_named_with_the_reason(folders: dict[str, Path], tmp_path: Path) -> None:
    transformer = {"transformer": ["diffusers", "WanTransformer3DModel"], "scheduler": ["diffusers", "DDIMScheduler"]}
    others = {
        "WanPipeline": (transformer, "it makes videos"),
        "KandinskyV22CombinedPipeline": (transformer, "two pipelines in one"),
        "StableDiffusionXLImg2ImgPipeline": (transformer, "starts from a picture"),
        "SanaSprintPipeline": (transformer, "draws new noise at every step"),
        "StableDiffusion3ControlNetPipeline": (transformer, "the ControlNet's residuals"),
        "HunyuanImagePipeline": (transformer | {"guider": ["diffusers", "AdaptiveProjectedMixGuidance"]}, "momentum"),
        "SomePipeline": (transformer | {"transformer_2": ["diffusers", "X"]}, "a second denoiser"),
        "OtherPipeline": ({"prior": ["diffusers", "X"]}, "without a denoiser"),
        "NewPipeline": (transformer, "which diffusers .* does not have"),
    }
    for name, (parts, why) in others.items():
        (tmp_path / "model_index.json").write_text(json.dumps({**parts, "_class_name": name}))
        with pytest.raises(Incompatible, match=f"is a {name}.*{why}"):
            load(tmp_path)


def test_a_folder_may_not_name_classes_of_other_libraries(tmp_path: Path) -> None:
    parts = {"transformer": ["subprocess", "Popen"], "scheduler": ["diffusers", "DDIMScheduler"]}
    (tmp_path / "model_index.json").write_text(json.dumps(parts | {"_class_name": "FluxPipeline"}))
    with pytest.raises(Incompatible, match="transformer is a Popen of subprocess, which diffusers"):
        load(tmp_path)


def test_what_is_no_pipeline_is_named() -> None:
    class SomePipeline:
        components: dict[str, Any] = {"transformer": object()}  # noqa: RUF012

    with pytest.raises(Incompatible, match="is a SomePipeline without a denoiser"):
        load(SomePipeline())
    for thing in (object(), 5):
        with pytest.raises(Incompatible, match=f"{type(thing).__name__} is no pipeline of diffusers"):
            load(thing)


def test_an_inpainting_network_is_refused() -> None:
    pipeline = sd14()
    pipeline.unet.register_to_config(in_channels=9)
    with pytest.raises(Incompatible, match="takes 9 channels and its VAE makes 4"):
        load(pipeline)


def test_a_scheduler_without_a_table_is_refused_when_a_grid_is_needed() -> None:
    model = load(ddpm())
    model.scheduler = diffusers.ScoreSdeVeScheduler()
    with pytest.raises(Incompatible, match="ScoreSdeVeScheduler is no scheduler"):
        unsample.sample(model)


# ---------------------------------------------------------------- the manifest of the bundled models


@pytest.fixture
def bundle(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundled folder of our own, with its manifest."""
    copied(folders["ddpm"], tmp_path).rename(tmp_path / "scenes-ddpm")
    names = [p for p in (tmp_path / "scenes-ddpm").rglob("*") if p.is_file()]
    manifest = {str(p.relative_to(tmp_path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in names}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(loading, "BUNDLED_FOLDER", tmp_path)
    return tmp_path


def test_a_bundled_model_that_is_what_its_manifest_says_loads(bundle: Path) -> None:
    assert load("scenes-ddpm").id == "scenes-ddpm"


def test_a_bundled_file_that_differs_or_is_missing_is_named(bundle: Path) -> None:
    weights = bundle / "scenes-ddpm/unet/diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(WeightsMissing, match=r"diffusion_pytorch_model\.safetensors has SHA-256 .*make models"):
        load("scenes-ddpm")
    weights.unlink()
    with pytest.raises(WeightsMissing, match=r"diffusion_pytorch_model\.safetensors is missing"):
        load("scenes-ddpm")


@pytest.mark.parametrize("manifest", [None, "", "{", "[]", "{}", '{"scenes-sd/unet": "0"}'])
def test_a_manifest_that_is_missing_corrupt_or_silent_is_refused(manifest: str | None, bundle: Path) -> None:
    if manifest is None:
        (bundle / "manifest.json").unlink()
    else:
        (bundle / "manifest.json").write_text(manifest)
    with pytest.raises(WeightsMissing, match="manifest"):
        load("scenes-ddpm")
    with pytest.raises(WeightsMissing, match="manifest"):
        check_manifest(bundle / "scenes-ddpm")


# ---------------------------------------------------------------- pixel adapters


@pytest.mark.parametrize(("channels", "size"), [(1, 16), (3, (8, 16))])
def test_pixel_models_of_one_channel_or_oblong_size(channels: int, size: Any) -> None:
    with torch.random.fork_rng():
        unet = UNet2DModel(
            sample_size=size,
            in_channels=channels,
            out_channels=channels,
            layers_per_block=1,
            block_out_channels=(8, 8),
            down_block_types=("DownBlock2D",) * 2,
            up_block_types=("UpBlock2D",) * 2,
            norm_num_groups=4,
        ).eval()
    model = unsample.wrap(unet, DDIMScheduler())
    assert model.multiple == 2
    width, height = model.picture_size
    images = torch.rand(1, 3, height, width, generator=seeded(0))
    inversion = unsample.invert(model, images, num_inference_steps=20)
    assert inversion.noise.shape[1] == channels
    made = unsample.reconstruct(model, inversion)
    assert made.images.shape == images.shape
    if channels == 1:
        assert torch.equal(made.images[:, 0], made.images[:, 2])
        luminance = (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)
        assert rms((model.encode(images)[:, 0] + 1) / 2 - luminance) < 1e-6  # float32


def test_a_pixel_model_refuses_to_embed() -> None:
    with pytest.raises(Incompatible, match="takes no prompt"):
        load(ddpm()).embed(["a"])


def test_the_latent_adapter_encodes_to_the_scaled_posterior_mean_and_back() -> None:
    model: Any = load(sd14())
    images = torch.rand(1, 3, 16, 16, generator=seeded(0))
    with torch.no_grad():
        latents = model.encode(images)
        expected = model.vae.encode(images * 2 - 1).latent_dist.mean * model.vae.config.scaling_factor
        assert torch.equal(latents, expected)
        assert torch.equal(model.encode(images), latents)  # never a sample
        decoded = model.vae.decode(latents / model.vae.config.scaling_factor).sample / 2 + 0.5
        assert torch.equal(model.decode(latents), decoded)
    assert model.network(latents, 5, Condition(model.embed(["a"]).prompt_embeds)).shape == latents.shape
