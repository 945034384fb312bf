"""Attention by cuDNN's fused kernel, through `jax.nn.dot_product_attention`: no score is ever in memory.

XLA's programs for `attention.attend` write and read every block of scores in float32, five times a layer; at 2,048
tokens that is more time than the matrices of an 8B take on an H100. `backends.py` decides when this is used.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
import numpy as np

IMPLEMENTATION = "cudnn"


def attend(
    q_BTKGH: Float[Array, "B T K G H"],
    k_BTKH: Float[Array, "B T K H"],
    v_BTKH: Float[Array, "B T K H"],
    seen_BTS: Bool[Array, "B T T"],
    *,
    scale: float,
) -> Float[Array, "B T K G H"]:
    """Returns softmax(scale * q k^T) v over the keys that each query sees; none may be later than the query."""
    heads = q_BTKGH.reshape(*q_BTKGH.shape[:2], -1, q_BTKGH.shape[-1])
    out_BTNH: Any = jax.nn.dot_product_attention(
        heads,
        k_BTKH,
        v_BTKH,
        mask=seen_BTS[:, None],
        scale=scale,
        is_causal=True,
        implementation=IMPLEMENTATION,  # type: ignore[call-overload]
    )
    return out_BTNH.reshape(q_BTKGH.shape)


@functools.cache
def fault(groups: tuple[int, int, int], dtype: Any) -> str:
    """Returns what is wrong with the kernel for these heads (K, G, H) on this device, or "".

    It is compiled and run forwards and backwards on random numbers, two documents in a row, and must be within a
    fiftieth of the largest number of the same attention in float32. Cached for the life of the process; it works while
    another program is traced, as `packed_dot.fault` does.
    """
    rng, length = np.random.default_rng(0), 128
    normal = lambda *shape: np.asarray(rng.standard_normal(shape, np.float32), dtype)
    q, g = normal(1, length, *groups), normal(1, length, *groups)
    k, v = (normal(1, length, groups[0], groups[2]) for _ in range(2))
    segments = np.where(np.arange(length) < 50, 1, 2)
    seen = (segments[:, None] == segments[None]) & (np.arange(length)[:, None] >= np.arange(length)[None])
    scale = groups[2] ** -0.5

    def plain(q: Any, k: Any, v: Any, seen: Any, *, scale: float) -> Any:
        q, k, v = (x.astype(jnp.float32) for x in (q, k, v))
        scores = jnp.einsum("BTKGH,BSKH->BKGTS", q, k, precision="highest") * scale
        weights = jax.nn.softmax(jnp.where(seen[:, None, None], scores, -jnp.inf), axis=-1)
        return jnp.einsum("BKGTS,BSKH->BTKGH", weights, v, precision="highest")

    def both(way: Any) -> Any:
        def run(q: Any, k: Any, v: Any, g: Any, seen: Any) -> Any:
            out, back = jax.vjp(lambda *x: way(*x, seen, scale=scale), q, k, v)
            return out, back(g.astype(out.dtype))

        return [np.asarray(x, np.float32) for x in jax.tree.leaves(jax.jit(run).lower(*given).compile()(*given))]

    given = (q, k, v, g, seen[None])
    try:
        found, wanted = both(attend), both(plain)
    except Exception as error:  # whatever a compiler, cuDNN or a driver raises: XLA's attention is there
        return f"does not compile or run ({type(error).__name__}: {str(error).strip().partition(chr(10))[0]:.200})"
    off = max(float(np.max(np.abs(a - b)) / np.max(np.abs(b))) for a, b in zip(found, wanted, strict=True))
    return "" if off < 0.02 else f"is off by {off:.1%} of the largest number"
