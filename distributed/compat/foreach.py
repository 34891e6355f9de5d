"""torch._foreach_*: one call, and on an accelerator one kernel, for many tensors.

torch's own optimizers step by them. The public way is a call for each tensor: the average of a model of 300 tensors
would cost 300 kernels a step.
"""

from __future__ import annotations

import torch

from leyden.distributed.compat.relied_on import Reasons

RELIED_ON: Reasons = {
    "torch": {
        "_foreach_add_": "EMA and SWA move their averages",
        "_foreach_copy_": "EMA and SWA exchange weights; Checkpoint copies to the host",
        "_foreach_div_": "SWA divides by the number of its weights",
        "_foreach_lerp_": "EMA and SWA move their averages",
        "_foreach_mul_": "ClipGradients and windows scale gradients",
        "_foreach_norm": "ClipGradients measures each gradient",
        "_foreach_sub": "SWA adds differences to its average",
    },
}

foreach_add_ = torch._foreach_add_
foreach_copy_ = torch._foreach_copy_
foreach_div_ = torch._foreach_div_
foreach_lerp_ = torch._foreach_lerp_
foreach_mul_ = torch._foreach_mul_
foreach_norm = torch._foreach_norm
foreach_sub = torch._foreach_sub
