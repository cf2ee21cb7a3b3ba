"""CLIP's cosines against transformers used by hand, preparation against its image processor."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import unsample
from unsample.datasets import draw_scene, render
from unsample.metrics import Settings, Subject
from unsample.metrics.clip import load, preparation
from unsample.metrics.pixels import as_pil
from unsample.models.loading import BUNDLED_FOLDER

FOLDER = BUNDLED_FOLDER / "scenes-clip"


@pytest.fixture(scope="module")
def subject() -> Subject:
    """Three scenes, each with its colour changed."""
    scenes = [draw_scene(k).replace(colour="red", background="white") for k in range(3)]
    targets = [s.replace(colour="blue") for s in scenes]
    mask = torch.zeros(3, 1, 64, 64)
    mask[:, :, 8:56, 8:56] = 1
    return Subject(
        images=render(targets).images,
        reference=render(scenes).images,
        mask=mask,
        prompts=[s.caption for s in scenes],
        target_prompts=[s.caption for s in targets],
    )


def by_hand(images: Tensor | None, texts: list[str] | None) -> Tensor:
    """Unit vectors straight from the towers and projections, a picture or text at a time."""
    from transformers import CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(str(FOLDER), dtype=torch.float32, local_files_only=True).eval()
    found = []
    with torch.no_grad():
        if images is not None:
            for picture in as_pil(images):
                pixels = torch.from_numpy(np.array(picture)).float().permute(2, 0, 1)[None] / 127.5 - 1
                found.append(model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)[0])
        else:
            tokenizer = CLIPTokenizer.from_pretrained(str(FOLDER), local_files_only=True)
            for text in texts or []:
                tokens = tokenizer([text], return_tensors="pt")  # no padding: the causal tower does not see it
                pooled = model.text_model(input_ids=tokens["input_ids"]).pooler_output
                found.append(model.text_projection(pooled)[0])
    stacked = torch.stack(found).double()
    return stacked / stacked.norm(dim=1, keepdim=True)


def test_the_cosines_are_those_of_the_towers_used_by_hand(subject: Subject) -> None:
    names = ["clip_image", "clip_text", "clip_score", "clip_text_edited", "clip_direction"]
    scores = unsample.measure(names, subject)
    image, source = by_hand(subject.images, None), by_hand(subject.reference, None)
    after, before = by_hand(None, list(subject.target_prompts or ())), by_hand(None, list(subject.prompts or ()))
    inside = by_hand(subject.images * subject.mask, None)  # type: ignore[operator]
    change, said = image - source, after - before
    expected = {
        "clip_image": (image * source).sum(1),
        "clip_text": (image * after).sum(1),
        "clip_score": 100 * (image * after).sum(1).clamp(min=0),
        "clip_text_edited": 100 * (inside * after).sum(1).clamp(min=0),
        "clip_direction": (change * said).sum(1) / change.norm(dim=1) / said.norm(dim=1),
    }
    for name in names:
        # float32 networks, padded or not
        assert scores[name].values == pytest.approx(expected[name].tolist(), rel=1e-4, abs=1e-5), name
        assert scores[name].name == f"{name}[scenes-clip]"
    assert min(scores["clip_text"].values) > 0.5  # type: ignore[type-var]


def test_the_wrong_text_fits_less_and_a_negative_cosine_scores_zero(subject: Subject) -> None:
    import dataclasses

    wrong = dataclasses.replace(subject, target_prompts=["a small green ring at the left on a black background"] * 3)
    cosines = unsample.measure(["clip_text"], wrong)["clip_text"].values
    assert max(cosines) < 0.5  # type: ignore[type-var]
    scores = unsample.measure(["clip_score"], wrong)["clip_score"].values
    assert scores == pytest.approx([100 * max(c, 0.0) for c in cosines])  # type: ignore[type-var]


def test_a_text_longer_than_the_model_is_cut(subject: Subject) -> None:
    clip = load(Settings())
    long = "a large red circle at the left on a blue background " * 20
    assert torch.equal(clip.texts([long]), clip.texts([long + " and more"]))
    assert clip.texts([long]).isfinite().all()


def test_nothing_changed_has_no_direction_and_an_empty_mask_no_inside(subject: Subject) -> None:
    import dataclasses

    same = dataclasses.replace(subject, images=subject.reference, mask=torch.zeros(3, 1, 64, 64))
    scores = unsample.measure(["clip_direction", "clip_text_edited"], same)
    assert scores["clip_direction"].values == [None] * 3
    assert "did not change" in str(scores["clip_direction"].reasons[0])
    assert scores["clip_text_edited"].values == [None] * 3
    assert "empty" in str(scores["clip_text_edited"].reasons[0])


@pytest.mark.parametrize("size", [(80, 50), (50, 80), (64, 64), (31, 33)])
def test_preparation_is_that_of_the_real_clips_image_processor(size: tuple[int, int], tmp_path: Path) -> None:
    """The settings of openai/clip-vit-*: shorter side 224, then the middle."""
    from transformers.models.clip import image_processing_pil_clip as theirs

    config = {
        "crop_size": 24,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "resample": 3,
        "size": 24,
    }
    config |= {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    levels = torch.randint(0, 256, (1, 3, *size), generator=torch.Generator().manual_seed(0)).byte()
    ours = preparation(tmp_path, 24)(levels.float() / 255)
    processor = theirs.CLIPImageProcessorPil(
        size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}, image_mean=config["image_mean"],
        image_std=config["image_std"],
    )  # fmt: skip
    picture = Image.fromarray(levels[0].permute(1, 2, 0).numpy())
    expected = torch.as_tensor(np.array(processor(picture)["pixel_values"][0]))
    assert ours.shape == (1, 3, 24, 24)
    assert torch.allclose(ours[0], expected.float(), atol=1e-5)  # float32


def test_a_folder_without_a_preprocessor_config_gets_clips_own_numbers(tmp_path: Path) -> None:
    found = preparation(tmp_path, 224)
    assert (found.shortest, found.crop, found.resample) == (224, (224, 224), 3)
    assert found.mean[0] == 0.48145466


def test_a_folder_is_as_good_as_a_bundled_name(subject: Subject, tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "my-clip")
    name = f"clip_image[{tmp_path / 'my-clip'}]"
    found = unsample.measure([name, "clip_image"], subject)
    assert found[name].values == found["clip_image"].values
    assert found[name].name == "clip_image[my-clip]"
    here = unsample.measure(["clip_image[my-clip]"], subject, Settings(weights_dir=str(tmp_path)))
    assert here["clip_image[my-clip]"].values == found["clip_image"].values


@pytest.mark.parametrize("name", ["no/such-model", "nowhere", "clip-vit-large-patch14", "/no/folder"])
def test_a_clip_that_is_not_here_is_a_reason(
    name: str, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    score = unsample.measure([f"clip_text[{name}]", "psnr"], subject, Settings(weights_dir=str(tmp_path)))
    assert score[f"clip_text[{name}]"].values == [None] * 3
    assert Path(name).name in str(score[f"clip_text[{name}]"].reasons[0])
    assert score["psnr"].values[0] is not None


def test_features_are_computed_once_for_several_metrics(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, calls = load(Settings()), []
    inner = clip.prepare
    monkeypatch.setattr(clip, "prepare", lambda images: calls.append(len(images)) or inner(images))
    images = subject.images.clone()  # type: ignore[union-attr]
    fresh = Subject(images=images, target_prompts=subject.target_prompts)
    first = unsample.measure(["clip_text", "clip_score"], fresh)["clip_text"].values
    assert calls == [3]
    images[0] = 0  # written to: another picture under the same name
    assert unsample.measure(["clip_text"], fresh)["clip_text"].values[0] != first[0]
    assert calls == [3, 3]
