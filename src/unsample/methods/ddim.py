"""DDIM inversion (Song, Meng and Ermon, 2021, arXiv:2010.02502; Dhariwal and Nichol, 2021, arXiv:2105.05233, App. F).

`x_j = alpha_j (x_i - sigma_i eps) / alpha_i + sigma_j eps`, with eps = eps(x_i, t_j), the noisier level ("target":
the field's usual inversion, one fixed-point iteration), or eps(x_i, t_i) ("source": explicit Euler). Published work
uses both under the one name.
"""

from __future__ import annotations

from typing import Annotated, Literal

from unsample.methods.base import Method
from unsample.methods.settings import Setting, configured
from unsample.numbers.solvers.ddim import INVERT_AT


@configured
def ddim(
    eps_at: Annotated[
        Literal["target", "source"],
        Setting("the level at which the network is asked: `target`, the noisier end of the step, or `source`."),
    ] = "target",
) -> Method:
    """DDIM inversion.

    Example:
        >>> import unsample
        >>> unsample.methods.ddim(eps_at="source").settings["eps_at"]
        'source'
    """
    return Method(invert_step=INVERT_AT[eps_at], handles_guidance=False)
