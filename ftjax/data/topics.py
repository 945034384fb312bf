"""What the rows of a file are about: TF-IDF of their words, in clusters and on a map; the same every time."""

from collections.abc import Sequence
from typing import NamedTuple

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


def spread(count: int, most: int) -> np.ndarray:
    """Returns at most so many indices, evenly spread."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).astype(int)


def find(texts: Sequence[str]) -> Topics | None:
    """Returns the topics of texts, or None where there are fewer than 20 or they share no word."""
    from sklearn import cluster, decomposition, feature_extraction, neighbors

    looked_at = spread(len(texts), MOST)
    if len(looked_at) < LEAST:
        return None
    vectorizer = feature_extraction.text.TfidfVectorizer(
        sublinear_tf=True, min_df=2, max_df=0.95, max_features=20_000, dtype=np.float32, token_pattern=r"(?u)\b\w+\b"
    )
    try:
        sparse = vectorizer.fit_transform([texts[n] for n in looked_at])
    except ValueError:  # no word is in two texts
        return None
    width = min(_WIDTH, min(sparse.shape) - 1)
    if width < 2:
        return None
    dense = decomposition.TruncatedSVD(width, random_state=0).fit_transform(sparse)
    dense /= np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-9)
    count = int(np.clip(np.sqrt(len(looked_at) / 2), 2, 30))
    made = cluster.MiniBatchKMeans(min(count, len(np.unique(dense.round(4), axis=0))), random_state=0, n_init=3).fit(
        dense
    )
    sizes = np.bincount(made.labels_)
    order = [int(n) for n in np.argsort(-sizes, kind="stable") if sizes[n]]
    rank = np.empty(len(sizes), int)
    rank[order] = np.arange(len(order))
    words = vectorizer.get_feature_names_out()
    average = np.asarray(sparse.mean(axis=0)).ravel()
    names = []
    for n in order:
        own = np.asarray(sparse[made.labels_ == n].mean(axis=0)).ravel() - average
        names.append(" ".join(str(words[w]) for w in np.argsort(-own)[:_WORDS] if own[w] > 0))
    nearest, _ = neighbors.NearestNeighbors(n_neighbors=2, metric="cosine").fit(dense).kneighbors(dense)
    flat = dense - dense.mean(axis=0)
    place = decomposition.PCA(2, random_state=0).fit_transform(flat)
    return Topics(
        looked_at=looked_at,
        cluster=rank[made.labels_],
        place=place,
        distance=np.maximum(nearest[:, 1], 0.0),
        names=names,
        shares=[float(sizes[n] / len(looked_at)) for n in order],
    )
