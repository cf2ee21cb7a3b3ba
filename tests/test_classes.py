"""Class labels with guidance: away from the class that stands for none, given or known; and advice to be followed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel
from torch import Tensor

import unsample
from tests.problems import ddpm, normal, seeded
from unsample.errors import BadOption, Incompatible
from unsample.methods import fixed_point

SHAPE = (3, 8, 8)
pytestmark = [
    pytest.mark.filterwarnings("ignore:the noisiest of . grid points"),
    pytest.mark.filterwarnings("ignore:.*did not converge"),
    pytest.mark.filterwarnings("ignore:ddim does not account"),
]


def classes(x: Tensor, t: Tensor, class_labels: Tensor) -> Tensor:
    """Every class pulls to its own level."""
    return torch.tanh(0.5 * x - 0.2 * class_labels.to(x)[:, None, None, None])


def wrapped(network: Any, **more: Any) -> Any:
    return unsample.wrap(network, DDIMScheduler(clip_sample=False), sample_shape=SHAPE, **more)


def test_guidance_over_a_null_class_is_the_formula_and_round_trips(tmp_path: Path) -> None:
    w, null = 3.0, 9
    joined = wrapped(
        lambda x, t: (
            classes(x, t, torch.full((len(x),), null))
            + w * (classes(x, t, torch.tensor([1, 2])) - classes(x, t, torch.full((len(x),), null)))
        )
    )
    model, x = wrapped(classes), normal(2, *SHAPE, dtype=torch.float32)
    given: dict[str, Any] = {"num_inference_steps": 5, "method": fixed_point(30)}
    labels: dict[str, Any] = {"class_labels": [1, 2], "negative_class_labels": null, "guidance_scale": w}
    sampled = unsample.sample(model, noise=x, num_inference_steps=5, **labels)
    assert sampled.nfe == [10, 10]
    torch.testing.assert_close(sampled.latents, unsample.sample(joined, noise=x, num_inference_steps=5).latents)
    inversion = unsample.invert(model, latents=0.1 * x, **labels, **given)
    torch.testing.assert_close(inversion.noise, unsample.invert(joined, latents=0.1 * x, **given).noise)
    inversion.save(tmp_path / "a.safetensors")
    kept = unsample.Inversion.load(tmp_path / "a.safetensors")
    assert kept.negative_class_labels is not None
    assert kept.negative_class_labels.tolist() == [9, 9]
    assert kept[1].negative_class_labels.tolist() == [9]  # type: ignore[union-attr]
    made = unsample.reconstruct(model, kept)
    torch.testing.assert_close(made.latents, 0.1 * x, atol=1e-4, rtol=0)  # 30 iterations of a contraction by half
    edited = unsample.edit(model, kept, class_labels=5)
    assert edited.meta["guidance_scale"] == 5  # as with text, for there is something to guide away from
    assert edited.nfe == [10, 10]
    plain = unsample.invert(model, latents=0.1 * x, class_labels=[1, 2], **given)
    assert unsample.edit(model, plain, class_labels=5).meta["guidance_scale"] == 1
    assert unsample.edit(model, plain, class_labels=5, negative_class_labels=9).meta["guidance_scale"] == 5
    frames = unsample.interpolate(model, kept[0], kept[0], num_frames=3)
    assert frames.nfe == [10] * 3
    other = unsample.invert(
        model, latents=0.1 * x[:1], class_labels=1, negative_class_labels=8, guidance_scale=w, **given
    )
    with pytest.raises(Incompatible, match=r"between negative_class_labels \[9\] and \[8\]"):
        unsample.interpolate(model, kept[0], other)


def test_what_is_lacking_is_what_is_asked_for() -> None:
    x = normal(1, *SHAPE, dtype=torch.float32)
    given: dict[str, Any] = {"latents": x, "num_inference_steps": 2}
    with pytest.raises(Incompatible, match="guidance_scale=3 needs an unconditional .* give negative_class_labels"):
        unsample.invert(wrapped(classes), class_labels=1, guidance_scale=3, **given)
    with pytest.raises(Incompatible, match=r"give negative_prompt_embeds$"):
        unsample.invert(wrapped(lambda x, t: x), guidance_scale=3, **given)
    with pytest.raises(BadOption, match="negative_class_labels were given without class_labels"):
        unsample.invert(wrapped(lambda x, t: x), negative_class_labels=1, **given)
    with pytest.raises(BadOption, match="cannot be asked without class_labels"):
        unsample.invert(wrapped(classes), **given)
    for bad in ("cat", 1.5, [], True):
        with pytest.raises(BadOption, match="negative_class_labels must be whole numbers"):
            unsample.invert(wrapped(classes), class_labels=1, negative_class_labels=bad, guidance_scale=3, **given)
    with pytest.raises(BadOption, match="negative_class_labels has 2 rows for 1 pictures"):
        unsample.invert(wrapped(classes), class_labels=1, negative_class_labels=[1, 2], guidance_scale=3, **given)
    model = unsample.load(ddpm(num_class_embeds=3))
    with pytest.raises(BadOption, match=r"negative_class_labels of .* are 0 to 2; got \[3\]"):
        unsample.sample(model, class_labels=1, negative_class_labels=3, guidance_scale=3, num_inference_steps=2)


def test_classes_and_embeddings_go_together() -> None:
    """Guidance is over the text then, and the class is the same on both sides unless it says otherwise."""
    asked: list[list[int]] = []

    def network(x: Tensor, t: Tensor, encoder_hidden_states: Any = None, class_labels: Any = None) -> Tensor:
        asked.append(class_labels.tolist())
        return 0.1 * x + encoder_hidden_states.mean()

    x, text = normal(1, *SHAPE, dtype=torch.float32), torch.ones(1, 2, 4)
    texts: dict[str, Any] = {"prompt_embeds": text, "negative_prompt_embeds": -text, "guidance_scale": 2}
    unsample.sample(wrapped(network), noise=x, num_inference_steps=1, class_labels=3, **texts)
    unsample.sample(wrapped(network), noise=x, num_inference_steps=1, class_labels=3, negative_class_labels=4, **texts)
    assert asked == [[3, 3], [4, 3]]


def dit() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=4,
            in_channels=4,
            out_channels=8,
            num_layers=1,
            norm_num_groups=1,
            sample_size=8,
            patch_size=2,
            num_embeds_ada_norm=10,
        ).eval()


def test_a_dit_knows_its_null_class_and_takes_a_time_for_every_picture() -> None:
    network = dit()
    with torch.no_grad():  # a new one answers nothing but zeros
        for name, weights in network.named_parameters():
            weights.copy_(0.1 * normal(*weights.shape, seed=len(name), dtype=torch.float32))
    model = unsample.wrap(network, DDIMScheduler(clip_sample=False))
    assert (model.num_classes, model.null_class) == (10, 10)
    x = torch.randn(2, 4, 8, 8, generator=seeded(0))
    given: dict[str, Any] = {"noise": x, "class_labels": [1, 2], "guidance_scale": 2, "num_inference_steps": 3}
    made = unsample.sample(model, **given)
    assert torch.equal(made.latents, unsample.sample(model, negative_class_labels=10, **given).latents)
    assert not torch.equal(made.latents, unsample.sample(model, negative_class_labels=9, **given).latents)


# ---------------------------------------------------------------- words before the network's own


def test_a_network_that_wants_a_time_for_every_picture_is_served_or_told_of() -> None:
    def of_batch(x: Tensor, t: Tensor) -> Tensor:
        return 0.1 * x * t[:, None, None, None].sign()

    def of_columns(x: Tensor, t: Tensor) -> Tensor:
        return x @ torch.ones(8, 8) + t[:, :, None, None]

    x = normal(2, *SHAPE, dtype=torch.float32)
    for network in (of_batch, of_columns):
        with pytest.raises(
            Incompatible, match=r"stopped with IndexError .* one timestep for all; .*batched_timestep=True"
        ):
            unsample.sample(wrapped(network), noise=x, num_inference_steps=2)
    made = unsample.sample(wrapped(of_batch, batched_timestep=True), noise=x, num_inference_steps=2)
    again = unsample.sample(wrapped(lambda x, t: of_batch(x, t.expand(len(x)))), noise=x, num_inference_steps=2)
    assert torch.equal(made.latents, again.latents)


def test_forgotten_embeddings_and_sizes_that_do_not_fit_are_said_in_words() -> None:
    from tests.problems import sd14

    pipeline = sd14()
    model = unsample.wrap(pipeline.unet, pipeline.scheduler, vae=pipeline.vae)
    images = torch.rand(1, 3, 16, 16, generator=seeded(0))
    for verb in (lambda **g: unsample.invert(model, images, **g), lambda **g: unsample.sample(model, **g)):
        with pytest.raises(
            BadOption, match=r"cannot be asked without encoder_hidden_states; give prompt_embeds \(B, le"
        ):
            verb(num_inference_steps=2)
    pixels = unsample.load(ddpm())
    with pytest.raises(
        Incompatible, match=r"stopped with RuntimeError .* a sample \(1, 3, 7, 9\).*if the size is wrong"
    ):
        unsample.sample(pixels, noise=normal(1, 3, 7, 9, dtype=torch.float32), num_inference_steps=2)


def test_a_network_that_needs_what_nobody_gives_is_refused_when_it_is_wrapped() -> None:
    def pooled(x: Tensor, t: Tensor, pooled_projections: Tensor) -> Tensor:
        return x

    with pytest.raises(
        Incompatible, match=r"cannot be asked without pooled_projections; give unsample.wrap a function"
    ):
        wrapped(pooled)
