"""Saved inversions: the round trip, the parts, and files that are not what they should be."""

from __future__ import annotations

import contextlib
import json
import pickletools
import random
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import unsample
from tests.problems import PROMPTS, mixture, mixture_picture
from unsample.errors import BadInput, UnsampleError
from unsample.verbs.results import Images, Inversion
from unsample.verbs.saved import FORMAT_VERSION, read_header

STEPS = 4
TENSOR_FIELDS = ("noise", "source", "prompt_embeds", "negative_prompt_embeds", "class_labels", "trajectory")
PLAIN_FIELDS = ("nfe", "backward", "seconds", "status", "health", "meta")


@pytest.fixture(scope="module")
def inversion() -> Inversion:
    """Of two pictures, with a trajectory."""
    model = mixture()
    images = torch.cat([mixture_picture(model, k) for k in (0, 4)])
    return unsample.invert(model, images, list(PROMPTS), num_inference_steps=STEPS, keep_trajectory=True)


def embedded(**more: Any) -> Inversion:
    """Of two pictures, conditioned on embeddings."""
    model = mixture()
    embeds, negative = model.embed(["left"]).prompt_embeds, model.embed(["", ""]).prompt_embeds
    return unsample.invert(
        model,
        torch.cat([mixture_picture(model, k) for k in (0, 1)]),
        prompt_embeds=embeds,
        negative_prompt_embeds=negative,
        guidance_scale=2.0,
        num_inference_steps=STEPS,
        **more,
    )


def assert_equal(a: Inversion, b: Inversion) -> None:
    for name in TENSOR_FIELDS:
        one, other = getattr(a, name), getattr(b, name)
        assert (one is None) == (other is None), name
        assert one is None or (torch.equal(one, other) and one.dtype is other.dtype), name
    assert set(a.state) == set(b.state)
    for name in PLAIN_FIELDS:
        one, other = (dict(getattr(i, name)) if name == "meta" else getattr(i, name) for i in (a, b))
        assert json.dumps(one) == json.dumps(other), name  # a tuple and a list are the same


# ---------------------------------------------------------------- the round trip


def test_what_is_saved_is_what_is_loaded(inversion: Inversion, tmp_path: Path) -> None:
    for given in (inversion, inversion[1], embedded()):
        given.save(tmp_path / "a.safetensors")
        assert_equal(Inversion.load(tmp_path / "a.safetensors"), given)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_float64_state_and_trajectory_survive(tmp_path: Path) -> None:
    given = embedded(keep_trajectory=True)
    assert given.noise.dtype is torch.float64
    assert given.trajectory is not None
    assert given.trajectory.shape == (STEPS + 1, 2, 3, 8, 8)
    more = embedded(method="edict")
    assert {name: t.dtype for name, t in more.state.items()} == {"second": torch.float64, "rest": torch.float32}
    for one in (given, more):
        one.save(tmp_path / "a.safetensors")
        back = Inversion.load(tmp_path / "a.safetensors")
        assert all(torch.equal(back.state[name], t) for name, t in one.state.items())
        assert_equal(back, one)


def test_a_loaded_inversion_reconstructs_as_the_one_that_was_saved(tmp_path: Path) -> None:
    model, given = mixture(), embedded()
    given.save(tmp_path / "a.safetensors")
    back = Inversion.load(tmp_path / "a.safetensors")
    assert torch.equal(unsample.reconstruct(model, back).images, unsample.reconstruct(model, given).images)


def test_the_parts_of_an_inversion_speak_of_their_own_pictures(inversion: Inversion) -> None:
    for k, prompt in enumerate(PROMPTS):
        part = inversion[k]
        assert len(part) == 1
        assert part.meta["prompt"] == [prompt]
        assert part.meta["names"] == [f"image-{k}"]
        assert part.meta["notes"] == [""]
        assert part.health == [inversion.health[k]]
        assert torch.equal(part.noise[0], inversion.noise[k])
        assert part.trajectory is not None
        assert torch.equal(part.trajectory[:, 0], inversion.trajectory[:, k])
        assert part.seconds == pytest.approx(inversion.seconds / 2)
    assert_equal(inversion[-1], inversion[1])
    assert len(inversion[0:2]) == 2
    lists = [
        v for k, v in inversion[1].meta.items() if isinstance(v, list) and k != "sampling_scales"
    ]  # a grid point each
    assert all(len(v) == 1 for v in lists), "a list in meta still speaks of the whole batch"
    for beyond in (2, -3):
        with pytest.raises(IndexError):
            inversion[beyond]


def test_meta_is_typed_and_reads_as_the_plain_mapping_that_is_saved(inversion: Inversion, tmp_path: Path) -> None:
    meta = inversion.meta
    assert (meta.prompt, meta.grid.timesteps) == (meta["prompt"], meta["grid"]["timesteps"])
    assert meta.stored is not None
    assert meta["stored"] == {"what": meta.stored.what, "size_over_noise": 1.0, "fitted_to_picture": False}
    assert (meta.get("verb"), meta.get("verb", 3), "fit" in meta, "verb" in meta) == (None, 3, True, False)
    assert json.loads(json.dumps(dict(meta))) == dict(meta) == meta == meta | {}
    assert (meta | {"fit": "pad", "mine": 1})["mine"] == 1
    mine = replace(inversion, meta=meta | {"mine": {"a": 1}})
    assert (mine.meta["mine"], mine.meta.prompt) == ({"a": 1}, meta.prompt)
    inversion[0].save(tmp_path / "a.safetensors")
    assert list(Inversion.load(tmp_path / "a.safetensors").meta) == list(meta)
    with pytest.raises(KeyError):
        meta["verb"]
    with pytest.raises(ValueError, match="frozen"):
        meta.fit = "pad"


def test_one_row_of_embeddings_for_many_pictures_can_be_split_and_saved(tmp_path: Path) -> None:
    model, given = mixture(), embedded()
    for k in range(2):
        given[k].save(tmp_path / f"{k}.safetensors")
        part = Inversion.load(tmp_path / f"{k}.safetensors")
        alone, together = unsample.reconstruct(model, part), unsample.reconstruct(model, given)
        # a matrix product of another height rounds differently; float32 pictures
        assert (alone.images[0] - together.images[k]).abs().max() < 1e-6


def test_nothing_in_a_file_is_a_pickle(inversion: Inversion, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    inversion.save(path)
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    size = max(end for t in header.values() if "data_offsets" in t for end in t["data_offsets"][1:])
    assert len(data) == 8 + int.from_bytes(data[:8], "little") + size  # tensors and JSON are all there is
    with pytest.raises(ValueError, match="."):
        list(pickletools.genops(data))
    with safe_open(path, framework="numpy") as file:
        assert json.loads(file.metadata()["unsample"])["status"] == ["ok", "ok"]


def test_no_module_of_ours_uses_pickle() -> None:
    for path in Path(unsample.__file__).parent.rglob("*.py"):
        source = path.read_text()
        assert "import pickle" not in source, path
        if path.name in ("lpips.py", "trunks.py"):  # torchvision's and torchmetrics' own files, tensors only
            assert source.count("torch.load(") == source.count("weights_only=True)") == 1, path
        else:
            assert "torch.load(" not in source, path


def test_a_diverged_picture_is_not_saved_and_the_others_are(inversion: Inversion, tmp_path: Path) -> None:
    broken = Inversion(**{**vars(inversion), "status": ["ok", "diverged"]})
    with pytest.raises(BadInput, match="a picture of this inversion diverged"):
        broken.save(tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []
    broken[0].save(tmp_path / "a.safetensors")
    Inversion.load(tmp_path / "a.safetensors")


def test_what_could_not_be_loaded_is_not_saved(inversion: Inversion, tmp_path: Path) -> None:
    changed = replace(inversion, meta=inversion.meta | {"method": 3})
    with pytest.raises(BadInput, match="not whole .*method"):
        changed.save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_path_that_cannot_be_written_is_refused(inversion: Inversion, tmp_path: Path) -> None:
    for path in (tmp_path / "no" / "a.safetensors", tmp_path):
        with pytest.raises(BadInput, match="cannot write"):
            inversion.save(path)


def test_images_become_pil_pictures_of_8_bits_and_none_where_one_diverged() -> None:
    pixels = torch.tensor([0.0, 0.5, 1.0])[:, None, None].expand(3, 4, 5)
    images = Images(torch.stack([pixels, pixels * torch.nan]), pixels, pixels, ["ok", "diverged"], [1, 1], [0, 0], 0.1)
    first, second = images.pil()
    assert second is None
    assert first is not None
    assert (first.size, first.mode, first.getpixel((0, 0))) == ((5, 4), "RGB", (0, 128, 255))
    assert len(images) == 2


# ---------------------------------------------------------------- files that are not what they should be


@pytest.fixture(scope="module")
def saved(inversion: Inversion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "good.safetensors"
    inversion[0].save(path)
    return path


def rewritten(good: Path, to: Path, change: Any) -> Path:
    """The file with `change(tensors, metadata, json)` applied."""
    with safe_open(good, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata())
    header = json.loads(metadata["unsample"])
    change(tensors, metadata, header)
    if "unsample" in metadata:
        metadata["unsample"] = json.dumps(header)
    save_file(tensors, to, metadata=metadata)
    return to


def refused(path: Path, match: str, header_too: bool = True) -> None:
    with pytest.raises(BadInput, match=match):
        Inversion.load(path)
    if header_too:
        with pytest.raises(BadInput, match=match):
            read_header(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.safetensors", "is not there")
    refused(tmp_path, "is a directory")


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"hello", b"\xff" * 100, (10**9).to_bytes(8, "little") + b"{}"])
def test_corrupt_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    refused(tmp_path / "a.safetensors", "corrupt or truncated")


def test_truncated_files_are_refused(saved: Path, tmp_path: Path) -> None:
    data = saved.read_bytes()
    for length in (4, 8, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "a.safetensors").write_bytes(data[:length])
        refused(tmp_path / "a.safetensors", "corrupt or truncated")


def test_a_future_version_is_refused_in_its_own_words(saved: Path, tmp_path: Path) -> None:
    for version in (str(FORMAT_VERSION + 1), "1.5", "-1", "0", "new"):
        path = rewritten(saved, tmp_path / "a.safetensors", lambda t, m, h, v=version: m.update(unsample_format=v))
        refused(path, "upgrade unsample")


def test_a_safetensors_file_of_something_else_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "a.safetensors")
    refused(tmp_path / "a.safetensors", "not an inversion of unsample")


def test_noise_that_is_not_finite_is_refused(saved: Path, tmp_path: Path) -> None:
    for name in ("noise", "trajectory"):
        for value in (torch.nan, torch.inf):
            path = rewritten(
                saved, tmp_path / "a.safetensors", lambda t, m, h, n=name, v=value: t[n].view(-1)[5:6].fill_(v)
            )
            refused(path, f"the stored {name} is not finite", header_too=False)


def nested(depth: int) -> dict[str, Any]:
    """Bases within bases."""
    return {"name": "easyinv", "settings": {"base": nested(depth - 1) if depth else "ddim"}}


CHANGES: dict[str, Any] = {
    "a method of four hundred": lambda t, m, h: h["meta"].update(method=nested(400)),
    "json without end": lambda t, m, h: h["meta"].update(more=json.loads("[" * 900 + "]" * 900)),
    "a number without end": lambda t, m, h: h["meta"].update(more=10**400),
    "a number that is none": lambda t, m, h: h["meta"].update(more=float("nan")),
    "an alpha above 1": lambda t, m, h: h["meta"]["grid"]["alpha"].__setitem__(0, 1.001),
    "answers of other levels": lambda t, m, h: h["meta"]["grid"]["eval_alpha"].__setitem__(2, 0.5),
    "two timesteps of one name": lambda t, m, h: h["meta"]["grid"]["timesteps"].__setitem__(3, 250),
    "timesteps that do not begin with 0": lambda t, m, h: h["meta"]["grid"]["timesteps"].__setitem__(0, 1),
    "a source of four channels": lambda t, m, h: t.update(source=t["source"].repeat(1, 1, 1, 2)[..., :4].clone()),
    "a trajectory of another walk": lambda t, m, h: t.update(trajectory=t["trajectory"][1:].clone()),
    "embeddings of whole numbers": lambda t, m, h: (
        h["meta"].update(prompt=[None]),
        t.update(prompt_embeds=torch.ones(1, 2, 3).long()),
    ),
    "embeddings that differ": lambda t, m, h: (
        h["meta"].update(prompt=[None], negative_prompt=[None]),
        t.update(prompt_embeds=torch.ones(1, 2, 3), negative_prompt_embeds=torch.ones(1, 2, 4)),
    ),
    "embeddings of one number": lambda t, m, h: (
        h["meta"].update(prompt=[None]),
        t.update(prompt_embeds=torch.tensor(1.0)),
    ),
    "seeds that are text": lambda t, m, h: h["meta"].update(seeds=["1"]),
    "a size of text": lambda t, m, h: h["meta"].update(source_sizes=[["a", 3]]),
    "a place that is none": lambda t, m, h: h["meta"].update(nonfinite_at=["here"]),
    "no noise": lambda t, m, h: t.pop("noise"),
    "noise of integers": lambda t, m, h: t.update(noise=t["noise"].long()),
    "noise of three dimensions": lambda t, m, h: t.update(noise=t["noise"][:, 0]),
    "an unknown tensor": lambda t, m, h: t.update(other=torch.zeros(1)),
    "a state of two pictures": lambda t, m, h: t.update({"state.a": torch.zeros(2, 3)}),
    "a trajectory of two pictures": lambda t, m, h: t.update(trajectory=t["trajectory"].repeat(1, 2, 1, 1, 1)),
    "a source of floats": lambda t, m, h: t.update(source=t["source"].float()),
    "no json": lambda t, m, h: m.pop("unsample"),
    "no status": lambda t, m, h: h.pop("status"),
    "another status": lambda t, m, h: h.update(status=["fine"]),
    "status of two": lambda t, m, h: h.update(status=["ok", "ok"]),
    "nfe that is text": lambda t, m, h: h.update(nfe=["many"]),
    "nfe below 0": lambda t, m, h: h.update(nfe=[-1]),
    "health without figures": lambda t, m, h: h.update(health=[{}]),
    "seconds that are nan": lambda t, m, h: h.update(seconds=float("nan")),
    "a key too many": lambda t, m, h: h.update(more=1),
    "meta that is a list": lambda t, m, h: h.update(meta=[]),
    "no grid": lambda t, m, h: h["meta"].pop("grid"),
    "a grid with a key too many": lambda t, m, h: h["meta"]["grid"].update(more=1),
    "a grid of text": lambda t, m, h: h["meta"]["grid"].update(alpha=["a"] * (STEPS + 1)),
    "a grid with nan": lambda t, m, h: h["meta"]["grid"].update(sigma=[float("nan")] * (STEPS + 1)),
    "a grid that goes down and up": lambda t, m, h: h["meta"]["grid"]["alpha"].reverse(),
    "a grid without noise": lambda t, m, h: h["meta"]["grid"].update(sigma=[0.0] * (STEPS + 1)),
    "a grid whose timesteps fall": lambda t, m, h: h["meta"]["grid"]["timesteps"].reverse(),
    "a schedule without its scales": lambda t, m, h: h["meta"].pop("sampling_scales"),
    "a grid turned round by a word": lambda t, m, h: h["meta"]["grid"]["meta"].update(invert_sigmas="x"),
    "a grid turned round too early": lambda t, m, h: h["meta"]["grid"]["meta"].update(invert_sigmas=1),
    "a grid without its meta": lambda t, m, h: h["meta"]["grid"].update(meta=None),
    "a grid of another prediction": lambda t, m, h: h["meta"]["grid"].update(prediction_type="x0"),
    "a grid of more than all": lambda t, m, h: h["meta"]["grid"].update(alpha=[9.0 - k for k in range(STEPS + 1)]),
    "a prompt beside embeddings": lambda t, m, h: (
        t.update(prompt_embeds=torch.zeros(1, 2, 3)),
        h["meta"].update(prompt=["a"]),
    ),
    "a grid that is too short": lambda t, m, h: h["meta"]["grid"]["alpha"].pop(),
    "fractional timesteps": lambda t, m, h: h["meta"]["grid"].update(timesteps=[0.5] * (STEPS + 1)),
    "a stop beyond the grid": lambda t, m, h: h["meta"].update(stop_index=STEPS + 1),
    "a stop at 0": lambda t, m, h: h["meta"].update(stop_index=0),
    "a stop that is text": lambda t, m, h: h["meta"].update(stop_index="4"),
    "a scale that is no number": lambda t, m, h: h["meta"].update(sampling_scales=["1"] * 5),
    "scales of another grid": lambda t, m, h: h["meta"].update(sampling_scales=[1.0]),
    "a schedule that is no name": lambda t, m, h: h["meta"].update(guidance_schedule=3),
    "guidance that is text": lambda t, m, h: h["meta"].update(sampling_guidance_scale="1"),
    "a prompt that is a number": lambda t, m, h: h["meta"].update(prompt=[5]),
    "two prompts": lambda t, m, h: h["meta"].update(prompt=["a", "b"]),
    "no hash": lambda t, m, h: h["meta"]["model"].pop("sha256"),
    "a hash that is a number": lambda t, m, h: h["meta"]["model"].update(sha256=5),
    "a grid beyond floats": lambda t, m, h: h["meta"]["grid"].update(alpha=[10**400] * (STEPS + 1)),
    "guidance beyond floats": lambda t, m, h: h["meta"].update(sampling_guidance_scale=10**400),
    "a strength that stops elsewhere": lambda t, m, h: h["meta"].update(strength=0.5),
    "a constant guidance that is another": lambda t, m, h: h["meta"].update(sampling_scales=[9.0] * (STEPS + 1)),
    "settings that are a list": lambda t, m, h: h["meta"]["method"].update(settings=[]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_does_not_hold_what_an_inversion_holds_is_refused(change: str, saved: Path, tmp_path: Path) -> None:
    refused(rewritten(saved, tmp_path / "a.safetensors", CHANGES[change]), "corrupt or truncated")


def flowing(h: dict[str, Any], **changes: list[float]) -> None:
    """The grid of a flow model in a header: alpha + sigma = 1, timesteps that need not be whole."""
    alpha = [1 - k / STEPS for k in range(STEPS + 1)]
    sigma = [k / STEPS for k in range(STEPS + 1)]
    grid = {"alpha": alpha, "sigma": sigma, "eval_alpha": alpha, "eval_sigma": sigma}
    grid |= {"timesteps": [0, *(999.5 * s for s in sigma[1:])], "prediction_type": "flow_prediction"}
    h["meta"]["grid"].update(grid | changes)


def test_the_grid_of_a_flow_model_is_read_under_its_own_rule_and_refused_by_a_model_of_another_kind(
    saved: Path, tmp_path: Path
) -> None:
    path = rewritten(saved, tmp_path / "a.safetensors", lambda t, m, h: flowing(h))
    record = read_header(path)["meta"].grid
    assert (record.prediction_type, record.timesteps[1], record.alpha[-1]) == ("flow_prediction", 249.875, 0)
    assert Inversion.load(path).meta["grid"]["sigma"] == record.sigma
    for allow in (False, True):
        with pytest.raises(BadInput, match="by a model that predicts flow_prediction, and mixture predicts epsilon"):
            unsample.reconstruct(mixture(), path, allow_other_model=allow)
    preserving = [(1 - s * s) ** 0.5 for s in (k / STEPS for k in range(STEPS + 1))]
    for change in ({"alpha": preserving, "eval_alpha": preserving}, {"timesteps": [0.0, 2.5, 2.5, 3.0, 4.0]}):
        broken = rewritten(saved, tmp_path / "b.safetensors", lambda t, m, h, c=change: flowing(h, **c))
        refused(broken, "corrupt or truncated")


METHOD_CHANGES: list[dict[str, Any]] = [
    {"name": "ddmi", "settings": {}},
    {"name": "ddim", "settings": {"eps_at": 5}},
    {"name": "ddim", "settings": {"eps_at": []}},
    {"name": "ddim", "settings": {"preset": []}},
    {"name": "edict", "settings": {"p": 10**400}},
    {"name": "renoise", "settings": {"num_ac_rolls": 10**400}},
    {"name": "pix2pix_zero", "settings": {"num_ac_rolls": 10**400}},
    {"name": "forward_first", "settings": {"shared_noise": 2**64}},
    {"name": "easyinv", "settings": {"base": {"name": "ddim", "settings": "ab"}}},
    {"name": "easyinv", "settings": {"base": {"name": [], "settings": {}}}},
    {"name": "gradient", "settings": {"rest": {"name": "ddim", "settings": 5}}},
]


@pytest.mark.parametrize("method", METHOD_CHANGES, ids=lambda m: str(m)[:60])
def test_a_method_that_is_not_known_here_is_an_error_of_the_file(method: Any, saved: Path, tmp_path: Path) -> None:
    path = rewritten(saved, tmp_path / "a.safetensors", lambda t, m, h: h["meta"].update(method=method))
    with pytest.raises(BadInput, match="cannot be played back|bits; at most 64 are written"):
        unsample.reconstruct(mixture(), Inversion.load(path))


def test_timesteps_beyond_what_the_model_was_trained_with_are_an_error_of_the_file(saved: Path, tmp_path: Path) -> None:
    path = rewritten(
        saved, tmp_path / "a.safetensors", lambda t, m, h: h["meta"]["grid"]["timesteps"].__setitem__(-1, 10**6)
    )
    with pytest.raises(BadInput, match="1000000"):
        unsample.reconstruct(mixture(), Inversion.load(path))


def test_a_record_without_what_its_method_plays_back_is_refused(saved: Path, tmp_path: Path) -> None:
    for name in ("edict", "bdia", "direct", "null_text"):
        path = rewritten(
            saved,
            tmp_path / "a.safetensors",
            lambda t, m, h, n=name: h["meta"].update(method={"name": n, "settings": {}}),
        )
        inversion = Inversion.load(path)
        with pytest.raises(BadInput, match=f"{name} plays back"):
            unsample.reconstruct(mixture(), inversion)
        assert len(unsample.reconstruct(mixture(), inversion, use="noise")) == 1


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, cut, doubled or overwritten; mostly in the header, where the meaning is."""
    spoilt = bytearray(data)
    head = 8 + int.from_bytes(data[:8], "little")
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(head if rng.random() < 0.8 else len(spoilt)) % len(spoilt)
        kind = rng.randrange(5)
        if kind == 0:
            spoilt[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            spoilt[at] = rng.choice(b'0123456789-.eE"[]{},:nulltrfas ')
        elif kind == 2:
            del spoilt[at : at + rng.choice((1, 2, 50))]
        elif kind == 3:
            spoilt[at:at] = spoilt[at : at + rng.choice((1, 8, 40))]
        else:
            spoilt[at : at + 4] = rng.randbytes(4)
    return bytes(spoilt)


def text_mutated(header: str, rng: random.Random) -> str:
    """The JSON alone, so that the safetensors frame around it stays whole."""
    at = rng.randrange(len(header))
    new = rng.choice(["0", "-1", "9", "1e999", "null", "true", '"', "[", "]", "{}", "", "NaN", "\\u0000", ",", ":"])
    return header[:at] + new + header[at + rng.choice((0, 1, 1, 3)) :]


def test_two_thousand_spoilt_files_raise_only_our_errors(saved: Path, tmp_path: Path) -> None:
    """Whatever still loads can be played back, or is refused by the verbs in our words."""
    rng, data, path = random.Random(0), saved.read_bytes(), tmp_path / "a.safetensors"
    with safe_open(saved, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata())
    model, loaded = mixture(), 0
    for k in range(2000):
        if k % 2:
            path.write_bytes(mutated(data, rng))
        else:
            save_file(tensors, path, metadata=metadata | {"unsample": text_mutated(metadata["unsample"], rng)})
        try:
            read_header(path)
            inversion = Inversion.load(path)
        except BadInput:
            continue
        loaded += 1
        if loaded % 10 == 0:  # every tenth, to save time
            with warnings.catch_warnings(), contextlib.suppress(UnsampleError):
                warnings.simplefilter("ignore")
                unsample.reconstruct(model, inversion, allow_other_model=True)
    assert 200 < loaded < 1800  # the mutations are neither all fatal nor all harmless
