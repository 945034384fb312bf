"""LoftQ: a LoRA that begins as what the base lost when it was put into few bits (Li et al. 2023).

Only who quantises sees the original weights, so the search for Q + A0 B0 near to W is there: `quant/low_rank.py`, by
`scripts/quantize.py --loftq RANK`. The base that it writes is Q + A0 B0 and is one base like any other: a reference
policy is that base, and another adapter may go on it. The adapter begins at A0 B0 and, as PiSSA's, is what has become
of it since: y = x (Q + A0 B0) + x (A B - A0 B0), which is x Q + x A B.
"""

from typing import Any

import jax
import jax.numpy as jnp

from ftjax.adapters import lora, shifted
from ftjax.errors import UserError
from ftjax.quant import low_rank


def init_one(
    key: jax.Array, weight: Any, *, rank: int, alpha: float, dropout: float, rslora: bool, path: str
) -> shifted.Shifted:
    """Returns A = A0 / sqrt(scale), B = B0 / sqrt(scale) of the weight Q + A0 B0, minus its start.

    UserError for a weight that was not quantised for LoftQ, or with another rank.
    """
    del key
    if not isinstance(weight, low_rank.Corrected):
        raise UserError(
            f"adapter loftq: the base keeps nothing of what {path} lost to quantising; make one that does with "
            f"scripts/quantize.py --loftq {rank}, and give its folder as config.model.path"
        )
    kept = weight.a.shape[-1]
    if kept != rank:
        raise UserError(f"adapter loftq: the base was made with --loftq {kept}, and {path} asks for rank {rank}")
    scale = lora.scaling(alpha, rank, rslora=rslora)
    a, b = (jax.lax.stop_gradient(half) * jnp.float32(scale**-0.5) for half in (weight.a, weight.b))
    return shifted.Shifted(a=a, b=b, a0=a, b0=b, scale=scale, dropout=dropout)
