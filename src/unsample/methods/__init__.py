"""The table of methods. Importing it does not import torch, so that a mistake in a name costs nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from unsample.errors import BadOption
from unsample.methods.aidi import aidi_a, aidi_e
from unsample.methods.anderson import anderson
from unsample.methods.base import STEPS, Kept, Method, MethodFacts, Task, Walked
from unsample.methods.bdia import bdia
from unsample.methods.belm import belm
from unsample.methods.ddim import ddim
from unsample.methods.dds import dds
from unsample.methods.direct import direct
from unsample.methods.dna_edit import dna_edit
from unsample.methods.dpm_solver import dpm_solver
from unsample.methods.easyinv import easyinv
from unsample.methods.edict import edict
from unsample.methods.edit_friendly import edit_friendly
from unsample.methods.fireflow import fireflow
from unsample.methods.fixed_point import fixed_point
from unsample.methods.flow_align import flow_align
from unsample.methods.flow_edit import flow_edit
from unsample.methods.forward_first import forward_first
from unsample.methods.gnri import gnri
from unsample.methods.gradient import gradient
from unsample.methods.h_edit import h_edit
from unsample.methods.hybrid import hybrid
from unsample.methods.infedit import infedit
from unsample.methods.inner import INNER, Base, as_base
from unsample.methods.learned_start import learned_start
from unsample.methods.negative_prompt import negative_prompt
from unsample.methods.null_text import null_text
from unsample.methods.oracle import oracle
from unsample.methods.pix2pix_zero import pix2pix_zero
from unsample.methods.prompt_tuning import prompt_tuning
from unsample.methods.proximal import proximal
from unsample.methods.random_noise import random_noise
from unsample.methods.registering import register
from unsample.methods.renoise import renoise
from unsample.methods.rex import rex
from unsample.methods.rf_inversion import rf_inversion
from unsample.methods.rf_solver import rf_solver
from unsample.methods.sdedit import sdedit
from unsample.methods.settings import (
    Setting,
    configured,
    declarations,
    parse_setting,
    setting_defaults,
    with_settings,
)
from unsample.methods.sim_inversion import sim_inversion
from unsample.methods.uni_edit import uni_edit
from unsample.methods.uni_inv import uni_inv
from unsample.numbers.grid import Grid, transfer
from unsample.numbers.prediction import Prediction, direction
from unsample.numbers.solvers.ddim import ddim_invert_at_source, ddim_invert_at_target, ddim_sample
from unsample.registry import Table

BUILT_IN: dict[str, MethodFacts] = {
    "ddim": MethodFacts(
        ddim,
        summary="DDIM inversion, eps asked at the target (default) or the source level",
        family="ODE, explicit",
        equation="x_j = alpha_j (x_i - sigma_i eps(x_i, t_j)) / alpha_i + sigma_j eps(x_i, t_j)",
        cost="T",
        year=2021,
        reference="Song, Meng and Ermon, arXiv:2010.02502",
    ),
    "sim_inversion": MethodFacts(
        sim_inversion,
        summary="SimInversion: DDIM inversion at guidance 0.5 both ways, edits at 7.5",
        family="ODE, explicit",
        equation="x_j = alpha_j (x_i - sigma_i eps) / alpha_i + sigma_j eps, eps = (eps_u + eps_c) / 2 at (x_i, t_j)",
        cost="2 T",
        year=2024,
        reference="Qian, Xu, Yan and Hu, arXiv:2409.10476",
    ),
    "fixed_point": MethodFacts(
        fixed_point,
        summary="implicit DDIM inversion by fixed-point iteration",
        family="ODE, implicit",
        equation="x_j <- alpha_j (x_i - sigma_i eps(x_j, t_j)) / alpha_i + sigma_j eps(x_j, t_j), num_iters times",
        cost="num_iters T",
        quick={"num_iters": 3},
        year=2023,
        reference="Meiri et al., arXiv:2312.12540; Pan et al., arXiv:2309.04907",
    ),
    "anderson": MethodFacts(
        anderson,
        summary="each step to a tolerance by Anderson's mixing, from a start extrapolated from the last two steps",
        family="ODE, implicit",
        equation="x_j <- sum_k w_k F(y_k), w = argmin |sum_k w_k (F(y_k) - y_k)|, until RMS(F(y) - y) <= tol sigma_j",
        cost="about 4 T; at most first_iters + (first_iters + 7) + max_iters (T - 2)",
        quick={"first_iters": 5, "max_iters": 3},
        year=2026,
        reference="Anderson, 1965, J. ACM 12; Pan et al., arXiv:2309.04907",
    ),
    "learned_start": MethodFacts(
        learned_start,
        summary="the first two steps as a network tells them that was taught on the model's own samples",
        family="ODE, learned",
        equation="x_2 of x_0 by a copy of the network, then x_0 = f_1(f_2(x_2)) solved near it; the base after",
        cost="151 and the base's",
        quick={"trained": False, "base": "ddim"},
        year=2026,
        reference="ours; Anderson's mixing of Pan et al., arXiv:2309.04907",
    ),
    "uni_inv": MethodFacts(
        uni_inv,
        summary="one evaluation a step, at the point that the last step's prediction leads to",
        family="ODE, implicit",
        equation="y = x_i carried along the last step's eps, x_j = alpha_j (x_i - sigma_i eps(y, t_j)) / alpha_i + ...",
        cost="T + 1",
        year=2025,
        reference="Jiao et al., arXiv:2504.13109; Dao et al., arXiv:2604.01715",
    ),
    "edict": MethodFacts(
        edict,
        summary="two coupled latents that invert each other; exact",
        family="ODE, reversible",
        equation="x' = a x + b eps(y), y' = a y + b eps(x'), x = p x' + (1-p) y', y = p y' + (1-p) x; up: undone",
        cost="2 T",
        year=2023,
        reference="Wallace, Gokul and Naik, arXiv:2211.12446",
        presets={"reconstruction": {"p": 1.0}},
    ),
    "bdia": MethodFacts(
        bdia,
        summary="bi-directional integration; exact, one call a step",
        family="ODE, reversible",
        equation="x_(i+1) = (x_(i-1) - DDIM(x_i, i -> i-1)) / gamma + DDIM(x_i, i -> i+1)",
        cost="T",
        year=2023,
        reference="Zhang, Lewis and Kleijn, arXiv:2307.10829",
        presets={"few_steps": {"gamma": 0.5}},
    ),
    "belm": MethodFacts(
        belm,
        summary="O-BELM, the explicit two-point step of second order; exact, one call a step",
        family="ODE, reversible",
        equation="x_(i-1) = p x_(i+1) + q x_i + r eps(x_i), solved for x_(i+1)",
        cost="T, or T - 1 where the first timestep is 0",
        year=2024,
        reference="Wang et al., arXiv:2410.07273",
    ),
    "rex": MethodFacts(
        rex,
        summary="Rex: Runge-Kutta steps of order up to 4 on two coupled latents; exact",
        family="ODE, reversible",
        equation="y_j = zeta y_i + (1 - zeta) z_i + Psi(z_i), z_j = z_i - Psi(y_j, backwards), in z = x / alpha",
        cost="2 T stages: 1 (euler), 2 (midpoint) or 4 (rk4)",
        quick={"solver": "midpoint"},
        year=2025,
        reference="Blasingame and Liu, arXiv:2502.08834; McCallum and Foster, arXiv:2410.11648",
        presets={"euler": {"solver": "euler"}},
    ),
    "rf_solver": MethodFacts(
        rf_solver,
        summary="RF-Solver, flows only: the midpoint rule, second order, two calls a step",
        family="ODE, explicit",
        equation="x_j = x_i + h v + h^2 / 2 (v(x_i + h v / 2, mid) - v) / (h / 2), h = sigma_j - sigma_i",
        cost="2 T",
        year=2024,
        reference="Wang et al., arXiv:2411.04746",
    ),
    "fireflow": MethodFacts(
        fireflow,
        summary="FireFlow, flows only: the midpoint rule with the last midpoint's velocity, one call a step",
        family="ODE, explicit",
        equation="x_j = x_i + h u_j, u_j = v(x_i + h u_i / 2, mid), h = sigma_j - sigma_i",
        cost="T + 1",
        year=2024,
        reference="Deng et al., arXiv:2412.07517",
    ),
    "rf_inversion": MethodFacts(
        rf_inversion,
        summary="RF-Inversion, flows only: steered towards a drawn noise, and sampling back towards the picture",
        family="ODE, controlled",
        equation="up v + gamma ((y - x) / (1 - sigma) - v), down v + eta ((x - x_0) / sigma - v)",
        cost="T",
        year=2024,
        reference="Rout et al., arXiv:2410.10792",
        quick={"stop": 0.7},
        presets={"full_control": {"eta": 1.0, "stop": 1.0}, "uncontrolled": {"gamma": 0.0}},
    ),
    "edit_friendly": MethodFacts(
        edit_friendly,
        summary="noise maps of a stochastic sampler, from independently noised pictures",
        family="SDE, noise maps",
        equation="x_t = alpha_t x_0 + sigma_t eps_t, z_t = (x_(t-1) - mu(x_t)) / s_t",
        cost="2 T (1 - skip)",
        year=2024,
        reference="Huberman-Spiegelglas, Kulikov and Michaeli, arXiv:2304.06140",
        presets={"prompt_to_prompt": {"skip": 0.12}, "authors_code": {"zero_last": True}},
    ),
    "h_edit": MethodFacts(
        h_edit,
        summary="h-Edit-R: edit-friendly noise maps of the source, and a step along two prompts' difference on top",
        family="SDE, noise maps",
        equation="x_j = mu(x_i; source) + s z + (d - sigma_i alpha_j / alpha_i) (eps(x_j; target) - eps(x_j; source))",
        cost="T; an edit 1 + 2 num_iters a step",
        year=2025,
        reference="Nguyen, Do, Kieu and Nguyen, arXiv:2503.02187",
        presets={"explicit": {"form": "explicit"}},
    ),
    "sdedit": MethodFacts(
        sdedit,
        summary="baseline: forward noise at a strength, no inversion",
        family="baseline",
        equation="x_stop = alpha_stop x_0 + sigma_stop n",
        cost="0",
        year=2022,
        reference="Meng et al., arXiv:2108.01073",
        presets={"ancestral": {"eta": 1.0}},
    ),
    "random_noise": MethodFacts(
        random_noise,
        summary="baseline: fresh noise, the floor",
        family="baseline",
        equation="x_stop = n",
        cost="0",
        year=2020,
        reference="Ho, Jain and Abbeel, arXiv:2006.11239",
    ),
    "null_text": MethodFacts(
        null_text,
        summary="null-text inversion: an unconditional embedding a step, fitted to the inversion trajectory",
        family="fitted embeddings",
        equation="u_i = argmin mean((step(x_i; c, u, w) - x*_j)^2), by Adam",
        cost="T + T (num_inner_steps + 2), and T num_inner_steps backward; T at sampling guidance 1",
        year=2023,
        reference="Mokady et al., arXiv:2211.09794",
        quick={"num_inner_steps": 3},
        presets={"global": {"global_embedding": True}, "diffusers": {"early_stop": 1e-6}},
    ),
    "prompt_tuning": MethodFacts(
        prompt_tuning,
        summary="prompt tuning inversion: a conditional embedding a step, mixed with the target's in an edit",
        family="fitted embeddings",
        equation="c_i = argmin mean((step(x_i; c, u, w) - x*_j)^2), by Adam; edit under (1 - s) c_i + s c_target",
        cost="T + T (num_inner_steps + 2), and T num_inner_steps backward",
        year=2023,
        reference="Dong et al., arXiv:2305.04441",
        quick={"num_inner_steps": 3},
        presets={"slow": {"learning_rate": 0.005}},
    ),
    "negative_prompt": MethodFacts(
        negative_prompt,
        summary="negative-prompt inversion: the source prompt as the negative prompt of sampling",
        family="guidance, explicit",
        equation="eps = eps_source + w (eps_c - eps_source)",
        cost="T",
        year=2023,
        reference="Miyake et al., arXiv:2305.16807",
    ),
    "proximal": MethodFacts(
        proximal,
        summary="ProxEdit: negative-prompt inversion that guides large differences only and keeps to its trajectory",
        family="guidance, explicit",
        equation="eps = eps_source + w prox(eps_c - eps_source); x_j += lr (1 - mask) (x*_j - x_j) below recon_t",
        cost="T",
        year=2023,
        reference="Han et al., arXiv:2306.05414",
        quick={"recon_lr": 0.1},
        presets={
            "pnp_inversion": {"recon_lr": 0.1},
            "mirror": {"quantile": 0.75, "dilate_mask": 2},
            "strong": {"recon_lr": 0.5, "recon_t": 600},
        },
    ),
    "direct": MethodFacts(
        direct,
        summary="direct (PnP) inversion: what guided sampling misses of its trajectory, stored and added back",
        family="stored offsets",
        equation="o_j = x*_j - step(x_i; c, w), x_j = step(x_i; c, w) + o_j",
        cost="T + 2T",
        year=2023,
        reference="Ju et al., arXiv:2310.01506",
    ),
    "flow_edit": MethodFacts(
        flow_edit,
        summary="FlowEdit: no inversion; the picture moves by the difference of two prompts' predictions",
        family="inversion-free edit",
        equation="Z_j = Z_i + (sigma_j - sigma_i) (v(Z_i + S - X; target) - v(S; source)), S = alpha_i X + sigma_i n",
        cost="0; an edit 2 n_avg a step, and 1 in each of the n_min last ones",
        year=2024,
        reference="Kulikov, Kleiner, Huberman-Spiegelglas and Michaeli, arXiv:2412.08629",
    ),
    "flow_align": MethodFacts(
        flow_align,
        summary="FlowAlign: FlowEdit between two prompts, drawn to the source at its terminal point",
        family="inversion-free edit",
        equation="Z_j = Z_i + (sigma_j - sigma_i) (v_t - v_s) + zeta (x0_s - x0_t), v_t = v_src + w (v_tar - v_src)",
        cost="0; an edit 3 passes a step",
        year=2025,
        reference="Kim, Hong, Park and Ye, arXiv:2505.23145",
    ),
    "infedit": MethodFacts(
        infedit,
        summary="InfEdit's DDCM: no inversion; consistency steps, corrected by the noise that is known of the source",
        family="inversion-free edit",
        equation="Z = X + x0(s + alpha (Z - X); target) - x0(s; source), s = alpha X + sigma n, n fresh at every step",
        cost="0; an edit 2 a step",
        year=2023,
        reference="Xu, Huang, Pan, Ma and Chai, arXiv:2312.04965",
    ),
    "dds": MethodFacts(
        dds,
        summary="Delta Denoising Score: no inversion; the picture optimised by the difference of two prompts' eps",
        family="inversion-free edit",
        equation="Z -= lr (eps(alpha Z + sigma n, t; target) - eps(alpha X + sigma n, t; source)), t and n at random",
        cost="0; an edit 2 num_iters",
        year=2023,
        reference="Hertz, Aberman and Cohen-Or, arXiv:2304.07090",
        quick={"num_iters": 20},
    ),
    "dna_edit": MethodFacts(
        dna_edit,
        summary="DNAEdit: a drawn noise aligned step by step; edits are held near the picture",
        family="ODE, implicit",
        equation="y = x_i + (s_j - s_i) / (1 - s_i) (n - x_i), x_j = x_i + (s_j - s_i) v(y), n = x_i + (1 - s_i) v(y)",
        cost="T",
        year=2025,
        reference="Xie, Li, Li, Wu, Yi and Zhang, arXiv:2506.01430",
    ),
    "uni_edit": MethodFacts(
        uni_edit,
        summary="Uni-Edit: Uni-Inv part of the way up; down by two prompts, more of the target where they disagree",
        family="ODE, implicit",
        equation="v = v_s + (m + omega (1 + m)) (v_t - v_s), m = |v_t - v_s| over channels, from 0 to 1 in a picture",
        cost="T + 1; an edit 2 a step",
        year=2025,
        reference="Jiao, Huang, Wang and Liao, arXiv:2504.13109",
    ),
    "gradient": MethodFacts(
        gradient,
        summary="each step's own equation by gradient descent through the network",
        family="ODE, optimised",
        equation="x_j = argmin_y || x_i - alpha_i x0(y, t_j) - sigma_i eps(y, t_j) ||^2",
        cost="num_iters T, and as many backward",
        year=2026,
        reference="Zeng, Suganuma and Okatani, arXiv:2606.03111",
        quick={"num_iters": 6, "optimizer": "lbfgs"},
        presets={"first_step": {"first_steps": 1}},
    ),
    "hybrid": MethodFacts(
        hybrid,
        summary="gradient descent on the first step, the fixed point after",
        family="ODE, optimised",
        equation="x_1 = argmin_y || x_0 - f(y) ||^2; then x_j <- the fixed point of the step, num_iters times",
        cost="num_updates + num_iters (T - 1), num_updates backward",
        year=2026,
        reference="Zeng, Suganuma and Okatani, arXiv:2606.03111",
        quick={"num_updates": 20, "num_iters": 3, "optimizer": "lbfgs"},
    ),
    "gnri": MethodFacts(
        gnri,
        summary="guided Newton-Raphson on the step's scalar residual",
        family="ODE, implicit",
        equation="y <- y - F(y) / (D (dF/dy + eta)), F(y) = || y - f(y) ||_1 + prior_weight G(y)",
        cost="num_iters T, and as many backward; no backward with variant=code",
        year=2025,
        reference="Samuel et al., arXiv:2312.12540",
        presets={"authors_code": {"variant": "code"}},
    ),
    "dpm_solver": MethodFacts(
        dpm_solver,
        summary="DPM-Solver++ as the sampler, and its exact inversion by backward Euler",
        family="ODE, implicit",
        equation="x_j <- x_j - rho (a x_j + b (m_j + c (m_j - m_(j+1))) - x_i), m = x0(x, t)",
        cost="at most (max_iters + 1) T, and the anchors' fine runs",
        quick={"max_iters": 8, "warmup": 0, "fine_step": 100},
        year=2024,
        reference="Hong et al., arXiv:2311.18387; Lu et al., arXiv:2211.01095",
        presets={"authors_code": {"step_size": None}, "order_1": {"order": 1}, "naive": {"exact": False}},
    ),
    "aidi_e": MethodFacts(
        aidi_e,
        summary="fixed-point inversion with the average of the last two iterates",
        family="ODE, implicit",
        equation="x_(k+1) = (F(x_k) + F(x_(k-1))) / 2, F the transfer along eps(x_k, t_j), num_iters times",
        cost="num_iters T",
        quick={"num_iters": 3},
        presets={"easyinv": {"num_iters": 6}, "zeng": {"num_iters": 10}},
        year=2023,
        reference="Pan, Gherardi, Xie and Huang, arXiv:2309.04907",
    ),
    "aidi_a": MethodFacts(
        aidi_a,
        summary="fixed-point inversion with Anderson acceleration, each picture its own weights",
        family="ODE, implicit",
        equation="x_(k+1) = sum_i w_i F(x_i) over the last `memory`, w = argmin |sum w_i (F(x_i) - x_i)|, sum w = 1",
        cost="num_iters T",
        quick={"num_iters": 3},
        presets={"zeng": {"num_iters": 10}},
        year=2023,
        reference="Pan, Gherardi, Xie and Huang, arXiv:2309.04907; Anderson, 1965",
    ),
    "pix2pix_zero": MethodFacts(
        pix2pix_zero,
        summary="inversion with eps regularised towards white Gaussian noise, on any eps-based base",
        family="ODE, regularised",
        equation="n x (m x eps -= lambda_ac grad L_ac / m, eps -= lambda_kl grad L_kl)",
        cost="that of the base: T",
        quick={"num_reg_steps": 2, "num_ac_rolls": 2},
        presets={"authors_code": {"lowest_roll": 0}},
        year=2023,
        reference="Parmar et al., arXiv:2302.03027",
    ),
    "renoise": MethodFacts(
        renoise,
        summary="renoising at each step, averaged and regularised; noise correction for stochastic samplers",
        family="ODE or SDE, implicit",
        equation="x^(k+1) = F(x_i, eps(x^(k), t_j)), x_j = F(x_i, reg(mean eps_k)); n* = (x_i - mean(x_j)) / s",
        cost="(K + 1) T, one more a step where it regularises, one more a step with noise correction",
        presets={"few_step": {"num_renoise_steps": 9, "eta": 1.0, "noise_correction": "optimised"}},
        year=2024,
        reference="Garibi et al., arXiv:2403.14602",
    ),
    "easyinv": MethodFacts(
        easyinv,
        summary="latents of a window of steps blended with the ones before them, on any base",
        family="ODE, heuristic",
        equation="x_j <- eta x_j + (1 - eta) x_i for start T < i < stop T",
        cost="that of the base: T",
        presets={
            "sd14": {"eta": 0.5, "start": 0.05, "stop": 0.25},
            "sdxl": {"eta": 0.8, "start": 0.85, "stop": 0.95},
            "sd14_code": {"eta": 0.5, "start": 0.05, "stop": 0.25, "variant": "before"},
            "sdxl_code": {"eta": 0.8, "start": 0.85, "stop": 0.95, "variant": "before"},
        },
        year=2024,
        reference="Zhang, Lin, Yan and Ji, arXiv:2408.05159",
    ),
    "forward_first": MethodFacts(
        forward_first,
        summary="the first steps by forward diffusion with a seeded noise, then any base",
        family="ODE after forward diffusion",
        equation="x_j = alpha_j x_0 + sigma_j n for j <= k = max(1, round(fraction T)), then the base",
        cost="that of the base on T - k steps: T - k",
        presets={
            "readme": {"fraction": 0.03, "shared_noise": 999},
            "masactrl": {"fraction": 0.04, "shared_noise": 2115},
            "sdxl": {"fraction": 0.04, "shared_noise": 113},
            "style_aligned": {"fraction": 0.06, "shared_noise": 2115},
        },
        year=2024,
        reference="Staniszewski, Kucinski and Deja, arXiv:2410.23530",
    ),
    "oracle": MethodFacts(
        oracle,
        summary="the first steps from the recorded sampling run (generated pictures only), then any base",
        family="bound",
        equation="eps = (alpha_i x_j - alpha_j x_i) / (alpha_i sigma_j - alpha_j sigma_i) recorded, j <= num_steps",
        cost="that of the base on T - num_steps steps: T - num_steps",
        presets={"latents": {"replace": "x"}},
        year=2024,
        reference="Staniszewski, Kucinski and Deja, arXiv:2410.23530",
    ),
}

# What else stands where the name of a method does: `experiment.setup.BASELINES`.
METHODS: Table[MethodFacts] = Table(
    "method", "unsample.methods", BUILT_IN, reserved=("auto", "identity", "fresh", "zero")
)


def get_method(method: str | Method, settings: dict[str, Any] | None = None) -> Method:
    """A method by name, configured; a configured one comes back as it is.

    Args:
        method: a name, or a configured method.
        settings: of the factory; `preset` names a set of them that the others go over.

    Raises:
        UnknownName: no such method, setting or preset; the nearest name is suggested.
    """
    if isinstance(method, Method):
        return method
    if not isinstance(method, str):
        raise BadOption(f"method must be a name or a configured method such as methods.ddim(); got {method!r}")
    if method not in METHODS:
        raise METHODS.unknown(method)
    made: Method = with_settings(METHODS[method].factory, METHODS[method].named_settings(), settings)
    return made


def parse_settings(method: str, pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Settings written as text, as `get_method` takes them: `num_iters=5`, `base.num_iters=5`, `preset=quick`.

    Raises:
        UnknownName: no such method or setting. BadOption: a text that is not of the setting's type.
    """
    get_method(method)
    own: dict[str, Any] = {}
    inner: dict[str, list[tuple[str, str]]] = {}
    for name, text in pairs:
        outer, dot, rest = name.partition(".")
        if dot and outer in INNER:
            inner.setdefault(outer, []).append((rest, text))
        else:
            own[name] = text if name == "preset" else parse_setting(METHODS[method].factory, name, text)
    defaults = setting_defaults(METHODS[method].factory)
    for outer, settings in inner.items():
        if outer not in defaults:
            owner = "easyinv" if outer == "base" else "gradient"
            raise BadOption(
                f"{method} has no {outer}; {outer}.{settings[0][0]} belongs to a method that has one, such as {owner}"
            )
        within = own.get(outer, defaults[outer])
        name = within if isinstance(within, str) else within["name"]
        own[outer] = {"name": name, "settings": parse_settings(name, settings)}
    return own


__all__ = [
    "METHODS",
    "STEPS",
    "Base",
    "Grid",
    "Kept",
    "Method",
    "MethodFacts",
    "Prediction",
    "Setting",
    "Task",
    "Walked",
    "as_base",
    "configured",
    "ddim_invert_at_source",
    "ddim_invert_at_target",
    "ddim_sample",
    "declarations",
    "direction",
    "get_method",
    "parse_setting",
    "parse_settings",
    "register",
    "setting_defaults",
    "transfer",
    *BUILT_IN,
]
