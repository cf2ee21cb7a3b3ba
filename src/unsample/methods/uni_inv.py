"""Uni-Inv: one evaluation a step, at the point that the step before leads to (Jiao et al., 2025, arXiv:2504.13109).

`y = x_i` carried to j along the eps of the last step, then `x_j = alpha_j (x_i - sigma_i eps(y, t_j)) / alpha_i +
sigma_j eps(y, t_j)`: the fixed point of the sampling step, iterated once from a better start than x_i. The paper has it
for flow models, with a velocity in place of eps. SteerFlow (Dao et al., 2026, arXiv:2604.01715) iterates further from
there: `fixed_point(num_iters, start="previous")`.
"""

from __future__ import annotations

from unsample.methods.base import Method
from unsample.methods.fixed_point import fixed_point
from unsample.methods.settings import configured


@configured
def uni_inv() -> Method:
    """Uni-Inv: a predictor without cost, and one evaluation of the network to correct it.

    The first step has no step before it: it takes the eps that the network predicts for the picture itself, one
    evaluation more. The residual reported is that of the predictor.

    Reference:
        Jiao, Huang, Wang and Liao, 2025, arXiv:2504.13109; Dao, Wang, Pham and Chen, 2026, arXiv:2604.01715.

    Example:
        >>> import unsample
        >>> unsample.methods.uni_inv().passes(unsample.methods.Walked(steps=50))
        51
    """
    return fixed_point(1, start="previous")
