"""Mixture of experts by sorted dispatch: rows go to the experts that the router chose, and only there.

Rows are sorted by expert, so that an expert's rows lie together; each expert that was chosen then works through its
own, a block at a time. `jax.lax.ragged_dot` is not used: on CPU it is a dense product of every row with every expert
(8,192 rows of 32 experts 256 x 256: 1,047 ms on 2 shared cores, this loop 22 ms, one matmul of all rows 16 ms), and a
loop takes whatever else a weight can be: an expert's weight goes through `matmul`, so it may be dense, in few bits, or
adapted.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from ftjax import mesh
from ftjax.adapters.attach import Adapted
from ftjax.nn.matmul import matmul

BLOCK = 128  # rows of an expert that are multiplied at a time, at most


def mixture(
    x_BTD: Float[Array, "B T D"],
    router: Any,
    gate_proj: Any,
    up_proj: Any,
    down_proj: Any,
    *,
    top_k: int,
    normalize: bool,
    activation: Callable[[jax.Array], jax.Array],
) -> Float[Array, "B T D"]:
    """Returns the sum over a token's top_k experts of weight * down(activation(gate(x)) * up(x)).

    Weights are the softmax over all experts of the router's logits, in float32; `normalize` divides those of the chosen
    experts by their sum (Mixtral: Jiang et al. 2024, section 2.1). router [D, E]; gate and up [E, D, F], down
    [E, F, D]. Under a mesh each shard of the batch dispatches its own tokens.
    """
    local = functools.partial(_local, top_k=top_k, normalize=normalize, activation=activation)
    weights = (router, gate_proj, up_proj, down_proj)
    if mesh.batch_shards(x_BTD.shape[0]) == 1:
        return local(x_BTD, *weights)
    rows = P(mesh.BATCH)
    return jax.shard_map(
        local,
        in_specs=(rows, *(jax.tree.map(lambda _: P(), weight) for weight in weights)),
        out_specs=rows,
        axis_names=set(mesh.BATCH),
        check_vma=False,
    )(x_BTD, *weights)


def _local(
    x_BTD: jax.Array,
    router: Any,
    gate_proj: Any,
    up_proj: Any,
    down_proj: Any,
    *,
    top_k: int,
    normalize: bool,
    activation: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    x_ND = x_BTD.reshape(-1, x_BTD.shape[-1])
    probs_NE = jax.nn.softmax(matmul(x_ND, router).astype(jnp.float32), axis=-1)
    weight_NK, expert_NK = jax.lax.top_k(probs_NE, top_k)
    if normalize:
        weight_NK = weight_NK / jnp.sum(weight_NK, axis=-1, keepdims=True)
    expert_X = expert_NK.reshape(-1)  # X: pairs of a token and one of its experts
    order_X = jnp.argsort(expert_X, stable=True)
    back_X = jnp.argsort(order_X)
    sizes_E = jnp.bincount(expert_X, length=probs_NE.shape[1])

    rows_XD = _permute(jnp.repeat(x_ND, top_k, axis=0), order_X, back_X)
    gate_XF = checkpoint_name(grouped(rows_XD, gate_proj, sizes_E), "gate")
    up_XF = checkpoint_name(grouped(rows_XD, up_proj, sizes_E), "up")
    down_XD = checkpoint_name(grouped(activation(gate_XF) * up_XF, down_proj, sizes_E), "down")
    down_NKD = _permute(down_XD, back_X, order_X).reshape(*expert_NK.shape, -1)
    out_ND = jnp.sum(down_NKD.astype(jnp.float32) * weight_NK[..., None], axis=1)
    return out_ND.astype(x_BTD.dtype).reshape(x_BTD.shape)


@jax.custom_vjp
def _permute(x: jax.Array, order: jax.Array, back: jax.Array) -> jax.Array:
    """Returns x[order]; the gradient is a gather by the inverse, where autodiff's scatter is serial on CPU."""
    del back
    return x[order]


def _permute_fwd(x: jax.Array, order: jax.Array, back: jax.Array) -> tuple[jax.Array, jax.Array]:
    return x[order], back


def _permute_bwd(back: jax.Array, grad: jax.Array) -> tuple[jax.Array, None, None]:
    return grad[back], None, None


_permute.defvjp(_permute_fwd, _permute_bwd)


def grouped(rows_XI: jax.Array, weight: Any, sizes_E: jax.Array) -> jax.Array:
    """Returns each row times the weight of its expert: rows [X, I] sorted by expert, sizes [E], weight [E, I, O].

    The weight may be a quantised node, or `Adapted`; then gradients reach the adapter alone.
    """
    key = None
    if isinstance(weight, Adapted):
        key, weight = weight.key, weight.replace(key=None)
    leaves, structure = jax.tree.flatten(weight)
    return _grouped(structure, rows_XI, leaves, sizes_E, key)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _grouped(structure: Any, rows_XI: jax.Array, leaves: list[jax.Array], sizes_E: jax.Array, key: Any) -> jax.Array:
    return _forward(structure, rows_XI, leaves, sizes_E, key)


def _product(structure: Any, rows_CI: jax.Array, leaves: list[jax.Array], key: jax.Array | None) -> jax.Array:
    """Returns rows of one expert times its weight, given as its leaves."""
    weight = jax.tree.unflatten(structure, leaves)
    return matmul(rows_CI, weight.replace(key=key) if isinstance(weight, Adapted) else weight)


def _forward(structure: Any, rows_XI: jax.Array, leaves: list[jax.Array], sizes_E: jax.Array, key: Any) -> jax.Array:
    count, size = rows_XI.shape[0], _block_size(rows_XI.shape[0], sizes_E.shape[0])
    padded = _padded(rows_XI, size)
    shape = jax.eval_shape(
        lambda: _product(structure, padded[:size], [leaf[0] for leaf in leaves], _fold(key, jnp.int32(0), jnp.int32(0)))
    )

    def visit(out: jax.Array, e: jax.Array, start: jax.Array, stop: jax.Array) -> jax.Array:
        own = [_index(leaf, e) for leaf in leaves]

        # A block may reach into the rows of the next expert, which then overwrites what this one left there.
        def body(i: jax.Array, out: jax.Array) -> jax.Array:
            at = start + i * size
            new = _product(structure, _rows(padded, at, size), own, _fold(key, e, i))
            return jax.lax.dynamic_update_slice_in_dim(out, new, at, 0)

        return jax.lax.fori_loop(0, -(-(stop - start) // size), body, out)

    return _over_experts(visit, jnp.zeros((count + size, *shape.shape[1:]), shape.dtype), sizes_E)[:count]


def _grouped_fwd(structure: Any, rows: Any, leaves: Any, sizes_E: Any, key: Any) -> tuple[jax.Array, Any]:
    key = None if key is None else key.value
    trained = [leaf.value if leaf.perturbed else None for leaf in leaves]
    frozen = [None if leaf.perturbed else leaf.value for leaf in leaves]
    # A frozen weight needs no gradient, and then the rows need not be kept: the product is linear, any rows will do.
    kept = rows.value if any(leaf.perturbed for leaf in leaves) else None
    like = jnp.zeros((0, rows.value.shape[1]), rows.value.dtype)
    out = _forward(structure, rows.value, [leaf.value for leaf in leaves], sizes_E.value, key)
    return out, (kept, like, trained, frozen, sizes_E.value, key)


def _grouped_bwd(structure: Any, saved: tuple[Any, ...], grad: Any) -> tuple[Any, ...]:
    kept, like, trained, frozen, sizes_E, key = saved
    if isinstance(grad, jax.custom_derivatives.SymbolicZero):
        return None, None, None, None
    count, size = grad.shape[0], _block_size(grad.shape[0], sizes_E.shape[0])
    wanted = [i for i, leaf in enumerate(trained) if leaf is not None]
    grad, padded = _padded(grad, size), None if kept is None else _padded(kept, size)

    def visit(carry: tuple[Any, Any], e: jax.Array, start: jax.Array, stop: jax.Array) -> tuple[Any, Any]:
        own = [_index(f if t is None else t, e) for t, f in zip(trained, frozen, strict=True)]

        def call(rows: jax.Array, chosen: list[jax.Array], i: jax.Array) -> jax.Array:
            whole = list(own)
            for at, leaf in zip(wanted, chosen, strict=True):
                whole[at] = leaf
            return _product(structure, rows, whole, _fold(key, e, i))

        def body(i: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            drows, sums = carry
            at = start + i * size
            inside = at + jnp.arange(size) < stop  # the rows after `stop` are the next expert's
            dy = jnp.where(inside[:, None], _rows(grad, at, size), 0)
            if padded is None:
                rows = jnp.zeros((size, like.shape[1]), like.dtype)
                (dx,), dleaves = jax.vjp(lambda rows: call(rows, [], i), rows)[1](dy), []
            else:
                chosen = [own[i] for i in wanted]
                dx, dleaves = jax.vjp(lambda x, c: call(x, c, i), _rows(padded, at, size), chosen)[1](dy)
            drows = jax.lax.dynamic_update_slice_in_dim(drows, dx, at, 0)
            return drows, [total + new.astype(jnp.float32) for total, new in zip(sums, dleaves, strict=True)]

        drows, dweights = carry
        zeros = [jnp.zeros(own[i].shape, jnp.float32) for i in wanted]
        drows, sums = jax.lax.fori_loop(0, -(-(stop - start) // size), body, (drows, zeros))
        put = lambda whole, new: jax.lax.dynamic_update_index_in_dim(whole, new.astype(whole.dtype), e, 0)
        return drows, [put(*pair) for pair in zip(dweights, sums, strict=True)]

    start = (jnp.zeros((count + size, like.shape[1]), like.dtype), [jnp.zeros_like(trained[i]) for i in wanted])
    drows, dweights = _over_experts(visit, start, sizes_E)
    dleaves: list[Any] = [None] * len(trained)
    for i, leaf in zip(wanted, dweights, strict=True):
        dleaves[i] = leaf
    return drows[:count], dleaves, None, None


_grouped.defvjp(_grouped_fwd, _grouped_bwd, symbolic_zeros=True)


def _over_experts(visit: Callable[..., Any], carry: Any, sizes_E: jax.Array) -> Any:
    """Returns the carry after `visit(carry, e, start, stop)` for every expert that has rows, in order of their rows."""
    stops_E = jnp.cumsum(sizes_E)
    chosen_E = jnp.nonzero(sizes_E, size=sizes_E.shape[0], fill_value=0)[0]

    def body(i: jax.Array, carry: Any) -> Any:
        e = chosen_E[i]
        return visit(carry, e, stops_E[e] - sizes_E[e], stops_E[e])

    return jax.lax.fori_loop(0, jnp.sum(sizes_E > 0), body, carry)


def _block_size(rows: int, experts: int) -> int:
    """Returns a quarter of the rows that an expert has on average, as a power of two between 8 and BLOCK."""
    quarter = max(1, rows // (4 * experts))
    return min(BLOCK, max(8, 1 << (quarter - 1).bit_length()), max(rows, 1))


def _padded(x: jax.Array, size: int) -> jax.Array:
    return jnp.pad(x, ((0, size), (0, 0)))


def _rows(x: jax.Array, at: Any, size: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x, at, size, axis=0)


def _index(leaf: jax.Array, e: Any) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(leaf, e, keepdims=False)


def _fold(key: jax.Array | None, e: jax.Array, block: jax.Array) -> jax.Array | None:
    """Returns a key for this block of this expert's rows, so that no two draw the same dropout."""
    return None if key is None else jax.random.fold_in(jax.random.fold_in(key, e), block)
