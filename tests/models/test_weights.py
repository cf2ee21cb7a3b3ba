"""What changes a model's predictions beside its weights is in their hash, or refused by name.

Every case asks the network first: what is claimed to change a prediction does, and what is claimed not to does not.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor, nn

import unsample
from tests.problems import ddpm, normal, saved, sd14, seeded
from tests.zoo.table import ZOO
from unsample.errors import BadInput, Incompatible
from unsample.models.base import Condition, state_dict_sha256
from unsample.models.loading import load

pytestmark = pytest.mark.filterwarnings("ignore:the noisiest of . grid points")


class Adapted(nn.Module):
    """A layer with the names that PEFT's have, since PEFT need not be installed: `peft.tuners.lora.LoraLayer`."""

    adapter_layer_names = ("lora_A", "lora_B")
    other_param_names = ("r", "lora_alpha", "scaling")

    def __init__(self, base_layer: Any, adapter: str = "style", scale: float = 1.0) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.lora_A, self.lora_B = nn.ModuleDict(), nn.ModuleDict()
        self.scaling: dict[str, float] = {}
        self.active_adapters: list[str] = []
        self.merged_adapters: list[str] = []
        self.disable_adapters = False
        self.add(adapter, scale)

    def add(self, adapter: str, scale: float) -> None:
        for container in (self.lora_A, self.lora_B):
            layer = nn.Linear(self.base_layer.in_features, self.base_layer.in_features, bias=False)
            layer.weight = nn.Parameter(normal(*layer.weight.shape, seed=len(self.scaling), dtype=torch.float32))
            container[adapter] = layer
        self.scaling[adapter] = scale
        self.active_adapters.append(adapter)

    def forward(self, x: Tensor, *args: Any) -> Tensor:
        y = self.base_layer(x, *args)
        if not self.disable_adapters and not self.merged_adapters:
            for name in self.active_adapters:
                y = y + self.scaling[name] * self.lora_B[name](self.lora_A[name](x))
        return y

    def fuse(self) -> None:
        with torch.no_grad():
            for name in self.active_adapters:
                self.base_layer.weight.data += self.scaling[name] * self.lora_B[name].weight @ self.lora_A[name].weight
        self.merged_adapters = list(self.active_adapters)


Adapted.__module__ = "peft.tuners.lora"


def adapt(pipeline: Any, **more: Any) -> Adapted:
    attention = pipeline.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1
    attention.to_q = Adapted(attention.to_q, **more)
    return attention.to_q


def said(model: Any) -> Tensor:
    """What the network answers to a fixed question, the text encoder in front of it."""
    with torch.no_grad():
        embeds = model.embed(["a red circle"]).prompt_embeds if model.takes_prompt else None
        return model.network(normal(1, *model.sample_shape, dtype=torch.float32), 400, Condition(embeds))


class Halved(AttnProcessor2_0):
    def __call__(self, *args: Any, **more: Any) -> Tensor:
        return super().__call__(*args, **more) * 0.5


class Doubled(nn.SiLU):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def replace_forward(pipeline: Any) -> None:
    block = pipeline.unet.mid_block
    before = block.forward
    block.forward = lambda *args, **more: 0.5 * before(*args, **more)


def in_place(pipeline: Any) -> None:
    with torch.no_grad():
        pipeline.unet.conv_out.weight.data[0, 0, 0, 0] += 1e-3  # .data: no version of the tensor's is counted up


CHANGES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "LoRA": (adapt, "adapter 'style' at scale 1 in unet"),
    "LoRA at another scale": (lambda p: adapt(p, scale=0.5), "adapter 'style' at scale 0.5 in unet"),
    "two LoRAs": (lambda p: adapt(p).add("more", 1.0), "adapter 'more' at scale 1 in unet"),
    "LoRA fused": (lambda p: adapt(p).fuse(), "adapter 'style' fused in unet"),
    "FreeU": (lambda p: p.enable_freeu(0.9, 0.2, 1.2, 1.4), "FreeU (s1=0.9, s2=0.2, b1=1.2, b2=1.4) in unet"),
    "FreeU otherwise": (lambda p: p.enable_freeu(0.9, 0.2, 1.2, 1.5), "b2=1.5"),
    "an attention processor": (lambda p: p.unet.set_attn_processor(Halved()), "attention processor Halved in unet"),
    "a layer of one's own": (lambda p: setattr(p.unet, "conv_act", Doubled()), "layers of class Doubled in unet"),
    "a replaced forward": (replace_forward, "a replaced forward in unet"),
    "a hook": (lambda p: p.unet.register_forward_hook(lambda m, i, o: (2 * o[0],)), "forward hooks in unet"),
    "weights changed in place": (in_place, ""),
    "a text encoder's weights": (
        lambda p: p.text_encoder.get_input_embeddings().weight.data.mul_(1.01),
        "",
    ),
}


@pytest.mark.parametrize("family", ["sd3", "flux", "cogview3"])
def test_the_attention_that_a_family_has_of_its_own_is_no_change(family: str) -> None:
    assert unsample.load(ZOO[family].built()).weights.changes() == []


def test_what_changes_a_prediction_changes_the_hash_and_is_said() -> None:
    plain: Any = load(sd14())
    hashes, answer = [plain.weights_sha256()], said(plain)
    assert plain.weights.changes() == []
    for name, (change, words) in CHANGES.items():
        pipeline = sd14()
        model: Any = load(pipeline)
        assert model.weights_sha256() == hashes[0], name
        change(pipeline)
        assert not torch.equal(said(model), answer), name
        assert words in ", ".join(model.weights.changes()), name
        hashes.append(model.weights_sha256())
        assert load(pipeline).weights_sha256() == hashes[-1], name  # what was kept is what is computed anew
    assert len({*hashes}) == len(hashes)


def switched_off(pipeline: Any) -> None:
    adapt(pipeline).disable_adapters = True


def freeu_off(pipeline: Any) -> None:
    pipeline.enable_freeu(0.9, 0.2, 1.2, 1.4)
    pipeline.disable_freeu()


def offloaded(pipeline: Any) -> None:
    import accelerate

    accelerate.cpu_offload(pipeline.unet, execution_device=torch.device("cpu"))


SAME: dict[str, Callable[[Any], Any]] = {
    "a LoRA that is switched off": switched_off,
    "a LoRA that is not active": lambda p: adapt(p).active_adapters.clear(),
    "a LoRA at scale 0": lambda p: adapt(p, scale=0.0),
    "FreeU switched off": freeu_off,
    "fused projections": lambda p: p.unet.fuse_qkv_projections(),
    "sliced attention": lambda p: p.enable_attention_slicing(),
    "another plain processor": lambda p: p.unet.set_attn_processor(AttnProcessor2_0()),
    "tiling and slicing of the VAE": lambda p: (p.vae.enable_tiling(), p.vae.enable_slicing()),
    "weights that lie elsewhere": offloaded,
    "torch.compile": lambda p: setattr(p, "unet", torch.compile(p.unet, backend="eager")),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_what_leaves_a_prediction_alone_leaves_the_hash_alone() -> None:
    plain: Any = load(sd14())
    answer, tensors = said(plain), {}
    for name in ("unet", "vae", "text_encoder"):
        tensors |= {f"{name}.{k}": v for k, v in getattr(plain, name).state_dict().items()}
    assert plain.weights_sha256() == state_dict_sha256(tensors)  # as it was written into every saved inversion
    for name, change in SAME.items():
        pipeline = sd14()
        change(pipeline)
        model: Any = load(pipeline)
        assert model.weights_sha256() == plain.weights_sha256(), name
        assert model.weights.changes() == [], name
        if name != "torch.compile":  # which takes seconds
            # sliced and fused products are summed in another order: float32's rounding
            torch.testing.assert_close(said(model), answer, rtol=0, atol=1e-5, msg=name)


def test_an_adapter_is_told_by_its_weights_and_not_by_its_name() -> None:
    one, other, moved = sd14(), sd14(), sd14()
    adapt(one, adapter="default_0")
    adapt(other, adapter="style")
    with torch.no_grad():
        adapt(moved).lora_A["style"].weight[0, 0] += 0.1
    a, b, c = (load(p).weights_sha256() for p in (one, other, moved))
    assert a == b != c


def test_a_network_that_is_wrapped_is_looked_at_as_well() -> None:
    pipeline = sd14()
    model = unsample.wrap(pipeline.unet, pipeline.scheduler, vae=pipeline.vae)
    plain = model.weights_sha256()
    tensors = pipeline.unet.state_dict() | {f"vae.{k}": v for k, v in pipeline.vae.state_dict().items()}
    assert plain == state_dict_sha256(tensors)
    pipeline.enable_freeu(0.9, 0.2, 1.2, 1.4)
    with_freeu = model.weights_sha256()
    adapt(pipeline)
    assert len({plain, with_freeu, model.weights_sha256()}) == 3


@pytest.mark.parametrize("name", ["LoRA", "FreeU"])
def test_a_model_that_was_changed_after_inversion_is_refused_and_told_what_changed(name: str, tmp_path: Path) -> None:
    pipeline = sd14()
    plain = copy.deepcopy(pipeline)
    CHANGES[name][0](pipeline)
    inversion = unsample.invert(pipeline, torch.rand(1, 3, 16, 16, generator=seeded(0)), "a", num_inference_steps=2)
    inversion.save(tmp_path / "a.safetensors")
    unsample.reconstruct(pipeline, tmp_path / "a.safetensors")
    verbs: list[Callable[[Any], Any]] = [
        lambda path: unsample.reconstruct(plain, path),
        lambda path: unsample.edit(plain, path, "b"),
        lambda path: unsample.interpolate(plain, path, path, num_frames=2),
    ]
    for verb in verbs:
        with pytest.raises(BadInput, match=r"made by .* \(weights \w+, with (adapter 'style' at scale 1|FreeU)"):
            verb(tmp_path / "a.safetensors")
    unsample.reconstruct(plain, inversion, allow_other_model=True)


def test_a_cast_model_that_is_changed_afterwards_is_another_model(tmp_path: Path) -> None:
    model: Any = load(saved(ddpm(), tmp_path / "ddpm"), dtype="bfloat16")
    kept = model.weights_sha256()
    assert kept == load(tmp_path / "ddpm").weights_sha256()
    before = model.unet.conv_in.weight.clone()
    with torch.no_grad():
        model.unet.conv_in.weight.mul_(2)
        changed = model.weights_sha256()
        model.unet.conv_in.weight.copy_(before)
    assert changed != kept == model.weights_sha256()


# ---------------------------------------------------------------- with PEFT itself


def test_peft_s_own_lora_is_seen_switched_scaled_fused_and_on_the_text_encoder() -> None:
    peft = pytest.importorskip("peft")
    pipeline = sd14()
    model: Any = load(pipeline)
    plain, answers = model.weights_sha256(), {}
    lora = peft.LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_k"], init_lora_weights=False)
    text = peft.LoraConfig(r=2, lora_alpha=2, target_modules=["q_proj"], init_lora_weights=False)
    states: list[tuple[str, Callable[[], Any]]] = [
        ("loaded", lambda: pipeline.unet.add_adapter(lora, "style")),
        ("scaled", lambda: pipeline.set_adapters(["style"], [0.5])),
        ("text", lambda: pipeline.text_encoder.add_adapter(text, "style")),
        ("fused", lambda: pipeline.fuse_lora(components=["unet"])),
    ]
    for name, change in states:
        change()
        answers[name] = model.weights_sha256()
        assert model.weights.changes(), name
    assert len({plain, *answers.values()}) == 5
    pipeline = sd14()
    model = load(pipeline)
    pipeline.unet.add_adapter(lora, "style")
    pipeline.disable_lora()
    assert model.weights_sha256() == plain
    pipeline.enable_lora()
    assert model.weights_sha256() != plain
    pipeline.unload_lora_weights()
    assert model.weights_sha256() == plain


# ---------------------------------------------------------------- refused by name


class IPAdapterAttnProcessor2_0(AttnProcessor2_0):
    pass


class PAGIdentitySelfAttnProcessor2_0(AttnProcessor2_0):
    pass


def first_block_cache(pipeline: Any) -> None:
    from diffusers.hooks import HookRegistry, ModelHook

    class FBCHeadBlockHook(ModelHook):
        pass

    registry = HookRegistry.check_if_exists_or_initialize(pipeline.unet.mid_block)
    registry.register_hook(FBCHeadBlockHook(), "fbc_leader_block_hook")


def layerwise_casting(pipeline: Any) -> None:
    pipeline.unet.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "an IP-Adapter": (lambda p: p.unet.set_attn_processor(IPAdapterAttnProcessor2_0()), "IP-Adapter .* unload_ip_adap"),
    "PAG": (lambda p: p.unet.set_attn_processor(PAGIdentitySelfAttnProcessor2_0()), "perturbed-attention guidance"),
    "a cache": (first_block_cache, "FBCHeadBlockHook is set.*: with it a prediction depends on the calls before it"),
    "an IP-Adapter's config": (lambda p: setattr(p.unet.config, "encoder_hid_dim_type", "ip_image_proj"), "IP-Adapter"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_a_prediction_depend_on_more_than_its_input_is_refused_at_every_verb(name: str) -> None:
    pipeline = sd14()
    model = load(pipeline)
    inversion = unsample.invert(model, torch.rand(1, 3, 16, 16, generator=seeded(0)), "a", num_inference_steps=2)
    REFUSED[name][0](pipeline)
    wrapped = lambda: unsample.wrap(pipeline.unet, pipeline.scheduler)  # noqa: E731
    calls: list[Callable[[], Any]] = [
        lambda: load(pipeline),
        wrapped,
        lambda: unsample.sample(model, "a"),
        lambda: unsample.invert(model, torch.rand(1, 3, 16, 16), "a"),
        lambda: unsample.reconstruct(model, inversion),
        lambda: unsample.edit(model, inversion, "b"),
        lambda: unsample.interpolate(model, inversion, inversion),
    ]
    for call in calls:
        with pytest.raises(Incompatible, match=REFUSED[name][1]):
            call()


def test_casting_layer_by_layer_is_no_cache() -> None:
    pipeline = sd14()
    layerwise_casting(pipeline)
    assert load(pipeline).weights_sha256() != load(sd14()).weights_sha256()  # its weights are rounded


# ---------------------------------------------------------------- textual inversion


def test_a_word_of_several_vectors_is_as_many_tokens_as_diffusers_makes_of_it() -> None:
    pipeline = sd14()
    vectors = normal(3, 32, dtype=torch.float32)
    pipeline.load_textual_inversion({"<cat>": vectors}, token="<cat>")
    model: Any = load(pipeline)
    ours = model.embed(["a <cat>"]).prompt_embeds
    with torch.no_grad():
        theirs = pipeline.encode_prompt("a <cat>", "cpu", 1, False)[0]
    assert torch.equal(ours, theirs)
    first_alone = model.text_encoder(model.tokenizer("a <cat>", padding="max_length", return_tensors="pt").input_ids)
    assert not torch.allclose(ours, first_alone.last_hidden_state)
    assert load(sd14()).weights_sha256() != model.weights_sha256()
