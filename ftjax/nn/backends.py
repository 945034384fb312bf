"""Which program does what several can: products with a weight in few bits, attention, and the cache of decoding.

XLA everywhere; on a GPU or TPU the kernel of `packed_dot.py` for so few rows that the bytes of the weight are what
takes the time, which is decoding; on an NVIDIA GPU cuDNN's attention for training in bfloat16. It is decided while a
program is traced, and said once. A kernel for other devices or formats is another case of `kernel` or `flash`.
"""

from collections.abc import Callable
import functools
import logging
import math
import os
from typing import Any

import jax
import jax.numpy as jnp

from ftjax.errors import UserError
from ftjax.nn import flash as cudnn
from ftjax.quant import format as quant_format

ATTENTION = "FTJAX_ATTENTION"  # xla: never cuDNN's
VARIABLE = "FTJAX_PACKED_DOT"  # xla: never the kernel. interpret: the kernel in Pallas's interpreter, on any device
MOST_ROWS = 16
Product = Callable[[jax.Array, Any], jax.Array]  # (x [..., in], weight [in, out]) -> [..., out]


def kernel(x: jax.Array, weight: Any) -> Product | None:
    """Returns the kernel that multiplies x by a node in few bits; None where XLA is to make the node dense.

    It is taken for at most 16 rows of float32 or bfloat16, a format that is `quant.format.ByCode`, a weight that comes
    out even (`packed_dot.tiles`), without a mesh of several devices, on a GPU or TPU, and once it has proved there, on
    random numbers of these shapes, to compile and to give what XLA gives. Reads $FTJAX_PACKED_DOT; a value that it
    does not know is a UserError.
    """
    wanted = os.environ.get(VARIABLE, "")
    if wanted not in ("", "xla", "interpret"):
        raise UserError(f"{VARIABLE}={wanted}: it may be xla (no kernel), interpret (slow, for checking) or not set")
    device, platform = _device()
    platform = "gpu" if wanted == "interpret" else platform
    if wanted == "xla" or platform not in ("gpu", "tpu") or not _few(x, weight):
        return None
    from ftjax.nn import packed_dot  # imports Pallas, which programs on a CPU never need

    found = functools.partial(packed_dot.packed_dot, platform=platform, interpret=wanted == "interpret")
    where = f"{type(weight).__name__} on {getattr(device, 'device_kind', device)}"
    if packed_dot.tiles_of(weight, platform) is None:
        _say(f"{where}: XLA multiplies by weights that the kernel for few rows cannot cut evenly")
        return None
    if wanted != "interpret":
        shapes = jax.tree.map(lambda leaf: (leaf.shape, jnp.dtype(leaf.dtype)), weight)
        leaves, structure = jax.tree.flatten(shapes, is_leaf=lambda leaf: isinstance(leaf, tuple))
        fault = packed_dot.fault(math.prod(x.shape[:-1]), x.dtype, structure, tuple(leaves), platform)
        if fault:
            _say(f"{where}: XLA multiplies, for the kernel {fault}; {VARIABLE}=xla no longer tries it")
            return None
    _say(f"{where}: a kernel multiplies up to {MOST_ROWS} rows; {VARIABLE}=xla turns it off")
    return lambda x, weight: found(x.reshape(-1, x.shape[-1]), weight).reshape(*x.shape[:-1], -1)


def flash(q_BTKGH: jax.Array, softcap: float) -> bool:
    """Returns whether cuDNN's attention is taken for these queries.

    It is for bfloat16, heads of up to 256 numbers, an even number of tokens and scores that are not bent, on one NVIDIA
    GPU, once it has proved there, on random numbers, to compile and to give what XLA gives, forwards and backwards.
    Reads $FTJAX_ATTENTION; a value that it does not know is a UserError.
    """
    wanted = os.environ.get(ATTENTION, "")
    if wanted not in ("", "xla"):
        raise UserError(f"{ATTENTION}={wanted}: it may be xla (not cuDNN) or not set")
    device, platform = _device()
    mesh = jax.sharding.get_abstract_mesh()
    if wanted or platform != "gpu" or q_BTKGH.dtype != jnp.bfloat16 or not (mesh.empty or mesh.size == 1):
        return False
    if softcap or q_BTKGH.shape[1] % 2 or q_BTKGH.shape[-1] > 256:
        return False
    fault = cudnn.fault(q_BTKGH.shape[2:], q_BTKGH.dtype)
    where = f"attention on {getattr(device, 'device_kind', device)}"
    _say(f"{where}: XLA's, for cuDNN's {fault}" if fault else f"{where}: cuDNN's; {ATTENTION}=xla turns it off")
    return not fault


def cache_by_layer() -> bool:
    """Returns whether decoding keeps an array of keys and one of values for every layer: on a CPU, without a mesh.

    There a layer that is sliced out of all is a copy. A GPU would have to ask the host which layer it is at.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return _device()[1] == "cpu" and (mesh.empty or mesh.size == 1)


def _device() -> tuple[Any, str]:
    """Returns the device that a program is traced for, or the name of its platform, and that name."""
    device = getattr(jax.config, "jax_default_device", None) or jax.devices()[0]
    return device, getattr(device, "platform", device)


def _few(x: jax.Array, weight: Any) -> bool:
    """Returns whether these are few rows of x and a weight of a kind that the kernel knows, on one device."""
    mesh = jax.sharding.get_abstract_mesh()
    return (
        isinstance(weight, quant_format.ByCode)
        and weight.codes.ndim == 2
        and x.dtype in (jnp.float32, jnp.bfloat16)
        and 1 <= math.prod(x.shape[:-1]) <= MOST_ROWS
        and (mesh.empty or mesh.size == 1)
    )


@functools.cache
def _say(line: str) -> None:
    """Says a line once in a process; unless logging was set up otherwise, warnings go to stderr."""
    logging.getLogger(__name__).warning(line)
