"""Many rows through few slots: a finished row leaves its slot to the next in the queue, so that it stops costing.

The device decodes some tokens for all slots, then the host looks: it takes what was made, ends rows whose text has a
stop string, and fills free slots with new prompts. Shapes are bucketed (prompts at a time and slots by halves, lengths
by doubling, long ones by quarters of it), so the number of programs grows with the logarithms of these alone.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ftjax import hosts, mesh
from ftjax.models.config import ModelConfig
from ftjax.sampling import rows as programs
from ftjax.sampling import stops

STEPS = 16  # tokens between two looks of the host
SHORTEST = 32  # the least length that prompts are padded to
LONG = 512  # from where reading what is padded costs more than a program


class Made(NamedTuple):
    """Completions of all rows, on the host."""

    tokens: np.ndarray  # int32 [R, N]
    logps: np.ndarray  # float32 [R, N]
    counts: np.ndarray  # int [R]: tokens of each row
    ended: np.ndarray  # bool [R]


def left_pad(prompts: Sequence[Sequence[int]], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns tokens and validity [B, T] of prompts at the right end of `length` places."""
    tokens, valid = np.zeros((len(prompts), length), np.int32), np.zeros((len(prompts), length), np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, length - len(prompt) :] = prompt
        valid[row, length - len(prompt) :] = 1
    return tokens, valid


def bucket(size: int, least: int) -> int:
    """Returns the first of least, 2 least, 4 least, .. that is not below size."""
    return least if size <= least else least << (-(-size // least) - 1).bit_length()


def padded(longest: int) -> int:
    """Returns the length that prompts are padded to: 32, 64, .., 512, and above four lengths to a doubling (640, 768,
    896, 1,024, 1,280, ..), of which at most a fifth is empty."""
    whole = bucket(longest, SHORTEST)
    step = whole // 8
    return whole if whole <= LONG else -(-longest // step) * step


class _Queue:
    """The host's side: which row is in which slot, and what it has so far."""

    def __init__(self, prompts: Sequence[Sequence[int]], samples: int, slots: int, new: int) -> None:
        count = len(prompts) * samples
        self.prompts, self.samples = prompts, samples
        self.waiting = deque(range(count))
        self.row_of = np.full(slots, -1)  # by slot; -1: free
        self.made = Made(
            np.zeros((count, new), np.int32), np.zeros((count, new), np.float32), np.zeros(count, int),
            np.zeros(count, bool),
        )  # fmt: skip

    def free(self) -> np.ndarray:
        return self.row_of < 0

    def reached(self) -> int:
        """Returns how many places of the cache the longest row in a slot has taken; its last token is not in it."""
        rows = self.row_of[~self.free()]
        return int(max((len(self.prompts[row // self.samples]) + self.made.counts[row] - 1 for row in rows), default=0))

    def assign(self) -> tuple[list[Sequence[int]], np.ndarray]:
        """Gives free slots to waiting rows; returns the prompts to be read and, by slot, which of them it takes."""
        source, numbers = np.full(len(self.row_of), -1), dict[int, int]()
        for slot in np.flatnonzero(self.free())[: len(self.waiting)]:
            row = self.row_of[slot] = self.waiting.popleft()
            source[slot] = numbers.setdefault(row // self.samples, len(numbers))
        return [self.prompts[number] for number in numbers], source

    def take(self, columns: programs.Columns, done: np.ndarray, ended: np.ndarray, find: stops.Find | None) -> None:
        """Notes what a chunk made, and frees the slots of rows that are done."""
        for slot in np.flatnonzero(~self.free()):
            row = self.row_of[slot]
            known = self.made.counts[row]
            first = 1 if known else 0  # column 0 is new only to a row that has just been filled in
            count = int(columns.mask[slot, first:].sum())
            fresh = slice(known, known + count)
            self.made.tokens[row, fresh] = columns.tokens[slot, first : first + count]
            self.made.logps[row, fresh] = columns.logps[slot, first : first + count]
            self.made.counts[row] = known + count
            at = None if find is None else find(self.made.tokens[row, : known + count].tolist(), int(known))
            if at is not None:
                self.made.counts[row] = at
                self.made.tokens[row, at:], self.made.logps[row, at:] = 0, 0
            self.made.ended[row] = bool(ended[slot]) or at is not None
            if done[slot] or at is not None:
                self.row_of[slot] = -1

    def halve(self, shards: int) -> np.ndarray | None:
        """Returns which slots to keep where half of them suffice for the rest; None where they do not."""
        half = len(self.row_of) // 2
        used = np.flatnonzero(~self.free())
        if self.waiting or half < 1 or len(used) > half or half % shards:
            return None
        kept = np.concatenate([used, np.flatnonzero(self.free())])[:half]
        self.row_of = self.row_of[kept]
        return kept


def run(
    params: Any,
    prompts: Sequence[Sequence[int]],
    key: jax.Array,
    rules: programs.Rules,
    config: ModelConfig,
    *,
    samples: int,
    slots: int,
    find: stops.Find | None,
) -> Made:
    """Returns the completions of `samples` rows of each prompt, at most `slots` at a time.

    Rows of a prompt that are filled in together share the reading of it. Every row gets what it gets in one large
    batch, to rounding: its key, its number and its prompt are the same, its place in the cache is not.
    """
    slots = min(slots, len(prompts) * samples)
    queue = _Queue(prompts, samples, slots, rules.new)
    steps, longest = min(STEPS, rules.new - 1), padded(max(map(len, prompts)))
    places, start = longest + rules.new + steps, longest
    rows = programs.empty(rules, key, np.int32(start), config=config, rows=slots, slots=places)
    shards = mesh.batch_shards(slots)
    while queue.waiting or not queue.free().all():
        if start + steps > places:
            rows = programs.shift(rows, np.int32(start - max(longest, queue.reached())))
        if queue.waiting and queue.free().any():
            asked, source = queue.assign()
            asked = asked + [asked[-1]] * (min(bucket(len(asked), 1), slots) - len(asked))
            read = left_pad(asked, padded(max(map(len, asked))))
            numbers = np.maximum(queue.row_of, 0).astype(np.int32)
            rows = programs.fill(params, rows, *read, source.astype(np.int32), numbers, key, rules, config=config)
        kept = queue.halve(shards)
        while kept is not None:
            rows, kept = programs.chosen(rows, kept.astype(np.int32)), queue.halve(shards)
        rows, columns = programs.advance(params, rows, queue.free(), rules, config=config, steps=steps)
        start, done, ended, columns = hosts.on_host((rows.kv.start, rows.done_B, rows.ended_B, columns))
        queue.take(columns, done, ended, find)
    return queue.made
