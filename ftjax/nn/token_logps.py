"""Log-probabilities of given tokens from hidden states, without ever holding [B, T, V].

Logits exist for one chunk of positions at a time, and only for positions that count. Where the head is frozen (LoRA),
the backward pass is free: d logp / d h = W[:, y] - sum_v p_v W[:, v] does not depend on what follows, so the forward
pass computes it and keeps that vector instead of logits: two matmuls for the head where recomputing takes three. Where
the head trains, the backward pass recomputes the logits chunk by chunk.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ftjax import mesh
from ftjax.adapters.attach import Adapted
from ftjax.nn import embedding, matmul
from ftjax.quant import format as quant_format

CHUNK_SCALARS = 1 << 20  # logits alive at a time for small vocabularies: 4 MiB, a core's share of the last-level cache
CHUNK_ROWS = 256  # never fewer rows: below that, a large head is read from memory more often than it is multiplied


class TokenLogps(NamedTuple):
    """What the model says of each target. All [B, T], float32, and 0 where the weight is 0.

    Gradients go through logps alone.
    """

    logps: jax.Array  # log p(target | context)
    entropy: jax.Array  # of the next-token distribution, in nats
    correct: jax.Array  # 1 where the target is the most likely token
    log_sum_squares: jax.Array | None = None  # log sum_v p(v)^2 of the next-token distribution; None: not asked for


def token_logps(
    hidden_BTD: Float[Array, "B T D"],
    head: Any,
    targets_BT: Int[Array, "B T"],
    weights_BT: Float[Array, "B T"],
    *,
    tied: bool,
    softcap: float,
    squares: bool,
) -> TokenLogps:
    """Returns log-probability, entropy and top-1 agreement of every target whose weight is not 0.

    With `squares` also log sum_v p(v)^2, of which `losses.weighting.wpo` makes its weights; without, it is None and
    costs nothing.
    `head` is [D, V], or the embedding [V, D] when `tied`; it may carry an adapter. `softcap` (0: none) bends logits to
    softcap * tanh(logits / softcap). Under a mesh, each shard of the
    batch works through its own positions.
    """
    if isinstance(head, Adapted) or quant_format.is_quantized(head):
        return _by_remat(hidden_BTD, head, targets_BT, weights_BT, tied, softcap, squares)
    rows, length, _ = hidden_BTD.shape
    shards = mesh.batch_shards(rows)
    vocab = head.shape[0 if tied else 1]
    positions = rows // shards * length
    chunk = chunk_rows(positions, vocab)
    split = lambda x: mesh.constrain(x.reshape(shards, positions, *x.shape[2:]), "B T D"[: 2 * x.ndim - 1])
    out = _chunked(split(hidden_BTD), head, split(targets_BT), split(weights_BT), tied, softcap, chunk, squares)
    return TokenLogps(*(x.reshape(rows, length) for x in out))


def chunk_rows(positions: int, vocab: int) -> int:
    """Returns how many positions of a shard have their logits in memory at a time."""
    return min(positions, max(CHUNK_ROWS, CHUNK_SCALARS // vocab))


def _by_remat(
    hidden_BTD: jax.Array, head: Any, targets_BT: jax.Array, weights_BT: jax.Array, tied: bool, softcap: float,
    squares: bool,
) -> TokenLogps:  # fmt: skip
    """The general way, for a head of any kind: a rematerialised scan over chunks of each row."""
    rows, length, _ = hidden_BTD.shape
    chunk = max(1, min(length, CHUNK_ROWS // rows))
    pad = -length % chunk
    steps = lambda x: jnp.moveaxis(
        jnp.pad(x, ((0, 0), (0, pad)) + ((0, 0),) * (x.ndim - 2)).reshape(rows, -1, chunk, *x.shape[2:]), 1, 0
    )

    @jax.checkpoint
    def one(carry: None, chunk_in: tuple[jax.Array, ...]) -> tuple[None, tuple[jax.Array, ...]]:
        hidden, targets, weights = chunk_in
        product = embedding.unembed(head, hidden) if tied else matmul.matmul(hidden, head)
        logits = _bent(product.astype(jnp.float32), softcap)
        (logps, *others), _ = _statistics(logits, targets, squares)
        live = weights != 0
        return carry, tuple(jnp.where(live, x, 0.0) for x in (logps, *map(jax.lax.stop_gradient, others)))

    _, out = jax.lax.scan(one, None, (steps(hidden_BTD), steps(targets_BT), steps(weights_BT)))
    return TokenLogps(*(jnp.moveaxis(x, 0, 1).reshape(rows, -1)[:, :length] for x in out))


def _statistics(logits: jax.Array, targets: jax.Array, squares: bool) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """Returns the fields of TokenLogps, the last only if `squares`, and the distribution itself."""
    top = jnp.max(logits, axis=-1, keepdims=True)
    weights = jnp.exp(logits - top)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    logsum = (jnp.log(total) + top)[..., 0]
    probs = weights / total
    entropy = logsum - jnp.sum(probs * logits, axis=-1)
    found = (chosen - logsum, entropy, (chosen >= top[..., 0]).astype(jnp.float32))
    if not squares:
        return found, probs
    return (*found, jnp.log(jnp.sum(jnp.square(probs), axis=-1))), probs  # a sum of 1 / V or more, so never 0


def _bent(logits: jax.Array, softcap: float) -> jax.Array:
    return softcap * jnp.tanh(logits / softcap) if softcap else logits


def _whole(head: jax.Array, tied: bool) -> jax.Array:
    """Returns the head with what fsdp has cut put together: once, before the loop over chunks."""
    return mesh.gathered(head, ("V", "D") if tied else ("D", "V"))


def _logits(hidden_SCD: jax.Array, head: jax.Array, tied: bool, softcap: float) -> jax.Array:
    spec = "SCD,VD->SCV" if tied else "SCD,DV->SCV"
    logits = jnp.einsum(spec, hidden_SCD, head.astype(hidden_SCD.dtype), preferred_element_type=jnp.float32)
    return _bent(logits, softcap)


def _live(weights_SN: jax.Array, chunk: int) -> tuple[jax.Array, jax.Array]:
    """Returns the indices of positions that count, first in order and padded with N, and how many chunks hold them."""
    count = weights_SN.shape[1]
    size = -(-count // chunk) * chunk
    find = lambda row: jnp.nonzero(row, size=size, fill_value=count)[0]
    index_SN = jax.vmap(find)(weights_SN != 0)
    return index_SN, -(-jnp.max(jnp.sum(weights_SN != 0, axis=1)) // chunk)


def _take(x_SN: jax.Array, index_SC: jax.Array) -> jax.Array:
    index = index_SC if x_SN.ndim == 2 else index_SC[..., None]
    return jnp.take_along_axis(x_SN, index, axis=1, mode="clip")


def _put(x_SN: jax.Array, index_SC: jax.Array, new_SC: jax.Array) -> jax.Array:
    put = lambda x, index, new: x.at[index].set(new.astype(x.dtype), mode="drop")
    return jax.vmap(put)(x_SN, index_SC, new_SC)


def _forward(
    hidden_SND: jax.Array, head: jax.Array, targets_SN: jax.Array, weights_SN: jax.Array, tied: bool,
    softcap: float, chunk: int, squares: bool, slope: bool,
) -> tuple[tuple[jax.Array, ...], jax.Array | None]:  # fmt: skip
    """Returns the statistics and, if `slope`, d logp / d hidden for every position that counts."""
    index_SN, chunks = _live(weights_SN, chunk)
    head = _whole(head, tied)
    zeros = jnp.zeros(targets_SN.shape, jnp.float32)
    start = ((zeros,) * (4 if squares else 3), jnp.zeros_like(hidden_SND) if slope else None)

    def body(i: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        out, slopes = carry
        index_SC = jax.lax.dynamic_slice_in_dim(index_SN, i * chunk, chunk, axis=1)
        targets_SC = _take(targets_SN, index_SC)
        logits_SCV = _logits(_take(hidden_SND, index_SC), head, tied, softcap)
        found, probs_SCV = _statistics(logits_SCV, targets_SC, squares)
        if slope:
            toward = (
                jnp.take(head, targets_SC, axis=0) if tied else jnp.moveaxis(jnp.take(head, targets_SC, axis=1), 0, -1)
            )
            if softcap:  # d bent / d logit = 1 - tanh^2, of the target and of every token
                tilt_SCV = 1 - jnp.square(logits_SCV / softcap)
                toward = toward * jnp.take_along_axis(tilt_SCV, targets_SC[..., None], axis=-1)
                probs_SCV = probs_SCV * tilt_SCV
            slopes = _put(slopes, index_SC, toward - _through(probs_SCV.astype(slopes.dtype), head, tied))
        return tuple(_put(x, index_SC, new) for x, new in zip(out, found, strict=True)), slopes

    return jax.lax.fori_loop(0, chunks, body, start)


def _through(grad_SCV: jax.Array, head: jax.Array, tied: bool) -> jax.Array:
    spec = "SCV,VD->SCD" if tied else "SCV,DV->SCD"
    return jnp.einsum(spec, grad_SCV, head.astype(grad_SCV.dtype), preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6, 7))
def _chunked(
    hidden_SND: jax.Array, head: jax.Array, targets_SN: jax.Array, weights_SN: jax.Array, tied: bool, softcap: float,
    chunk: int, squares: bool,
) -> tuple[jax.Array, ...]:  # fmt: skip
    return _forward(hidden_SND, head, targets_SN, weights_SN, tied, softcap, chunk, squares, slope=False)[0]


def _chunked_fwd(
    hidden: Any, head: Any, targets: Any, weights: Any, tied: bool, softcap: float, chunk: int, squares: bool
) -> tuple[Any, Any]:
    given = (hidden.value, head.value, targets.value, weights.value)
    if head.perturbed:
        return _forward(*given, tied, softcap, chunk, squares, slope=False)[0], (None, *given)
    out, slopes = _forward(*given, tied, softcap, chunk, squares, slope=hidden.perturbed)
    return out, (slopes, None, None, None, None)


def _chunked_bwd(
    tied: bool, softcap: float, chunk: int, squares: bool, saved: tuple[Any, ...], grads: tuple[Any, ...]
) -> tuple[Any, ...]:
    del squares
    slopes, hidden_SND, head, targets_SN, weights_SN = saved
    grad_SN = grads[0]
    if isinstance(grad_SN, jax.custom_derivatives.SymbolicZero):
        return None, None, None, None
    if head is None:
        return (None if slopes is None else (grad_SN[..., None] * slopes).astype(slopes.dtype)), None, None, None
    index_SN, chunks = _live(weights_SN, chunk)
    head = _whole(head, tied)

    def body(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        dhidden, dhead = carry
        index_SC = jax.lax.dynamic_slice_in_dim(index_SN, i * chunk, chunk, axis=1)
        rows_SCD, targets_SC = _take(hidden_SND, index_SC), _take(targets_SN, index_SC)
        logits_SCV = _logits(rows_SCD, head, tied, softcap)
        probs_SCV = jax.nn.softmax(logits_SCV, axis=-1)
        at_target = jnp.arange(probs_SCV.shape[-1])[None, None] == targets_SC[..., None]
        inside = index_SC < targets_SN.shape[1]  # the last chunk is filled up with the last row, which must add nothing
        grad_SC = jnp.where(inside, _take(grad_SN, index_SC), 0.0)
        dlogits_SCV = grad_SC[..., None] * (at_target - probs_SCV)
        if softcap:
            dlogits_SCV *= 1 - jnp.square(logits_SCV / softcap)
        dlogits_SCV = dlogits_SCV.astype(rows_SCD.dtype)
        dhidden = _put(dhidden, index_SC, _through(dlogits_SCV, head, tied))
        spec = "SCV,SCD->VD" if tied else "SCD,SCV->DV"
        pair = (dlogits_SCV, rows_SCD) if tied else (rows_SCD, dlogits_SCV)
        return dhidden, dhead + jnp.einsum(spec, *pair, preferred_element_type=jnp.float32)

    start = (jnp.zeros_like(hidden_SND), jnp.zeros(head.shape, jnp.float32))
    dhidden, dhead = jax.lax.fori_loop(0, chunks, body, start)
    return dhidden, dhead.astype(head.dtype), None, None


_chunked.defvjp(_chunked_fwd, _chunked_bwd, symbolic_zeros=True)
