"""Between two inversions: slerp of the noises, linear interpolation of the conditions, plain sampling."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from unsample.errors import Incompatible
from unsample.models.base import Model
from unsample.numbers.slerp import slerp
from unsample.numbers.solvers.ddim import ddim_sample
from unsample.verbs.playing import PlayGuidance, grid_of, prompts_of
from unsample.verbs.prompts import LABELS, Prompts
from unsample.verbs.recording import interpolated
from unsample.verbs.results import Images, Inversion, check_pair
from unsample.verbs.running import Run, Watching, quiet, state_dtype

if TYPE_CHECKING:
    from torch import Tensor


def check_ends(a: Inversion, b: Inversion, guidance_scale: float | None) -> None:
    """Whether frames can be made between two inversions (`Incompatible`)."""
    check_pair((tuple(a.noise.shape), a.meta), (tuple(b.noise.shape), b.meta), guidance_scale)
    for name in LABELS:
        p, q = (None if (t := getattr(end, name)) is None else t.tolist() for end in (a, b))
        if p != q:
            raise Incompatible(f"cannot interpolate between {name} {p} and {q}; invert with the same")


def between(
    model: Model, a: Inversion, b: Inversion, num_frames: int, guidance: PlayGuidance, asked: Watching
) -> Images:
    """`num_frames` pictures a pair, pair by pair; the first and the last are those of the two noises."""
    import torch

    ts = torch.linspace(0, 1, num_frames, dtype=torch.float64).tolist()
    pairs = zip(a.noise, b.noise, strict=True)
    noise = torch.cat(list(chain.from_iterable([slerp(p[None], q[None], t) for t in ts] for p, q in pairs)))
    x = noise.to(model.device, state_dtype(model, noise))
    with quiet(model):
        grid = grid_of(a, model)
        scales = guidance.at(grid)
        guided = max((w for w in scales if w != 1), default=1.0)
        conditions = [prompts_of(end).conditions(model, len(end), guided) for end in (a, b)]
        embeds = _blend([c.prompt_embeds for c, _ in conditions], ts)
        negative = _blend([None if u is None else u.prompt_embeds for _, u in conditions], ts)
        labels = {n: None if (t := getattr(a, n)) is None else t.repeat_interleave(num_frames) for n in LABELS}
        prompts = Prompts(prompt_embeds=embeds, negative_prompt_embeds=negative, **labels)
        run = Run(model, grid, a.meta.stop_index, prompts, len(x), [scales], asked)
        made = run.sample(x, ddim_sample)
    return interpolated(made, run, (a, b), num_frames, guidance.scale)


def _blend(pair: list[Tensor | None], ts: list[float]) -> Tensor | None:
    """Rows of two conditions, linearly interpolated, frame by frame within each pair."""
    import torch

    a, b = pair
    if a is None and b is None:
        return None
    if a is None or b is None:
        raise Incompatible("cannot interpolate: one inversion has embeddings, the other none; invert both alike")
    return torch.cat([torch.stack([(1 - t) * p + t * q for t in ts]) for p, q in zip(a, b, strict=True)])
