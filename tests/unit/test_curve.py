"""A curve is runs on nested parts of one file, made once, and an answer from their numbers."""

import functools
import json
import math

import pytest

from ftjax import curve, sweep
from ftjax.data import rows
from ftjax.errors import UserError
from tests import bases

SPEC = f"{bases.ROOT}/configs/sft/jsonl.py:data={{data}}"


def finish(path, loss):
    path.mkdir(parents=True)
    (path / "summary.json").write_text(json.dumps({"after": {"eval_loss": loss}}))
    (path / "DONE").write_text("now\n")


class Launches:
    """Stands for training: the loss falls with the root of the rows that the run reads."""

    def __init__(self):
        self.calls = []

    def __call__(self, job):
        self.calls.append(job.name)
        count = len(rows.read(job.changes["data.paths"][0]).rows)
        finish(job.path, 0.4 + 3 * count**-0.5 + 0.001 * job.changes["seed"])


@pytest.fixture
def spec(tmp_path):
    return SPEC.format(data=bases.write_rows(tmp_path / "rows.jsonl", bases.rows(60)))


def make(folder, spec, launches, *, sizes=(10, 20, 40), common=None, worth=0.01, metric="after.eval_loss"):
    made = curve.plan(folder, spec, common or {}, sizes=sizes, seeds=2)
    return curve.run(
        folder,
        spec,
        common or {},
        made,
        train=functools.partial(sweep.here, launch=launches),
        metric=metric,
        worth=worth,
        say=lambda _: None,
    )


def test_parts_of_a_seed_are_nested_and_share_no_row_with_what_is_held_out(tmp_path, spec):
    made = curve.plan(tmp_path / "c", spec, {}, sizes=(10, 20, 40), seeds=2)
    held = {json.dumps(row) for row in made.data[tmp_path / "c" / "data" / "heldout.jsonl"]}
    assert len(held) == 3
    parts = {name: [json.dumps(row) for row in made.data[tmp_path / "c" / "data" / name]] for name in (
        "seed0-10.jsonl", "seed0-20.jsonl", "seed0-40.jsonl", "seed1-40.jsonl"
    )}  # fmt: skip
    assert parts["seed0-40.jsonl"][:20] == parts["seed0-20.jsonl"]
    assert parts["seed0-20.jsonl"][:10] == parts["seed0-10.jsonl"]
    assert parts["seed0-40.jsonl"] != parts["seed1-40.jsonl"]
    assert not held & {row for part in parts.values() for row in part}
    assert {changes["eval.path"] for changes in made.entries.values()} == {str(tmp_path / "c" / "data/heldout.jsonl")}


def test_a_copy_of_a_held_out_row_is_in_no_part(tmp_path):
    spec = SPEC.format(data=bases.write_rows(tmp_path / "rows.jsonl", bases.rows(30) * 2))
    made = curve.plan(tmp_path / "c", spec, {}, sizes=(10, 20), seeds=1)
    held = {json.dumps(row) for row in made.data[tmp_path / "c" / "data" / "heldout.jsonl"]}
    assert made.rows == 60 - 2 * len(held)
    whole = curve.plan(tmp_path / "d", spec, {}, sizes=(made.rows,), seeds=1)
    assert not held & {json.dumps(row) for row in whole.data[tmp_path / "d" / "data" / f"seed0-{made.rows}.jsonl"]}


def test_without_sizes_all_rows_are_the_last_one(tmp_path, spec):
    grown = curve.plan(tmp_path / "c", spec, {"data.paths": "world:known/train?size=150"}, sizes=None, seeds=1)
    assert sorted(grown.sizes.values()) == [50, 100, grown.rows]
    many = curve.plan(tmp_path / "c", spec, {"data.paths": "world:known/train?size=1400"}, sizes=None, seeds=1)
    assert sorted(many.sizes.values()) == [50, 100, 200, 500, 1000]


def test_a_curve_is_made_once_and_answers_from_its_folders(tmp_path, spec):
    launches = Launches()
    first = make(tmp_path / "c", spec, launches)
    assert len(launches.calls) == 6
    assert first.verdict == "more"
    told = json.loads((tmp_path / "c" / "curve.json").read_text())
    assert told["answer"] == first.text
    assert {run["rows"] for run in told["runs"]} == {10, 20, 40}
    assert told["law"]["c"]["interval"][0] <= told["law"]["c"]["value"] <= told["law"]["c"]["interval"][1]
    assert (tmp_path / "c" / "curve.md").read_text().endswith(f"{first.text}\n")
    assert (tmp_path / "c" / "curve.png").stat().st_size > 1000
    again = make(tmp_path / "c", spec, launches, sizes=(10, 20, 40, 57))
    assert launches.calls[6:] == ["rows=57+seed=0", "rows=57+seed=1"]
    assert again.curve.largest == 57


def test_two_sizes_are_undecided_and_draw_no_curve(tmp_path, spec):
    found = make(tmp_path / "c", spec, Launches(), sizes=(10, 20))
    assert found.verdict == "undecided"
    assert not (tmp_path / "c" / "curve.png").exists()
    assert json.loads((tmp_path / "c" / "curve.json").read_text())["law"] is None


def test_a_file_that_has_changed_under_a_curve_is_refused(tmp_path, spec):
    make(tmp_path / "c", spec, Launches())
    bases.write_rows(tmp_path / "rows.jsonl", bases.rows(64)[4:])
    with pytest.raises(UserError, match=r"heldout.jsonl holds other rows than the config's file has now"):
        make(tmp_path / "c", spec, Launches())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sizes": (10, 58)}, "--sizes 58: there are 57 rows to train on; give 2 to 57"),
        ({"common": {"data.weights": "1"}}, "a mixture has no size to grow"),
        ({"common": {"seed": "-1"}}, r"config\.seed is -1; it must be between 0"),
        (
            {"sizes": None},
            r"57 rows .* too few of the usual sizes \(50, 57\) .* needs 3; give others, say --sizes 14,28,57",
        ),
        (
            {"metric": "eval_loss"},
            r"--metric eval_loss: must be a number in a section .*did you mean 'after\.eval_loss'",
        ),
        ({"metric": "after.loss"}, r"--metric after\.loss: must be a number in a section"),
        ({"worth": -1.0}, r"--worth -1\.0 must be a gain, at least 0"),
        ({"worth": math.nan}, "--worth nan must be a gain"),
    ],
)
def test_what_is_wrong_with_a_curve_is_said(tmp_path, spec, options, says):
    launches = Launches()
    with pytest.raises(UserError, match=says):
        make(tmp_path / "c", spec, launches, **options)
    assert not launches.calls


def test_a_metric_that_runs_do_not_have_ends_the_curve_after_the_first_run_and_before_the_next_call(tmp_path, spec):
    launches = Launches()
    for _ in range(2):
        with pytest.raises(
            UserError, match=r"--metric after\.eval_lost: .*seed=0 has none \(did you mean 'after.eval_l"
        ):
            make(tmp_path / "c", spec, launches, metric="after.eval_lost")
        assert launches.calls == ["rows=10+seed=0"]
    make(tmp_path / "c", spec, launches)
    assert len(launches.calls) == 6


def test_runs_that_all_failed_make_no_curve_and_say_why(tmp_path, spec):
    def fail(job):
        raise UserError(f"no room for {job.name}")

    with pytest.raises(
        UserError,
        match=r"no run came to its end, .*: rows=10\+seed=0 failed, no room for rows=10\+seed=0; .*table\.md has",
    ):
        make(tmp_path / "c", spec, fail)


def test_a_folder_with_other_files_is_left_alone(tmp_path, spec):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds files that are no sweep"):
        make(tmp_path / "c", spec, Launches())
    assert [file.name for file in (tmp_path / "c").iterdir()] == ["mine.txt"]
