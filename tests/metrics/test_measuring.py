"""`measure` and the table: every row keeps to what it says, and one that fails does not stop the others."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import unsample
from unsample.errors import BadOption, UnknownName, WeightsMissing
from unsample.metrics import KINDS, METRICS, WEIGHTS, Measuring, Settings, Subject
from unsample.metrics.facts import MetricFacts
from unsample.metrics.weights import find_folder, find_weights
from unsample.testing import metrics

NAMED = (
    "mse psnr psnr_to_ceiling ssim ssim_global ms_ssim lpips lpips_vgg lpips_squeeze clip_image clip_text clip_score "
    "clip_text_edited clip_direction dino_structure dino_structure_pie dreamsim fd fid kd precision recall cka "
    "cka_debiased svcca e_latent e_recon e_recon_record e_interp cosine std noise_mean noise_std noise_kl "
    "noise_kl_dims lag1_correlation pixel_correlation normality spectrum_flatness pie_psnr pie_mse pie_ssim pie_lpips "
    "masked_psnr masked_mse masked_ssim masked_lpips edit_gain edit_gain_inside edit_gain_outside "
    "edit_gain_lpips edit_size attribute_render_fit attribute_clip judges_agree mae "
    "dire aeroblade tree_ring tree_ring_p gaussian_shading gaussian_shading_p"
)


@pytest.fixture
def subject() -> Subject:
    """All that can be known of six edited scenes."""
    return metrics.subject()


def test_the_table_holds_the_names_it_should() -> None:
    assert set(METRICS) == set(NAMED.split())


@pytest.mark.parametrize("facts", METRICS.values(), ids=METRICS)
def test_a_row_says_all_there_is_to_say(facts: MetricFacts) -> None:
    assert facts.kind in KINDS
    assert facts.better in ("higher", "lower", "neither")
    assert set(facts.weights) <= set(WEIGHTS)
    assert facts.title
    assert facts.reference
    assert "\n" not in facts.convention
    known = set(Subject.__dataclass_fields__)
    assert all(set(need.split("|")) <= known for need in facts.needs)
    assert facts.depends is None or facts.depends in Settings.__dataclass_fields__
    assert (facts.compute is None) == (facts.tally is not None) == (facts.conclude is not None) == (facts.kind == "set")
    if "images" in facts.needs and facts.kind != "text":
        words = ("[0, 1]", "8-bit", "times 1 - mask", "features", "as ssim", "maps", "SSE", "LPIPS(")
        assert any(word in facts.convention for word in words), "the input's range is not stated"


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_answers_within_its_range_or_says_why_not(name: str, tmp_path: Path) -> None:
    case = metrics.MetricCase(name, str(tmp_path))
    metrics.it_answers_within_its_range_or_says_why_not(case)
    if name not in ("ms_ssim", "svcca"):  # of larger pictures, and more of them
        metrics.it_has_a_value_where_all_is_known(case)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_without_its_input_says_what_it_needs(name: str) -> None:
    metrics.without_its_input_it_says_what_it_needs(metrics.MetricCase(name))


@pytest.mark.parametrize("name", [n for n, f in METRICS.items() if f.compute is not None and not f.weights])
def test_a_picture_alone_gets_what_it_gets_in_a_batch(name: str) -> None:
    metrics.a_picture_alone_gets_what_it_gets_in_a_batch(metrics.MetricCase(name))


def test_a_metric_that_fails_does_not_stop_the_others(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(subject: Subject, settings: Settings) -> list[float]:
        raise ZeroDivisionError("by nothing")

    from dataclasses import replace

    monkeypatch.setitem(METRICS.built_in, "mse", replace(METRICS["mse"], compute=broken))
    scores = unsample.measure(["mse", "psnr", "fd[no/such]"], subject)
    assert list(scores) == ["mse", "psnr", "fd[no/such]"]
    assert scores["mse"].reasons == ["ZeroDivisionError: by nothing"] * 6
    assert all(scores["psnr"].values)
    assert scores["fd[no/such]"].values == [None]


def test_a_set_of_which_a_part_cannot_be_taken_has_no_value(subject: Subject) -> None:
    measuring = Measuring(["kd[pixels]"])
    measuring.add(Subject(images=subject.images, reference=subject.reference))
    measuring.add(Subject(images=subject.images))
    assert "needs reference" in str(measuring.finish()["kd[pixels]"].reasons[0])
    assert "no pictures" in str(Measuring(["fd"]).finish()["fd"].reasons[0])


def test_names_that_cannot_be_are_refused_before_any_work() -> None:
    with pytest.raises(UnknownName, match="did you mean 'psnr'"):
        unsample.measure(["psrn"], Subject())
    for name in ("psnr[alex]", "fd[", "fd[]", "fd[a", "masked_lpips[resnet]"):
        with pytest.raises(BadOption):
            unsample.measure([name], Subject())


def test_missing_weights_are_a_reason_within_two_seconds(subject: Subject, tmp_path: Path) -> None:
    names = [n for n, f in METRICS.items() if f.weights]
    start = time.perf_counter()
    scores = unsample.measure([*names, "psnr"], subject, Settings(weights_dir=str(tmp_path)))
    assert time.perf_counter() - start < 2
    for name in names:
        if name not in ("dreamsim", "fid"):  # their packages are missing first
            wanted = WEIGHTS[METRICS[name].weights[0]]
            for part in (wanted.file, f"{wanted.megabytes:g} MB", wanted.sha256, wanted.url, str(tmp_path)):
                if "squeeze" not in wanted.file or scores[name].reasons[0]:
                    assert part in str(scores[name].reasons[0])
    assert all(scores["psnr"].values)


# ---------------------------------------------------------------- edits of scenes


def test_the_gain_is_a_ratio_of_mean_squares_and_null_where_nothing_was_to_be_edited(subject: Subject) -> None:
    from dataclasses import replace

    truth = subject.truth.clone()  # type: ignore[union-attr]
    truth[1] = subject.reference[1]  # type: ignore[index]
    scores = unsample.measure(["edit_gain", "edit_gain_inside", "edit_gain_outside"], replace(subject, truth=truth))
    for score in scores.values():
        assert score.values[1] is None
        assert "nothing was to be edited" in str(score.reasons[1])
    for k in (0, 2, 5):
        e, t, s = (p[k].double() for p in (subject.images, truth, subject.reference))  # type: ignore[index]
        ratio = 1 - float((e - t).square().mean() / (s - t).square().mean())
        assert scores["edit_gain"].values[k] == pytest.approx(ratio, rel=1e-9)
        inside, outside = (scores[f"edit_gain_{part}"].values[k] for part in ("inside", "outside"))
        assert inside + outside == pytest.approx(ratio, rel=1e-9)  # type: ignore[operator]


def test_both_judges_find_the_attribute_in_the_edit_and_not_in_the_source(subject: Subject) -> None:
    from dataclasses import replace

    names = ["attribute_render_fit", "attribute_clip"]
    for score in unsample.measure(names, subject).values():
        assert score.values == [1.0] * 6
    for score in unsample.measure(names, replace(subject, images=subject.reference)).values():
        assert score.values == [0.0] * 6


def test_the_judges_are_asked_once_however_many_metrics_want_their_answers(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from unsample.metrics import judges

    calls = []

    def counted(judge: str, answers: list[str]) -> None:
        monkeypatch.setattr(judges, judge, lambda *given: calls.append(judge) or answers)  # type: ignore[func-returns-value]

    counted("fit_attribute", ["blue", "red", "red", "blue", "blue", "blue"])
    counted("clip_attribute", ["blue", "red", "cyan", "red", "blue", "blue"])
    images = subject.images.clone()  # type: ignore[union-attr]
    names = ["attribute_render_fit", "attribute_clip", "judges_agree"]
    scores = unsample.measure(names, replace(subject, images=images))
    assert scores["attribute_render_fit"].values == [1, 0, 0, 1, 1, 1]
    assert scores["attribute_clip"].values == [1, 0, 0, 0, 1, 1]
    assert scores["judges_agree"].values == [1, 1, 0, 0, 1, 1]
    assert sorted(calls) == ["clip_attribute", "fit_attribute"]
    unsample.measure(names, replace(subject, images=images, targets=subject.targets[::-1]))  # type: ignore[index]
    assert len(calls) == 4, "other scenes, other answers"


def test_gains_weighted_by_the_size_of_the_edit_are_the_gain_over_all_pixels(subject: Subject) -> None:
    scores = unsample.measure(["edit_gain", "edit_size"], subject)
    gains, sizes = scores["edit_gain"].values, scores["edit_size"].values
    pooled = sum(g * s for g, s in zip(gains, sizes, strict=True)) / sum(sizes)  # type: ignore[operator, arg-type, misc]
    edit, truth, source = subject.images.double(), subject.truth.double(), subject.reference.double()  # type: ignore[union-attr]
    whole = 1 - float((edit - truth).square().sum() / (source - truth).square().sum())
    assert pooled == pytest.approx(whole, rel=1e-9)


def test_judges_take_every_attribute_at_its_own(subject: Subject) -> None:
    from dataclasses import replace

    changed = ["colour", "background", "shape", "colour", "background", "shape"]
    scores = unsample.measure(["attribute_render_fit"], replace(subject, changed=changed))
    assert scores["attribute_render_fit"].values == [1.0] * 6  # background and shape are as in the target too


# ---------------------------------------------------------------- weights


def test_weights_are_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, variable, hub = (tmp_path / name for name in ("given", "variable", "torch"))
    monkeypatch.setenv("UNSAMPLE_WEIGHTS", str(variable))
    monkeypatch.setenv("TORCH_HOME", str(hub))
    checkpoints = hub / "hub" / "checkpoints"
    with pytest.raises(WeightsMissing, match="nothing is downloaded"):
        find_weights("alexnet", str(given))
    for folder in (checkpoints, variable, given):
        folder.mkdir(parents=True)
        (folder / "alexnet-owt-7be5be79.pth").write_bytes(b"")
        assert find_weights("alexnet", str(given)).parent == folder


def test_a_model_in_the_hubs_cache_is_found_without_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--facebook--dino-vitb8"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    (snapshot / "config.json").write_text("{}")
    found = find_folder("dino-vitb8", str(tmp_path))
    assert found.name == "a" * 40


def test_names_and_refusals_cost_no_torch() -> None:
    code = (
        "import sys\n"
        "from unsample.metrics import METRICS, WEIGHTS, Settings, Measuring\n"
        "from unsample.metrics.measuring import lacking_weights\n"
        "found = [lacking_weights(a) for a in Measuring(list(METRICS)).asked]\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules, len(found))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", str(len(METRICS))]
