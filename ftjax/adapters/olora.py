"""OLoRA: a LoRA that begins as the first part of the QR decomposition of its weight (Bueyuekakyuez 2024)."""

from typing import Any

import jax
import jax.numpy as jnp

from ftjax.adapters import lora, shifted


def init_one(key: jax.Array, weight: Any, *, rank: int, alpha: float, dropout: float, rslora: bool) -> shifted.Shifted:
    """Returns B = Q_r^T (orthonormal rows), A = R_r^T of W^T = Q R, minus its start.

    As in PEFT the decomposition is that of the stored weight [out, in], and the scale multiplies the start as well.
    """
    del key

    def start(dense: jax.Array) -> tuple[jax.Array, jax.Array]:
        q, r = jnp.linalg.qr(dense.T)
        return r[:rank].T, q[:, :rank].T

    return shifted.begin(weight, start, scale=lora.scaling(alpha, rank, rslora=rslora), dropout=dropout)
