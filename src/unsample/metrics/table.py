"""The table of metrics: what each is called, means, needs, and by which convention it is computed.

Conventions differ between papers under one name, so each row states its own. A row is name, title, lowest and highest
value (None: no bound), which way is better, then the rest by name; what the rows of a group share is said above them,
in the group's name. `python -m unsample.metrics.page > docs/metrics.md` makes the page of it.
"""

from __future__ import annotations

from functools import partial

from unsample.metrics import (
    alignment,
    clip,
    detecting,
    dino,
    distributions,
    dreamsim,
    edits,
    lpips,
    masked,
    noise,
    pixels,
    recovery,
)
from unsample.metrics.facts import MetricFacts
from unsample.registry import Table
from unsample.watermarks import GaussianShading, TreeRing

PAIR = ("images", "reference")

EIGHT = "RGB in [0, 1]"
SQUARE = f"square {EIGHT} of at least 16"
LATENT = "the model's own range ([-1, 1], or latents), unclamped, unquantised, mean over a sample's values"
NAMED_START = f"{LATENT}; the start is named: x0 (raw), reencoded or png8"
TRUNK = "RGB in [0, 1] scaled to [-1, 1], at the pictures' own size; heads of LPIPS v0.1"
CLIP_INPUT = (
    "8-bit RGB of any size, resized (Pillow bicubic) and normalised as the model's preprocessor_config.json says"
)
FEATURES = "features of CLIP (unnormalised embeddings), or of `pixels`, named in brackets"
WHOLE_FRAME = f"{EIGHT}, both times 1 - mask, mean over the whole frame: flatters as the mask grows"

DEFINITION = "definition"
WANG = "Wang et al., 2004, doi:10.1109/TIP.2003.819861"
ZHANG = "Zhang et al., 2018, arXiv:1801.03924"
RADFORD = "Radford et al., 2021, arXiv:2103.00020"
PIE = "Ju et al., 2023, arXiv:2310.01506 (PIE-Bench), and its code"
FRECHET = "Heusel et al., 2017, arXiv:1706.08500, Eq. 6"
PRECISION = "Kynkaanniemi et al., 2019, arXiv:1904.06991"
ALIGNMENT = "Kornblith et al., 2019, arXiv:1905.00414"
ZENG = "Zeng et al., 2026, arXiv:2606.03111"
TABA = "Staniszewski et al., 2024, arXiv:2410.23530"
RINGS = "Wen et al., 2023, arXiv:2305.20030"
SHADES = "Yang et al., 2024, arXiv:2404.04956"
OWN = "unsample; the true edit is a render of the edited scene"

pair = partial(MetricFacts, kind="pair", needs=PAIR, reference=DEFINITION)
perceptual = partial(MetricFacts, kind="pair", needs=PAIR, reference=ZHANG)
by_clip = partial(MetricFacts, kind="text", needs=("images", "target_prompts|prompts"), depends="clip")
structure = partial(pair, weights=("dino-vitb8",), depends="dino", any_size=True)
of_sets = partial(MetricFacts, kind="set", needs=PAIR, any_size=True)
of_features = partial(of_sets, depends="clip", tally=distributions.FeatureSets)
recovered = partial(MetricFacts, kind="recovery", needs=("noise", "true_noise"), reference=DEFINITION)
of_noise = partial(MetricFacts, kind="noise", needs=("noise",), reference=DEFINITION)
marked = partial(MetricFacts, kind="noise", needs=("noise",), depends="key")
over_noises = partial(MetricFacts, kind="set", needs=("noise",))
outside = partial(MetricFacts, kind="masked", needs=(*PAIR, "mask"))
gain = partial(MetricFacts, kind="edit", needs=("images", "truth", "reference"), reference=OWN)
judged = partial(MetricFacts, kind="edit", needs=("images", "targets", "changed"), reference=OWN)

# fmt: off
ROWS = (
    # ---------------------------------------------------------------- pixels
    pair("mse", "mean squared error", 0, 1, "lower", compute=pixels.of_mse,
         convention=f"{EIGHT}, one size, mean over pixels and channels, float64"),
    pair("mae", "mean absolute error", 0, 1, "lower", compute=pixels.of_mae,
         convention=f"{EIGHT}, one size, mean over pixels and channels, float64"),
    pair("psnr", "peak signal to noise ratio", 0, None, "higher", unit="dB", compute=pixels.of_psnr,
         convention=f"{EIGHT}, one size, data range 1; equal pictures are inf: null and exact"),
    MetricFacts("psnr_to_ceiling", "PSNR to what the autoencoder alone gives back", 0, None, "higher", unit="dB",
                kind="ceiling", needs=("images", "ceiling"), reference=DEFINITION, compute=pixels.of_psnr_to_ceiling,
                convention="RGB clamped to [0, 1], float32, not rounded to 8 bits, data range 1; equal is inf: null, "
                "exact"),
    pair("ssim", "structural similarity", -1, 1, "higher", reference=WANG, compute=pixels.of_ssim,
         convention=f"{EIGHT}, one size of at least 11; Gaussian 11x11, sigma 1.5, borders reflected, data range 1"),
    pair("ssim_global", "structural similarity with one window", -1, 1, "higher", any_size=True,
         reference="Wu and Liu, 2025, Diffusion Inversion Report, Algorithm 1", compute=pixels.of_ssim_global,
         convention="8-bit greyscale, image resized (Pillow bicubic) to the reference, one global window, "
         "C1 = (.01 L)^2, C2 = (.03 L)^2"),
    pair("ms_ssim", "structural similarity over five scales", 0, 1, "higher", compute=pixels.of_ms_ssim,
         reference="Wang, Simoncelli and Bovik, 2003, doi:10.1109/ACSSC.2003.1292216",
         convention=f"{EIGHT}, one size of at least 161; window 11x11, sigma 1.5, negative contrasts set to zero"),
    # ---------------------------------------------------------------- perceptual
    perceptual("lpips", "perceptual distance, AlexNet", 0, None, "lower", weights=("alexnet",),
               convention=f"{TRUNK}; sides of at least 31", compute=partial(lpips.of_lpips, "alex")),
    perceptual("lpips_vgg", "perceptual distance, VGG-16", 0, None, "lower", weights=("vgg16",),
               convention=f"{TRUNK}; sides of at least 16", compute=partial(lpips.of_lpips, "vgg")),
    perceptual("lpips_squeeze", "perceptual distance, SqueezeNet", 0, None, "lower", weights=("squeezenet1_1",),
               convention=f"{TRUNK}; sides of at least 17", compute=partial(lpips.of_lpips, "squeeze")),
    pair("clip_image", "CLIP similarity of two pictures", -1, 1, "higher", depends="clip", any_size=True,
         convention=f"{CLIP_INPUT}; cosine of unit vectors", reference=RADFORD, compute=clip.clip_image),
    by_clip("clip_text", "CLIP similarity of picture and prompt", -1, 1, "higher", reference=RADFORD,
            convention=f"{CLIP_INPUT}; cosine of unit vectors, text cut at the model's length", compute=clip.clip_text),
    by_clip("clip_score", "CLIP score", 0, 100, "higher", compute=clip.clip_score,
            convention=f"{CLIP_INPUT}; 100 max(cos, 0) (PIE-Bench: clip-vit-large-patch14)",
            reference="Hessel et al., 2021, arXiv:2104.08718, scaled by 100"),
    by_clip("clip_text_edited", "CLIP score inside the mask", 0, 100, "higher",
            needs=("images", "mask", "target_prompts|prompts"), reference=PIE, compute=clip.clip_text_edited,
            convention=f"image times mask, black outside; {CLIP_INPUT}; 100 max(cos, 0)"),
    by_clip("clip_direction", "CLIP similarity of the two changes", -1, 1, "higher", any_size=True,
            needs=(*PAIR, "prompts", "target_prompts"), compute=clip.clip_direction,
            convention=f"{CLIP_INPUT}; cosine of the differences of unit vectors",
            reference="Gal et al., 2021, arXiv:2108.00946, Eq. 2"),
    structure("dino_structure", "structure distance", 0, 4, "lower", compute=dino.dino_structure,
              convention="8-bit RGB in [0, 1], shorter side to 224 (bilinear, antialiased), ImageNet normalisation; "
              "MSE of the self-similarities of the keys of layer 11",
              reference="Tumanyan et al., 2022, arXiv:2201.00424, Sec. 3.1"),
    structure("dino_structure_pie", "structure distance, PIE-Bench's input", 0, 4, "lower", reference=PIE,
              convention="as dino_structure, but 0-255 values go into the normalisation made for [0, 1], as in its "
              "code", compute=dino.dino_structure_pie),
    pair("dreamsim", "DreamSim distance", 0, None, "lower", weights=("dreamsim",), any_size=True,
         convention="8-bit RGB, resized to 224 by its own package; the ensemble", compute=dreamsim.dreamsim,
         reference="Fu et al., 2023, arXiv:2306.09344"),
    # ---------------------------------------------------------------- what comes back of a picture
    pair("dire", "difference from the reconstruction", 0, 1, "lower", compute=detecting.of_dire,
         convention=f"{EIGHT}, reconstruction against picture, one size; |x - x'|, mean over pixels and channels, "
         "float64: the mean of DIRE's map", reference="Wang et al., 2023, arXiv:2303.09295",
         map=detecting.dire_map),
    MetricFacts("aeroblade", "distance from the autoencoder's round trip", 0, None, "lower", kind="autoencoder",
                needs=("images", "autoencoded"), weights=("vgg16",), depends="lpips_net", chosen="vgg",
                reference="Ricker et al., 2024, arXiv:2401.17879",
                convention=f"second layer of LPIPS, the network in brackets (the paper's is vgg); {TRUNK}; the round "
                "trip by the posterior's mean, clamped, not rounded", compute=detecting.of_aeroblade,
                map=detecting.aeroblade_map),
    # ---------------------------------------------------------------- two sets of pictures
    of_features("fd", "Frechet distance", 0, None, "lower", reference=FRECHET,
                convention=f"{FEATURES}; covariances over n - 1; depends on the sample size, which stands beside it",
                tally=distributions.FeatureMoments, conclude=distributions.fd),
    of_sets("fid", "Frechet Inception distance", 0, None, "lower", weights=("inception",), reference=FRECHET,
            convention="8-bit RGB, 2048 features of torch-fidelity's Inception (extra [fid]); under 50,000 pictures "
            "biased", tally=distributions.InceptionMoments, conclude=distributions.fd),
    of_features("kd", "kernel distance", None, None, "lower", conclude=distributions.kd,
                convention=f"{FEATURES}; unbiased squared MMD of (x.y / D + 1)^3, all pairs, 95 % jackknife interval",
                reference="Binkowski et al., 2018, arXiv:1801.01401, Sec. 3"),
    of_features("precision", "share of results among the sources", 0, 1, "higher", reference=f"{PRECISION}, Eq. 1",
                convention=f"{FEATURES}; balls to the third neighbour", conclude=distributions.precision),
    of_features("recall", "share of sources among the results", 0, 1, "higher", reference=f"{PRECISION}, Eq. 2",
                convention=f"{FEATURES}; balls to the third neighbour", conclude=distributions.recall),
    of_features("cka", "linear centred kernel alignment", 0, 1, "higher", reference=f"{ALIGNMENT}, Eq. 3",
                convention=f"{FEATURES}, of pictures in pairs; tends to 1 with more features than pictures",
                conclude=alignment.cka),
    of_features("cka_debiased", "linear centred kernel alignment, unbiased HSIC", None, 1, "higher",
                convention=f"{FEATURES}, of pictures in pairs; about 0 for unrelated ones",
                reference=f"{ALIGNMENT}; Song et al., 2012, Eq. 5", conclude=alignment.cka_debiased),
    of_features("svcca", "mean canonical correlation of the leading directions", 0, 1, "higher",
                convention=f"{FEATURES}, of pictures in pairs; directions of 99 % of the variance, fewer than "
                "pictures", reference="Raghu et al., 2017, arXiv:1706.05806", conclude=alignment.svcca),
    # ---------------------------------------------------------------- recovered noise, where the truth is known
    recovered("e_latent", "error of the recovered noise", 0, None, "lower",
              convention=LATENT, reference=f"{ZENG}, Eq. 9", compute=recovery.of_latent),
    recovered("e_recon", "error of the round trip", 0, None, "lower", needs=("played", "start"),
              convention=NAMED_START, reference=f"{ZENG}, Eq. 10", compute=recovery.of_recon),
    recovered("e_recon_record", "error of the round trip by the whole record", 0, None, "lower",
              needs=("replayed", "start"), convention=NAMED_START, reference=f"{ZENG}, Eq. 10, of the record",
              compute=recovery.of_recon_record),
    recovered("e_interp", "error half way between true and recovered noise", 0, None, "lower",
              needs=("between", "start"), reference=f"{ZENG}, Eq. 11", compute=recovery.of_interp,
              convention=f"{LATENT}; slerp at 1/2 by whole samples; the start is named"),
    recovered("cosine", "cosine of recovered and true noise", -1, 1, "higher",
              convention="whole samples as vectors, not centred", compute=recovery.of_cosine),
    recovered("std", "standard deviation of the recovered noise", 0, None, "neither", needs=("noise",),
              convention="over a sample's values, over n; beside e_latent, which a shrunken noise makes smaller",
              compute=recovery.of_std),
    # ---------------------------------------------------------------- recovered noise alone
    of_noise("noise_mean", "mean of the noise", None, None, "neither", compute=partial(noise.figure, "mean"),
             convention="over a sample's values; the 95 % band of true noise stands beside it"),
    of_noise("noise_std", "standard deviation of the noise", 0, None, "neither", compute=partial(noise.figure, "std"),
             convention="over a sample's values, over n; the 95 % band of true noise stands beside it"),
    of_noise("noise_kl", "KL of one Gaussian over all values", 0, None, "lower", unit="nat",
             compute=partial(noise.figure, "kl"),
             convention="KL(N(mean, std) | N(0, 1)) of a sample's values, a value; 95 % of true noise lies under the "
             "limit", reference=f"{TABA}, kl_div of its code"),
    over_noises("noise_kl_dims", "KL of a Gaussian for each number", 0, None, "lower", unit="nat",
                convention="KL(N(0, 1) | N(mean, std + 1e-6)) over pictures, mean over C x H x W; true noise gives "
                "about 1/n", reference=f"{TABA}, kl_div2 of its code, against N(0, 1)",
                tally=noise.PerDimension, conclude=noise.noise_kl_dims),
    of_noise("lag1_correlation", "correlation of neighbouring values", None, 1, "neither",
             convention="signed, all adjacent pairs of a channel, channels averaged; 95 % interval of true noise",
             reference="unsample: the one to decide by", compute=partial(noise.figure, "lag1_correlation")),
    over_noises("pixel_correlation", "largest correlations in 8x8 patches", 0, 1, "lower",
                convention="abs Pearson r over pictures, all channels of a patch, 20 largest; analytic floor beside "
                "it, no verdict below 8,192 samples", reference=f"{TABA}, Table 2, and its code",
                tally=noise.Patches, conclude=noise.pixel_correlation),
    of_noise("normality", "p of the Shapiro-Wilk test", 0, 1, "neither", compute=noise.normality,
             convention="at most 5,000 values of a sample, drawn by a fixed seed; mean and std free; refused below .05",
             reference="Royston, 1995, doi:10.2307/2986146 (AS R94)"),
    of_noise("spectrum_flatness", "flatness of the spectrum", 0, 1, "neither", compute=noise.spectrum_flatness,
             convention="geometric over arithmetic mean of |FFT|^2 without the mean, by channel; white noise gives "
             ".561", reference="Wiener entropy; e^-0.5772 for white Gaussian noise"),
    # ---------------------------------------------------------------- watermarks in the noise
    marked("tree_ring", "distance from a Tree-Ring key", 0, None, "neither", compute=detecting.of_tree_ring,
           convention="mean of |k - F(noise)| over the key's disc, F orthonormal: about 0 with the mark",
           reference=RINGS, mark=TreeRing),
    marked("tree_ring_p", "p of a Tree-Ring key", 0, 1, "neither", compute=detecting.p_of(TreeRing), mark=TreeRing,
           convention="how likely a white noise of any strength comes as near by the paper's statistic; exact",
           reference=f"{RINGS}, without its approximation"),
    marked("gaussian_shading", "right bits of a Gaussian Shading message", 0, 1, "neither",
           compute=detecting.of_gaussian_shading, reference=SHADES, mark=GaussianShading,
           convention="share of the bits that more than half of their copies say; 1 with the mark, about half without"),
    marked("gaussian_shading_p", "p of a Gaussian Shading message", 0, 1, "neither",
           compute=detecting.p_of(GaussianShading), reference=SHADES, mark=GaussianShading,
           convention="how likely so many bits are right by chance, binomial; copies that tie are wrong"),
    # ---------------------------------------------------------------- what an edit was to leave alone
    outside("pie_mse", "MSE outside the mask, zero and average", 0, 1, "lower",
            convention=WHOLE_FRAME, reference=PIE, compute=masked.pie_mse),
    outside("pie_psnr", "PSNR outside the mask, zero and average", 0, None, "higher", unit="dB",
            convention=WHOLE_FRAME, reference=PIE, compute=masked.pie_psnr),
    outside("pie_ssim", "SSIM outside the mask, zero and average", -1, 1, "higher", reference=PIE,
            convention="as ssim, of both pictures times 1 - mask, mean over the whole frame", compute=masked.pie_ssim),
    outside("pie_lpips", "LPIPS outside the mask, zero and average", 0, None, "lower", weights=("squeezenet1_1",),
            convention="as lpips_squeeze, of both pictures times 1 - mask", reference=PIE, compute=masked.pie_lpips),
    outside("masked_mse", "MSE outside the mask", 0, 1, "lower", reference=DEFINITION, compute=masked.masked_mse,
            convention=f"{EIGHT}, mean over the pixels outside the mask"),
    outside("masked_psnr", "PSNR outside the mask", 0, None, "higher", unit="dB", reference=DEFINITION,
            convention=f"{EIGHT}, of the mean over the pixels outside the mask, data range 1",
            compute=masked.masked_psnr),
    outside("masked_ssim", "SSIM outside the mask", -1, 1, "higher", reference=WANG, compute=masked.masked_ssim,
            convention="as ssim, mean over the windows that lie wholly outside the mask"),
    outside("masked_lpips", "LPIPS outside the mask", 0, None, "lower", weights=("alexnet",), depends="lpips_net",
            convention="LPIPS maps enlarged (bilinear), mean over the pixels outside; receptive fields reach into the "
            "mask", reference=ZHANG, compute=masked.masked_lpips),
    # ---------------------------------------------------------------- edits of scenes
    gain("edit_gain", "gain of an edit", None, 1, "higher", compute=edits.of_gain,
         convention=f"{EIGHT}, 1 - MSE(edit, truth) / MSE(source, truth): 1 the true edit, 0 nothing done"),
    gain("edit_gain_inside", "gain of an edit where something was to change", None, 1, "higher",
         convention="1 - SSE(edit, truth) / SSE(source, truth) over the pixels that the true edit changes",
         compute=partial(edits.of_gain, part="inside")),
    gain("edit_gain_outside", "loss of an edit where nothing was to change", None, 0, "higher",
         convention="-SSE(edit, truth) outside those pixels / SSE(source, truth); inside + outside = edit_gain",
         compute=partial(edits.of_gain, part="outside")),
    gain("edit_gain_lpips", "gain of an edit in LPIPS", None, 1, "higher", weights=("alexnet",), depends="lpips_net",
         convention="1 - LPIPS(edit, truth) / LPIPS(source, truth), the network in brackets",
         compute=edits.of_gain_lpips),
    gain("edit_size", "how much was to be edited", 0, 1, "neither", needs=("truth", "reference"),
         convention=f"{EIGHT}, MSE(source, truth): the weight that pools gains over pixels", compute=edits.of_size),
    judged("attribute_render_fit", "the edited attribute is there, by drawing it again", 0, 1, "higher",
           convention=f"{SQUARE}; 1 where the closest render has the wanted value",
           compute=edits.of_render_fit),
    judged("attribute_clip", "the edited attribute is there, by CLIP", 0, 1, "higher", depends="clip",
           convention=f"{SQUARE}; 1 where the best caption has the wanted value",
           reference=f"{RADFORD}, Sec. 3.1", compute=edits.of_clip),
    judged("judges_agree", "the two judges of an attribute agree", 0, 1, "neither", depends="clip",
           convention=f"{SQUARE}; 1 where both judges name one value, right or wrong",
           compute=edits.of_agreement),
)
# fmt: on
METRICS: Table[MetricFacts] = Table("metric", "unsample.metrics", {row.name: row for row in ROWS})
