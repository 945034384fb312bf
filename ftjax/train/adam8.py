"""Adam with its moments in 8 bits: codes of bitsandbytes' dynamic map, a scale for 256 of them (Dettmers et al. 2022).

2.03 bytes a parameter where float32 takes 8. Blocks run along the longer of a leaf's last two axes, not through the
flattened leaf as in bitsandbytes: so codes have the axes of what they are moments of, and lie on a mesh as it does.
"""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import optax

from ftjax.quant import format as fmt
from ftjax.train import adam

SMALLEST = 4096  # scalars; a leaf with fewer keeps float32, as bitsandbytes' min_8bit_size has it


class Moment(struct.PyTreeNode):
    """A moment in 8 bits."""

    codes: Any  # uint8, the shape of the leaf
    scales: Any  # float32, the same shape with the axis of the blocks divided by 256, rounded up


class State(struct.PyTreeNode):
    """Moments are `Moment`s, or float32 where the leaf is small."""

    count: jax.Array  # int32 []
    mu: Any
    nu: Any


def scale_by_adam8(*, b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Returns Adam's direction (PyTorch's form, as `adam.scale_by_adam`) with moments kept in 8 bits between steps.

    A step uses the moments before they are rounded. A negative first moment that would round to 0 keeps its sign, as
    in bitsandbytes' blockwise kernel.
    """

    def init(params: Any) -> State:
        zeros = lambda signed: jax.tree.map(lambda p: _write(jnp.zeros(p.shape, jnp.float32), signed=signed), params)
        return State(count=jnp.zeros((), jnp.int32), mu=zeros(True), nu=zeros(False))

    def update(grads: Any, state: State, params: Any = None) -> tuple[Any, State]:
        del params
        count = optax.safe_increment(state.count)
        mu = jax.tree.map(lambda g, m: b1 * _read(m, signed=True) + (1 - b1) * g, grads, state.mu)
        nu = jax.tree.map(lambda g, n: b2 * _read(n, signed=False) + (1 - b2) * jnp.square(g), grads, state.nu)
        first, second = adam.correction(b1, count), adam.correction(b2, count)
        updates = jax.tree.map(lambda m, n: (m / first) / (jnp.sqrt(n / second) + eps), mu, nu)
        write = lambda moments, signed: jax.tree.map(lambda x: _write(x, signed=signed), moments)
        return updates, State(count=count, mu=write(mu, True), nu=write(nu, False))

    return optax.GradientTransformation(init, update)


def _axis(shape: tuple[int, ...]) -> int:
    """Returns the axis of the blocks: the longer of the last two, which in an A [L, in, R] is not the last."""
    return -2 if len(shape) > 1 and shape[-2] > shape[-1] else -1


def _read(moment: Any, *, signed: bool) -> jax.Array:
    if not isinstance(moment, Moment):
        return moment
    return fmt.from_dynamic(moment.codes, moment.scales, _axis(moment.codes.shape), signed=signed)


def _write(x: jax.Array, *, signed: bool) -> Any:
    if x.size < SMALLEST:
        return x
    codes, scales = fmt.to_dynamic(x, _axis(x.shape), signed=signed)
    if signed:
        zero = fmt.dynamic_map(signed=True).searchsorted(0.0)
        codes = codes - ((x < 0) & (codes == zero)).astype(codes.dtype)
    return Moment(codes=codes, scales=scales)
