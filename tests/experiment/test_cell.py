"""The experiment: the same bits with and without shared work, and what is asked of each stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import unsample
from tests.problems import sd14
from unsample.datasets.item import Item
from unsample.errors import UnknownName
from unsample.experiment.cell import run_cells
from unsample.experiment.findings import Findings
from unsample.experiment.setup import BASELINES, Setup
from unsample.experiment.shared import Shared

pytestmark = pytest.mark.filterwarnings("ignore")
METHODS: dict[str, dict[str, Any]] = {
    **{name: {} for name in ("ddim", "proximal", "direct", "edict", "edit_friendly", "forward_first")},
    "fixed_point": {"num_iters": 2},
    "null_text": {"num_inner_steps": 1},
    "gradient": {"preset": "quick"},
}
METRICS = ("psnr", "psnr_to_ceiling", "std", "lag1_correlation", "e_latent", "e_recon", "e_recon_record", "e_interp")
ALL = ("record", "noise", "recovered", "edit")


class Counted:
    """A model that counts the calls of its network."""

    def __init__(self, model: Any) -> None:
        self.model, self.calls = model, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def at(self, *asked: Any) -> Counted:
        return self  # a hand-written model is bound to no size

    def network(self, *asked: Any) -> Tensor:
        self.calls += 1
        return self.model.network(*asked)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def model() -> Any:
    return unsample.load(sd14())


def pictures(model: Any) -> list[Item]:
    """Two that are given, with an edit."""
    width, height = model.picture_size
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    return [Item(id=f"{k}", image=i, prompt="a cat", target_prompt="a dog") for k, i in enumerate(images)]


def sampled() -> list[Item]:
    """Two that the model makes itself."""
    return [Item(id=f"{k}", image=None, prompt="a cat", target_prompt="a dog", seed=k) for k in (1, 2)]


def setup(method: str, **asked: Any) -> Setup:
    made = method if method in BASELINES else unsample.methods.get_method(method, METHODS[method])
    return Setup(**{"method": made, "metrics": METRICS, "steps": 3, "stages": ALL, "inversion_guidance": 1.0} | asked)


def told(found: Findings) -> list[Any]:
    """All that a finding says, as what compares."""
    tensors: dict[str, Tensor | None] = {n: getattr(found, n) for n in ("noise", "true_noise", "start", "between")}
    tensors |= {f"{stage} picture": picture for stage, picture in found.pictures.items()} | {"ceiling": found.ceiling}
    meta: dict[str, Any] = {}
    if found.inversion is not None:
        tensors |= found.inversion.state
        meta = {name: value for name, value in dict(found.inversion.meta).items() if name != "seconds"}
    return [found.rows, meta, {n: None if t is None else t.tolist() for n, t in tensors.items()}]


@pytest.mark.parametrize("items", ["given", "sampled"])
def test_shared_work_changes_no_bit_and_no_cost(model: Any, items: str) -> None:
    batch: Sequence[Item] = pictures(model) if items == "given" else sampled()
    shared, plain, spared = Shared(), Counted(model), Counted(model)
    for method in METHODS:
        for w in (1.0, 7.5):
            asked = setup(method, guidance=w, edit_guidance=w)
            assert told(run_cells(spared, batch, asked, shared)) == told(run_cells(plain, batch, asked)), (method, w)
    assert spared.calls < 0.7 * plain.calls


def test_what_is_shared_depends_on_all_that_was_asked(model: Any) -> None:
    """Other steps, prompts, guidance of inversion, seeds and pictures are other work."""
    batch, shared = pictures(model), Shared()
    others = [
        {"steps": 2},
        {"inversion_guidance": 2.0},
        {"seed": 1},
        {"negative_prompt": "fog", "inversion_guidance": 2.0},
        {"strength": 0.7},
    ]
    for method in ("forward_first", "fixed_point"):
        run_cells(model, batch, setup(method), shared)
        for other in others:
            asked = setup(method, **other)
            assert told(run_cells(model, batch, asked, shared)) == told(run_cells(model, batch, asked)), other
    swapped = [batch[1], batch[0]]
    assert told(run_cells(model, swapped, setup("ddim"), shared)) == told(run_cells(model, swapped, setup("ddim")))


@pytest.mark.parametrize("method", ["ddim", "fixed_point"])
def test_nothing_is_shared_between_types(method: str) -> None:
    """Their weights have one hash, and what they are asked may be the very same bits."""
    shared = Shared()
    for dtype in ("float32", "bfloat16"):
        model = unsample.load("scenes-sd", dtype=dtype)
        batch, asked = sampled(), setup(method, stages=("record", "noise", "recovered"))
        assert told(run_cells(model, batch, asked, shared)) == told(run_cells(model, batch, asked)), dtype


def test_editors_share_an_inversion_and_nothing_else(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an editor does within the network is no answer to what another one asks of it."""
    made, invert = [], unsample.invert

    def counted(*asked: Any, **more: Any) -> Any:
        made.append(more["method"].name)
        return invert(*asked, **more)

    monkeypatch.setattr(unsample, "invert", counted)
    batch, shared = pictures(model), Shared()
    weaker = unsample.edits.p2p(cross_steps=0.0, self_steps=0.0)  # asks the very same at the first step
    for method in ("ddim", "null_text"):
        for editor, mask in (("none", "none"), ("p2p", "none"), (weaker, "none"), ("none", "attention:dog")):
            asked = setup(method, guidance=3.0, edit_guidance=3.0, editor=editor, mask=mask, stages=("edit",))
            found, count = run_cells(model, batch, asked, shared), len(made)
            assert told(found) == told(run_cells(model, batch, asked)), (method, editor, mask)
            del made[count:]
    assert made == ["ddim", "null_text"]


def test_memory_is_bounded(model: Any) -> None:
    batch, shared = pictures(model), Shared(limit_mb=0.02)
    found = run_cells(model, batch, setup("ddim"), shared)
    assert 0 < shared._size <= 0.02 * 2**20
    assert sum(size for _, size, _ in shared._kept.values()) == shared._size
    assert told(found) == told(run_cells(model, batch, setup("ddim")))
    shared.clear()
    assert (shared._size, len(shared._kept)) == (0, 0)


def test_an_exact_record_stands_at_the_ceiling(model: Any) -> None:
    """Unrounded: what comes back exactly is infinitely near to what the autoencoder alone gives back."""
    (row, _) = run_cells(model, pictures(model), setup("direct", guidance=3.0)).rows
    assert (
        row["values"]["record.psnr_to_ceiling"]["value"] is None
        or row["values"]["record.psnr_to_ceiling"]["value"] > 90
    )
    plain = run_cells(model, pictures(model), setup("ddim", guidance=3.0))
    assert plain.ceiling is not None
    made = plain.made["noise"].images
    expected = -10 * torch.log10((made.double() - plain.ceiling.double()).square().flatten(1).mean(1))
    values = [row["values"]["noise.psnr_to_ceiling"]["value"] for row in plain.rows]
    assert values == pytest.approx(expected.tolist())


def test_zero_is_what_recovered_noise_is_read_against(model: Any) -> None:
    found = run_cells(model, sampled(), setup("zero"))
    values = {name: entry["value"] for name, entry in found.rows[0]["values"].items()}
    assert found.true_noise is not None
    assert values["recovered.e_latent"] == pytest.approx(float(found.true_noise[0].double().square().mean()))
    assert values["recovered.std"] == 0
    assert values["recovered.e_recon"] > 0
    assert values["recovered.e_interp"] > 0
    assert "record.psnr" not in values
    unknown = run_cells(model, pictures(model), setup("zero")).rows[0]["values"]["recovered.e_latent"]
    assert "their noise is not known" in unknown["reason"]


def test_only_what_is_asked_for_is_made(model: Any) -> None:
    counted = Counted(model)
    alone = run_cells(counted, pictures(model), setup("ddim", stages=("recovered",), metrics=("std",)))
    assert counted.calls == 3
    assert [*alone.rows[0]["values"]] == ["recovered.std"]
    assert alone.pictures == {}
    whole = run_cells(model, pictures(model), setup("ddim", metrics=("std",)))
    assert alone.rows[0]["values"]["recovered.std"] == whole.rows[0]["values"]["recovered.std"]
    again = run_cells(model, sampled(), setup("edict", stages=("recovered",), metrics=("e_recon", "e_recon_record")))
    values = again.rows[0]["values"]
    assert values["recovered.e_recon_record"]["value"] < values["recovered.e_recon"]["value"]


def test_what_cannot_be_asked_is_refused_by_name() -> None:
    for wrong, message in (
        ({"editor": "p3p"}, "editor"),
        ({"mask": "givn"}, "mask"),
        ({"stages": ("recod",)}, "stage"),
        ({"seeding": "x"}, "seeding"),
    ):
        with pytest.raises(UnknownName, match=message):
            Setup(method="ddim", **wrong)  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="did you mean 'ddim'"):
        Setup(method="ddmi")


def test_a_picture_that_was_saved_is_inverted_as_the_file_gives_it_back() -> None:
    """And judged by the noise and the x0 that it was made from."""
    model = unsample.load("scenes-mixture")
    caption = "a large red circle in the center on a blue background"

    def error(saved: str | None) -> float:
        """Of where the inversion began."""
        item = Item(id="a", image=None, prompt=caption, seed=5, saved=saved)
        asked = Setup(method=unsample.methods.ddim(), steps=10, metrics=("e_latent",), keep_trajectory=True)
        found = run_cells(model, [item], asked)
        trajectory = getattr(found.inversion, "trajectory", None)
        assert trajectory is not None
        return float((trajectory[0] - found.start).square().mean().sqrt())

    assert error(None) == 0
    assert 0.9 < error("png") / (2 / 255 / 12**0.5) < 2  # what lies outside of the range is lost too
    assert error("jpeg75") > 3 * error("png")
