"""SimInversion (Qian, Xu, Yan and Hu, 2024, arXiv:2409.10476): DDIM inversion at guidance 0.5, both ways.

Inversion asks the network at x_i in place of x_j, and guidance magnifies what that is off. The paper gives the branches
of source and target a guidance each, and derives 0.5 for the source, with which it is inverted and reconstructed; the
target keeps 7.5. Below 1 too guidance is `eps_u + w (eps_c - eps_u)`, of both passes.
"""

from __future__ import annotations

from dataclasses import replace

from unsample.methods.base import Method
from unsample.methods.ddim import ddim
from unsample.methods.settings import configured


@configured
def sim_inversion() -> Method:
    """SimInversion: DDIM inversion whose own guidance is 0.5, up and back, and 7.5 for edits.

    A model without a condition has nothing to guide: there it is DDIM inversion.

    Reference:
        Qian, Xu, Yan and Hu, 2024, arXiv:2409.10476.

    Example:
        >>> import unsample
        >>> unsample.methods.sim_inversion().passes(unsample.methods.Walked(steps=50, pair=2))
        100
    """
    return replace(ddim(), guidance_scale=0.5, edit_guidance_scale=7.5)
