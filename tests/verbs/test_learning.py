"""A network is taught the first two steps on what a model makes, and `learned_start` takes it."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

import unsample
from unsample.errors import BadInput, BadOption, Incompatible, WeightsMissing
from unsample.experiment.shared import Shared, SharedModel
from unsample.methods import anderson, learned_start
from unsample.models import learned
from unsample.models.digests import VARIABLE
from unsample.models.learned import default_path, guessed, read_taught, untaught
from unsample.numbers.solvers.two_steps import ATTEMPT, BOTH, attempted
from unsample.studies.asking import asking
from unsample.verbs import learning
from unsample.verbs.learning import Training, taught

pytestmark = pytest.mark.filterwarnings("ignore:invert. .* did not converge")

STEPS = 4
SMALL = Training(num_inference_steps=STEPS, num_pictures=8, num_updates=6, batch_size=4)
MINI = "mini-ink-linear-epsilon-0"


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    blocks: Any = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    network = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=4,
        **blocks,
    )  # fmt: skip
    return unsample.wrap(network.eval(), DDIMScheduler(clip_sample=False), sample_shape=(1, 8, 8))


@pytest.fixture(autouse=True, scope="module")
def few() -> Iterator[None]:
    """Four pictures where there are 32, and states that are kept every second update."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CHUNK", "HELD_OUT"):
            patch.setattr(learning, name, 4)
        patch.setattr(learning, "EVERY", 2)
        yield


@pytest.fixture(scope="module")
def file(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught(model, tmp_path_factory.mktemp("taught") / "a.safetensors", SMALL, False, lambda *told: None)[0]


def _counted(model: Any, path: Path) -> int:
    """How many pictures the network, and its copies, which have the hook too, are asked about in a training."""
    asked: list[int] = []
    model.unet.register_forward_pre_hook(lambda _, given: asked.append(len(given[0])))
    taught(model, path, SMALL, False, lambda *told: None)
    return sum(asked)


def test_the_file_says_what_it_was_taught_for_and_what_it_cost(model: Any, file: Path, tmp_path: Path) -> None:
    facts = read_taught(file)
    assert (facts.weights_sha256, facts.num_inference_steps) == (model.weights_sha256(), STEPS)
    assert (facts.num_pictures, facts.num_updates, facts.backward) == (8, 6, 24)
    back = max(3, round(learning.AGAIN * STEPS))
    made = 8 * STEPS + 4 * back + 12 * ATTEMPT
    judging = facts.evaluations - made - 24  # the solver's own steps, the network's guess and its polish
    assert 4 * (2 + 1 + BOTH) <= judging <= 4 * (2 * 40 + 1 + BOTH)
    assert facts.evaluations == _counted(copy.deepcopy(model), tmp_path / "counted.safetensors")
    assert facts.seconds > 0
    assert facts.error <= facts.solver_error  # the distance at which it agrees is chosen so
    assert sorted(p.name for p in file.parent.iterdir()) == [file.name]


def test_before_it_is_taught_it_tells_what_the_attempt_found(model: Any) -> None:
    x0 = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    with asking(model, STEPS, None, 2) as predict:
        attempt = attempted(predict, x0, predict.grid)
        assert predict.cost.nfe == [ATTEMPT] * 2
        told = guessed(untaught(model, 0), predict, attempt, x0, predict.grid)
        assert predict.cost.nfe == [ATTEMPT + 1] * 2
    for one, other in zip(told, (attempt.first, attempt.second), strict=True):
        assert torch.equal(one, other)


def test_an_interrupted_training_goes_on_to_the_same_bits(model: Any, file: Path, tmp_path: Path) -> None:
    other, calls = tmp_path / "b.safetensors", []

    def told(what: str, done: int, total: int) -> None:
        calls.append((what, done))
        if (what, done) in (("chunks of pictures", 2), ("updates", 3)) and calls.count((what, done)) == 1:
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            taught(model, other, SMALL, False, told)
        assert not other.exists()
    with pytest.raises(BadInput, match="begun with other settings"):
        taught(model, other, replace(SMALL, seed=1), False, told)
    taught(model, other, SMALL, False, told)
    assert calls.count(("updates", 1)) == 1  # two updates were kept, the third is made again
    assert calls.count(("updates", 3)) == 2
    one, two = load_file(file), load_file(other)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_overwrite_begins_anew(model: Any, file: Path, tmp_path: Path) -> None:
    here = tmp_path / "a.safetensors"
    shutil.copy(file, here)
    assert taught(model, here, SMALL, False, lambda *told: pytest.fail("taught again")) == (here, read_taught(file))
    for other in (replace(SMALL, seed=1), replace(SMALL, prompts=("a", "b"))):
        with pytest.raises((BadInput, Incompatible), match="is another one; give another output|takes no prompt"):
            taught(model, here, other, False, lambda *told: None)
    taught(model, here, replace(SMALL, seed=1), True, lambda *told: None)
    assert read_taught(here).seed == 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"num_inference_steps": 2}, "use 3 steps or more"),
        ({"num_pictures": 7}, "from 8 to .*; got 7"),
        ({"num_updates": 0}, "from 1 to"),
        ({"batch_size": 1.5}, "from 1 to .*; got 1.5"),
        ({"learning_rate": 0.0}, "above 0 and at most 1"),
        ({"prompts": []}, "texts, one at least"),
        ({"seed": -1}, "from 0 to"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(BadOption, match=said):
        replace(SMALL, **wrong).check()


def test_networks_that_cannot_be_copied_are_refused() -> None:
    with pytest.raises(Incompatible, match="scenes-mixture cannot be learned: what is taught is a copy of a UNet"):
        unsample.train_inverse("scenes-mixture", num_inference_steps=STEPS)
    with pytest.raises(BadOption, match=r"written as NAME.safetensors"):
        unsample.train_inverse(MINI, "a.pt", num_inference_steps=STEPS)


# ---------------------------------------------------------------- used


def inverted(model: Any, latents: torch.Tensor, steps: int = STEPS, **settings: Any) -> unsample.Inversion:
    return unsample.invert(model, latents=latents, method=learned_start(**settings), num_inference_steps=steps)


def made(model: Any, steps: int, *seeds: int) -> unsample.Images:
    return unsample.sample(model, generator=list(seeds), num_inference_steps=steps, progress=False)


def test_it_is_found_by_the_weights_and_named_in_the_record(
    model: Any, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    own = default_path(model, model.grid(STEPS), 1.0)
    pictures = made(model, STEPS, 1, 2).latents
    with pytest.raises(WeightsMissing, match=f"taught for .* at {STEPS} steps .* is not there; teach one"):
        inverted(model, pictures)
    own.parent.mkdir()
    shutil.copy(file, own)
    found = inverted(model, pictures)
    assert len(found.meta["learned"]) == 64
    assert len(found.meta["learned_kept"]) == 2
    assert found[0].meta["learned_kept"] == found.meta["learned_kept"][:1]
    assert torch.equal(found.noise, inverted(model, pictures, file=str(file)).noise)
    base = unsample.invert(model, latents=pictures, method=anderson(), num_inference_steps=STEPS)
    for k, kept in enumerate(found.meta["learned_kept"]):
        assert found.nfe[k] >= base.nfe[k] + ATTEMPT + 1
        assert (found.nfe[k] == base.nfe[k] + ATTEMPT + 1) is kept


def test_a_model_whose_answers_are_remembered_gives_the_same(model: Any, file: Path) -> None:
    pictures, remembering = made(model, STEPS, 1, 2).latents, SharedModel(model, Shared())
    bare = inverted(model, pictures, file=str(file))
    for _ in range(2):
        found = inverted(remembering, pictures, file=str(file))
        assert torch.equal(found.noise, bare.noise)
        assert found.nfe == bare.nfe


def test_one_for_other_weights_steps_or_guidance_is_refused(model: Any, file: Path, tmp_path: Path) -> None:
    pictures = made(model, STEPS, 1).latents
    with pytest.raises(BadInput, match=f"other first noise levels than .* at {STEPS + 1} steps"):
        inverted(model, pictures, STEPS + 1, file=str(file))
    other = unsample.load(MINI)
    with pytest.raises(BadInput, match="it has other weights than mini-ink-linear-epsilon-0"):
        inverted(other, made(other, STEPS, 1).latents, STEPS, file=str(file))
    tensors = load_file(file)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BadInput, match="cannot read .*broken.safetensors"):
        inverted(model, pictures, file=str(broken))
    save_file(tensors, broken)
    with pytest.raises(BadInput, match="not a network that 'unsample train-inverse' wrote"):
        inverted(model, pictures, file=str(broken))
    with pytest.raises(BadOption, match="trained=false takes no network"):
        learned_start(trained=False, file="a.safetensors")


@pytest.fixture(scope="module")
def lost() -> tuple[Any, unsample.Images]:
    """A model and a picture of it whose first steps `anderson` solves for another noise."""
    model = unsample.load(MINI)
    return model, unsample.sample(model, generator=[2], num_inference_steps=10, keep_trajectory=True, progress=False)


def off(found: unsample.Inversion, picture: unsample.Images) -> float:
    return float((found.noise - picture.noise).square().mean())


def taught_for(model: Any, path: Path, agrees: float) -> str:
    """An untaught network, whose file says at which distance it agrees."""
    from unsample.models.learned import Taught, levels_of, written

    grid = model.grid(10)
    facts = Taught(
        model.id, model.weights_sha256(), levels_of(grid), 10, 1.0, 0, 8, 1, 1, 1.0, 1.0, 1.0, 1.0, agrees, 0, 0, 0.0
    )
    written(untaught(model, 0), facts, path)
    return str(path)


def test_a_guess_near_the_truth_leads_to_the_true_noise(
    lost: tuple[Any, unsample.Images], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, picture = lost
    assert picture.trajectory is not None
    base = unsample.invert(model, latents=picture.latents, method=anderson(), num_inference_steps=10)
    assert off(base, picture) > 1
    near = picture.trajectory[-3] + 0.02 * torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(3))
    monkeypatch.setattr(learned, "second_point", lambda *given: near)
    found = inverted(model, picture.latents, 10, file=taught_for(model, tmp_path / "a.safetensors", 0.1))
    assert found.meta["learned_kept"] == [False]
    assert off(found, picture) < 0.02


def test_where_the_network_agrees_the_base_is_kept(
    lost: tuple[Any, unsample.Images], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, picture = lost
    base = unsample.invert(
        model, latents=picture.latents, method=anderson(), num_inference_steps=10, keep_trajectory=True
    )
    assert base.trajectory is not None
    second = base.trajectory[2].clone()
    monkeypatch.setattr(learned, "second_point", lambda *given: second)
    found = inverted(model, picture.latents, 10, file=taught_for(model, tmp_path / "a.safetensors", 0.1))
    assert found.meta["learned_kept"] == [True]
    assert torch.equal(found.noise, base.noise)
    assert found.health[0]["residual"] == base.health[0]["residual"]
