"""What the rows of a file are about, in clusters and on a map; the same every time.

Rows are compared by a model's embeddings where there are any, else by TF-IDF of their words.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

LEAST = 20  # texts: fewer have no clusters
MOST = 5_000  # texts that are looked at, spread evenly over the file
_WIDTH = 50  # dimensions after the reduction
_WORDS = 5  # that name a cluster


class Topics(NamedTuple):
    """Of the texts `looked_at`: the cluster of each, its place on the map, and its distance to the nearest one."""

    looked_at: np.ndarray  # int [n]: indices of the texts
    cluster: np.ndarray  # int [n]
    place: np.ndarray  # float [n, 2]
    distance: np.ndarray  # float [n]: 1 - cosine; 0 is an equal one
    names: list[str]  # of the clusters, largest first: the words that tell it from the others
    shares: list[float]  # of the clusters
    by_model: bool  # by a model's embeddings, not by words


def spread(count: int, most: int) -> np.ndarray:
    """Returns at most so many indices, evenly spread."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).astype(int)


class _Words(NamedTuple):
    """TF-IDF of some texts, float [n, words], and the transformations that made it and that reduce it."""

    vectorizer: Any
    sparse: Any
    reducer: Any


def find(texts: Sequence[str], vectors: np.ndarray | None) -> Topics | None:
    """Returns the topics of texts, or None where there are fewer than 20 or they share no word.

    `vectors` are directions [texts, D] by a model; a text without one (NaN) is left out. With fewer than 20, or None,
    words are compared.
    """
    from sklearn import decomposition, neighbors

    known = _known(vectors)
    looked_at = known[spread(len(known), MOST)] if known is not None else spread(len(texts), MOST)
    if len(looked_at) < LEAST:
        return None
    words = _words([texts[n] for n in looked_at])
    if known is not None and vectors is not None:
        dense = _unit(decomposition.PCA(_width(vectors[looked_at]), random_state=0).fit_transform(vectors[looked_at]))
    elif words is not None:
        dense = _unit(words.reducer.transform(words.sparse))
    else:
        return None
    labels = _kmeans(dense, int(np.clip(np.sqrt(len(looked_at) / 2), 2, 30))).labels_
    sizes = np.bincount(labels)
    order = [int(n) for n in np.argsort(-sizes, kind="stable") if sizes[n]]
    rank = np.empty(len(sizes), int)
    rank[order] = np.arange(len(order))
    nearest, _ = neighbors.NearestNeighbors(n_neighbors=2, metric="cosine").fit(dense).kneighbors(dense)
    return Topics(
        looked_at=looked_at,
        cluster=rank[labels],
        place=decomposition.PCA(2, random_state=0).fit_transform(dense - dense.mean(axis=0)),
        distance=np.maximum(nearest[:, 1], 0.0),
        names=["" if words is None else _name(words, labels == n) for n in order],
        shares=[float(sizes[n] / len(looked_at)) for n in order],
        by_model=known is not None,
    )


def clusters(texts: Sequence[str], vectors: np.ndarray | None, *, count: int) -> np.ndarray | None:
    """Returns the cluster of every text, of `count` in all, or None where `find` would return None.

    Texts without a vector get the cluster -1.
    """
    from sklearn import decomposition

    known = _known(vectors)
    chosen = np.arange(len(texts)) if known is None else known
    looked_at = chosen[spread(len(chosen), MOST)]
    if len(looked_at) < LEAST:
        return None
    if known is not None and vectors is not None:
        made = decomposition.PCA(_width(vectors[looked_at]), random_state=0).fit(vectors[looked_at])
        reduced = made.transform(vectors[chosen])
    else:
        words = _words([texts[n] for n in looked_at])
        if words is None:
            return None
        reduced = words.reducer.transform(words.vectorizer.transform(texts))
    dense = _unit(reduced)
    place = np.searchsorted(chosen, looked_at)
    found = np.full(len(texts), -1)
    found[chosen] = _kmeans(dense[place], count).predict(dense)
    return found


def _known(vectors: np.ndarray | None) -> np.ndarray | None:
    """Returns which texts have a vector, or None where these are too few."""
    if vectors is None:
        return None
    known = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    return known if len(known) >= LEAST else None


def _words(texts: Sequence[str]) -> _Words | None:
    from sklearn import decomposition, feature_extraction

    vectorizer = feature_extraction.text.TfidfVectorizer(
        sublinear_tf=True, min_df=2, max_df=0.95, max_features=20_000, dtype=np.float32, token_pattern=r"(?u)\b\w+\b"
    )
    try:
        sparse = vectorizer.fit_transform(texts)
    except ValueError:  # no word is in two texts
        return None
    width = _width(sparse)
    if width < 2:
        return None
    return _Words(vectorizer, sparse, decomposition.TruncatedSVD(width, random_state=0).fit(sparse))


def _width(matrix: Any) -> int:
    return min(_WIDTH, min(matrix.shape) - 1)


def _unit(dense: np.ndarray) -> np.ndarray:
    return dense / np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-9)


def _kmeans(dense: np.ndarray, count: int) -> Any:
    from sklearn import cluster

    most = len(np.unique(dense.round(4), axis=0))
    return cluster.MiniBatchKMeans(min(count, most), random_state=0, n_init=3).fit(dense)


def _name(words: _Words, own: np.ndarray) -> str:
    """Returns the words of a cluster that tell it from the others."""
    known = words.vectorizer.get_feature_names_out()
    usual = np.asarray(words.sparse.mean(axis=0)).ravel()
    # Divided by the root, or words like "is" and "of" come first, of which every cluster has many.
    above = (np.asarray(words.sparse[own].mean(axis=0)).ravel() - usual) / np.sqrt(usual)
    return " ".join(str(known[n]) for n in np.argsort(-above)[:_WORDS] if above[n] > 0)
