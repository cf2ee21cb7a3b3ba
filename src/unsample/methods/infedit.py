"""InfEdit's DDCM (Xu, Huang, Pan, Ma and Chai, 2023, arXiv:2312.04965): an edit in consistency steps, not inverted.

`Z - X = x0(t; target) - x0(s; source)`, with s = alpha X + sigma n and t = s + alpha (Z - X) under a fresh n at every
step: the eps of both branches is corrected by what the source's misses of the n that is known.
"""

from __future__ import annotations

from dataclasses import replace

from unsample.methods.base import Method
from unsample.methods.both import Both, inversion_free
from unsample.methods.settings import configured
from unsample.numbers.solvers.coupled import consistent


@configured
def infedit() -> Method:
    """InfEdit: virtual inversion, and the target's predicted picture corrected by the source's at every step.

    All steps are walked, 15 in the authors' demonstration. `guidance_scale` in `invert` is that of the source (1), in
    `edit` that of the target (2, with a latent consistency model there; their pipeline's default is 7.5).

    The paper adds unified attention control; this is DDCM alone, without it. No noise is recovered: the record's is
    fresh. A reconstruction is the picture, without asking the network; an edit costs two predictions a step.

    On a flow it is the same in the flow's alpha and sigma; the paper has it for models that preserve the variance.

    Reference:
        Xu et al., 2023, arXiv:2312.04965, Algorithm 2; the last step's predicted picture is the edit. It starts from
        noise alone; here from the picture under the noise of the noisiest level, also where `strength` is below 1.

    Example:
        >>> import unsample
        >>> unsample.methods.infedit().edit_guidance_scale
        2.0
    """
    return replace(
        inversion_free(),
        edit_step=consistent,
        playback=lambda predict, source: Both(source, predict),
        guidance_scale=1.0,
        edit_guidance_scale=2.0,
    )
