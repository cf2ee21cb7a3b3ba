"""What is no pipeline that we serve is told what it is: other pipelines, other parts, other files."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AsymmetricAutoencoderKL,
    AutoencoderTiny,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPAGPipeline,
    VQModel,
)

import unsample
from tests.problems import ddpm, saved, sd14, seeded
from unsample.errors import Diverged, Incompatible, WeightsMissing
from unsample.models.families import OTHER_PREDICTION, SAME_PREDICTION
from unsample.models.loading import find_model, load

pytestmark = pytest.mark.filterwarnings("ignore:the noisiest of . grid points")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(sd14(), tmp_path_factory.mktemp("pipelines") / "sd14")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "sd14"))


def with_index(folder: Path, **entries: Any) -> Path:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | entries))
    return folder


# ---------------------------------------------------------------- pipelines


def test_live_pipelines_of_the_same_prediction_are_served_and_others_refused_by_name() -> None:
    parts = sd14().components
    known = load(sd14()).weights_sha256()
    for served in (StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline):
        assert load(served(**parts, requires_safety_checker=False)).weights_sha256() == known
    with pytest.raises(
        Incompatible, match="StableDiffusionPAGPipeline, whose prediction depends on perturbed-attention"
    ):
        load(StableDiffusionPAGPipeline(**parts, requires_safety_checker=False))
    from diffusers import ControlNetModel

    control = ControlNetModel.from_unet(parts["unet"])
    pipeline = StableDiffusionControlNetPipeline(**parts, controlnet=control, requires_safety_checker=False)
    with pytest.raises(Incompatible, match="depends on the ControlNet's residuals; that is not served yet"):
        load(pipeline)


@pytest.mark.parametrize("name", [part for part, _ in OTHER_PREDICTION])
def test_folders_whose_prediction_depends_on_more_are_refused_by_name(name: str, copy: Path) -> None:
    with_index(copy, _class_name=f"StableDiffusion{name}Pipeline".replace("PipelinePipeline", "Pipeline"))
    with pytest.raises(Incompatible, match="whose prediction depends on"):
        load(copy)


def test_every_pipeline_of_diffusers_with_stable_diffusion_s_parts_is_decided_on() -> None:
    """By its class's signature: served, or refused with a reason, or refused for a part of its own."""
    import inspect

    import diffusers

    ours = {"unet", "vae", "text_encoder", "tokenizer", "scheduler"}
    kept = ours | {"safety_checker", "feature_extractor", "image_encoder", "requires_safety_checker"}
    for name in dir(diffusers):
        kind = (
            getattr(diffusers, name, None) if name.endswith(("Pipeline", "PipelineSafe", "StableDiffusion")) else None
        )
        if not isinstance(kind, type) or not issubclass(kind, diffusers.DiffusionPipeline):
            continue
        parameters = inspect.signature(kind.__init__).parameters
        hints = {n: str(p.annotation) for n, p in parameters.items()}
        if not ours <= {*parameters} or "text_encoder_2" in parameters:
            continue
        if "CLIPTextModel" not in hints["text_encoder"] or "UNet2DConditionModel" not in hints["unet"]:
            continue
        reason = name in SAME_PREDICTION or any(part in name for part, _ in OTHER_PREDICTION)
        assert reason or {*parameters} - kept - {"self"}, f"{name} is not decided on"


def test_a_part_that_would_be_left_out_is_named(copy: Path) -> None:
    with_index(copy, _class_name="SomePipeline", adapter=["diffusers", "T2IAdapter"])
    with pytest.raises(Incompatible, match=r"is a SomePipeline with adapter \(T2IAdapter\), which would be left out"):
        load(copy)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"time_cond_proj_dim": 256}, "latent consistency model"),
        ({"addition_embed_type": "text_time"}, "added_cond_kwargs"),
        ({"class_embed_type": "timestep"}, "class embeddings"),
        ({"num_class_embeds": 10}, "class labels beside its prompt"),
        ({"encoder_hid_dim_type": "ip_image_proj"}, "IP-Adapter"),
        ({"attention_type": "gated"}, "GLIGEN"),
        ({"in_channels": 9}, "an inpainting model"),
        ({"in_channels": 8}, "InstructPix2Pix"),
        ({"in_channels": 7}, "an upscaler"),
        ({"in_channels": 5}, "a depth-to-image model"),
    ],
)
def test_a_u_net_that_needs_more_is_refused_in_words_from_folders_live_and_wrapped(
    entry: dict[str, Any], says: str, copy: Path
) -> None:
    config = json.loads((copy / "unet/config.json").read_text())
    (copy / "unet/config.json").write_text(json.dumps(config | entry))
    live = sd14()
    live.unet.register_to_config(**entry)
    wrapped = lambda: unsample.wrap(live.unet, live.scheduler, vae=live.vae)  # noqa: E731
    for call in (lambda: load(copy), lambda: load(live), wrapped):
        with pytest.raises(Incompatible, match=says):
            call()


def test_a_pixel_u_net_of_other_class_embeddings_is_refused(tmp_path: Path) -> None:
    pipeline = ddpm(class_embed_type="timestep")
    for call in (lambda: load(pipeline), lambda: load(saved(pipeline, tmp_path / "a"))):
        with pytest.raises(Incompatible, match="class_embed_type='timestep'"):
            call()


# ---------------------------------------------------------------- other VAEs


def tiny_vaes() -> dict[str, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
        asymmetric = {"down_block_out_channels": (8, 16), "up_block_out_channels": (8, 16)}
        widths: dict[str, Any] = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
        levels = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
        return {
            "AutoencoderTiny": AutoencoderTiny(**widths, **levels),
            "VQModel": VQModel(**blocks, block_out_channels=(8, 16), latent_channels=4, norm_num_groups=4),
            "AsymmetricAutoencoderKL": AsymmetricAutoencoderKL(**blocks, **asymmetric, norm_num_groups=4),
        }


@pytest.mark.parametrize("name", ["AutoencoderTiny", "VQModel", "AsymmetricAutoencoderKL"])
def test_other_vaes_encode_and_decode_as_diffusers_own_pipeline_does(name: str, tmp_path: Path) -> None:
    pipeline = sd14()
    pipeline.register_modules(vae=tiny_vaes()[name].eval())
    images = torch.rand(1, 3, 16, 16, generator=seeded(0))
    models: list[Any] = [load(pipeline), load(saved(pipeline, tmp_path / "a"))]
    models.append(unsample.wrap(pipeline.unet, pipeline.scheduler, vae=pipeline.vae))
    vae, scale = pipeline.vae, pipeline.vae.config.scaling_factor
    for model in models:
        with torch.no_grad():
            encoded = vae.encode(images * 2 - 1)
            mean = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latents
            latents = model.encode(images)
            assert latents.shape == (1, 4, 8, 8)
            torch.testing.assert_close(latents, mean * scale)
            torch.testing.assert_close(model.decode(latents), vae.decode(latents / scale).sample / 2 + 0.5)
    inversion = unsample.invert(models[0], images, "a", num_inference_steps=2)
    assert unsample.reconstruct(models[0], inversion).images.shape == images.shape


def test_a_vae_of_another_class_is_refused(copy: Path) -> None:
    with_index(copy, vae=["diffusers", "ConsistencyDecoderVAE"])
    with pytest.raises(Incompatible, match="VAE of class ConsistencyDecoderVAE; AutoencoderKL"):
        load(copy)


def test_an_encoder_that_overflows_is_named_and_not_the_first_step() -> None:
    pipeline = sd14()
    model: Any = load(pipeline)
    encode = model.encode
    images = torch.rand(3, 3, 16, 16, generator=seeded(0))
    model.encode = lambda x: encode(x) * torch.tensor([1.0, torch.nan, 1.0])[:, None, None, None]
    with pytest.warns(
        UserWarning, match=r"picture 1 diverged at the encoder \(AutoencoderKL in torch.float32 is not fi"
    ):
        inversion = unsample.invert(model, images, "a", num_inference_steps=2)
    assert inversion.status == ["ok", "diverged", "ok"]
    model.encode = lambda x: encode(x) * torch.nan
    with pytest.raises(Diverged, match=r"the encoder \(AutoencoderKL .* put it in float32") as error:
        unsample.invert(model, images, "a", num_inference_steps=2)
    assert "step 1" not in str(error.value)


# ---------------------------------------------------------------- files and folders that are something else


def rename(folder: Path, part: str, to: str) -> None:
    (path,) = (folder / part).glob("*.safetensors")
    path.rename(path.with_name(path.name.replace(".safetensors", to)))


def test_a_folder_of_the_fp16_variant_is_loaded_and_said(copy: Path) -> None:
    for part in ("unet", "vae", "text_encoder"):
        rename(copy, part, ".fp16.safetensors")
    with pytest.warns(
        UserWarning, match=r"only rounded variants .*: unet \(fp16\), vae \(fp16\), text_encoder \(fp16\)"
    ):
        model = load(copy)
    assert model.weights_sha256() == load(sd14()).weights_sha256()  # here they were not rounded


@pytest.mark.parametrize(
    ("ending", "says"),
    [(".bin", "only pickled weights"), (".msgpack", "only Flax"), (".onnx", "only ONNX"), (".xml", "only OpenVINO")],
)
def test_weights_of_a_kind_that_is_not_read_are_named(ending: str, says: str, copy: Path) -> None:
    rename(copy, "unet", ending)
    with pytest.raises(WeightsMissing, match=f"unet holds {says}"):
        load(copy)


def test_shards_are_read_and_a_missing_one_is_named(copy: Path) -> None:
    pipeline = sd14()
    shutil.rmtree(copy / "unet")
    pipeline.unet.save_pretrained(copy / "unet", max_shard_size="100KB")
    shards = sorted((copy / "unet").glob("*.safetensors"))
    assert len(shards) > 1
    assert load(copy).weights_sha256() == load(sd14()).weights_sha256()
    shards[1].unlink()
    with pytest.raises(WeightsMissing, match=f"unet lacks {shards[1].name} of its shards"):
        load(copy)


def test_a_folder_that_is_something_else_is_told_what_it_is(folder: Path, tmp_path: Path) -> None:
    others = {"text_encoder": "model of transformers", "unet": r"one part of a pipeline \(UNet2DConditionModel\)"}
    for part, says in others.items():
        with pytest.raises(WeightsMissing, match=f"without model_index.json; it holds .*{says}"):
            find_model(str(folder / part))
    files = {
        "pytorch_lora_weights.safetensors": "a LoRA",
        "model.onnx": "an ONNX model",
        "openvino_model.xml": "an OpenVINO model",
        "v1-5-pruned.safetensors": "a single file of weights; StableDiffusionPipeline.from_single_file",
    }
    for k, (name, says) in enumerate(files.items()):
        (tmp_path / str(k)).mkdir()
        (tmp_path / str(k) / name).touch()
        with pytest.raises(WeightsMissing, match=says):
            load(tmp_path / str(k))
    onnx = Path(shutil.copytree(folder, tmp_path / "onnx"))
    with_index(onnx, _class_name="OnnxStableDiffusionPipeline", unet=["diffusers", "OnnxRuntimeModel"])
    with pytest.raises(Incompatible, match="an ONNX pipeline"):
        load(onnx)


def test_files_and_urls_are_told_what_they_are(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"lora_unet.down.weight": torch.zeros(1)}, tmp_path / "style.safetensors")
    save_file({"noise": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={"unsample_format": "1"})
    says = {
        str(tmp_path / "style.safetensors"): "is a LoRA",
        str(tmp_path / "old.pt"): "is a file of pickled weights, .*from_single_file",
        str(tmp_path / "a.safetensors"): "is an inversion of unsample",
        "somewhere/missing.safetensors": "is not there; give a single file of weights",
        "https://huggingface.co/google/ddpm-cat-256/tree/main": "is a URL.*; give the hub id google/ddpm-cat-256",
        "https://civitai.com/models/4384": "is a URL.*give a hub id",
    }
    for name, what in says.items():
        with pytest.raises(WeightsMissing, match=what):
            find_model(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_model("google/ddpm-cat-256") is None
