"""Clusters of the same prompts are found once for all tests of a comparison: they are most of its time."""

import functools

import pytest

from ftjax.data import topics


@pytest.fixture(scope="package", autouse=True)
def clusters_once():
    """Keeps what `topics.find` has found."""
    find = functools.lru_cache(topics.find)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topics, "find", lambda texts, vectors: find(tuple(texts), vectors))
        yield
