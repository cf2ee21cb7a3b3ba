"""Between two inversions: slerp of the noises, linear interpolation of the conditions, plain sampling."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from unsample.errors import Incompatible
from unsample.models.base import Condition, Model
from unsample.numbers.slerp import slerp
from unsample.numbers.solvers.ddim import ddim_sample
from unsample.verbs.playing import PlayGuidance, bound_to, grid_of, prompts_of
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
        model = bound_to(model, a)
        grid = grid_of(a, model)
        scales = guidance.at(grid)
        guided = max((w for w in scales if w != 1), default=1.0)
        conditions = [prompts_of(end).conditions(model, len(end), guided) for end in (a, b)]
        embeds = _blend([c for c, _ in conditions], ts)
        negative = _blend([u for _, u in conditions], ts)
        labels = {n: None if (t := getattr(a, n)) is None else t.repeat_interleave(num_frames) for n in LABELS}
        prompts = Prompts(prompt_embeds=embeds, negative_prompt_embeds=negative, **labels)
        run = Run(model, grid, a.meta.stop_index, prompts, len(x), [scales], asked)
        made = run.sample(x, ddim_sample)
    return interpolated(made, run, (a, b), num_frames, guidance.scale)


def _blend(pair: list[Condition | None], ts: list[float]) -> Condition | None:
    """Rows of two conditions, linearly interpolated, frame by frame within each pair; their labels are set apart."""
    import torch

    a, b = ({} if c is None else {n: t for n, t in c.named.items() if n != LABELS[0]} for c in pair)
    if a.keys() != b.keys():
        raise Incompatible("cannot interpolate: one inversion has embeddings, the other none; invert both alike")

    def blended(name: str) -> Tensor:
        p, q = a[name], b[name]
        if not p.is_floating_point() or p.shape != q.shape:
            return _same(name, p, q).repeat_interleave(len(ts), 0)
        return torch.cat([torch.stack([(1 - t) * u + t * v for t in ts]) for u, v in zip(p, q, strict=True)])

    return Condition.of({name: blended(name) for name in a}) if a else None


def _same(name: str, a: Tensor, b: Tensor) -> Tensor:
    """Rows that nothing lies between (masks, lengths), which must be those of both ends."""
    if a.shape != b.shape or bool((a != b).any()):
        raise Incompatible(
            f"cannot interpolate: the two prompts differ in {name} (their lengths), and nothing lies between; use "
            "prompts of as many tokens"
        )
    return a
