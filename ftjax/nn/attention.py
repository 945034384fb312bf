"""Grouped-query attention: causal over packed documents for training, and against a cache for decoding.

`attend` works on blocks of queries and never keeps probabilities for the backward pass: it saves the output and one
logsumexp a query and recomputes the scores (FlashAttention, Dao et al. 2022, algorithm 1 and appendix B.4), and a
block of queries only meets the keys up to its own end, which saves almost half of the causal square. On an NVIDIA GPU
cuDNN's kernel takes its place where it can (`backends.flash`).
"""

from collections.abc import Iterator
import functools
from typing import Any, NamedTuple

import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ftjax.nn import backends, flash

MASKED = -1e30  # finite: a row without any allowed key must not become NaN
BLOCK = 128  # queries a block; 8 blocks at most, so that compile time does not grow with the context


class Branches(NamedTuple):
    """Several continuations of one beginning in a row: what they share is in it once.

    A token of branch 0 is seen by all later tokens of its segment, one of another branch by those of its own alone.
    """

    number: jax.Array  # int32 [B, T]
    positions: jax.Array  # int32 [B, T], by which a window is measured: a branch goes on where the beginning ended


def blocks(length: int) -> Iterator[slice]:
    """Yields the blocks of queries of a sequence of this length."""
    size = max(BLOCK, -(-length // 8))
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def _seen(segments_BT: jax.Array, branches: Branches | None, window: jax.Array | None, rows: slice) -> jax.Array:
    """Returns whether a query of `rows` sees a key, [B, t, S]: same document and branch, not later, in the window."""
    pair = lambda x_BT: (x_BT[:, rows, None], x_BT[:, None, : rows.stop])
    query, key = pair(segments_BT)
    distance = jnp.arange(rows.start, rows.stop)[:, None] - jnp.arange(rows.stop)[None]
    seen = (query == key) & (distance >= 0)[None]
    if branches is not None:
        query, key = pair(branches.number)
        seen &= (key == 0) | (query == key)
    if window is not None:
        if branches is None:
            seen &= ((window <= 0) | (distance < window))[None]
        else:
            query, key = pair(branches.positions)
            seen &= (window <= 0) | (query - key < window)
    return seen


def _bias(segments_BT: jax.Array, branches: Branches | None, window: jax.Array | None, rows: slice) -> jax.Array:
    """Returns 0 where a query of `rows` sees a key, else MASKED, [B, 1, 1, t, S]."""
    return jnp.where(_seen(segments_BT, branches, window, rows), 0.0, MASKED)[:, None, None]


def _scores(q_BKGTH: jax.Array, k_BKSH: jax.Array) -> jax.Array:
    return jnp.einsum("BKGTH,BKSH->BKGTS", q_BKGTH, k_BKSH, preferred_element_type=jnp.float32)


def _bent(scores: jax.Array, softcap: float) -> jax.Array:
    """Returns softcap * tanh(scores / softcap) (Gemma 2, section 2)."""
    return softcap * jnp.tanh(scores / softcap) if softcap else scores


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def _attend(
    q_BKGTH: jax.Array,
    k_BKSH: jax.Array,
    v_BKSH: jax.Array,
    segments_BT: jax.Array,
    branches: Branches | None,
    window: jax.Array | None,
    softcap: float,
) -> jax.Array:
    return _attend_fwd(q_BKGTH, k_BKSH, v_BKSH, segments_BT, branches, window, softcap)[0]


def _attend_fwd(
    q_BKGTH: jax.Array,
    k_BKSH: jax.Array,
    v_BKSH: jax.Array,
    segments_BT: jax.Array,
    branches: Branches | None,
    window: jax.Array | None,
    softcap: float,
) -> tuple[jax.Array, tuple[Any, ...]]:
    outs, sums = [], []
    for rows in blocks(segments_BT.shape[1]):
        bias = _bias(segments_BT, branches, window, rows)
        scores_BKGTS = _bent(_scores(q_BKGTH[:, :, :, rows], k_BKSH[:, :, : rows.stop]), softcap) + bias
        top_BKGT1 = jnp.max(scores_BKGTS, axis=-1, keepdims=True)
        weights_BKGTS = jnp.exp(scores_BKGTS - top_BKGT1)
        total_BKGT1 = jnp.sum(weights_BKGTS, axis=-1, keepdims=True)
        out_BKGTH = jnp.einsum(
            "BKGTS,BKSH->BKGTH", weights_BKGTS.astype(v_BKSH.dtype), v_BKSH[:, :, : rows.stop],
            preferred_element_type=jnp.float32,
        )  # fmt: skip
        outs.append((out_BKGTH / total_BKGT1).astype(v_BKSH.dtype))
        sums.append(top_BKGT1 + jnp.log(total_BKGT1))
    out_BKGTH = checkpoint_name(jnp.concatenate(outs, axis=3), "attended")
    logsum_BKGT1 = jnp.concatenate(sums, axis=3)
    logsum_BKGT1 = checkpoint_name(logsum_BKGT1, "logsum")
    return out_BKGTH, (q_BKGTH, k_BKSH, v_BKSH, segments_BT, branches, window, out_BKGTH, logsum_BKGT1)


def _attend_bwd(softcap: float, saved: tuple[Any, ...], grad_BKGTH: jax.Array) -> tuple[Any, ...]:
    q_BKGTH, k_BKSH, v_BKSH, segments_BT, branches, window, out_BKGTH, logsum_BKGT1 = saved
    delta_BKGT1 = jnp.sum(grad_BKGTH.astype(jnp.float32) * out_BKGTH.astype(jnp.float32), axis=-1, keepdims=True)
    # Gradients of k and v are summed over queries as [H, S]: q^T times scores transposes the narrow matrix, and the
    # other way round XLA's CPU matmul takes twice as long. The barrier keeps it from folding the last transpose in.
    dq = []
    dk_BKHS = jnp.zeros((*k_BKSH.shape[:2], *k_BKSH.shape[:1:-1]), jnp.float32)
    dv_BKHS = jnp.zeros((*v_BKSH.shape[:2], *v_BKSH.shape[:1:-1]), jnp.float32)
    for rows in blocks(segments_BT.shape[1]):
        q, grad = q_BKGTH[:, :, :, rows], grad_BKGTH[:, :, :, rows]
        k, v = k_BKSH[:, :, : rows.stop], v_BKSH[:, :, : rows.stop]
        scores_BKGTS = _bent(_scores(q, k), softcap)
        weights_BKGTS = jnp.exp(scores_BKGTS + _bias(segments_BT, branches, window, rows) - logsum_BKGT1[:, :, :, rows])
        dweights_BKGTS = jnp.einsum("BKGTH,BKSH->BKGTS", grad, v, preferred_element_type=jnp.float32)
        dscores_BKGTS = weights_BKGTS * (dweights_BKGTS - delta_BKGT1[:, :, :, rows])
        if softcap:
            dscores_BKGTS *= 1 - jnp.square(scores_BKGTS / softcap)
        dscores_BKGTS = dscores_BKGTS.astype(q.dtype)
        weights_BKGTS = weights_BKGTS.astype(grad.dtype)
        dq.append(jnp.einsum("BKGTS,BKSH->BKGTH", dscores_BKGTS, k, preferred_element_type=jnp.float32))
        dk = jnp.einsum("BKGTH,BKGTS->BKHS", q, dscores_BKGTS, preferred_element_type=jnp.float32)
        dv = jnp.einsum("BKGTH,BKGTS->BKHS", grad, weights_BKGTS, preferred_element_type=jnp.float32)
        dk_BKHS, dv_BKHS = dk_BKHS.at[..., : rows.stop].add(dk), dv_BKHS.at[..., : rows.stop].add(dv)
    dq_BKGTH = jnp.concatenate(dq, axis=3).astype(q_BKGTH.dtype)
    dk_BKHS, dv_BKHS = jax.lax.optimization_barrier((dk_BKHS, dv_BKHS))
    dk_BKSH, dv_BKSH = dk_BKHS.swapaxes(2, 3).astype(k_BKSH.dtype), dv_BKHS.swapaxes(2, 3).astype(v_BKSH.dtype)
    return dq_BKGTH, dk_BKSH, dv_BKSH, None, None, None


_attend.defvjp(_attend_fwd, _attend_bwd)


def attend(
    q_BTKGH: Float[Array, "B T K G H"],
    k_BTKH: Float[Array, "B T K H"],
    v_BTKH: Float[Array, "B T K H"],
    segments_BT: Int[Array, "B T"],
    *,
    branches: Branches | None,
    window: Int[Array, ""] | None,
    scale: float,
    softcap: float,
) -> Float[Array, "B T K G H"]:
    """Returns softmax(scale * q k^T) v for queries that see the earlier tokens of their own segment (and branch).

    `window` (0: none) limits how far back: a query at t sees keys after t - window. `softcap` (0: none) bends the
    scaled scores s to softcap * tanh(s / softcap). Scores and softmax are float32:
    bfloat16 has 8 bits of mantissa, and long rows lose their tail. Rows of padding (whatever their segment) see each
    other and give finite values that nobody reads.
    """
    if backends.flash(q_BTKGH, softcap):
        seen_BTS = _seen(segments_BT, branches, window, slice(0, segments_BT.shape[1]))
        return checkpoint_name(flash.attend(q_BTKGH, k_BTKH, v_BTKH, seen_BTS, scale=scale), "attended")
    q, k, v = (q_BTKGH * scale).transpose(0, 2, 3, 1, 4), k_BTKH.transpose(0, 2, 1, 3), v_BTKH.transpose(0, 2, 1, 3)
    return _attend(q, k, v, segments_BT, branches, window, softcap).transpose(0, 3, 1, 2, 4)


def attend_cached(
    q_BTKGH: Float[Array, "B T K G H"],
    k_BKSH: Float[Array, "B K S H"],
    v_BKSH: Float[Array, "B K S H"],
    valid_BS: Int[Array, "B S"],
    start: Int[Array, ""],
    *,
    window: Int[Array, ""] | None,
    scale: float,
    softcap: float,
) -> Float[Array, "B T K G H"]:
    """Returns attention of T new tokens, at cache slots start .. start + T, to every valid slot up to their own."""
    distance_TS = start + jnp.arange(q_BTKGH.shape[1])[:, None] - jnp.arange(k_BKSH.shape[2])[None]
    near_TS = distance_TS >= 0
    if window is not None:
        near_TS &= (window <= 0) | (distance_TS < window)
    mask_BTS = near_TS[None] & (valid_BS[:, None] > 0)
    scores_BKGTS = _scores(q_BTKGH.transpose(0, 2, 3, 1, 4), k_BKSH)
    scores_BKGTS = jnp.where(mask_BTS[:, None, None], _bent(scores_BKGTS * scale, softcap), MASKED)
    weights_BKGTS = jax.nn.softmax(scores_BKGTS, axis=-1).astype(v_BKSH.dtype)
    return jnp.einsum("BKGTS,BKSH->BKGTH", weights_BKGTS, v_BKSH).transpose(0, 3, 1, 2, 4)


def attend_next(
    q_B1KGH: Float[Array, "B 1 K G H"],
    k_B1KH: Float[Array, "B 1 K H"],
    v_B1KH: Float[Array, "B 1 K H"],
    keys_BKSH: Float[Array, "B K S H"],
    values_BKSH: Float[Array, "B K S H"],
    valid_BS: Int[Array, "B S"],
    start: Int[Array, ""],
    *,
    window: Int[Array, ""] | None,
    scale: float,
    softcap: float,
) -> Float[Array, "B 1 K G H"]:
    """Returns attention of one new token, which slot `start` is to hold, to itself and every valid slot before it.

    `attend_cached` for a token whose key and value are not in the cache yet.
    """
    distance_S = start - jnp.arange(keys_BKSH.shape[2])
    near_S = distance_S > 0 if window is None else (distance_S > 0) & ((window <= 0) | (distance_S < window))
    mask_BS = near_S[None] & (valid_BS > 0)
    q_BKG1H, v_BK11H = q_B1KGH.transpose(0, 2, 3, 1, 4), v_B1KH.transpose(0, 2, 1, 3)[:, :, None]
    own_BKG11 = jnp.sum(q_BKG1H.astype(jnp.float32) * k_B1KH.transpose(0, 2, 1, 3)[:, :, None], axis=-1, keepdims=True)
    own_BKG11 = _bent(own_BKG11 * scale, softcap)
    scores_BKG1S = _bent(_scores(q_BKG1H, keys_BKSH) * scale, softcap)
    scores_BKG1S = jnp.where(mask_BS[:, None, None, None], scores_BKG1S, MASKED)
    top_BKG11 = jnp.maximum(jnp.max(scores_BKG1S, axis=-1, keepdims=True), own_BKG11)
    weights_BKG1S, own_BKG11 = jnp.exp(scores_BKG1S - top_BKG11), jnp.exp(own_BKG11 - top_BKG11)
    total_BKG11 = jnp.sum(weights_BKG1S, axis=-1, keepdims=True) + own_BKG11
    out_BKG1H = jnp.einsum(
        "BKGTS,BKSH->BKGTH", weights_BKG1S.astype(values_BKSH.dtype), values_BKSH, preferred_element_type=jnp.float32
    )
    out_BKG1H = (out_BKG1H + own_BKG11 * v_BK11H) / total_BKG11
    return out_BKG1H.astype(v_B1KH.dtype).transpose(0, 3, 1, 2, 4)
