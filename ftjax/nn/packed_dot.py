"""Products of a few rows with a weight in few bits that is never dense: a Pallas kernel, for GPUs and for TPUs.

Decoding is bound by the bytes of the weights. XLA writes and reads the dense weight for every token (2 bytes a weight
in bfloat16, beside half a byte of codes); here a tile of codes is loaded, split into its planes, looked up, scaled,
rounded and multiplied within one program. x is cut into the same planes outside, so nothing is interleaved.

`backends.py` decides when it is used. It is right on an H100 and 1.1 to 1.7 times XLA there, but far from the rate of
its memory (docs/bench/2026-11-27-h100.md); it was lowered for TPUs and interpreted, but has never run on one. A format
that is `quant.format.ByCode` needs no change here.
"""

import functools
from typing import Any, NamedTuple

import jax
from jax.experimental import pallas as pl
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from ftjax.quant.format import LookUp

ROWS = 16  # of x, padded up to: the least that a dot of tensor cores takes, and a tile of bfloat16 on a TPU
PROGRAMS = 512  # that a GPU gets at least where the weight can be cut so fine: four for each processor of an H100
STEPS = 4  # that one of them does at least


class Tiles(NamedTuple):
    """How a weight [in, out] is cut."""

    platform: str  # gpu or tpu
    rows: int  # of the weight that a program works through
    step: int  # of them that are multiplied at a time
    columns: int


def tiles(inputs: int, outputs: int, group: int, planes: int, platform: str) -> Tiles | None:
    """Returns the cut of a weight of these sizes on "gpu" or "tpu"; None where it does not come out even.

    GPU: Triton's blocks are powers of two, and a dot takes 16 of each side or more; a step lies in one group or holds
    whole ones. TPU: a block of codes is whole tiles [32, 128], one of x whole lanes of 128, one of terms whole
    sublanes of 8 or all there are.
    """
    if platform == "gpu":
        return _gpu_tiles(inputs, outputs, group, planes)
    lanes = next((n for n in (512, 256, 128) if outputs % n == 0), 0)
    for rows in (2048, 1024, 512, 256):
        groups = group == inputs or (rows % group == 0 and (rows // group % 8 == 0 or rows == inputs))
        if lanes and inputs % rows == 0 and rows % (128 * planes) == 0 and groups and group % (8 * planes) == 0:
            return Tiles("tpu", rows, rows, lanes)
    return None


def _gpu_tiles(inputs: int, outputs: int, group: int, planes: int) -> Tiles | None:
    columns = next((n for n in (128, 64, 32) if outputs % n == 0), 0)
    if group != inputs and group & (group - 1):
        return None
    widest = 32 * planes  # 32 rows of codes are 8 registers of a thread
    step = next((n for n in (widest, widest // 2) if inputs % n == 0 and (n % group == 0 or group % n == 0)), 0)
    if not columns or not step:
        return None
    steps = inputs // step
    cuts = [n for n in range(1, steps + 1) if steps % n == 0 and (n == 1 or steps // n >= STEPS)]
    cut = next((n for n in cuts if n * (outputs // columns) >= PROGRAMS), cuts[-1])
    return Tiles("gpu", inputs // cut, step, columns)


def tiles_of(weight: Any, platform: str) -> Tiles | None:
    """Returns the cut of a node that is `ByCode`, or None."""
    inputs, outputs = weight.shape
    groups = jax.eval_shape(lambda node: node.terms()[0], weight).shape[0]
    return tiles(inputs, outputs, inputs // groups, inputs // weight.codes.shape[0], platform)


def packed_dot(
    x_MI: Float[Array, "M I"], weight: Any, *, platform: str, interpret: bool = False
) -> Float[Array, "M O"]:
    """Returns x @ weight in the dtype of x, for at most 16 rows and a weight [in, out] that is `quant.format.ByCode`.

    As in the dense product, numbers of the weight are made in float32, rounded to the dtype of x, and products are
    summed in float32, in another order. float32 is multiplied in full precision, not in TF32. Terms that are not
    stored as float32 are made so outside. For nf4-dq, whose scales are a byte for 64 weights, that moves 8 bytes more
    (written, read), a quarter of what the 32 bytes of codes are; inside, every program would have to know where blocks
    of 256 scales begin, and a TPU to choose between 256 levels.

    `platform` ("gpu" or "tpu") picks the kernel; `interpret` runs it without such a device. Raises ValueError where
    there are more rows, or the weight does not come out even (`tiles`).
    """
    cut = tiles_of(weight, platform)
    if cut is None or x_MI.shape[0] > ROWS:
        raise ValueError(f"packed_dot: {x_MI.shape} @ {weight.shape} does not tile for {platform}; use matmul")
    return _multiply(x_MI, weight.codes, weight.terms(), kind=type(weight), cut=cut, interpret=interpret)


@functools.cache
def fault(
    rows: int, dtype: Any, structure: Any, leaves: tuple[Any, ...], platform: str, *, interpret: bool = False
) -> str:
    """Returns what is wrong with the kernel for these shapes on this device, or "": it is compiled, run and compared.

    `structure` and `leaves` (shape, dtype) are those of the node; it is filled with random bytes, all of which are
    codes. The kernel must be within a thousandth (bfloat16: a hundredth) of the largest number of the dense product,
    which takes as much memory as XLA's product does. Cached for the life of the process. Programs are compiled ahead
    and called with NumPy arrays, so this also works while another program is traced.
    """
    rng = np.random.default_rng(0)

    def random(shape: tuple[int, ...], kind: Any) -> np.ndarray:
        if jnp.issubdtype(kind, jnp.floating):
            return rng.uniform(0.5, 1.5, shape).astype(kind)
        return rng.integers(0, 256, shape, np.uint8).view(kind)

    node = jax.tree.unflatten(structure, [random(*leaf) for leaf in leaves])
    x = rng.standard_normal((rows, node.shape[0]), np.float32).astype(dtype)
    dense = lambda x, node: jnp.dot(x, node.dequantize(dtype), precision="highest", preferred_element_type=jnp.float32)
    ours = functools.partial(packed_dot, platform=platform, interpret=interpret)
    try:
        found, wanted = (np.asarray(jax.jit(f).lower(x, node).compile()(x, node), np.float32) for f in (ours, dense))
    except Exception as error:  # whatever a compiler or a driver raises: text can still be generated
        return f"does not compile or run ({type(error).__name__}: {str(error).strip().partition(chr(10))[0]:.200})"
    off = float(np.max(np.abs(found - wanted)) / np.max(np.abs(wanted)))
    return "" if off < (1e-3 if dtype == jnp.float32 else 1e-2) else f"is off by {off:.1%} of the largest number"


def _multiply(x: jax.Array, codes: jax.Array, terms: Any, *, kind: Any, cut: Tiles, interpret: bool) -> jax.Array:
    count, inputs = x.shape
    planes = inputs // codes.shape[0]
    x_PMI = jnp.moveaxis(x.reshape(count, inputs // planes, planes), 2, 0)
    x_PMI = jnp.pad(x_PMI, ((0, 0), (0, ROWS - count), (0, 0)))
    call = _gpu_call if cut.platform == "gpu" else _tpu_call
    return call(x_PMI, codes, terms, count, kind=kind, cut=cut, interpret=interpret)[:count].astype(x.dtype)


def _tile(x: list[jax.Array], codes: jax.Array, terms: list[jax.Array], kind: Any, look_up: LookUp) -> jax.Array:
    """Returns the float32 product of x, a plane of it for each of the codes', with one tile of the weight."""
    groups, (rows, columns) = terms[0].shape[0], codes.shape
    precision = jax.lax.Precision.HIGHEST if x[0].dtype == jnp.float32 else jax.lax.Precision.DEFAULT
    total = jnp.zeros((x[0].shape[0], columns), jnp.float32)
    # As int32: neither compiler shifts bytes well.
    for x_MI, plane in zip(x, kind.planes(codes.astype(jnp.int32)), strict=True):
        level = kind.level(plane, look_up)
        if groups > 1:
            shared = [term[:, None, :] for term in terms]
            number = kind.number(level.reshape(groups, rows // groups, columns), *shared).reshape(rows, columns)
        else:
            number = kind.number(level, *terms)
        number = number.astype(x_MI.dtype)
        total += jax.lax.dot(x_MI, number, precision=precision, preferred_element_type=jnp.float32)
    return total


def select(table: np.ndarray, codes: jax.Array) -> jax.Array:
    """Returns the level of every code by a tree of selects, 15 for a table of 16: Mosaic has no gather."""
    found, bit = [jnp.float32(level) for level in table], 1
    while len(found) > 1:
        on = (codes & bit) != 0
        found = [jnp.where(on, odd, even) for even, odd in zip(found[::2], found[1::2], strict=True)]
        bit <<= 1
    return found[0]


def _tables(kind: Any) -> list[np.ndarray]:
    """Returns the tables that a format looks its levels up in."""
    found = []

    def note(table: np.ndarray, codes: jax.Array) -> jax.Array:
        found.append(table)
        return codes.astype(jnp.float32)

    jax.eval_shape(lambda codes: kind.level(codes, note), jax.ShapeDtypeStruct((1, 1), jnp.int32))
    return found


def _gpu_call(
    x_PMI: jax.Array, codes: jax.Array, terms: Any, count: int, *, kind: Any, cut: Tiles, interpret: bool
) -> jax.Array:
    """Returns float32 [M, out]. A program sums over the steps of its rows; the sums of several are added outside.

    Levels are loaded from the table, whose 64 bytes lie in one line of the cache nearest to the cores: 10 instructions
    a weight in the loop, where a tree of selects has 21 (nf4, bfloat16, in the code that Triton 3.9 makes for an H100).
    The loads of the next step are issued before this step's are used. Triton's own pipelining would copy the levels to
    shared memory one by one, so it is off.
    """
    # Deprecated since jax 0.11. Where it is gone, `fault` says so, and XLA multiplies.
    from jax.experimental.pallas import triton as pltriton

    planes, rows, half = x_PMI.shape
    inputs, outputs = half * planes, codes.shape[1]
    group = inputs // terms[0].shape[0]
    tall, steps, tables = cut.step // planes, cut.rows // cut.step, _tables(kind)

    def kernel(x_ref: Any, codes_ref: Any, *refs: Any) -> None:
        *rest, out_ref = refs
        tables_ref, terms_ref = rest[: len(tables)], rest[len(tables) :]
        columns = pl.ds(pl.program_id(0) * cut.columns, cut.columns)
        first = pl.program_id(1) * steps

        def look_up(table: np.ndarray, codes: jax.Array) -> jax.Array:
            (ref,) = (ref for ref, known in zip(tables_ref, tables, strict=True) if known is table)
            return ref[codes]

        def load(i: Any) -> tuple[list[jax.Array], jax.Array, list[jax.Array]]:
            at = pl.ds((first + i) * tall, tall)
            of_group = pl.ds((first + i) * cut.step // group, max(1, cut.step // group))
            x = [x_ref[plane, :, at] for plane in range(planes)]
            return x, codes_ref[at, columns], [ref[of_group, columns] for ref in terms_ref]

        def product(loaded: tuple[list[jax.Array], jax.Array, list[jax.Array]]) -> jax.Array:
            x, codes, terms = loaded
            return _tile(x, codes, terms, kind, look_up)

        def add(i: Any, carry: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
            total, loaded = carry
            following = load(i + 1)
            return total + product(loaded), following

        nothing = jnp.zeros((rows, cut.columns), jnp.float32)
        total, loaded = jax.lax.fori_loop(0, steps - 1, add, (nothing, load(0)))
        total += product(loaded)
        # Rows that only fill up are not written, and not read below: they would be most of the traffic of the sums.
        real = jnp.broadcast_to(jnp.arange(rows)[:, None] < count, total.shape)
        pltriton.store(out_ref.at[pl.program_id(1), :, columns], total, mask=real)

    cuts = inputs // cut.rows
    sums = pl.pallas_call(
        kernel,
        grid=(outputs // cut.columns, cuts),
        out_shape=jax.ShapeDtypeStruct((cuts, rows, outputs), jnp.float32),
        compiler_params=pltriton.CompilerParams(num_warps=4, num_stages=1),
        interpret=interpret,
        name="packed_dot",
    )(x_PMI, codes, *map(jnp.asarray, tables), *terms)
    return jnp.sum(sums[:, :count], axis=0)


def _tpu_call(
    x_PMI: jax.Array, codes: jax.Array, terms: Any, count: int, *, kind: Any, cut: Tiles, interpret: bool
) -> jax.Array:
    """Returns float32 [16, out]. A core walks the grid in order, rows of the weight innermost, adding in the output."""
    del count
    from jax.experimental.pallas import tpu as pltpu

    planes, rows, half = x_PMI.shape
    inputs, outputs = half * planes, codes.shape[1]
    group = inputs // terms[0].shape[0]
    tall, groups = cut.rows // planes, max(1, cut.rows // group)

    def kernel(x_ref: Any, codes_ref: Any, *refs: Any) -> None:
        *terms_ref, out_ref = refs

        @pl.when(pl.program_id(1) == 0)
        def _() -> None:
            out_ref[...] = jnp.zeros_like(out_ref)

        x = [x_ref[plane] for plane in range(planes)]
        out_ref[...] += _tile(x, codes_ref[...], [ref[...] for ref in terms_ref], kind, select)

    of_terms = pl.BlockSpec((groups, cut.columns), lambda j, k: (0 if group > cut.rows else k, j))
    return pl.pallas_call(
        kernel,
        grid=(outputs // cut.columns, inputs // cut.rows),
        in_specs=[
            pl.BlockSpec((planes, rows, tall), lambda j, k: (0, 0, k)),  # noqa: ARG005
            pl.BlockSpec((tall, cut.columns), lambda j, k: (k, j)),
            *(of_terms for _ in terms),
        ],
        out_specs=pl.BlockSpec((rows, cut.columns), lambda j, k: (0, j)),  # noqa: ARG005
        out_shape=jax.ShapeDtypeStruct((rows, outputs), jnp.float32),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        interpret=interpret,
        name="packed_dot",
    )(x_PMI, codes, *terms)
