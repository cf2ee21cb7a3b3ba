"""CKA, agreement and phases against other computations, where the answer is known; states by their files."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
import torch

from unsample.errors import Incompatible
from unsample.models.states import states_of
from unsample.studies.needing import check_needs
from unsample.studies.running import asked_of
from unsample.studies.taba_training import STUDY, agreement, cka, phases


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hsic(k: list[list[float]], m: list[list[float]]) -> float:
    """The unbiased estimate as the mean over all ordered quadruples of different points: its definition."""
    terms = [k[a][b] * (m[a][b] + m[c][d] - 2 * m[a][c]) for a, b, c, d in permutations(range(len(k)), 4)]
    return sum(terms) / len(terms)


def test_cka_is_the_u_statistic() -> None:
    a, b = drawn(7, 5), drawn(7, 5, seed=1)
    b[:, 0] = a[:, 0]
    k, m = ((x @ x.T).tolist() for x in (a, b))
    assert cka(a, b) == pytest.approx(hsic(k, m) / (hsic(k, k) * hsic(m, m)) ** 0.5)


def test_cka_finds_what_was_turned_and_nothing_in_noise() -> None:
    a = drawn(32, 3, 16, 16)
    turned = a.flatten(1) @ torch.linalg.qr(drawn(768, 768, seed=1)).Q * 3 + 1
    assert cka(a, turned) == pytest.approx(1)
    assert abs(cka(a, drawn(32, 3, 16, 16, seed=2))) < 0.1  # the plain estimator: above .9
    assert cka(a, a + drawn(32, 3, 16, 16, seed=3)) == pytest.approx(
        0.5, abs=0.05
    )  # of each Gram matrix a quarter and a half


def test_agreement_tells_coarse_from_fine() -> None:
    blocks = drawn(2, 3, 8, 8).repeat_interleave(4, 2).repeat_interleave(4, 3)
    ripple = drawn(2, 3, 32, 32, seed=1)
    ripple = ripple - torch.nn.functional.avg_pool2d(ripple, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    for coarse, fine in agreement(blocks + ripple, blocks - ripple):
        assert coarse == pytest.approx(1)
        assert fine == pytest.approx(-1)


def test_phases_of_a_training() -> None:
    found = phases([0, 152, 408, 540, 3360, 4690])
    assert found == {0: "start", 152: "first", 408: "", 540: "early", 3360: "late", 4690: "last"}


def test_states_are_found_by_their_names_and_others_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("step-000020", "step-000003", "other"):
        (tmp_path / f"{name}.safetensors").touch()
    monkeypatch.setenv("UNSAMPLE_STATES", str(tmp_path))
    assert [*states_of("scenes-ddpm")] == [3, 20]
    assert states_of("scenes-sd") == {}
    with pytest.raises(Incompatible, match="states of its training"):
        check_needs(STUDY, asked_of(STUDY, ["scenes-sd"]))
