"""How the bundled models are made: resuming loses nothing, and the tokenizer writes any text."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from training import ddpm
from training import run as training_run
from training.cards import write_card
from training.clip import WEIGHTS, batch
from training.ddpm import Bank, Helped, Objective, log_spaced, of_unet, timesteps, write_states
from training.ddpm import build as build_ddpm
from training.run import Run, train_scenes
from training.tokenizer import LENGTH, build, words
from unsample.datasets.scenes import ATTRIBUTES, render


def linear_run(folder) -> tuple[Run, nn.Module, Callable]:
    """A linear map to be trained for ten steps, as a fresh process would make it."""
    torch.manual_seed(0)
    module = nn.Linear(4, 1)
    run = Run("part", module, lr=0.1, steps=10, folder=folder, committed=module.state_dict, warmup=3)

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        return (module(x) - x.sum(1, keepdim=True)).square().mean(), {}

    return run, module, loss


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path, monkeypatch):
    monkeypatch.setattr(training_run, "CHECKPOINTS", tmp_path / "straight")
    straight, one, loss = linear_run(tmp_path)
    assert straight.loop(loss)
    monkeypatch.setattr(training_run, "CHECKPOINTS", tmp_path / "resumed")
    for step in range(10):
        resumed, two, loss = linear_run(tmp_path)
        assert resumed.step == step
        resumed.loop(loss, minutes=0)  # stops, and saves, after each step
    assert torch.equal(one.weight, two.weight)
    assert all(torch.equal(straight.ema[k], resumed.ema[k]) for k in straight.ema)


def test_a_run_without_a_checkpoint_starts_from_the_committed_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(training_run, "CHECKPOINTS", tmp_path / "none")
    module, kept = nn.Linear(2, 1), nn.Linear(2, 1).state_dict()
    history = {"steps": 12, "hours": 0.5, "threads": 1, "curve": [{"step": 12, "loss": 1.0}]}
    (tmp_path / "training-part.json").write_text(json.dumps(history))
    run = Run("part", module, lr=0.1, steps=30, folder=tmp_path, committed=lambda: kept)
    assert run.step == 12
    assert run.hours == 0.5
    assert torch.equal(module.weight, kept["weight"])
    assert torch.equal(run.ema["weight"], kept["weight"])
    assert run.rate() == pytest.approx(0.1 / 150), "the optimiser knows nothing: warm up again"
    run.step += 1
    run.save()
    again = Run("part", module, lr=0.1, steps=30, folder=tmp_path, committed=lambda: kept)
    assert again.rate() == pytest.approx(0.2 / 150)


def test_a_run_of_another_architecture_starts_anew(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training_run, "CHECKPOINTS", tmp_path / "none")
    (tmp_path / "training-part.json").write_text(json.dumps({"steps": 12, "hours": 0.5, "curve": []}))
    for other in (nn.Linear(3, 1), nn.Conv1d(2, 1, 1)):
        run = Run("part", nn.Linear(2, 1), lr=0.1, steps=30, folder=tmp_path, committed=other.state_dict)
        assert run.step == 0
        assert "another architecture" in capsys.readouterr().out


def test_a_complete_part_that_is_passed_over_keeps_what_it_was_trained_on(tmp_path, monkeypatch):
    monkeypatch.setattr(training_run, "CHECKPOINTS", tmp_path / "none")
    history = tmp_path / "training-part.json"
    history.write_text(json.dumps({"steps": 30, "hours": 0.5, "on": "another machine", "curve": []}))
    for steps, kept in ((30, True), (40, False)):
        module = nn.Linear(2, 1)
        run = Run("part", module, lr=0.1, steps=steps, folder=tmp_path, committed=module.state_dict)
        assert (run.on == "another machine") == kept
    run = Run("part", module, lr=0.1, steps=30, folder=tmp_path, committed=module.state_dict)
    run.write_history()
    assert json.loads(history.read_text())["on"] == "another machine"


def test_a_run_that_must_finish_in_time_ends_with_its_rate_decayed(tmp_path, monkeypatch):
    monkeypatch.setattr(training_run, "CHECKPOINTS", tmp_path)
    clock = itertools.count(step=3.0)  # seconds; read once at the start and once a step
    monkeypatch.setattr(training_run.time, "monotonic", lambda: next(clock))
    module, rates, kept = nn.Linear(2, 1), [], []
    given = {"folder": tmp_path, "committed": dict, "warmup": 2}
    run = Run("part", module, lr=0.1, steps=10**6, finish=1.0, **given)

    def loss(step):
        rates.append(run.rate())
        return module(torch.ones(1, 2)).square().sum(), {}

    assert run.loop(loss, keep=lambda step: run.done() == 1 and not kept.append(step))
    assert run.step == 20
    assert kept == [20]
    assert rates[2] > 0.09
    assert rates[-1] < 0.003
    assert (tmp_path / "part" / "ema-000020.pt").exists()


def test_every_known_word_is_one_token_and_any_text_is_written():
    tokenizer = build()
    assert all(len(tokenizer.tokenize(word)) == 1 for word in words())
    ids = tokenizer("wörd 漢 zebra!! 42").input_ids
    assert ids.count(tokenizer.eos_token_id) == 1, "an unknown word must not end the text"
    assert tokenizer.eos_token_id == len(tokenizer) - 1, "CLIP pools at the largest id"
    assert tokenizer("a red circle", padding="max_length").input_ids[-1] == tokenizer.pad_token_id
    longest = max(len(tokenizer(s.caption).input_ids) for s in train_scenes(0, 200))
    assert longest <= LENGTH


def test_hard_negatives_differ_in_one_attribute():
    scenes = batch(3)
    for start in range(0, 48, 4):
        base, *others = scenes[start : start + 4]
        for other in others:
            differs = [a for a in ATTRIBUTES if getattr(base, a) != getattr(other, a)]
            assert (
                len(differs) == 1 or other == train_scenes(3, 96)[scenes.index(other)]
            )  # few values: random ones stay
            assert differs[0] in WEIGHTS


def test_checkpoints_are_log_spaced_up_to_the_last_step():
    steps = sorted(log_spaced(2000))
    assert len(steps) == 12
    assert steps[0] == 100
    assert steps[-1] == 2000
    ratios = [b / a for a, b in itertools.pairwise(steps)]
    assert max(ratios) / min(ratios) < 1.03  # whole steps


def test_a_run_that_goes_on_keeps_the_states_before_it(tmp_path, monkeypatch):
    monkeypatch.setattr(ddpm, "HISTORY", tmp_path / "history")
    (tmp_path / "history").mkdir()
    monkeypatch.setattr(training_run, "CHECKPOINTS", tmp_path)
    run = Run("part", nn.Linear(2, 1), lr=0.1, steps=9000, folder=tmp_path, committed=dict)
    for step in (3000, 9000):
        (tmp_path / "part").mkdir(exist_ok=True)
        torch.save({"unet.w": torch.ones(1)}, tmp_path / "part" / f"ema-{step:06d}.pt")

    def states() -> list[int]:
        return sorted(int(p.stem.removeprefix("step-")) for p in (tmp_path / "history").iterdir())

    for fresh, expected in ((1000, [0, 100, 900, 3000, 9000]), (0, [0, 3000, 9000])):
        for step in (0, 100, 900, 1000):
            save_file({"w": torch.zeros(1)}, tmp_path / "history" / f"step-{step:06d}.safetensors")
        run.fresh = fresh
        write_states(run, {100, 900, 3000, 9000})
        assert states() == expected


def test_a_card_states_the_table_and_the_training(tmp_path):
    folder = tmp_path / "scenes-ddpm"
    folder.mkdir()
    history = {
        "steps": 300,
        "hours": 1.25,
        "on": "2 CPU threads",
        "curve": [{"step": k, "loss": 1 / k} for k in range(100, 400, 100)],
    }
    write_card(folder, [("scenes-ddpm", "a measure", "0.5", "1", "not reached", "64")], "here", {"ddpm": history})
    text = (folder / "README.md").read_text()
    for part in (
        "license: apache-2.0",
        "| a measure | 0.5 | 1 | not reached | 64 |",
        "| ddpm | 300 | 1.25 | 2 CPU threads |",
        "300: 0.003333",
    ):
        assert part in text


def test_the_pixel_network_starts_as_eps_equal_to_x():
    torch.manual_seed(0)
    unet, x = build_ddpm(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        out, louder = unet(x, 500).sample, unet(1.03 * x, 500).sample
    assert (out - x).square().mean() < 0.01
    assert (louder - out).std() == pytest.approx(0.03, rel=0.2), "a norm would take the amplitude away"


def test_the_helper_heads_read_the_network_and_are_not_kept():
    helped = Helped(build_ddpm())
    with torch.no_grad():
        out, named, mask = helped(torch.randn(2, 3, 32, 32), torch.tensor([10, 900]))
    assert (out.shape, mask.shape) == ((2, 3, 32, 32), (2, 1, 32, 32))
    assert {k: v.shape for k, v in named.items()} == {k: (2, len(v)) for k, v in ATTRIBUTES.items()}
    assert of_unet(helped.state_dict()).keys() == helped.unet.state_dict().keys()


def test_timesteps_cover_all_levels_and_most_of_them_the_low_ones():
    t = timesteps(torch.rand(1000, generator=torch.Generator().manual_seed(0)))
    assert bool((t.diff() >= 0).all())
    assert t[0] == 0
    assert t[-1] >= 996
    assert 0.34 < float((t < 200).double().mean()) < 0.36
    assert 0.84 < float((t < 600).double().mean()) < 0.86


def test_a_bank_holds_the_training_scenes_and_shows_each_once_an_epoch(monkeypatch):
    monkeypatch.setattr(ddpm, "BATCH", 32)
    bank = Bank(2 * ddpm.CHUNK, "cpu", 1)
    first = train_scenes(1, ddpm.CHUNK, stream=4)  # the second chunk
    drawn = render(first[:3], 32)
    rows = slice(ddpm.CHUNK, ddpm.CHUNK + 3)
    assert (bank.images[rows] / 255 - drawn.images).abs().max() < 0.51 / 255
    assert (bank.masks[rows] / 255 - drawn.object_mask).abs().max() < 0.51 / 255
    for place, (name, values) in enumerate(ATTRIBUTES.items()):
        assert [values[k] for k in bank.index[rows, place]] == [getattr(s, name) for s in first[:3]]
    per_epoch = 2 * ddpm.CHUNK // 32
    epochs = []
    for epoch in range(2):
        seen = []
        for step in range(epoch * per_epoch, (epoch + 1) * per_epoch):
            bank.batch(step)
            seen += bank.order[step % per_epoch * 32 :][:32].tolist()
        assert sorted(seen) == list(range(bank.count))
        epochs.append(seen)
    assert epochs[0] != epochs[1]
    images, masks, index, t = bank.batch(per_epoch)
    assert images.shape == (32, 3, 32, 32)
    assert -1 <= float(images.min()) < float(images.max()) <= 1
    assert (masks.shape, index.shape, t.shape) == ((32, 1, 32, 32), (7, 32), (32,))


def test_gradients_of_the_network_in_bfloat16_are_those_of_float32(monkeypatch):
    torch.manual_seed(0)
    helped = Helped(build_ddpm())
    for weight in helped.parameters():  # away from the start, where next to nothing but x passes
        weight.data += 0.02 * torch.randn_like(weight)
    x0, outline = torch.rand(8, 3, 32, 32) * 2 - 1, torch.rand(8, 1, 32, 32)
    index, t = torch.zeros(7, 8, dtype=torch.long), torch.linspace(50, 950, 8).long()
    batch = (x0, outline, index, t, torch.randn_like(x0), torch.tensor(0.01))
    objective, found = Objective(helped, torch.linspace(0.9999, 0.00004, 1000)), []
    for wide in (False, True):
        if wide:
            monkeypatch.setattr(ddpm.InBfloat16, "apply", lambda *weights: weights)
            helped.unet.conv_in.register_forward_pre_hook(lambda _, given: (given[0].float(),))
        value, figures = objective(*batch)
        helped.zero_grad()
        value.backward()
        found.append((float(value.detach()), torch.cat([w.grad.flatten() for w in helped.parameters()])))
    (value, gradient), (exact, true) = found
    assert value == pytest.approx(exact, rel=0.02)
    assert float((gradient - true).norm() / true.norm()) < 0.01, "with the last norm in bfloat16 too: 0.027"
    assert set(figures) == {"low", "middle", "high", "heads", "outline"}


def test_a_step_whose_gradient_is_not_finite_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(training_run, "CHECKPOINTS", tmp_path)
    module = nn.Linear(2, 1)
    run = Run("part", module, lr=0.1, steps=3, folder=tmp_path, committed=module.state_dict, warmup=1)
    states = []

    def loss(step):
        states.append(module.weight.detach().clone())
        return module(torch.tensor([[1.0, math.nan if step == 1 else 1.0]])).sum(), {}

    assert run.loop(loss)
    assert torch.equal(states[1], states[2])
    assert not torch.equal(states[0], states[1])
    assert bool(torch.isfinite(module.weight).all())
    assert not torch.equal(states[2], module.weight)
