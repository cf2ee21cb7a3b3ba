"""One resumable training loop for every part: AdamW, warm-up and cosine decay, an EMA, a checkpoint every few minutes.

A part gives its modules and a function `loss(step) -> (loss, figures)`. Data is drawn from seeds that follow from
the step, so a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unsample.datasets.scenes import SEED_RANGES, Scene, draw_scene
from unsample.media.files import atomic_write

CHECKPOINTS = Path(__file__).parent / "checkpoints"
BUNDLED = Path(__file__).parents[1] / "src" / "unsample" / "models" / "bundled"


def arguments(description: str, steps: int, switches: Sequence[str] = ()) -> argparse.Namespace:
    """The options every training script takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--steps", type=int, default=steps, help="optimiser steps in all, earlier runs counted in")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="processes that draw the data (scenes-ddpm only)"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop (resumably) after so long")
    parser.add_argument("--finish", type=float, default=math.inf, help="end after so many minutes at most, lr decayed")
    for switch in switches:
        parser.add_argument(switch, action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return options


def train_scenes(step: int, count: int, stream: int = 0) -> list[Scene]:
    """The training scenes of one step; streams do not overlap in the first two million steps of 128."""
    first = SEED_RANGES["train"][0] + stream * 5 * 10**8 + step * count
    return [draw_scene(first + k) for k in range(count)]


def plain_attention(network: nn.Module, device: str) -> None:
    """On a CPU, attention by plain matrix products: with small heads the fused one goes backward much slower."""
    from diffusers.models.attention_processor import Attention, AttnProcessor

    for module in network.modules():
        if device == "cpu" and isinstance(module, Attention):
            module.set_processor(AttnProcessor())


class Run:
    """Optimiser, schedule, EMA and checkpoint of one part."""

    def __init__(
        self,
        name: str,
        module: nn.Module,
        *,
        lr: float,
        steps: int,
        folder: Path,
        committed: Callable[[], dict[str, Tensor]],
        warmup: int = 150,
        ema: float = 0.998,
        finish: float = math.inf,
    ):
        """`folder` is where the bundled weights and their history lie, `committed` reads those weights: the start of a
        run without a checkpoint; `finish` in minutes."""
        self.name, self.module, self.lr, self.steps, self.warmup, self.decay = name, module, lr, steps, warmup, ema
        self.finish = finish / 60
        self.on = self._here()
        self.trained = [p for p in module.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.trained, lr=lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        self.ema = {k: v.detach().clone().float() for k, v in module.state_dict().items()}
        self.step, self.hours, self.curve = 0, 0.0, []
        self.fresh = 0  # the step at which the optimiser knew nothing
        self.path, self.history = CHECKPOINTS / name / "last.pt", folder / f"training-{name}.json"
        if self.path.exists():
            self._resume(torch.load(self.path, weights_only=True, map_location=self.trained[0].device))
        elif self.history.exists() and self._fits(kept := committed()):
            module.load_state_dict(kept, strict=False)  # helper heads are not committed
            self.ema = {k: v.detach().clone().float() for k, v in module.state_dict().items()}
            known = json.loads(self.history.read_text())
            self.step, self.hours, self.curve = known["steps"], known["hours"], known["curve"]
            self.fresh = self.step  # the committed weights come without the optimiser's averages
            self.on = known.get("on", self.on) if self.done() == 1 else self.on  # else it is trained on, here
            print(f"{name}: resumed from the committed weights, step {self.step}", flush=True)

    def _here(self) -> str:
        """What the module lies on."""
        on_gpu = next(self.module.parameters()).is_cuda
        return torch.cuda.get_device_name() if on_gpu else f"{torch.get_num_threads()} CPU threads"

    def _fits(self, committed: dict[str, Tensor]) -> bool:
        """Whether the committed weights are of this architecture; else training starts anew."""
        own = self.module.state_dict()
        if all(key in own and value.shape == own[key].shape for key, value in committed.items()):
            return True
        print(f"{self.name}: the committed weights are of another architecture; starting anew", flush=True)
        return False

    def _resume(self, saved: dict[str, Any]) -> None:
        self.module.load_state_dict(saved["module"])
        if len(saved["optimiser"]["param_groups"][0]["params"]) == len(self.trained):
            self.optimiser.load_state_dict(saved["optimiser"])  # else part of it has been frozen since
        self.ema, self.step, self.hours, self.curve = saved["ema"], saved["step"], saved["hours"], saved["curve"]
        self.fresh = saved["fresh"]
        print(f"{self.name}: resumed at step {self.step}", flush=True)

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = {"module": self.module.state_dict(), "optimiser": self.optimiser.state_dict(), "ema": self.ema}
        kept |= {"step": self.step, "hours": self.hours, "curve": self.curve, "fresh": self.fresh}
        atomic_write(self.path, lambda temporary: torch.save(kept, temporary))

    def done(self) -> float:
        """How much of the training is behind, in [0, 1]: of its steps, or of `finish` hours if that is more."""
        return min(max(self.step / self.steps, self.hours / self.finish), 1)

    def rate(self) -> float:
        """Warm-up, then cosine to a hundredth."""
        if self.step - self.fresh < self.warmup:
            return self.lr * (self.step - self.fresh + 1) / self.warmup
        return self.lr * (0.01 + 0.99 * (1 + math.cos(math.pi * self.done())) / 2)

    def update_ema(self) -> None:
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        state = self.module.state_dict()
        torch._foreach_lerp_(list(self.ema.values()), [state[key].float() for key in self.ema], 1 - decay)

    def loop(
        self,
        loss: Callable[[int], tuple[Tensor, dict[str, Any]]],
        *,
        minutes: float = math.inf,
        keep: Callable[[int], bool] = lambda step: False,
    ) -> bool:
        """Train to the last step or the time limit; True when done. `keep(step)` says which EMA states to keep."""
        begin = last = time.monotonic()
        hours = self.hours
        totals: dict[str, Any] = {}  # on the device until they are shown: reading one would wait for it
        summed = self.step
        while self.done() < 1:
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate()
            value, figures = loss(self.step)
            if value.requires_grad:  # else a CUDA graph has made the gradients
                self.optimiser.zero_grad(set_to_none=True)
                value.backward()
            norm = nn.utils.clip_grad_norm_(self.trained, 1.0)
            self.optimiser.found_inf = (~norm.isfinite()).float()  # then this step is skipped, without a wait
            self.optimiser.step()
            self.step += 1
            self.update_ema()
            now = time.monotonic()
            self.hours = hours + (now - begin) / 3600
            if keep(self.step):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                half = {k: v.half() for k, v in self.ema.items()}
                atomic_write(self.path.parent / f"ema-{self.step:06d}.pt", partial(torch.save, half))
            for key, figure in {"loss": value.detach(), "skipped": self.optimiser.found_inf, **figures}.items():
                totals[key] = totals.get(key, 0.0) + figure
            if self.step % 100 == 0:
                row = {"step": self.step, **{k: round(float(v) / (self.step - summed), 5) for k, v in totals.items()}}
                self.curve.append(row)
                totals, summed = {}, self.step
                print(f"{self.name}: {json.dumps(row)} lr {self.rate():.1e} {self.hours * 60:.1f} min", flush=True)
            if now - last > 120 or self.done() == 1 or now - begin > minutes * 60:
                self.save()
                last = now
            if now - begin > minutes * 60:
                return False
        return True

    def write_history(self) -> None:
        """The loss curve and the hours, beside the weights."""
        self.history.parent.mkdir(parents=True, exist_ok=True)
        kept = {
            "steps": self.step,
            "hours": round(self.hours, 3),
            "on": self.on,
            "curve": self.curve,
        }
        atomic_write(self.history, lambda temporary: temporary.write_text(json.dumps(kept)))
