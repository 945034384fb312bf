"""Base + adapters -> a dense base that needs neither: for export and for serving without ftjax."""

from typing import Any

import jax
import jax.numpy as jnp

from ftjax.adapters import attach
from ftjax.quant import format as quant_format


def merge(base: Any, adapters: Any) -> Any:
    """Returns the dense base with every adapter folded in; quantised weights are dequantised, never requantised.

    A base whose embedding is its head as well gets a head of its own (`lm_head`) where only one of the two is adapted.
    """

    def dense(leaf: Any) -> Any:
        if isinstance(leaf, attach.Adapted):
            return leaf.adapter.merge(dense(leaf.frozen))
        if isinstance(leaf, attach.Transposed):
            return jnp.transpose(dense(leaf.table))
        return leaf.dequantize(jnp.float32) if quant_format.is_quantized(leaf) else leaf

    stop = lambda leaf: isinstance(leaf, attach.Adapted) or quant_format.is_quantized(leaf)
    return jax.tree.map(dense, attach.attach(base, adapters), is_leaf=stop)
