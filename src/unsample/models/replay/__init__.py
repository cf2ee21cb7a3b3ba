"""Any diffusers pipeline with one denoiser, by record and replay.

The pipeline's own `__call__` is run with the denoiser's `forward` and the scheduler's `step` in our hands: the
arguments of the denoiser are the whole conditioning, what reaches `step` tells how outputs are joined, and the
scheduler, once the pipeline has set it, is the grid. The network is never run for a record: its answers are noise.
From then on `network(x, t, condition)` asks the denoiser as the pipeline would.
"""

from unsample.models.replay.model import ReplayModel

__all__ = ["ReplayModel"]
