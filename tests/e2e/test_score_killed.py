"""A scoring that is killed in the middle goes on: what is done stays as it is, and the whole is that of one call."""

import pytest

from ftjax.data import scores
from tests import bases

pytestmark = pytest.mark.e2e


def test_kill_9_loses_no_part_and_the_scores_are_those_of_an_undisturbed_call(start, tiny_base, tmp_path):
    made = [{"messages": row["messages"] * (1 + n % 2)} for n, row in enumerate(bases.rows(400))]
    file = bases.write_rows(tmp_path / "mine.jsonl", made)
    words = lambda out: ["score", file, "--model", tiny_base, "--samples", 1, "--out", tmp_path / out]
    parts = tmp_path / "killed.parquet.parts"
    done = lambda: sorted(path.name for path in parts.glob("part-*.npz"))
    first = start("data", *words("killed.parquet"))
    assert first.until(lambda: len(done()) >= 1, seconds=300)
    first.kill()
    kept = {name: (parts / name).stat().st_mtime_ns for name in done()}
    assert 1 <= len(kept) < 4
    assert not (tmp_path / "killed.parquet").exists()
    second = start("data", *words("killed.parquet"))
    assert second.until(lambda: len(done()) > len(kept), seconds=300)
    second.kill()  # once more
    assert {name: (parts / name).stat().st_mtime_ns for name in kept} == kept
    third = start("data", *words("killed.parquet"))
    assert third.ends() == 0, third.said()
    whole = start("data", *words("whole.parquet"))
    assert whole.ends() == 0, whole.said()
    ours, theirs = (scores.read(tmp_path / name) for name in ("killed.parquet", "whole.parquet"))
    assert ours.manifest == theirs.manifest
    for name, values in theirs.values.items():
        assert ours.values[name].tobytes() == values.tobytes(), name
    assert ours.embedding.tobytes() == theirs.embedding.tobytes()
