"""Tiny random pipelines of diffusers, a builder a family: real classes, so that they can be saved and loaded."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    UNet2DModel,
)

from tests.zoo.parts import (
    FLUX_VAE,
    PLAIN_VAE,
    awake,
    ddim,
    deep_vae,
    euler,
    flow,
    flux2_vae,
    hunyuan_vae,
    qwen_vae,
    sdxl_unet,
    transformer,
    unet,
    vae,
)
from tests.zoo.text import bert, clip, clip_tokenizer, language_model, seeded, t5, tokenizer

UNSAFE: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


# ---------------------------------------------------------------- U-Nets


def sd(scheduler: Any = None, kind: str = "StableDiffusionPipeline", channels: int = 4, **more: Any) -> Any:
    """Stable Diffusion 1.x, and pipelines of its parts."""
    parts = {"vae": vae(), "text_encoder": clip(), "tokenizer": clip_tokenizer(), "unet": unet(in_channels=channels)}
    return getattr(diffusers, kind)(**parts, scheduler=scheduler or ddim(), **UNSAFE, **more)


def sd_v() -> Any:
    """Predicting v."""
    return sd(ddim(prediction_type="v_prediction"))


def sd_karras() -> Any:
    """On Karras' levels."""
    return sd(euler(use_karras_sigmas=True))


def pag() -> Any:
    """Perturbed-attention guidance."""
    return sd(kind="StableDiffusionPAGPipeline", pag_applied_layers=["mid"])


def instruct_pix2pix() -> Any:
    """Shown a picture; three passes."""
    return sd(kind="StableDiffusionInstructPix2PixPipeline", channels=8)


def lcm() -> Any:
    """Latent consistency: a stochastic sampler."""
    parts = {"vae": vae(), "text_encoder": clip(), "tokenizer": clip_tokenizer(), "unet": unet(time_cond_proj_dim=16)}
    return diffusers.LatentConsistencyModelPipeline(**parts, scheduler=diffusers.LCMScheduler(), **UNSAFE)


def sdxl(scheduler: Any = None) -> Any:
    """Two text encoders, sizes, pooled embeddings; a VAE that wants float32."""
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(force_upcast=True),
        text_encoder=clip(),
        text_encoder_2=clip(projected=True),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=sdxl_unet(64),
        scheduler=scheduler or euler(),
        add_watermarker=False,
    )


class KolorsTokenizer:
    """Kolors' own needs sentencepiece; what it returns beside ids and mask are positions."""

    def __init__(self) -> None:
        self.words = tokenizer(side="left")

    def __call__(self, *args: Any, **more: Any) -> Any:
        found = self.words(*args, **more)
        found["position_ids"] = found["attention_mask"].cumsum(1) - 1
        return found


class KolorsEncoder(torch.nn.Module):
    """Its hidden states have the picture on the second axis, as ChatGLM's have."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = language_model()
        self.config, self.dtype, self.device = self.inner.config, torch.float32, torch.device("cpu")

    def forward(self, input_ids: Any, attention_mask: Any, position_ids: Any, **_: Any) -> Any:
        found = self.inner(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
        return SimpleNamespace(hidden_states=[v.transpose(0, 1) for v in found.hidden_states])


def kolors() -> Any:
    """SDXL's U-Net, a language model for text. Live only: its tokenizer is not ours to save."""
    pipeline = import_module("diffusers.pipelines.kolors.pipeline_kolors").KolorsPipeline
    return pipeline(
        vae=vae(),
        text_encoder=KolorsEncoder(),
        tokenizer=KolorsTokenizer(),
        unet=sdxl_unet(32),
        scheduler=euler(beta_end=0.014),
    )


def deepfloyd() -> Any:
    """IF: pixels, and a learned variance."""
    network = unet(
        in_channels=3,
        out_channels=6,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        cross_attention_norm="group_norm",
        resnet_time_scale_shift="scale_shift",
        act_fn="gelu",
        encoder_hid_dim=32,
    )
    scheduler = ddim()
    scheduler.register_to_config(variance_type="fixed")  # the pipeline looks for it
    parts = {"tokenizer": tokenizer(), "text_encoder": t5(), "unet": network, "scheduler": scheduler}
    return diffusers.IFPipeline(**parts, watermarker=None, **UNSAFE)


def ldm() -> Any:
    """Latent diffusion's text to image: parts called `bert` and `vqvae`."""
    module = import_module("diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion")
    config = module.LDMBertConfig(
        vocab_size=259,
        d_model=32,
        encoder_layers=2,
        encoder_ffn_dim=40,
        encoder_attention_heads=4,
        head_dim=8,
        max_position_embeddings=77,
    )
    text = seeded(2)(module.LDMBertModel)(config)
    return diffusers.LDMTextToImagePipeline(
        vqvae=vae(4), bert=text, tokenizer=tokenizer(77), unet=unet(), scheduler=ddim()
    )


@seeded(5)
def pixel_unet() -> Any:
    """Of pixels."""
    return awake(
        UNet2DModel(
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=2,
            sample_size=16,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=4,
        )
    )


def ddim_pixels() -> Any:
    """Unconditional."""
    return DDIMPipeline(unet=pixel_unet(), scheduler=DDIMScheduler(clip_sample=False))


def ddpm_pixels() -> Any:
    """Unconditional; a stochastic sampler, which gives way to the deterministic one of the same table."""
    return DDPMPipeline(unet=pixel_unet(), scheduler=DDPMScheduler(clip_sample=False))


# ---------------------------------------------------------------- transformers of the VP kind


def pixart(version: str = "Sigma") -> Any:
    """PixArt: a learned variance."""
    network = transformer(
        diffusers.PixArtTransformer2DModel,
        sample_size=16,
        num_layers=1,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=32,
        in_channels=4,
        cross_attention_dim=24,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        use_additional_conditions=False,
    )
    scheduler = ddim()
    parts = {"tokenizer": tokenizer(), "text_encoder": t5(), "vae": vae(), "transformer": network}
    return getattr(diffusers, f"PixArt{version}Pipeline")(**parts, scheduler=scheduler)


def pixart_alpha() -> Any:
    """The first."""
    return pixart("Alpha")


def dit() -> Any:
    """Classes, a learned variance, and both halves of guidance stepped along."""
    network = transformer(
        diffusers.DiTTransformer2DModel,
        sample_size=16,
        num_layers=1,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_zero",
        norm_elementwise_affine=False,
    )
    scheduler = ddim()
    return diffusers.DiTPipeline(transformer=network, vae=vae(), scheduler=scheduler)


# ---------------------------------------------------------------- flow matching


def sd3(**shift: Any) -> Any:
    """Three text encoders."""
    network = transformer(
        diffusers.SD3Transformer2DModel,
        sample_size=16,
        patch_size=2,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=64,
        pooled_projection_dim=64,
        out_channels=4,
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=network,
        scheduler=flow(shift=3.0, **shift),
        vae=vae(**{**PLAIN_VAE, "shift_factor": 0.0609, "scaling_factor": 1.5}),
        text_encoder=clip(projected=True),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip(projected=True),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5(64),
        tokenizer_3=tokenizer(),
    )


def sd3_dynamic() -> Any:
    """SD3.5's shift, which follows the number of tokens."""
    return sd3(use_dynamic_shifting=True)


def flux(distilled: bool = True, scheduler: Any = None) -> Any:
    """FLUX.1: packed latents, guidance as an input."""
    network = transformer(
        diffusers.FluxTransformer2DModel,
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=[4, 4, 8],
        guidance_embeds=distilled,
    )
    return diffusers.FluxPipeline(
        scheduler=scheduler or flow(shift=3.0, use_dynamic_shifting=distilled),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5(),
        tokenizer_2=tokenizer(),
        transformer=network,
        vae=vae(**PLAIN_VAE),
    )


def flux_schnell() -> Any:
    """Without guidance."""
    return flux(distilled=False)


def flux_karras() -> Any:
    """On Karras' levels."""
    return flux(scheduler=flow(use_dynamic_shifting=True, use_karras_sigmas=True))


def flux_inverted() -> Any:
    """A scheduler that counts the clean part (Mochi's)."""
    return flux(scheduler=flow(shift=2.0, invert_sigmas=True))


def kontext() -> Any:
    """Shown a picture: its tokens stand beside the latents."""
    parts = {k: v for k, v in flux().components.items() if k not in ("image_encoder", "feature_extractor")}
    return diffusers.FluxKontextPipeline(image_encoder=None, feature_extractor=None, **parts)


def _flux2_transformer(distilled: bool) -> Any:
    return transformer(
        diffusers.Flux2Transformer2DModel,
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        timestep_guidance_channels=32,
        axes_dims_rope=[4, 4, 4, 4],
        guidance_embeds=distilled,
    )


def flux2() -> Any:
    """Guidance as an input; text from the layers 10, 20 and 30."""
    return diffusers.Flux2Pipeline(
        scheduler=flow(use_dynamic_shifting=True),
        vae=flux2_vae(),
        text_encoder=language_model(16, 31),
        tokenizer=tokenizer(),
        transformer=_flux2_transformer(True),
    )


def klein() -> Any:
    """Two passes; text from the layers 9, 18 and 27."""
    return diffusers.Flux2KleinPipeline(
        scheduler=flow(use_dynamic_shifting=True),
        vae=flux2_vae(),
        text_encoder=language_model(16, 28),
        tokenizer=tokenizer(),
        transformer=_flux2_transformer(False),
    )


def qwen_image() -> Any:
    """Guidance that is brought back to the conditional norm; a VAE of videos."""
    network = transformer(
        diffusers.QwenImageTransformer2DModel,
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=3,
        joint_attention_dim=32,
        guidance_embeds=False,
        axes_dims_rope=(8, 4, 4),
    )
    return diffusers.QwenImagePipeline(
        scheduler=flow(use_dynamic_shifting=True, shift_terminal=0.02),
        vae=qwen_vae(),
        text_encoder=language_model(),
        tokenizer=tokenizer(1024),
        transformer=network,
    )


def z_image() -> Any:
    """Lists in and out, a negated output, and a guidance of its own: w = 1 + its number."""
    network = transformer(
        diffusers.ZImageTransformer2DModel,
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        qk_norm=True,
        cap_feat_dim=32,
        rope_theta=256.0,
        t_scale=1000.0,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 32, 32],
    )
    return diffusers.ZImagePipeline(
        scheduler=flow(shift=3.0),
        vae=vae(**PLAIN_VAE),
        text_encoder=language_model(),
        tokenizer=tokenizer(),
        transformer=network,
    )


def sana() -> Any:
    """Flow matching by DPM-Solver's class; a VAE without a distribution."""
    network = transformer(diffusers.SanaTransformer2DModel, **_SANA)
    scheduler = DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0, final_sigmas_type="zero"
    )
    parts = {"tokenizer": tokenizer(), "text_encoder": language_model(), "vae": deep_vae()}
    return diffusers.SanaPipeline(**parts, transformer=network, scheduler=scheduler)


def sana_sprint() -> Any:
    """A stochastic sampler."""
    more: dict[str, Any] = {"guidance_embeds": True, "guidance_embeds_scale": 0.1}
    more |= {"qk_norm": "rms_norm_across_heads", "timestep_scale": 1000.0}
    network = transformer(diffusers.SanaTransformer2DModel, **_SANA, **more)
    parts = {"tokenizer": tokenizer(), "text_encoder": language_model(), "vae": deep_vae()}
    return diffusers.SanaSprintPipeline(**parts, transformer=network, scheduler=diffusers.SCMScheduler())


_SANA: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 1,
    "num_attention_heads": 2,
    "attention_head_dim": 4,
    "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 4,
    "cross_attention_dim": 8,
    "caption_channels": 32,
    "sample_size": 16,
}


def lumina2() -> Any:
    """A negated output, and time that runs the other way."""
    network = transformer(
        diffusers.Lumina2Transformer2DModel,
        sample_size=16,
        patch_size=2,
        in_channels=4,
        hidden_size=24,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=3,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(400, 64, 64),
        cap_feat_dim=32,
    )
    return diffusers.Lumina2Pipeline(
        transformer=network,
        vae=vae(4, **FLUX_VAE),
        text_encoder=language_model(),
        tokenizer=tokenizer(),
        scheduler=flow(shift=6.0),
    )


def hidream() -> Any:
    """Four text encoders, a negated output, experts."""
    network = transformer(
        diffusers.HiDreamImageTransformer2DModel,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_channels=[32, 32],
        text_emb_dim=64,
        num_routed_experts=4,
        num_activated_experts=2,
        axes_dims_rope=(4, 2, 2),
        max_resolution=(128, 128),
        llama_layers=(0, 1),
        force_inference_output=True,
    )
    made = diffusers.HiDreamImagePipeline(
        scheduler=flow(shift=3.0),
        vae=vae(4, **FLUX_VAE),
        text_encoder=clip(projected=True, length=218),
        tokenizer=clip_tokenizer(218),
        text_encoder_2=clip(projected=True, length=218),
        tokenizer_2=clip_tokenizer(218),
        text_encoder_3=t5(),
        tokenizer_3=tokenizer(),
        text_encoder_4=language_model(32, 2),
        tokenizer_4=tokenizer(),
        transformer=network,
    )
    made.default_sample_size = 16  # any size that is asked is brought to this area
    return made


def cogview4() -> Any:
    """Padded text without a mask."""
    network = transformer(
        diffusers.CogView4Transformer2DModel,
        patch_size=2,
        in_channels=4,
        num_layers=2,
        attention_head_dim=4,
        num_attention_heads=4,
        out_channels=4,
        text_embed_dim=32,
        time_embed_dim=8,
        condition_dim=4,
        rope_axes_dim=(32, 32),
    )
    dynamic: dict[str, Any] = {"base_shift": 0.25, "max_shift": 0.75, "base_image_seq_len": 256}
    return diffusers.CogView4Pipeline(
        tokenizer=tokenizer(side="left"),
        text_encoder=language_model(),
        vae=vae(),
        transformer=network,
        scheduler=flow(use_dynamic_shifting=True, time_shift_type="linear", **dynamic),
    )


def chroma() -> Any:
    """FLUX's layout with true guidance."""
    network = transformer(
        diffusers.ChromaTransformer2DModel,
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=[4, 4, 8],
        approximator_hidden_dim=32,
        approximator_layers=1,
        approximator_num_channels=16,
    )
    return diffusers.ChromaPipeline(
        scheduler=flow(), vae=vae(**PLAIN_VAE), text_encoder=t5(), tokenizer=tokenizer(), transformer=network
    )


def kandinsky5() -> Any:
    """Channels last, a frame axis, a fixed list of sizes."""
    network = transformer(
        diffusers.Kandinsky5Transformer3DModel,
        in_visual_dim=4,
        in_text_dim=32,
        in_text_dim2=32,
        time_dim=16,
        out_visual_dim=4,
        patch_size=(1, 2, 2),
        model_dim=24,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=1,
        axes_dims=(4, 4, 4),
        visual_cond=False,
        attention_type="regular",
    )
    made = diffusers.Kandinsky5T2IPipeline(
        transformer=network,
        vae=vae(4),
        text_encoder=language_model(),
        tokenizer=tokenizer(1024),
        text_encoder_2=clip(),
        tokenizer_2=clip_tokenizer(),
        scheduler=flow(shift=5.0),
    )
    made.resolutions = [(128, 128)]
    return made


def hunyuan_image(guider: Any = None, distilled: bool = False) -> Any:
    """A guider object; the distilled one is a mean flow."""
    network = transformer(
        diffusers.HunyuanImageTransformer2DModel,
        in_channels=4,
        out_channels=4,
        num_attention_heads=4,
        attention_head_dim=8,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=(1, 1),
        guidance_embeds=distilled,
        text_embed_dim=32,
        text_embed_2_dim=32,
        rope_axes_dim=(4, 4),
        use_meanflow=distilled,
    )
    plain = import_module("diffusers.guiders").ClassifierFreeGuidance(guidance_scale=3.5)
    return diffusers.HunyuanImagePipeline(
        scheduler=flow(shift=5.0),
        vae=hunyuan_vae(),
        text_encoder=language_model(),
        tokenizer=tokenizer(1024),
        text_encoder_2=t5(),
        tokenizer_2=tokenizer(128),
        transformer=network,
        guider=None if distilled else guider or plain,
    )


def hunyuan_meanflow() -> Any:
    """Distilled."""
    return hunyuan_image(distilled=True)


def hunyuan_apg() -> Any:
    """Guidance that remembers: adaptive projection with momentum."""
    apg = import_module("diffusers.guiders").AdaptiveProjectedMixGuidance
    return hunyuan_image(apg(guidance_scale=3.5, adaptive_projected_guidance_start_step=1))


def auraflow() -> Any:
    """One text encoder."""
    network = transformer(
        diffusers.AuraFlowTransformer2DModel,
        sample_size=16,
        patch_size=2,
        in_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        out_channels=4,
        pos_embed_max_size=256,
    )
    parts = {"tokenizer": tokenizer(), "text_encoder": t5(), "vae": vae(), "transformer": network}
    return diffusers.AuraFlowPipeline(**parts, scheduler=flow(shift=1.73))


# ---------------------------------------------------------------- others of diffusers


def lumina() -> Any:
    """The first Lumina: a learned variance, guidance on three channels."""
    network = transformer(
        diffusers.LuminaNextDiT2DModel,
        sample_size=16,
        patch_size=2,
        in_channels=4,
        hidden_size=24,
        num_layers=1,
        num_attention_heads=3,
        num_kv_heads=1,
        multiple_of=16,
        cross_attention_dim=32,
    )
    return diffusers.LuminaPipeline(
        transformer=network,
        vae=vae(4),
        text_encoder=language_model(),
        tokenizer=tokenizer(),
        scheduler=flow(),
    )


def cogview3() -> Any:
    """Zero terminal SNR, v prediction."""
    network = transformer(
        diffusers.CogView3PlusTransformer2DModel,
        patch_size=2,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        out_channels=4,
        text_embed_dim=32,
        time_embed_dim=8,
        condition_dim=4,
        pos_embed_max_size=16,
        sample_size=16,
    )
    table: dict[str, Any] = {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    scheduler = diffusers.CogVideoXDDIMScheduler(**table, rescale_betas_zero_snr=True)
    parts = {"tokenizer": tokenizer(), "text_encoder": t5(), "vae": vae(), "transformer": network}
    return diffusers.CogView3PlusPipeline(**parts, scheduler=scheduler)


def hunyuan_dit() -> Any:
    """Two text encoders, a learned variance."""
    network = transformer(
        diffusers.HunyuanDiT2DModel,
        sample_size=16,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        in_channels=4,
        cross_attention_dim=32,
        cross_attention_dim_t5=32,
        pooled_projection_dim=16,
        hidden_size=24,
        activation_fn="gelu-approximate",
    )
    return diffusers.HunyuanDiTPipeline(
        vae=vae(4),
        text_encoder=bert(),
        tokenizer=tokenizer(77),
        transformer=network,
        scheduler=DDPMScheduler(prediction_type="v_prediction", beta_schedule="scaled_linear", beta_end=0.018),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        text_encoder_2=t5(),
        tokenizer_2=tokenizer(256),
    )


def ovis() -> Any:
    """FLUX's layout, a language model."""
    network = transformer(
        diffusers.OvisImageTransformer2DModel,
        patch_size=1,
        in_channels=16,
        out_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 4, 8),
    )
    return diffusers.OvisImagePipeline(
        scheduler=flow(use_dynamic_shifting=True),
        vae=vae(**PLAIN_VAE),
        text_encoder=language_model(),
        tokenizer=tokenizer(1024),
        transformer=network,
    )
