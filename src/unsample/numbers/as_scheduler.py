"""A grid as a scheduler of diffusers: put into a pipeline, its own call walks the grid down, number by number.

diffusers makes timesteps from formulas of its own; a recorded grid need not be among them (a strength under 1, levels
that were set by hand, a spacing whose DDIM steps to another timestep than its own next). Here is no formula: `step` is
`numbers.solvers.ddim.ddim_sample`.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from unsample.errors import BadOption
from unsample.numbers.grid import Grid
from unsample.numbers.prediction import prediction_from_output
from unsample.numbers.solvers.ddim import ddim_sample

if TYPE_CHECKING:
    from torch import Tensor


class GridScheduler:
    """The steps from grid point `stop` to the clean end, first order, without noise.

    Args:
        grid: the noise levels.
        stop: the noisiest point that is walked from; the pipeline is called with `num_inference_steps=stop`.
    """

    init_noise_sigma = 1.0
    order = 1

    def __init__(self, grid: Grid, stop: int) -> None:
        self.grid, self.stop = grid, stop
        self.config: dict[str, Any] = {"prediction_type": grid.prediction_type}
        self.num_inference_steps = stop
        self.begin_index: int | None = None
        self.set_timesteps(stop)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Begin at the noisiest point. Sigmas and mu, which pipelines work out, give way to the grid.

        Raises:
            BadOption: another number of steps than the grid has.
        """
        import torch

        asked = num_inference_steps if sigmas is None else len(sigmas)
        if asked != self.stop:
            raise BadOption(
                f"the inversion's grid has {self.stop} steps; call the pipeline with num_inference_steps={self.stop}"
            )
        asks = [self.grid.asked_at(i)[0] for i in range(self.stop, 0, -1)]
        whole = not self.grid.is_flow and all(t == int(t) for t in asks)
        self.timesteps = torch.tensor(asks, dtype=torch.int64 if whole else torch.float32, device=device)
        self._at = self.stop

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Pipelines say that they begin at the beginning."""
        self.begin_index = begin_index

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The state is what the network takes."""
        return sample

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True) -> Any:
        """To the next cleaner point, in float32 or the sample's own float64; steps follow each other.

        Raises:
            BadOption: after the last one, before `set_timesteps` is called again.
        """
        import torch

        i, grid = self._at, self.grid
        if i == 0:
            raise BadOption(f"all {self.stop} steps of the grid are taken; call set_timesteps first")
        wide = torch.float64 if sample.dtype is torch.float64 else torch.float32
        x, output = sample.to(wide), model_output.to(wide)[:, : sample.shape[1]] * grid.asked_at(i)[1]
        found, _ = ddim_sample(lambda x, i: prediction_from_output(output, x, grid, i), x, grid, i, i - 1, {})
        self._at = i - 1
        after = found.to(sample.dtype)
        return SimpleNamespace(prev_sample=after) if return_dict else (after,)

    def __len__(self) -> int:
        return self.stop
