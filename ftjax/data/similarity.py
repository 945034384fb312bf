"""Which texts are nearly equal: MinHash of word triples, buckets of equal bands, the exact Jaccard index of those."""

from collections.abc import Iterable, Sequence
import hashlib
import re
from typing import NamedTuple

import numpy as np

JACCARD = 0.8  # share of common triples from which two texts are nearly equal
SHINGLE = 3  # words
NGRAM = 13  # words in common that no two texts share by chance (GPT-3's rule, 2005.14165, appendix C)
_PERMUTATIONS, _ROWS = 128, 8  # 16 bands of 8: texts of Jaccard 0.8 meet in one with probability 0.95, of 0.5 with 0.06
_BATCH = 2048  # texts that are cut into triples at a time
_MOST_TRIED = 8  # members of a bucket that each text is compared with
_WORD = re.compile(r"\w+")


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
