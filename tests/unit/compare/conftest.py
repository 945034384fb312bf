"""Clusters of the same prompts are found once for all tests of a comparison: they are most of its time."""

import functools

import pytest

from ftjax.data import topics


@pytest.fixture(scope="package", autouse=True)
def clusters_once():
    """Keeps what `topics.find` has found of words alone."""
    find = topics.find
    kept = functools.lru_cache(lambda texts: find(texts, None))
    once = lambda texts, vectors: kept(tuple(texts)) if vectors is None else find(texts, vectors)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topics, "find", once)
        yield
