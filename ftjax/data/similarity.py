"""Which texts are nearly equal, by the Jaccard index of their word triples.

`near` finds candidates by MinHash and buckets of equal bands, fast and nearly all; `groups` and `nearest` miss none.
Scripts that put no spaces between words have each character in the place of a word.
"""

from collections.abc import Iterable, Sequence
import hashlib
import math
import re
from typing import NamedTuple

import numpy as np

JACCARD = 0.8  # share of common triples from which two texts are nearly equal
SHINGLE = 3  # words
NGRAM = 13  # words in common that no two texts share by chance (GPT-3's rule, 2005.14165, appendix C)
_PERMUTATIONS, _ROWS = 128, 8  # 16 bands of 8: texts of Jaccard 0.8 meet in one with probability 0.95, of 0.5 with 0.06
_BATCH = 2048  # texts that are cut into triples at a time
_MOST_TRIED = 8  # members of a bucket that each text is compared with
_BITS = 1024  # of the bitmap of a set: 5,000 texts with 8 of 200 words of their own take 1.4 s in place of 75
# Thai, Lao, Burmese, Khmer, Japanese and Chinese.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


class Near(NamedTuple):
    """Text `row` has so many triples in common with the earlier text `like`."""

    row: int
    like: int
    jaccard: float


def near(texts: Sequence[str]) -> list[Near]:
    """Returns each text that is nearly equal to an earlier one, with the closest that was found.

    Texts that differ in case and punctuation alone are equal here (Jaccard 1). Texts without a word are left out.
    """
    if not texts:
        return []
    signatures = _signatures(texts)
    best: dict[int, tuple[float, int]] = {}
    tried: set[tuple[int, int]] = set()
    for band in range(0, _PERMUTATIONS, _ROWS):
        for members in _buckets(signatures[:, band : band + _ROWS]):
            for position, index in enumerate(members[1:], start=1):
                # The first of the bucket, so that groups hang together, and the ones just before.
                others = {members[0], *members[max(0, position - _MOST_TRIED + 1) : position]}
                for like in others:
                    if (index, like) in tried:
                        continue
                    tried.add((index, like))
                    if (signatures[index] == signatures[like]).mean() < JACCARD - 0.12:
                        continue  # three standard deviations of the estimate: not worth counting
                    jaccard = exact(texts[index], texts[like])
                    if jaccard >= JACCARD and (jaccard, -like) > best.get(index, (0.0, 0)):
                        best[index] = (jaccard, -like)
    return [Near(index, -like, jaccard) for index, (jaccard, like) in sorted(best.items())]


def nearest(texts: Sequence[str], among: Sequence[str]) -> list[Near]:
    """Returns each text that is nearly equal to one of `among`, with the closest of these as `like`. None is missed.

    Two sets with a Jaccard index of t share one of the rarest n - ceil(t n) + 1 elements of either (prefix filtering;
    AllPairs, Bayardo et al. 2007).
    """
    sets = [frozenset(map(hash, triples(text))) for text in among]
    first: dict[frozenset[int], int] = {}
    owners: dict[int, list[int]] = {}
    for n, own in enumerate(sets):
        if first.setdefault(own, n) == n:
            for element in own:
                owners.setdefault(element, []).append(n)

    def closest(own: frozenset[int]) -> tuple[float, int]:
        common = sorted((element for element in own if element in owners), key=lambda element: len(owners[element]))
        least = math.ceil(JACCARD * len(own) - 1e-9)
        tried = {like for element in common[: max(0, len(common) - least + 1)] for like in owners[element]}
        best = (0.0, 0)
        for like in tried:
            both = len(own & sets[like])
            best = max(best, (both / (len(own) + len(sets[like]) - both), -like))
        return best

    found = []
    for row, text in enumerate(texts):
        own = frozenset(map(hash, triples(text)))
        jaccard, like = (1.0, -first[own]) if own and own in first else closest(own)
        if jaccard >= JACCARD:
            found.append(Near(row, -like, jaccard))
    return found


def groups(texts: Sequence[str]) -> np.ndarray:
    """Returns for each text the first one of its group. Texts hang together that are nearly equal, also through others.

    No pair is missed. Two sets with a Jaccard index of t share one of the rarest n - ceil(t n) + 1 elements of each
    (prefix filtering; AllPairs, Bayardo et al. 2007), and the places at which they share it bound what they have in
    common (PPJoin, Xiao et al. 2008). Only what passes both bounds is counted, and what hangs together is not counted
    again.
    """
    sets = _Sets(texts)
    label = np.arange(len(texts))
    members = {n: [n] for n in range(len(texts))}

    def join(a: int, b: int) -> None:
        kept, gone = (label[a], label[b]) if len(members[label[a]]) >= len(members[label[b]]) else (label[b], label[a])
        moved = members.pop(int(gone))
        label[moved] = kept
        members[int(kept)] += moved

    for owners, places in sets.shared():
        if (label[owners] == label[owners[0]]).all():
            continue
        sizes = sets.sizes[owners]
        # place_a + place_b <= (1 - t) / (1 + t) (n_a + n_b), so one of a pair has at most that share before the place.
        for a in np.flatnonzero(places <= (1 - JACCARD) / (1 + JACCARD) * sizes + 1e-9):
            least = np.ceil(JACCARD / (1 + JACCARD) * (sizes[a] + sizes) - 1e-9)
            most = np.minimum(sizes[a] - places[a], sizes - places)  # in common, with what comes behind the place
            other = (label[owners] != label[owners[a]]) & (most >= least)
            other &= np.minimum(sizes, sizes[a]) >= JACCARD * np.maximum(sizes, sizes[a]) - 1e-9
            near_enough = np.flatnonzero(other)
            near_enough = near_enough[sets.most_common(owners[a], owners[near_enough]) >= least[near_enough]]
            for b in near_enough:
                if label[owners[a]] != label[owners[b]] and sets.jaccard(owners[a], owners[b]) >= JACCARD:
                    join(int(owners[a]), int(owners[b]))
            if (label[owners] == label[owners[0]]).all():
                break
    first = {own: min(found) for own, found in members.items()}
    return np.array([first[int(own)] for own in label], int)


class _Sets:
    """The triples of texts as numbers, the rarest first."""

    def __init__(self, texts: Sequence[str]) -> None:
        parts = [np.fromiter(map(hash, {*triples(text)}), np.int64) for text in texts]  # 64 bits: no two are equal
        self.sizes = np.array([len(part) for part in parts], np.int64)
        self._start = np.concatenate([[0], np.cumsum(self.sizes)])
        self._owner = np.repeat(np.arange(len(texts), dtype=np.int32), self.sizes)
        flat = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        del parts
        bits, at = np.zeros((len(texts), _BITS // 8), np.uint8), (flat % _BITS).astype(np.uint16)
        np.bitwise_or.at(bits, (self._owner, at >> 3), (1 << (at & 7)).astype(np.uint8))
        self._bits = bits.view(np.uint64)
        _, element, count = np.unique(flat, return_inverse=True, return_counts=True)
        del flat
        rank = np.empty(len(count), np.int32)
        rank[np.argsort(count, kind="stable")] = np.arange(len(count), dtype=np.int32)
        self._rank = rank[element]
        del element
        self._rank = self._rank[np.lexsort((self._rank, self._owner))]

    def shared(self) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """Yields, for each element that several texts have among their rarest, these texts and its place in each."""
        place = np.arange(len(self._rank)) - self._start[self._owner]
        size = self.sizes[self._owner]
        kept = np.flatnonzero(place < size - np.ceil(JACCARD * size - 1e-9) + 1)
        kept = kept[np.argsort(self._rank[kept], kind="stable")]
        ranks = self._rank[kept]
        edges = np.flatnonzero(np.concatenate([[True], ranks[1:] != ranks[:-1], [True]]))
        for n in np.flatnonzero(np.diff(edges) > 1):
            found = kept[edges[n] : edges[n + 1]]
            yield self._owner[found], place[found]

    def most_common(self, one: int, others: np.ndarray) -> np.ndarray:
        """Returns bounds on how many elements a text has in common with others.

        Where the hashes of two sets set different bits, elements differ (bitmap filter; Sandes et al. 2020).
        """
        differ = np.bitwise_count(self._bits[others] ^ self._bits[one]).sum(axis=1, dtype=np.int64)
        return (self.sizes[others] + self.sizes[one] - differ) // 2

    def jaccard(self, a: int, b: int) -> float:
        first, second = (self._rank[self._start[n] : self._start[n + 1]] for n in (a, b))
        both = len({*first.tolist()} & {*second.tolist()})
        return both / (len(first) + len(second) - both)


def exact(first: str, second: str) -> float:
    """Returns the share of word triples that two texts have in common."""
    a, b = set(triples(first)), set(triples(second))
    return len(a & b) / len(a | b) if a | b else 0.0


def triples(text: str) -> list[str]:
    """Returns the runs of three words of a text, in lower case; a shorter text is one run."""
    found = _WORD.findall(text.lower())
    return [" ".join(found[n : n + SHINGLE]) for n in range(len(found) - SHINGLE + 1)] or (
        [" ".join(found)] * bool(found)
    )


def normal(text: str) -> str:
    """Returns a text without what does not tell questions apart: case, punctuation, white space."""
    return " ".join(_WORD.findall(text.lower())) or text.strip()


def ngrams(text: str) -> list[int]:
    """Returns hashes of the runs of 13 words of a text; a shorter text has none."""
    found = _WORD.findall(text.lower())
    runs = (" ".join(found[n : n + NGRAM]) for n in range(len(found) - NGRAM + 1))
    return [int.from_bytes(hashlib.blake2b(run.encode("utf-8", "replace"), digest_size=8).digest()) for run in runs]


def _signatures(texts: Sequence[str]) -> np.ndarray:
    """Returns uint32 [texts, 128]."""
    import rensa

    found = np.zeros((len(texts), _PERMUTATIONS), np.uint32)
    for first in range(0, len(texts), _BATCH):
        sets = [triples(text) for text in texts[first : first + _BATCH]]
        digests = rensa.RMinHash.digests_from_token_sets(sets, num_perm=_PERMUTATIONS, seed=0)
        found[first : first + len(sets)] = np.array(digests, np.uint32)
        for n, own in enumerate(sets):
            if not own:  # no word: like no other text
                found[first + n] = np.random.default_rng([first + n]).integers(0, 2**32, _PERMUTATIONS, np.uint32)
    return found


def _buckets(band: np.ndarray) -> Iterable[list[int]]:
    """Yields the groups of rows of a band [texts, 8] that are equal, in the order of the texts."""
    keys = np.ascontiguousarray(band).view([("", band.dtype)] * band.shape[1]).ravel()
    order = np.argsort(keys, kind="stable")
    edges = np.flatnonzero(np.concatenate([[True], keys[order[1:]] != keys[order[:-1]], [True]]))
    for n in np.flatnonzero(np.diff(edges) > 1):
        yield order[edges[n] : edges[n + 1]].tolist()
