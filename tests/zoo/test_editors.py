"""Every editor on tiny networks of the families: it runs and leaves nothing behind, or says why not and what to do."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

import unsample
from tests.problems import smooth_network
from tests.zoo.table import ZOO
from tests.zoo.test_zoo import adapter
from unsample.edits import EDITORS
from unsample.errors import Incompatible

pytestmark = pytest.mark.filterwarnings("ignore")
PROMPTS = ("a cat on a mat", "a dog on a mat")
READING = [name for name in ("p2p", "masactrl", "pnp", "pix2pix_zero") if name in EDITORS]  # attention, or features
OTHERS = [name for name in EDITORS if name not in ("none", *READING)]
UNETS = ("sd", "sdxl", "ldm")
JOINT = {"sd3": "SD3Transformer2DModel", "flux": "FluxTransformer2DModel", "qwen_image": "QwenImageTransformer2DModel"}
OWN = {"sana": "SanaTransformer2DModel", "z_image": "ZImageTransformer2DModel", "hunyuan_dit": "HunyuanDiT2DModel"}


@cache
def inverted(name: str) -> tuple[Any, Any]:
    """A tiny model, "sd" by the adapter that is written for it, and a picture of noise in it."""
    model = unsample.load(ZOO[name].built()) if name == "sd" else adapter(name)
    shape = model.shape_of(*(ZOO[name].call.get(n) for n in ("height", "width")))
    latents = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    given = {"prompt": PROMPTS[0]} if ZOO[name].prompted else {"class_labels": [7]}
    return model, unsample.invert(model, latents=latents, num_inference_steps=2, **given)


def edited(name: str, editor: str) -> Any:
    model, inversion = inverted(name)
    given = {"prompt": PROMPTS[1]} if ZOO[name].prompted else {"class_labels": [3]}
    w = 2.0 if model.guidance == "cfg" else 1.0
    return unsample.edit(model, inversion, editor=editor, guidance_scale=w, **given)


def state_of(name: str) -> list[Any]:
    network = inverted(name)[0].unet
    return [
        (at, id(getattr(m, "processor", None)), vars(m).get("forward"), list(m._forward_hooks), m.training)
        for at, m in network.named_modules()
    ]


@pytest.mark.parametrize("editor", [*READING, *OTHERS])
@pytest.mark.parametrize("name", UNETS)
def test_an_editor_runs_on_a_u_net_with_text_and_leaves_it_as_it_was(name: str, editor: str) -> None:
    before = state_of(name)
    made = edited(name, editor)
    assert made.status == ["ok"]
    assert state_of(name) == before
    again = unsample.reconstruct(*inverted(name))
    torch.testing.assert_close(made.reconstruction, again.images, rtol=0, atol=1e-4)


@pytest.mark.parametrize("editor", ["masactrl", "pnp", *(e for e in ("p2p", "ledits") if e in EDITORS)])
def test_a_tokenizer_that_does_not_tell_words_is_refused_where_they_are_asked_for(editor: str) -> None:
    if editor in ("masactrl", "pnp"):
        assert edited("kolors", editor).status == ["ok"]
        return
    with pytest.raises(Incompatible, match=f"editor {editor} .*tokenizer of kolors .*does not tell"):
        edited("kolors", editor)


@pytest.mark.parametrize("editor", [e for e in READING if e != "pnp"])
def test_those_that_read_attention_run_on_a_transformer_with_cross_attention(editor: str) -> None:
    before = state_of("pixart_sigma")
    assert edited("pixart_sigma", editor).status == ["ok"]
    assert state_of("pixart_sigma") == before


@pytest.mark.parametrize("name", ["sd", "sdxl", "pixart_sigma", "dit"])
def test_masactrl_has_an_effect_however_few_layers_there_are(name: str) -> None:
    swapped, made = edited(name, "none"), edited(name, "masactrl")
    assert not torch.equal(made.latents, swapped.latents)
    assert made.meta["editor_notes"]["layers"]


@pytest.mark.parametrize("editor", READING)
@pytest.mark.parametrize("name", [*JOINT, *OWN, "if"])
def test_other_attention_is_refused_by_name_with_what_to_do(name: str, editor: str) -> None:
    kind = (JOINT | OWN | {"if": "UNet2DConditionModel"})[name]
    with pytest.raises(Incompatible, match=f"editor {editor} .*{name} .*{kind}.*; use editor none, or a model such as"):
        edited(name, editor)


def test_features_of_a_decoder_are_not_looked_for_in_a_transformer() -> None:
    with pytest.raises(Incompatible, match="pixart_sigma .PixArtTransformer2DModel. has no decoder.*masactrl"):
        edited("pixart_sigma", "pnp")


@pytest.mark.parametrize("editor", ["masactrl", "pnp"])
def test_networks_without_blocks_of_attention_are_refused_before_work(editor: str) -> None:
    pixels = unsample.load(ZOO["ddim"].built())
    plain = unsample.wrap(smooth_network, pixels.scheduler, sample_shape=(3, 16, 16))
    for model, why in ((pixels, "UNet2DModel attends by Attention"), (plain, "is no network of diffusers")):
        inversion = unsample.invert(model, latents=torch.zeros(1, *model.sample_shape), num_inference_steps=2)
        with pytest.raises(Incompatible, match=f"{why}.*; use editor none"):
            unsample.edit(model, inversion, "a cat", editor=editor)
