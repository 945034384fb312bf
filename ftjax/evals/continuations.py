"""How likely texts are that continue others: many requests in few rows, a context once for all its continuations.

A context without its last token stands once in a row (branch 0); each continuation is a branch that begins with a copy
of that token and does not see the others, as the completions of `data.preference_batch`. So four choices of one
question cost little more than one. Units of context and continuations are packed into rows of one length.
"""

from collections.abc import Iterator, Sequence
import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from ftjax.data import pack
from ftjax.errors import UserError
from ftjax.models import decoder
from ftjax.models.config import ModelConfig

Ids = tuple[int, ...]
SHORTEST = 64  # tokens of a row that is made shorter than asked


class Scored(NamedTuple):
    """The log-probability of a continuation in nats, and whether each of its tokens is the likeliest."""

    logp: float
    greedy: bool


class Unit(NamedTuple):
    """A context and some of its continuations, which stand in one row."""

    context: Ids
    continuations: tuple[Ids, ...]

    @property
    def size(self) -> int:
        """Returns the tokens that it takes: the last one of a continuation is not read, but that of the context is."""
        return len(self.context) - 1 + sum(map(len, self.continuations))


def score(
    params: Any, config: ModelConfig, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], *, length: int, rows: int
) -> list[Scored]:
    """Returns what the model says of each pair of tokens, context and continuation, in their order.

    Equal pairs are computed once. A row holds `length` tokens, or a half or a quarter of them where that makes less to
    compute, and a batch at most as many tokens as `rows` such rows; a unit that needs more gets a row of twice, four
    times .. as many. Contexts lose their beginning where both are more than the model reads.
    """
    asked = [_fit(tuple(context), tuple(continuation), config.context) for context, continuation in pairs]
    found: dict[tuple[Ids, Ids], Scored] = {}
    lengths = [length >> k for k in range(3) if k == 0 or length >> k >= SHORTEST]
    plans = [list(_batches(asked, config, length=one, tokens=rows * length)) for one in lengths]
    for batch in min(plans, key=lambda plan: sum(_cost(batch, config) for batch in plan)):
        found |= _run(params, config, batch.rows, batch.size)
    return [found[one] for one in asked]


def _fit(context: Ids, continuation: Ids, longest: int) -> tuple[Ids, Ids]:
    if not context or not continuation:
        raise ValueError(f"a context of {len(context)} and a continuation of {len(continuation)} tokens: one at least")
    if len(continuation) > longest:
        raise UserError(f"a continuation of {len(continuation)} tokens is more than the {longest} that the model reads")
    return context[-(longest + 1 - len(continuation)) :], continuation


class Batch(NamedTuple):
    """Rows of `size` tokens, each with the units that stand in it."""

    rows: list[list[Unit]]
    size: int


def _batches(pairs: Sequence[tuple[Ids, Ids]], config: ModelConfig, *, length: int, tokens: int) -> Iterator[Batch]:
    """Yields batches of at most so many tokens in rows of this length or longer ones, equal for each length."""
    for size, units in _by_size(_units(pairs, length, config.context), length, config.context).items():
        packed = pack.members(pack.best_fit([unit.size for unit in units], length=size))
        batches = -(-len(packed) // max(1, tokens // size))
        count = -(-len(packed) // batches)  # of equal batches, so that few rows are empty
        for first in range(0, len(packed), count):
            chosen = [[units[i] for i in members] for members in packed[first : first + count]]
            yield Batch(chosen + [[]] * (count - len(chosen)), size)


def _cost(batch: Batch, config: ModelConfig) -> float:
    """Returns about how much a batch has to compute: of a token, its matmuls, and the whole row by attention.

    An exponential is taken for 10 multiplications; of a model of 260 thousand parameters attention over 512 tokens is
    three quarters of the work, of one of 135 million an eighth.
    """
    heads, width = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    matmuls = config.d_model * (2 * heads + 2 * width + 3 * config.d_ff)
    attention = batch.size * (2 * heads + 10 * config.n_heads)
    return len(batch.rows) * batch.size * (matmuls + attention)


def _row(size: int, length: int, longest: int) -> int:
    """Returns the length of the row that a unit of this size stands in."""
    row = min(length, longest)
    while row < size:
        row = min(2 * row, longest)
    return row


def _units(pairs: Sequence[tuple[Ids, Ids]], length: int, longest: int) -> list[Unit]:
    """Returns the units of all pairs; where the continuations of a context do not fit the row that the longest of them
    needs, they are several units."""
    of: dict[Ids, dict[Ids, None]] = {}
    for context, continuation in pairs:
        of.setdefault(context, {})[continuation] = None
    units = []
    for context, continuations in of.items():
        unit = Unit(context, ())
        room = _row(len(context) - 1 + max(map(len, continuations)), length, longest)
        for one in continuations:
            if unit.continuations and unit.size + len(one) > room:
                units.append(unit)
                unit = Unit(context, ())
            unit = Unit(context, (*unit.continuations, one))
        units.append(unit)
    return units


def _by_size(units: Sequence[Unit], length: int, longest: int) -> dict[int, list[Unit]]:
    """Returns the units by the length of their rows."""
    found: dict[int, list[Unit]] = {}
    for unit in units:
        found.setdefault(_row(unit.size, length, longest), []).append(unit)
    return found


class _Batch(NamedTuple):
    """Arrays [B, T] that `decoder.logps` takes."""

    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    positions: np.ndarray
    segments: np.ndarray
    branches: np.ndarray


@functools.partial(jax.jit, static_argnames="config")
def _logps(params: Any, batch: Any, *, config: ModelConfig) -> tuple[jax.Array, jax.Array]:
    out = decoder.logps(
        params, batch.tokens, batch.targets, batch.weights, config, batch.positions, batch.segments, batch.branches
    )  # fmt: skip
    return out.logps, out.correct


def _run(params: Any, config: ModelConfig, rows: Sequence[Sequence[Unit]], size: int) -> dict[tuple[Ids, Ids], Scored]:
    shape = (len(rows), size)
    batch = _Batch(*(np.zeros(shape, np.float32 if name == "weights" else np.int32) for name in _Batch._fields))
    places: dict[tuple[Ids, Ids], tuple[int, slice]] = {}
    for b, units in enumerate(rows):
        at, branch = 0, 0
        for segment, unit in enumerate(units, start=1):
            beginning = unit.context[:-1]
            own = slice(at, at + len(beginning))
            batch.tokens[b, own], batch.positions[b, own] = beginning, np.arange(len(beginning))
            batch.segments[b, at : at + unit.size] = segment
            at = own.stop
            for one in unit.continuations:
                branch += 1
                own = slice(at, at + len(one))
                batch.tokens[b, own] = (unit.context[-1], *one[:-1])
                batch.targets[b, own], batch.weights[b, own] = one, 1
                batch.positions[b, own] = len(beginning) + np.arange(len(one))
                batch.branches[b, own] = branch
                places[unit.context, one] = b, own
                at = own.stop
    logps, correct = jax.device_get(_logps(params, batch, config=config))
    return {
        pair: Scored(float(logps[b, own].sum(dtype=np.float64)), bool(correct[b, own].all()))
        for pair, (b, own) in places.items()
    }
