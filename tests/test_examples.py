"""The examples, and that a network of OpenAI's layout is sampled as OpenAI's own respaced sampler does it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import unsample
from examples import adm, rectified_flow, watermarks
from tests.problems import normal


def cosine_table(total: int) -> list[float]:
    """abar(t) of the cosine schedule with betas of at most 0.999, in float64.

    Reference: Nichol and Dhariwal, 2021, arXiv:2102.09672, Eq. 17.
    """

    def curve(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    table, product = [], 1.0
    for t in range(total):
        product *= 1 - min(1 - curve((t + 1) / total) / curve(t / total), 0.999)
        table.append(product)
    return table


def respaced_ddim(predict: Callable[[Tensor, int], Tensor], x: Tensor, timesteps: list[int], total: int) -> Tensor:
    """DDIM over some timesteps of the cosine schedule, by the betas of that subsequence; all in float64.

    beta_k = 1 - abar(t_k) / abar(t_{k-1}) (the same paper, Eq. 19), abar_k their product; Song, Meng and Ermon, 2021,
    arXiv:2010.02502, Eq. 12 with eta = 0. The network is told the original timesteps.
    """
    table = cosine_table(total)
    before = [1.0, *(table[t] for t in timesteps[:-1])]
    betas = [1 - table[t] / last for t, last in zip(timesteps, before, strict=True)]
    abar = torch.tensor([1 - beta for beta in betas], dtype=torch.float64).cumprod(0).tolist()
    for k in reversed(range(len(timesteps))):
        eps, last = predict(x, timesteps[k]), abar[k - 1] if k else 1.0
        x0 = (x - math.sqrt(1 - abar[k]) * eps) / math.sqrt(abar[k])
        x = math.sqrt(last) * x0 + math.sqrt(1 - last) * eps
    return x


@pytest.mark.filterwarnings("ignore:sampling magnifies")  # alpha is 1e-5 at the last timestep of all
@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize(
    ("respacing", "timesteps", "tolerance"),
    [
        ("ddim25", list(range(0, 4000, 160)), 1e-6),
        ("ddim8", list(range(0, 4000, 500)), 1e-6),
        ("11", [0, 400, 800, 1200, 1600, 2000, 2399, 2799, 3199, 3599, 3999], 1e-5),
    ],
)
def test_a_respaced_network_is_sampled_as_by_its_own_sampler(
    respacing: str, timesteps: list[int], tolerance: float, rescale: bool
) -> None:
    """To what diffusers' betas, which are float32, leave of it; with exact tables to rounding."""
    network = adm.random_network().double()
    model = adm.wrapped(network, respacing, rescale)
    x, labels = normal(2, 3, adm.SIDE, adm.SIDE), torch.tensor([3, 7])

    def predict(x: Tensor, t: int) -> Tensor:
        times = torch.full((len(x),), t * (1000 / 4000) if rescale else t)
        return network(x, times, y=labels)[:, :3]  # the other half is its variance

    expected = respaced_ddim(predict, x, timesteps, 4000)
    exact = torch.tensor(cosine_table(4000), dtype=torch.float64)
    for table, near in ((model.scheduler.alphas_cumprod.double(), tolerance), (exact, 1e-8)):  # 1 - beta loses digits
        model.scheduler.alphas_cumprod = table
        assert list(model.grid(len(timesteps)).timesteps[1:]) == timesteps
        made = unsample.sample(model, noise=x, class_labels=labels, num_inference_steps=len(timesteps)).latents
        assert float((made - expected).abs().max() / expected.abs().max()) < near


def test_the_adm_example_finds_the_noise_again() -> None:
    found = adm.measured(adm.wrapped(adm.random_network()))
    assert found["fixed_point"]["noise"] < 1e-4  # float32, and what alpha = 0.06 at the noisiest point magnifies
    assert found["fixed_point"]["picture"] < 1e-3
    assert found["ddim"]["noise"] > 100 * found["fixed_point"]["noise"]


def test_the_rectified_flow_example_trains_a_flow_and_inverts_it() -> None:
    found = rectified_flow.measured(rectified_flow.wrapped(rectified_flow.trained(steps=600)))
    assert found["samples"] < 0.35 * found["noise off data"]
    assert max(found["fixed_point"]) < 1e-4
    assert found["ddim"][0] > 100 * found["fixed_point"][0]
    assert abs(found["mean"]) < 0.2
    assert abs(found["std"] - 1) < 0.2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("tables_restored")
def test_the_example_of_ones_own_method_keeps_the_contract_and_is_nearer_than_ddim() -> None:
    from examples import own_method  # it registers

    unsample.testing.check_method(own_method.trapezoid, networks=False)
    found = own_method.measured()
    assert found["trapezoid"] < found["ddim"] / 5


def test_the_example_of_ones_own_method_is_a_plugin_of_the_command_line_in_worker_processes_too(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "examples" / "own_method.py"
    command = ["bench", "run", "--dataset", "scenes:2", "--model", "scenes-mixture", "--methods", "ddim,trapezoid"]
    command += ["--steps", "3", "--workers", "2", "--artefacts", "none", "-o", str(tmp_path / "run"), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "unsample", "--plugin", str(script), *command],
        capture_output=True, text=True, check=False, env=os.environ | {"UNSAMPLE_PLUGINS": ""}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["statuses"] == {"ok": 4}


@pytest.mark.filterwarnings("ignore")
def test_the_example_of_watermarks_goes_on_and_counts_as_it_says(tmp_path: Path) -> None:
    run = watermarks.Run(tmp_path, count=2, steps=2, guidance_scale=1.0)
    found = watermarks.watermarks(run)
    assert list(found) == [f"{mark} | {how}" for mark in watermarks.KEYS for how in watermarks.SAVED]
    assert all(0 <= p <= 1 for sides in found.values() for side in sides for p in side)
    files = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert watermarks.watermarks(run) == found
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == files, "nothing is made twice"
    assert watermarks.auc([1, 2], [2, 3]) == 0.875  # of four pairs one ties
    assert watermarks.auc([1, 2], [3, 4]) == 1
    negative = [k / 100 for k in range(1, 101)]
    assert watermarks.found_at([0.005, 0.015, 0.5], negative, 0.01) == pytest.approx(2 / 3)
