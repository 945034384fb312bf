"""PiSSA: a LoRA that begins as the principal part of its weight (Meng et al. 2024, eq. 2-4)."""

from typing import Any

import jax

from ftjax.adapters import lora, shifted
from ftjax.quant import low_rank


def init_one(key: jax.Array, weight: Any, *, rank: int, alpha: float, dropout: float, rslora: bool) -> shifted.Shifted:
    """Returns A = U_r sqrt(S_r / scale), B = sqrt(S_r / scale) V_r^T of W = U S V^T, minus its start.

    The r largest singular values; the exact decomposition, in float32, of the weight as it is (dequantised).
    """
    del key
    scale = lora.scaling(alpha, rank, rslora=rslora)

    def start(dense: jax.Array) -> tuple[jax.Array, jax.Array]:
        a, b, _ = low_rank.principal(dense, rank, scale)
        return a, b

    return shifted.begin(weight, start, scale=scale, dropout=dropout)
