"""The endless stream of training batches: batch k is a function of (seed, k), so seeking and resuming cost nothing.

Units are packed rows (layout "packed") or single examples ("padded"). Epoch e takes every unit once, in an order drawn
from (seed, e); epochs follow each other without a gap, and batch k is units k*B .. k*B + B - 1 of that stream. In the
packed layout each epoch deals the rows of equal length anew to the same bins, so all epochs have as many units. In the
padded layout the rows of a batch have similar lengths (sorted within windows of 50 batches); batches come shuffled.

A mixture has for an epoch as many units as its data sets have together, shared out by weight: a data set that must give
more than it has is repeated, each repeat a full pass in a new order. Hosts take contiguous slices of one global batch.

What a row is (an Example, Candidates) is known to the `batch.Collator` alone: how many tokens it needs, and what batch
many of them make.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
import functools
import threading
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ftjax import errors
from ftjax.data import batch as arrays
from ftjax.data import files, pack

LAYOUTS = ("packed", "padded")
WINDOW = 50  # batches among which the rows of a padded batch are sorted by length
_ORDER, _DEAL, _UNITS = range(3)  # what a random stream is for
_Plan = TypeVar("_Plan")


class Shard(NamedTuple):
    """Which slice of each global batch this process makes: number `process` of `processes`."""

    process: int
    processes: int


class Units(NamedTuple):
    """The units of one data set in one epoch: unit u is the rows rows[starts[u] : starts[u + 1]]."""

    rows: np.ndarray
    starts: np.ndarray


class DataSet:
    """One encoded data set cut into units, anew for each epoch."""

    def __init__(
        self,
        examples: Sequence[Any],
        *,
        size: Callable[[Any], int],
        layout: str,
        length: int,
        seed: tuple[int, ...],
    ) -> None:
        self.examples = examples
        self.lengths = np.array([size(example) for example in examples], np.int64)
        self._seed = seed
        # Bins of the rows in order of length; an epoch puts its rows, in that order but ties at random, into them.
        self._by_length = np.argsort(-self.lengths, kind="stable")
        bins = pack.best_fit(self.lengths, length=length) if layout == "packed" else np.arange(len(examples))
        self._bins = bins[self._by_length]
        self.sizes = np.bincount(self._bins)
        self.units = len(self.sizes)

    def epoch(self, number: int) -> Units:
        """Returns the units of an epoch, in random order."""
        deal = _random(*self._seed, number, _DEAL)
        dealt = np.lexsort((deal.random(len(self.lengths)), -self.lengths))
        rows = dealt[np.argsort(self._bins, kind="stable")]
        order = _random(*self._seed, number, _UNITS).permutation(self.units)
        starts = np.concatenate([[0], np.cumsum(self.sizes)])
        sizes = self.sizes[order]
        shuffled = np.concatenate([[0], np.cumsum(sizes)])
        picked = np.repeat(starts[order] - shuffled[:-1], sizes) + np.arange(len(rows))
        return Units(rows=rows[picked], starts=shuffled)


class Loader:
    """Batches of one data set or of a mixture; see the module's docstring for the order."""

    def __init__(
        self,
        datasets: Sequence[Sequence[Any]],
        *,
        collator: arrays.Collator,
        weights: Sequence[float] | None,
        layout: str,
        batch_size: int,
        length: int,
        buckets: Sequence[int],
        seed: int,
        shard: Shard,
    ) -> None:
        """Plans the stream of batches that `collator` makes.

        `batch_size` counts rows of the global batch; `weights` None: each unit counts the same.
        `length` is that of a packed row, `buckets` are the lengths of padded batches; the other layout's is not used.
        """
        if layout not in LAYOUTS:
            raise errors.UserError(
                f"layout={layout!r}{files.close_to(layout, list(LAYOUTS))}; known: {', '.join(LAYOUTS)}"
            )
        if not datasets or not all(len(examples) for examples in datasets):
            raise errors.UserError("a data set without rows cannot be trained on; remove it from the mixture")
        self._rows_here = _slice(batch_size, shard)
        self._layout, self._length, self._buckets = layout, length, tuple(buckets)
        self._collator = collator
        self.batch_size, self._seed = batch_size, seed
        self._sets = [
            DataSet(examples, size=collator.size, layout=layout, length=length, seed=(seed, number))
            for number, examples in enumerate(datasets)
        ]
        units = [data.units for data in self._sets]
        self.rows: int = sum(units)  # of an epoch
        self._shares = _shares(self.rows, units if weights is None else weights, len(units))
        if layout == "padded":
            arrays.bucket(max(int(data.lengths.max()) for data in self._sets), self._buckets)
        self._known: dict[Hashable, Any] = {}
        self._lock = threading.RLock()  # a plan asks for the plans of its data sets

    @property
    def batches_per_epoch(self) -> float:
        """Batches in which the stream advances by one epoch; not always a whole number."""
        return self.rows / self.batch_size

    def batch(self, k: int) -> Any:
        """Returns this process's slice of global batch k."""
        units = [self._unit(row) for row in range(k * self.batch_size, (k + 1) * self.batch_size)]
        if self._layout == "packed":
            return self._collator.collate(units[self._rows_here], length=self._length)
        longest = max(self._collator.size(unit[0]) for unit in units)  # of the global batch: all hosts need one shape
        return self._collator.collate(units[self._rows_here], length=arrays.bucket(longest, self._buckets))

    def iterate(self, start: int, *, threads: int, prefetch: int) -> Iterator[Any]:
        """Yields batch(start), batch(start + 1), ... for ever, made ahead of time by Grain's threads.

        `prefetch` batches are kept ready. The state to resume from is the number of batches taken.
        """
        return _ahead(self, start, threads, prefetch)

    def _unit(self, row: int) -> list[Any]:
        epoch, at = divmod(row, self.rows)
        sets, turns = self._plan(epoch)
        number = int(sets[at])
        data = self._sets[number]
        passed, unit = divmod(int(turns[at]), data.units)
        rows, starts = self._remembered(("units", number, passed), functools.partial(data.epoch, passed))
        return [data.examples[i] for i in rows[starts[unit] : starts[unit + 1]]]

    def _plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns for each place of an epoch the data set and how many units of it came before, in all epochs."""
        return self._remembered(("plan", epoch), functools.partial(self._order, epoch))

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        sets = np.repeat(np.arange(len(self._shares)), self._shares)
        turns = np.concatenate([epoch * share + np.arange(share) for share in self._shares])
        random = _random(self._seed, epoch, _ORDER)
        order = random.permutation(self.rows)
        if self._layout == "padded":
            order = self._grouped(order, self._lengths(sets, turns), epoch, random)
        return sets[order], turns[order]

    def _lengths(self, sets: np.ndarray, turns: np.ndarray) -> np.ndarray:
        found = np.zeros(len(sets), np.int64)
        for number, data in enumerate(self._sets):
            passes = turns // data.units
            for passed in np.unique(passes[sets == number]).tolist():
                here = (sets == number) & (passes == passed)
                rows = self._remembered(("units", number, passed), functools.partial(data.epoch, passed)).rows
                found[here] = data.lengths[rows[turns[here] % data.units]]
        return found

    def _grouped(self, order: np.ndarray, lengths: np.ndarray, epoch: int, random: np.random.Generator) -> np.ndarray:
        """Returns the order with similar lengths in each batch; batches that two epochs share stay as they are."""
        size = self.batch_size
        head = min(-(epoch * self.rows) % size, self.rows)
        whole = (self.rows - head) // size * size
        body = order[head : head + whole]
        window = np.arange(whole) // (WINDOW * size)
        body = body[np.lexsort((lengths[body], window))].reshape(-1, size)
        body = body[random.permutation(len(body))].reshape(-1)
        return np.concatenate([order[:head], body, order[head + whole :]])

    def _remembered(self, key: Hashable, make: Callable[[], _Plan]) -> _Plan:
        """Returns what `make` gives, kept until many newer plans are made; several threads may ask at once."""
        with self._lock:
            if key not in self._known:
                while len(self._known) >= 4 * len(self._sets) + 4:
                    del self._known[next(iter(self._known))]
                self._known[key] = make()
            return self._known[key]


class Beside:
    """The batches of a loader with those of another one in one of their fields, batch k beside batch k."""

    def __init__(self, main: Loader, other: Loader, field: str) -> None:
        self._main, self._other, self._field = main, other, field
        self.rows, self.batch_size = main.rows, main.batch_size

    @property
    def batches_per_epoch(self) -> float:
        """Batches in which the main stream advances by one epoch."""
        return self._main.batches_per_epoch

    def batch(self, k: int) -> Any:
        """Returns this process's slice of global batch k."""
        return self._main.batch(k)._replace(**{self._field: self._other.batch(k)})

    def iterate(self, start: int, *, threads: int, prefetch: int) -> Iterator[Any]:
        """Yields batch(start), batch(start + 1), ... for ever."""
        return _ahead(self, start, threads, prefetch)


def eval_batches(
    examples: Sequence[Any],
    *,
    collator: arrays.Collator,
    layout: str,
    batch_size: int,
    length: int,
    buckets: Sequence[int],
    shard: Shard,
) -> list[Any]:
    """Returns all examples once, in order, in batches of one height: rows of zeros fill the last one.

    Packed rows are ordered by their first example. Every host gets its slice of the same global batches.
    """
    here = _slice(batch_size, shard)
    sizes = [collator.size(example) for example in examples]
    made = []
    for chosen in eval_places(sizes, layout=layout, batch_size=batch_size, length=length):
        height = (
            length if layout == "packed" else arrays.bucket(max(sizes[i] for rows in chosen for i in rows), buckets)
        )
        rows = [[examples[i] for i in group] for group in chosen] + [[]] * (batch_size - len(chosen))
        made.append(collator.collate(rows[here], length=height))
    return made


def eval_places(
    sizes: Sequence[int], *, layout: str, batch_size: int, length: int
) -> list[list[np.ndarray]]:  # fmt: skip
    """Returns which examples, in order, stand in each row of each global batch of `eval_batches`."""
    if layout == "packed":
        groups = sorted(pack.members(pack.best_fit(sizes, length=length)), key=lambda rows: int(rows[0]))
    else:
        groups = [np.array([i]) for i in range(len(sizes))]
    return [groups[first : first + batch_size] for first in range(0, len(groups), batch_size)]


def _ahead(source: Any, start: int, threads: int, prefetch: int) -> Iterator[Any]:
    import grain

    stream = grain.MapDataset.source(_Batches(source, start))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    return iter(stream.to_iter_dataset(options))


class _Batches:
    """The stream as a Grain source; endless, so its length is the largest that Grain can count to."""

    def __init__(self, loader: Any, start: int) -> None:
        self._loader, self._start = loader, start

    def __len__(self) -> int:
        return (1 << 62) - self._start

    def __getitem__(self, k: Any) -> Any:
        return self._loader.batch(self._start + int(k))


def _random(*key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(key))


def _slice(batch_size: int, shard: Shard) -> slice:
    index, count = shard.process, shard.processes
    if batch_size < 1 or batch_size % count or not 0 <= index < count:
        raise errors.UserError(
            f"batch_size={batch_size} rows do not split evenly over {count} processes; pick a multiple"
        )
    here = batch_size // count
    return slice(index * here, (index + 1) * here)


def _shares(rows: int, weights: Sequence[float], count: int) -> list[int]:
    """Returns how many units of each data set an epoch has: proportional to the weights, summing to `rows`."""
    total = float(sum(weights))
    if len(weights) != count or not all(weight > 0 for weight in weights) or not np.isfinite(total):
        raise errors.UserError(f"mixture weights {list(weights)} must be {count} positive numbers, one a data set")
    edges = np.round(np.cumsum([0.0, *(weight / total for weight in weights)]) * rows).astype(int)
    shares = np.diff(edges).tolist()
    if 0 in shares:
        raise errors.UserError(
            f"mixture weight {weights[shares.index(0)]} of data set {shares.index(0) + 1} gives it no row of an epoch "
            f"of {rows}; raise the weight"
        )
    return shares
