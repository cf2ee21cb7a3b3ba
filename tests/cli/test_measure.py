"""`unsample metrics` and `unsample measure`: files, folders, what is missing, what does not match."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.conftest import Run, draw
from unsample.cli.metrics import names
from unsample.errors import BadOption
from unsample.metrics import METRICS
from unsample.metrics.pixels import psnr, ssim


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Five pictures of 24x24 in two folders, noisy in the first; one more in each without a partner."""
    generator = np.random.default_rng(0)
    for k in range(5):
        picture = draw(tmp_path / "b" / f"{k}.png", (24, 24))
        levels = np.asarray(Image.open(picture)).astype(int) + generator.integers(-20, 21, (24, 24, 3))
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.fromarray(levels.clip(0, 255).astype(np.uint8)).save(tmp_path / "a" / f"{k}.png")
    draw(tmp_path / "a" / "lonely.png", (24, 24))
    draw(tmp_path / "b" / "other.png", (24, 24))
    return tmp_path / "a", tmp_path / "b"


@pytest.fixture(autouse=True)
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that has none."""
    monkeypatch.delenv("UNSAMPLE_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no-torch-home"))


def as_tensor(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None].float() / 255


# ---------------------------------------------------------------- metrics


def test_metrics_lists_the_whole_table(run: Run) -> None:
    ended = run("metrics")
    assert ended.code == 0
    for name in METRICS:
        assert any(line.split()[:1] == [name] for line in ended.out.splitlines()), name
    assert "alexnet (missing)" in ended.out
    listed = run("metrics", "--json").json["metrics"]
    assert [row["name"] for row in listed] == list(METRICS)
    assert all(row["convention"] and row["reference"] for row in listed)


def test_one_metric_shows_its_convention_and_what_is_missing(run: Run) -> None:
    ended = run("metrics", "lpips")
    assert ended.code == 0
    for word in ("AlexNet", "[-1, 1]", "lower", "alexnet-owt-7be5be79.pth", "233 MB", "7be5be79", "1801.03924"):
        assert word in ended.out
    assert "fd[scenes-clip]" in run("metrics", "fd").out
    mistake = run("metrics", "psrn")
    assert mistake.code == 2
    assert "did you mean 'psnr'" in mistake.err


def test_names_are_split_at_commas_outside_brackets() -> None:
    assert names("psnr, fd[a,b],ssim") == ["psnr", "fd[a,b]", "ssim"]
    for text in ("", "psnr,", "psnr,psnr", ","):
        with pytest.raises(BadOption, match="--metrics"):
            names(text)


# ---------------------------------------------------------------- of a model's making


def test_maps_are_written_on_request(run: Run, folders: tuple[Path, Path], tmp_path: Path) -> None:
    ended = run("measure", *folders, "--metrics", "dire,mae", "--maps", tmp_path / "maps", "--json")
    assert ended.code == 0, ended.err
    rows = {row["file"]: row["values"] for row in ended.json["pairs"]}
    assert sorted(file.name for file in (tmp_path / "maps").iterdir()) == [f"{k}-dire.png" for k in range(5)]
    a, b = (as_tensor(folder / "2.png")[0].double() for folder in folders)
    expected = (a - b).abs().mean(0)
    with Image.open(tmp_path / "maps" / "2-dire.png") as image:
        white = json.loads(image.info["unsample"])["white"]
        grey = torch.from_numpy(np.array(image)).double() / 255 * white
    assert white == pytest.approx(float(expected.max()))
    assert torch.allclose(grey, expected, atol=white / 255)
    assert rows["2.png"]["dire"] == pytest.approx(rows["2.png"]["mae"])
    again = run("measure", *folders, "--metrics", "dire", "--maps", tmp_path / "maps")
    assert again.code == 4, "files that are there"
    assert "--overwrite" in again.err


def test_aeroblade_needs_a_model_with_an_autoencoder_and_its_weights(run: Run, scene: Path) -> None:
    ended = run("measure", scene, "--metrics", "aeroblade")
    assert ended.code == 2
    assert "--model" in ended.err
    ended = run("measure", scene, "--metrics", "aeroblade", "--model", "scenes-ddpm")
    assert ended.code == 2
    assert "no autoencoder" in ended.err
    ended = run("measure", scene, "--metrics", "aeroblade", "--model", "scenes-sd", "--json")
    assert ended.code == 3
    assert "vgg16" in ended.json["pairs"][0]["reasons"]["aeroblade"]


def test_a_watermark_is_looked_for_by_its_key(run: Run, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from unsample.watermarks import GaussianShading, TreeRing

    rings, shades = TreeRing.drawn((4, 16, 16), 4, seed=0), GaussianShading.drawn((4, 16, 16), seed=0)
    rings.save(tmp_path / "rings.json")
    shades.save(tmp_path / "shades.json")
    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    noise[0] = rings.embed(noise[:1])[0]
    save_file({"noise": noise}, tmp_path / "noise.safetensors")
    ended = run("measure", tmp_path / "noise.safetensors", "--metrics", "tree_ring,tree_ring_p", "--key",
                tmp_path / "rings.json", "--json")  # fmt: skip
    assert ended.code == 0, ended.err
    marked, plain = (row["values"] for row in ended.json["pairs"])
    assert marked["tree_ring_p"] < 1e-9 < plain["tree_ring_p"]
    assert marked["tree_ring"] < 1e-5 < plain["tree_ring"]
    both = f"tree_ring_p[{tmp_path / 'rings.json'}],gaussian_shading_p[{tmp_path / 'shades.json'}]"
    assert run("measure", tmp_path / "noise.safetensors", "--metrics", both).code == 0
    for metric, key, code, said in (
        ("tree_ring", None, 2, "--key"),
        ("tree_ring", "shades.json", 2, "gaussian_shading"),
        ("tree_ring", "none.json", 4, "cannot be read"),
        ("noise_std", "rings.json", 2, "--key is for"),
    ):
        given = [] if key is None else ["--key", tmp_path / key]
        ended = run("measure", tmp_path / "noise.safetensors", "--metrics", metric, *given)
        assert (ended.code, said in ended.err) == (code, True), ended.err
    ended = run("measure", tmp_path / "noise.safetensors", "--metrics", "noise_std", "--maps", tmp_path / "maps")
    assert ended.code == 2


# ---------------------------------------------------------------- two files


def test_two_files_are_measured_as_the_library_does(run: Run, folders: tuple[Path, Path]) -> None:
    a, b = (folder / "0.png" for folder in folders)
    ended = run("measure", a, b, "--metrics", "psnr,ssim,ssim_global", "--json")
    assert ended.code == 0, ended.err
    (row,) = ended.json["pairs"]
    assert row["values"]["psnr"] == pytest.approx(psnr(as_tensor(a), as_tensor(b))[0])
    assert row["values"]["ssim"] == pytest.approx(ssim(as_tensor(a), as_tensor(b))[0])
    assert ended.json["metrics"]["psnr"]["convention"] == METRICS["psnr"].convention
    text = run("measure", a, b, "--metrics", "psnr").out
    assert f"{row['values']['psnr']:.5g}" in text
    assert "dB" in text


def test_equal_pictures_are_exact_and_null(run: Run, scene: Path) -> None:
    ended = run("measure", scene, scene, "--json")
    (row,) = ended.json["pairs"]
    assert row["values"] == {"psnr": None, "ssim": 1.0}
    assert row["exact"] == ["psnr"]
    assert row["reasons"] == {}
    assert "exact" in run("measure", scene, scene).out


def test_missing_weights_end_with_3_and_the_others_are_measured(run: Run, folders: tuple[Path, Path]) -> None:
    a, b = (folder / "0.png" for folder in folders)
    ended = run("measure", a, b, "--metrics", "lpips,psnr,dino_structure", "--json")
    assert ended.code == 3
    (row,) = ended.json["pairs"]
    assert row["values"]["psnr"] > 10
    assert row["values"]["lpips"] is None
    for word in ("alexnet-owt-7be5be79.pth", "233 MB", "7be5be79", "--weights-dir", "UNSAMPLE_WEIGHTS"):
        assert word in row["reasons"]["lpips"]
        assert word in ended.err
    assert "dino-vitb8" in row["reasons"]["dino_structure"]


def test_missing_weights_alone_cost_no_torch_and_less_than_two_seconds(scene: Path) -> None:
    code = (
        "import sys\nfrom unsample.cli.main import main\n"
        f"code = main(['measure', {str(scene)!r}, {str(scene)!r}, '--metrics', 'lpips,lpips_vgg'])\n"
        "print(code, 'torch' in sys.modules)"
    )
    start = time.process_time(), time.perf_counter()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert time.perf_counter() - start[1] < 2
    assert done.stdout.split()[-2:] == ["3", "False"]


def test_sizes_that_differ_are_refused_but_where_the_metric_resizes(run: Run, tmp_path: Path) -> None:
    a, b = draw(tmp_path / "a.png", (24, 24)), draw(tmp_path / "b.png", (32, 24))
    ended = run("measure", a, b)
    assert (ended.code, ended.out) == (4, "")
    for word in ("24x24", "32x24", "ssim_global"):
        assert word in ended.err
    assert run("measure", a, b, "--metrics", "ssim_global").code == 0
    both = run("measure", a, b, "--metrics", "ssim_global,psnr", "--json")
    assert both.code == 4
    (row,) = both.json["pairs"]
    assert row["values"]["ssim_global"] > 0
    assert "24x24 and 32x24" in row["reasons"]["psnr"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--metrics", "psrn"), "did you mean 'psnr'"),
        (("--metrics", "psnr,psnr"), "different names"),
        (("--metrics", "clip_text"), "give --target-prompt"),
        (("--metrics", "pie_psnr"), "give --mask"),
        (("--metrics", "edit_gain"), "give --truth"),
        (("--metrics", "e_latent"), "give an inversion (.safetensors) as A"),
        (("--metrics", "attribute_clip"), "--dataset"),
        (("--metrics", "psnr_to_ceiling"), "in Python"),
        (("--clip", "a", "--clip-model", "b"), "the old name of --clip-model"),
        (("--dataset", "scenes:3"), "leave B"),
        (("--device", "tpu9"), "--device"),
    ],
)
def test_a_mistake_is_said_before_any_work(run: Run, scene: Path, options: tuple[str, ...], words: str) -> None:
    ended = run("measure", scene, scene, *options)
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.err
    assert len(ended.err.splitlines()) == 1


def test_what_is_not_there_or_does_not_go_together_is_a_bad_input(run: Run, scene: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no picture")
    for arguments, words in (
        ((scene, "gone.png"), "is not there"),
        ((scene, tmp_path / "empty"), "files are compared with files"),
        ((tmp_path / "empty", tmp_path / "empty"), "holds no pictures"),
        ((scene, tmp_path / "text.png"), "text, not a picture"),
    ):
        ended = run("measure", *arguments)
        assert ended.code == 4, arguments
        assert words in ended.err
        assert "Traceback" not in ended.err


def test_a_result_without_a_reference_needs_a_metric_that_has_none(run: Run, scene: Path) -> None:
    assert run("measure", scene).code == 2
    ended = run("measure", scene, "--metrics", "clip_text,clip_score", "--target-prompt", "a red circle", "--json")
    assert ended.code == 0, ended.err
    (row,) = ended.json["pairs"]
    assert row["values"]["clip_score"] == pytest.approx(100 * max(row["values"]["clip_text"], 0))
    assert ended.json["metrics"]["clip_text"]["name"] == "clip_text[scenes-clip]"


def test_the_old_name_of_clip_model_is_understood_and_the_new_one_is_said(run: Run, scene: Path) -> None:
    asked = ("measure", scene, "--metrics", "clip_text", "--target-prompt", "a red circle", "--json")
    old, new = run(*asked, "--clip", "scenes-clip"), run(*asked, "--clip-model", "scenes-clip")
    assert (old.code, new.code, old.json) == (0, 0, new.json)
    assert "--clip-model" in old.err
    assert "--clip-model" not in new.err
    assert "--clip " not in run("measure", "--help").out
    assert run(*asked, "--clip-model", "no/such").code == 3


# ---------------------------------------------------------------- two folders


def test_folders_are_matched_by_name_and_the_rest_reported(run: Run, folders: tuple[Path, Path]) -> None:
    a, b = folders
    ended = run("measure", a, b, "--json")
    assert ended.code == 0, ended.err
    assert [row["file"] for row in ended.json["pairs"]] == [f"{k}.png" for k in range(5)]
    assert ended.json["unmatched"] == {"images": ["lonely.png"], "reference": ["other.png"]}
    assert "lonely.png" in ended.err
    assert "other.png" in ended.err
    for k, row in enumerate(ended.json["pairs"]):
        assert row["values"]["psnr"] == pytest.approx(psnr(*(as_tensor(f / f"{k}.png") for f in folders))[0])
    told = ended.json["metrics"]["psnr"]
    errors = [10 ** (-row["values"]["psnr"] / 10) for row in ended.json["pairs"]]
    assert told["mean"] == pytest.approx(-10 * np.log10(np.mean(errors)))  # the PSNR of the mean MSE
    assert told["n"] == 5
    assert told["median"] == pytest.approx(np.median([row["values"]["psnr"] for row in ended.json["pairs"]]))


def test_a_stem_matches_another_kind_of_file_and_folders_in_folders(run: Run, tmp_path: Path) -> None:
    draw(tmp_path / "a" / "x" / "1.png")
    draw(tmp_path / "b" / "x" / "1.bmp")
    ended = run("measure", tmp_path / "a", tmp_path / "b", "--json")
    assert [row["file"] for row in ended.json["pairs"]] == ["x/1.png"]
    assert ended.json["unmatched"] == {}
    draw(tmp_path / "c" / "2.png")
    nothing = run("measure", tmp_path / "a", tmp_path / "c")
    assert nothing.code == 4
    assert "no file name in common" in nothing.err


def test_a_broken_file_is_reported_and_the_others_are_measured(run: Run, folders: tuple[Path, Path]) -> None:
    a, b = folders
    (a / "2.png").write_bytes((a / "2.png").read_bytes()[:80])
    draw(a / "3.png", (30, 24))
    ended = run("measure", a, b, "--json", "--csv", "scores.csv")
    assert ended.code == 4
    assert set(ended.json["failed"]) == {"2.png", "3.png"}
    assert ended.json["metrics"]["psnr"]["n"] == 3
    assert ended.json["metrics"]["psnr"]["missing"] == 2
    rows = {row["file"]: row for row in csv.DictReader(Path("scores.csv").read_text().splitlines())}
    assert rows["2.png"]["psnr"] == ""
    assert "damaged" in rows["2.png"]["reasons"]
    assert "30x24 and 24x24" in rows["3.png"]["reasons"]
    assert float(rows["0.png"]["psnr"]) == ended.json["pairs"][0]["values"]["psnr"]


def test_csv_holds_a_row_a_picture_and_is_not_written_over(run: Run, folders: tuple[Path, Path]) -> None:
    a, b = folders
    (a / "1.png").write_bytes((b / "1.png").read_bytes())
    assert run("measure", a, b, "--csv", "s.csv").code == 0
    rows = list(csv.DictReader(Path("s.csv").read_text().splitlines()))
    assert [row["file"] for row in rows] == [f"{k}.png" for k in range(5)]
    assert rows[1]["psnr"] == "exact"
    again = run("measure", a, b, "--csv", "s.csv")
    assert again.code == 4
    assert "--overwrite" in again.err
    assert run("measure", a, b, "--csv", "s.csv", "--overwrite").code == 0
    onto_input = run("measure", a / "0.png", b / "0.png", "--csv", a / "0.png", "--overwrite")
    assert onto_input.code == 4


def test_sets_are_measured_over_the_whole_folder(run: Run, folders: tuple[Path, Path]) -> None:
    ended = run("measure", *folders, "--metrics", "fd[pixels],kd[pixels],psnr", "--json")
    assert ended.code == 0, ended.err
    told = ended.json["metrics"]["kd[pixels]"]
    assert told["n"] == 5
    assert told["details"]["low"] < told["value"] < told["details"]["high"]
    assert "fd[pixels]" not in ended.json["pairs"][0]["values"]
    spoken = run("measure", *folders, "--metrics", "fd[pixels]")
    assert "n_images 5" in spoken.err


def test_masks_truths_and_a_table_of_prompts_belong_to_their_pictures(run: Run, folders: tuple[Path, Path]) -> None:
    a, b = folders
    for k in range(5):
        mask = Image.new("L", (24, 24), 0)
        mask.paste(255, (0, 0, 12, 4 * k + 8))
        Path("masks").mkdir(exist_ok=True)
        mask.save(f"masks/{k}.png")
    lines = ["file,source_prompt,target_prompt", *(f"{k}.png,a red circle,a blue circle {k}" for k in range(5))]
    Path("prompts.csv").write_text("\n".join(lines))
    wanted = "masked_psnr,pie_psnr,edit_gain,clip_direction,clip_text_edited"
    ended = run(
        "measure", a, b, "--metrics", wanted, "--mask", "masks", "--truth", a, "--prompts", "prompts.csv", "--json"
    )
    assert ended.code == 0, ended.err
    for k, row in enumerate(ended.json["pairs"]):
        assert set(row["reasons"]) == set(), row
        assert row["values"]["edit_gain"] == 1  # the truth given is the result
        share = 1 - 12 * (4 * k + 8) / 576
        assert row["values"]["pie_psnr"] - row["values"]["masked_psnr"] == pytest.approx(-10 * np.log10(share))
    Path("bad.csv").write_text("name\n1")
    assert run("measure", a, b, "--metrics", "clip_text", "--prompts", "bad.csv").code == 4


def test_masks_of_every_encoding_give_the_same_and_are_said(run: Run, folders: tuple[Path, Path]) -> None:
    a, b = (folder / "1.png" for folder in folders)
    inside = np.zeros((24, 24), dtype=np.uint8)
    inside[4:12, 4:20] = 1
    red = np.zeros((24, 24, 4), dtype=np.uint8)
    red[..., 0], red[..., 3] = 255, inside * 255
    kinds = {"white": inside * 255, "ones": inside, "sixteen": inside.astype(np.uint16), "paint": red}
    said = {"ones": "1, on 0, is to be", "sixteen": "1, on 0, is to be", "paint": "painted on transparency"}
    values = {}
    for name, levels in kinds.items():
        Image.fromarray(levels).save(f"{name}.png")
        ended = run("measure", a, b, "--metrics", "masked_psnr,pie_psnr", "--mask", f"{name}.png", "--json")
        assert ended.code == 0, ended.err
        values[name] = ended.json["pairs"][0]["values"]
        assert (f"note: {name}.png: " in ended.err) == (name in said)
        assert said.get(name, "") in " ".join(ended.json["notes"])
    assert all(found == values["white"] for found in values.values())
    Image.fromarray(np.arange(576, dtype=np.uint8).reshape(24, 24)).save("photograph.png")
    ended = run("measure", a, b, "--metrics", "masked_psnr", "--mask", "photograph.png")
    assert ended.code == 4
    assert "is no mask: it has" in ended.err


def test_a_data_set_brings_the_source_the_truth_and_the_prompts(run: Run, tmp_path: Path) -> None:
    from unsample.datasets import open_dataset

    dataset = open_dataset("scenes:4,split=report", size=64)
    (tmp_path / "edits").mkdir()
    for k in (0, 1, 3):
        levels = (dataset[k].truth.permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(levels).save(tmp_path / "edits" / f"{dataset.ids[k]}.png")
    draw(tmp_path / "edits" / "stray.png", (64, 64))
    wanted = "edit_gain,attribute_render_fit,attribute_clip,clip_text,masked_psnr,psnr"
    ended = run("measure", "edits", "--dataset", "scenes:4,split=report", "--metrics", wanted, "--json")
    assert ended.code == 0, ended.err
    assert ended.json["unmatched"] == {"images": ["stray.png"], "dataset": [dataset.ids[2]]}
    for row in ended.json["pairs"]:
        assert row["reasons"] == {}
        assert row["values"]["edit_gain"] > 0.999  # the truth, rounded to 8 bit
        assert row["values"]["attribute_render_fit"] == 1
        assert row["values"]["psnr"] < 40  # the source is another picture
    lost = run("measure", "edits/stray.png", "--dataset", "scenes:4", "--metrics", "psnr")
    assert lost.code == 4
    assert "named after an item" in lost.err


# ---------------------------------------------------------------- noises


def test_a_recovered_noise_is_measured_against_the_run_that_made_the_picture(run: Run, tiny_sd: Path) -> None:
    from safetensors.torch import load_file

    walk = ("-m", tiny_sd, "--steps", 3)
    assert run("sample", *walk, "--prompt", "a red circle", "--keep-trajectory", "-o", "s.png").code == 0
    assert run("invert", "s.png", *walk, "--prompt", "a red circle", "-o", "out").code == 0
    wanted = "e_latent,cosine,std,noise_mean,noise_kl,lag1_correlation,spectrum_flatness,normality"
    ended = run("measure", "out/s.safetensors", "s.trajectory.safetensors", "--metrics", wanted, "--json")
    assert ended.code == 0, ended.err
    (row,) = ended.json["pairs"]
    assert row["reasons"] == {}
    noise, truth = load_file("out/s.safetensors")["noise"], load_file("s.trajectory.safetensors")["trajectory"][0]
    assert float(truth.std()) == pytest.approx(1, abs=0.15)  # of 256 numbers: it is the noise that sampling began with
    assert row["values"]["e_latent"] == pytest.approx(float((noise - truth).square().mean()), rel=1e-5)
    assert ended.json["metrics"]["lag1_correlation"]["details"]["low"] < 0
    alone = run("measure", "out/s.safetensors", "--metrics", "lag1_correlation", "--json")
    assert alone.json["pairs"][0]["values"]["lag1_correlation"] == row["values"]["lag1_correlation"]


def test_tensors_by_their_names_give_every_metric_of_recovery(run: Run) -> None:
    from safetensors.torch import save_file

    save_file({k: torch.randn(3, 4, 8, 8) for k in ("noise", "played", "replayed", "between")}, "a.safetensors")
    save_file({k: torch.randn(3, 4, 8, 8) for k in ("noise", "start")}, "b.safetensors")
    wanted = "e_latent,e_recon,e_recon_record,e_interp,noise_kl_dims,pixel_correlation"
    ended = run("measure", "a.safetensors", "b.safetensors", "--metrics", wanted, "--json")
    assert ended.code == 0, ended.err
    assert len(ended.json["pairs"]) == 3
    assert all(v > 0 for row in ended.json["pairs"] for v in row["values"].values())
    assert ended.json["metrics"]["pixel_correlation"]["details"]["verdict"] is None
    save_file({"other": torch.zeros(1)}, "c.safetensors")
    assert run("measure", "c.safetensors", "--metrics", "std").code == 4


# ---------------------------------------------------------------- many


def test_memory_does_not_grow_with_the_number_of_pairs(tmp_path: Path) -> None:
    """600 pairs of 96x96 would be 133 MB as the float32 tensors that are compared."""
    source = draw(tmp_path / "picture.png", (96, 96))
    for folder, count in (("few", 60), ("many", 600)):
        (tmp_path / folder).mkdir()
        for k in range(count):
            os.link(source, tmp_path / folder / f"{k}.png")
    code = (
        "import resource, sys\nfrom unsample.cli.main import main\n"
        "assert main(['measure', sys.argv[1], sys.argv[1]]) == 0\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    peaks = [
        int(subprocess.run([sys.executable, "-c", code, str(tmp_path / folder)], env=environment, check=True,
                           capture_output=True, text=True).stdout.split()[-1])
        for folder in ("few", "many")
    ]  # fmt: skip
    assert peaks[1] - peaks[0] < 40_000  # kB; batches of 28 pairs come and go


def test_a_name_that_a_spreadsheet_would_run_is_made_harmless_unless_a_machine_reads_it(run: Run) -> None:
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Image.new("RGB", (24, 24), "red").save(f"{folder}/=cmd.png")
        Image.new("RGB", (24, 24), "red").save(f"{folder}/x.png")
    for more, name in (([], "'=cmd.png"), (["--raw-csv", "--overwrite"], "=cmd.png")):
        assert run("measure", "a", "b", "--metrics", "psnr", "--csv", "s.csv", *more).code == 0
        assert [row["file"] for row in csv.DictReader(Path("s.csv").read_text().splitlines())] == [name, "x.png"]
    ended = run("measure", "a", "b", "--raw-csv")
    assert (ended.code, "--raw-csv belongs to --csv" in ended.err) == (2, True)


def test_of_several_rows_of_one_picture_none_is_guessed(run: Run, folders: tuple[Path, Path]) -> None:
    table = Path("p.csv")
    rows = ["0.png; a red circle", "0.png; a blue circle", *(f"{k}.png; a star" for k in range(1, 5))]
    table.write_text("\n".join(["File ;Source_Prompt", *rows]))
    ended = run("measure", *folders, "--metrics", "psnr", "--prompts", table)
    assert (ended.code, "2 rows of '0.png'" in ended.err) == (4, True)
    table.write_text("\n".join(["File ;Source_Prompt", *rows[1:]]))
    assert run("measure", *folders, "--metrics", "clip_text", "--prompts", table).code == 0
