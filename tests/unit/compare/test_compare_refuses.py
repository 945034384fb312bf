"""What cannot be compared is refused by name with the way out; --force compares what is shared and says so."""

import json
import tracemalloc

import pytest

from ftjax.compare import evaluations, outputs, systems, votes
from ftjax.errors import UserError
from tests import run_folders
from tests.run_folders import told

ROWS = run_folders.lines([n % 3 == 0 for n in range(60)])


@pytest.fixture
def first(tmp_path):
    return run_folders.write(tmp_path / "first", ROWS)


def test_runs_on_other_rows_are_refused_and_forced_on_the_shared_ones(first, tmp_path):
    second = run_folders.write(
        tmp_path / "second", [*ROWS[20:], run_folders.line(900, before=None, after={"score": 1})]
    )
    with pytest.raises(UserError, match=r"second was measured on other held-out rows than first \(41 and 60 rows, 40"):
        told([first, second])
    found = told([first, second], force=True)
    assert found["metrics"][0]["rows"] == 40
    assert "second was measured on other held-out rows than first (41 and 60 rows, 40 in both)" in found["notes"]


def test_runs_that_share_no_row_cannot_be_forced(first, tmp_path):
    other = [run_folders.line(n, before={"score": 0}, after={"score": 1}) for n in range(500, 540)]
    second = run_folders.write(tmp_path / "second", other)
    with pytest.raises(UserError, match="no held-out row that all of --runs have"):
        told([first, second], force=True)


def test_runs_with_another_template_are_refused(first, tmp_path):
    second = run_folders.write(tmp_path / "second", ROWS, template="chatml")
    with pytest.raises(
        UserError, match=r"second was measured with the template chatml and first with the template the tok"
    ):
        told([first, second])
    assert any("chatml" in note for note in told([first, second], force=True)["notes"])


@pytest.mark.parametrize(
    "data",
    [
        {"hash": "99" * 32},
        {"hash": "99" * 32, "report": {"rows": 801}},
        {"files": [{"path": "world:format/train", "hash": "99" * 32}]},
    ],
    ids=["hash", "rows", "files"],
)
def test_runs_on_other_versions_of_one_file_are_refused(tmp_path, data):
    known = {"files": [{"path": "world:format/train", "hash": "88" * 32}]} if "files" in data else {}
    first = run_folders.write(tmp_path / "first", ROWS, data=known)
    second = run_folders.write(tmp_path / "second", ROWS, data=data)
    with pytest.raises(UserError, match="first and second were trained on different versions of world:format/train"):
        told([first, second])
    assert "different versions" in told([first, second], force=True)["notes"][0]


def test_other_files_and_other_encodings_are_no_other_version(first, tmp_path):
    other = run_folders.write(tmp_path / "other", ROWS, data={"paths": ["mine.jsonl"], "hash": "99" * 32})
    longer = run_folders.write(tmp_path / "long", ROWS, data={"hash": "99" * 32}, config={"data": {"max_length": 9}})
    assert told([first, other, longer])["notes"] == []


def test_a_run_without_rows_is_sent_to_evaluate(first, tmp_path):
    old = run_folders.write(tmp_path / "old", ROWS)
    (old / "held_out.jsonl").unlink()
    with pytest.raises(
        UserError, match=r"old has no held_out.jsonl.*scripts/evaluate.py --config configs/eval/held_out.py:run="
    ):
        systems.read([str(first), str(old)])


def test_a_run_that_has_not_ended_is_sent_to_resume(first, tmp_path):
    stopped = run_folders.write(tmp_path / "stopped", ROWS)
    (stopped / "DONE").unlink()
    with pytest.raises(
        UserError, match=r"stopped did not come to its end; go on with python scripts/train.py --workdir"
    ):
        systems.read([str(first), str(stopped)])


@pytest.mark.parametrize(
    ("runs", "says"),
    [
        (["{first}"], "--runs names one run"),
        (["{first}", "{first}"], "twice; name each run once"),
        (["{first}", "{first}x"], "did you mean 'first'"),
        (["{first}", "{rest}"], "is no run folder"),
        (["base", "base"], "twice"),
    ],
)
def test_arguments_that_name_no_two_runs_are_refused(first, tmp_path, runs, says):
    (tmp_path / "rest").mkdir()
    with pytest.raises(UserError, match=says):
        systems.read([text.format(first=first, rest=tmp_path / "rest") for text in runs])


def test_a_baseline_that_is_none_of_the_runs_is_refused_with_the_nearest(first):
    found = systems.read(["base", str(first)])
    assert systems.named(found, "first").name == systems.named(found, f"{first}/").name == "first"
    assert systems.named(found, "base").kind == "base"
    with pytest.raises(
        UserError, match=r"--baseline frist: it is none of --runs, which are base, first \(did you mean"
    ):
        systems.named(found, "frist")


def test_a_torn_line_is_named(first):
    text = (first / "held_out.jsonl").read_text()
    (first / "held_out.jsonl").write_text(text + '{"id": "1"')
    with pytest.raises(UserError, match=r"held_out.jsonl:61: no line of results"):
        systems.read(["base", str(first)])


def test_bases_of_two_runs_are_told_apart(first, tmp_path):
    run_folders.write(tmp_path / "second", ROWS)
    found = systems.read([f"base:{first}", f"base:{tmp_path / 'second'}"])
    assert [one.name for one in found] == ["base of first", "base of second"]


def evaluation(folder, *, run="", name="benchmarks.json", facts=None):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model": {"run": str(run), "path": "base", "adapter": ""}}))
    (folder / name).write_text(json.dumps(facts or {"model": {"hash": "cd" * 32, "adapter": None}, "harness": {}}))
    (folder / "DONE").touch()
    return folder


def samples(folder, right):
    lines = [
        {
            "task": "arc",
            "doc": n,
            "doc_hash": run_folders.row_id(n),
            "filter": "none",
            "target": "1",
            "answers": [],
            "acc": one,
        }
        for n, one in enumerate(right)
    ]
    run_folders.write_lines(folder / "samples.jsonl", lines)


def test_benchmarks_are_given_to_the_run_and_to_the_base_that_they_have_measured(first, tmp_path):
    folders = [evaluation(tmp_path / "of_run", run=first), evaluation(tmp_path / "of_base")]
    samples(folders[0], [1] * 50)
    samples(folders[1], [0, 1] * 25)
    found = told(["base", first], folders=folders)
    bench = next(one for one in found["metrics"] if one["set"] == "arc")
    assert (bench["values"]["base"]["value"], bench["values"]["first"]["value"]) == (0.5, 1.0)
    assert bench["against"]["first"]["gained"] == 25


def test_an_evaluation_of_something_else_is_refused(first, tmp_path):
    stray = evaluation(tmp_path / "stray", run=tmp_path / "unknown")
    samples(stray, [1])
    with pytest.raises(UserError, match=r"has measured .*unknown, which is none of --runs"):
        evaluations.added(systems.read(["base", str(first)]), [str(stray)])


def test_an_evaluation_on_held_out_rows_is_a_run_of_its_own_by_the_name_of_what_it_measured(first, tmp_path):
    told_rows = [{**row, "before": {}} for row in ROWS]
    facts = {"model": {"hash": "cd" * 32, "adapter": None}, "data": {"path": "test.jsonl"}, "rows": len(ROWS)}
    folders = [
        evaluation(tmp_path / "e1", run=first, name="evaluation.json", facts=facts),
        evaluation(tmp_path / "e2", name="evaluation.json", facts=facts),
    ]
    for folder in folders:
        run_folders.write_lines(folder / "held_out.jsonl", told_rows)
    found = told([folders[1], folders[0]])
    assert [one["name"] for one in found["systems"]] == ["base", "first"]
    assert found["cost"]["first"]["trainable_parameters"] == 40_960
    assert found["cost"]["base"]["trainable_parameters"] == 0
    with pytest.raises(UserError, match="first has held-out already; leave one of the two folders out"):
        told(["base", first], folders=folders)


def test_evaluations_on_other_rows_are_sets_by_the_name_of_their_file_or_of_a_set_that_has_the_same_rows(tmp_path):
    kept = [
        run_folders.line(n, before={"nats": 3, "tokens": 3}, after={"nats": 4, "tokens": 3}) for n in range(700, 740)
    ]
    one = run_folders.write(tmp_path / "one", ROWS, retention=kept)
    two = run_folders.write(tmp_path / "two", ROWS)
    facts = {"model": {}, "data": {"path": "some/test.jsonl"}}
    folders = [
        evaluation(tmp_path / f"e{n}", run=run, name="evaluation.json", facts=facts)
        for n, run in enumerate([one, two, two])
    ]
    other = [{**row, "id": row["id"][::-1]} for row in ROWS]
    for folder, rows in zip(folders, (other, other, kept), strict=True):
        run_folders.write_lines(folder / "held_out.jsonl", rows)
    found = told([one, two], folders=folders)
    assert [one["set"] for one in found["metrics"]] == ["held-out", "held-out", "retention", "test.jsonl", "test.jsonl"]
    assert found["notes"] == []


def test_one_model_that_was_timed_twice_is_as_fast_as_the_faster_time(tmp_path):
    facts = {"model": {"hash": "cd" * 32, "adapter": None}, "data": {"path": "test.jsonl"}}
    folders = []
    for name, seconds, adapter in (("e1", 0.1, None), ("e2", 0.4, None), ("e3", 1.6, "slow")):
        own = {**facts, "model": {"hash": "cd" * 32, "adapter": adapter}, "answer_seconds": seconds}
        folders.append(evaluation(tmp_path / name, name="evaluation.json", facts=own))
        run_folders.write_lines(folders[-1] / "held_out.jsonl", [{**row, "before": {}} for row in ROWS])
    found = told(folders)
    (by_seconds,) = (one for one in found["frontier"] if one["price"] == "answer_seconds")
    assert by_seconds["front"] == ["base in e1", "base in e2"]
    assert found["cost"]["base in e2"]["answer_seconds"] == 0.4
    assert not [one for one in told(folders[:2])["frontier"] if one["price"] == "answer_seconds"]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (
            {"check": "mine:always"},
            "second was measured with the check mine:always and first with the check tasks.exact",
        ),
        (
            {"max_new_tokens": 1},
            "second was measured with answers of up to 1 tokens and first with answers of up to 64",
        ),
    ],
)
def test_scores_of_other_checks_or_lengths_of_answers_are_refused(tmp_path, other, says):
    same = {"check": "tasks.exact_match", "max_new_tokens": 64}
    first = run_folders.write(tmp_path / "first", ROWS, config={"eval": same})
    second = run_folders.write(tmp_path / "second", ROWS, config={"eval": same | other})
    with pytest.raises(UserError, match=rf"on held-out {says}.*--config.eval.max_new_tokens=N\), or give --force"):
        told([first, second])
    assert says in told([first, second], force=True)["notes"][0]
    losses = [{**row, "after": {"nats": 3.0, "tokens": 3}} for row in ROWS]
    plain = [run_folders.write(tmp_path / f"n{n}", losses, config={"eval": x}) for n, x in enumerate((same, other))]
    assert told(plain)["notes"] == [], "no score depends on it"


def test_benchmarks_with_other_lengths_of_answers_are_refused(first, tmp_path):
    folders = [evaluation(tmp_path / "of_run", run=first), evaluation(tmp_path / "of_base")]
    for folder, new in zip(folders, (0, 16), strict=True):
        samples(folder, [1] * 50)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "harness": {"chat": False, "new_tokens": new}}))
    with pytest.raises(
        UserError, match=r"on arc first was measured with answers as long as the task says and base with"
    ):
        told(["base", first], folders=folders)


def test_a_folder_of_evaluate_that_cannot_stand_among_the_runs_is_told_where_it_belongs(first, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    for section, says in {
        "harness": "holds benchmarks, and no rows of a run; give it as --evaluations, with the run",
        "judge": "holds what a judge said, and no rows of a run; give it as --evaluations",
        "text": "holds the perplexity of one long text.*configs/eval/held_out.py",
    }.items():
        (folder / "config.json").write_text(json.dumps({"model": {"run": ""}, section: {}}))
        with pytest.raises(UserError, match=f"other {says}"):
            systems.read([str(first), str(folder)])
    (folder / "config.json").write_text(json.dumps({"model": {"run": ""}, "eval": {}}))
    with pytest.raises(UserError, match=r"did not come to its end; give scripts/evaluate.py the same command again"):
        systems.read([str(first), str(folder)])
    (folder / "evaluation.json").write_text("{}")
    with pytest.raises(UserError, match=r"give scripts/evaluate.py the same command again .*other/command.sh"):
        systems.read([str(first), str(folder)])


def test_folders_that_are_no_evaluations_are_told_what_they_are(first, tmp_path):
    found, stray = systems.read(["base", str(first)]), tmp_path / "stray"
    with pytest.raises(UserError, match=r"first is a run; give it as --runs"):
        evaluations.added(found, [str(first)])
    stray.mkdir()
    with pytest.raises(UserError, match=r"stray holds none of judge.json"):
        evaluations.added(found, [str(stray)])
    (stray / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"stray did not come to its end; give scripts/evaluate.py the same command"):
        evaluations.added(found, [str(stray)])


def test_a_place_below_a_file_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"out cannot be made: .*file is a file; give a new folder as --out"):
        outputs.check(tmp_path / "file" / "deep" / "out")
    with pytest.raises(UserError, match=r"file is not empty"):
        outputs.check(tmp_path / "file")
    outputs.check(tmp_path / "new" / "out")


def test_a_model_whose_every_loss_is_no_number_is_refused_by_name(tmp_path):
    rows = [
        run_folders.line(n, before={"nats": 2.0, "tokens": 2}, after={"nats": "NaN", "tokens": 2}) for n in range(9)
    ]
    broken = run_folders.write(tmp_path / "broken", rows)
    with pytest.raises(
        UserError, match=r"no number that all of --runs have: loss on held-out: of 9 rows broken has none"
    ):
        told(["base", broken])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            '{"prompt": "p", "run_a": "x", "run_b": "y", "choice": "c", "rater": "r"}',
            "choice 'c' is none of a, b, tie, both",
        ),
        ('{"prompt": "p"}', "votes.jsonl:1: no vote"),
        ("[1]", "votes.jsonl:1: no vote"),
    ],
)
def test_a_line_that_is_no_vote_is_named(tmp_path, line, says):
    (tmp_path / "votes.jsonl").write_text(line)
    with pytest.raises(UserError, match=says):
        votes.read(str(tmp_path / "votes.jsonl"))


def test_votes_on_others_and_on_one_run_are_left_out_with_a_note_and_refused_where_there_are_no_more(first):
    vote = lambda a, b: votes.Vote("p", a, b, "a", "x")
    mixed = [vote("base", "first"), vote("first", "first"), vote("foo", "first"), vote("foo", "bar")]
    found = told(["base", first], people=mixed)
    assert [(one["a"], one["b"], one["votes"]) for one in found["people"]] == [("first", "base", 1)]
    assert found["notes"] == [
        "1 votes have one run as both run_a and run_b and are left out",
        "2 votes are on bar, foo, not compared here, and are left out",
    ]
    with pytest.raises(
        UserError, match=r"no vote between two of --runs, which are base, first: they are of frist; .*'f"
    ):
        told(["base", first], people=[vote("frist", "base")])
    with pytest.raises(UserError, match="each has one run as both"):
        told(["base", first], people=[vote("base", "base")])


def test_one_long_prompt_costs_no_memory_for_each_vote():
    prompts = ["x" * 400_000, *map(str, range(499))]
    tracemalloc.start()
    (found,) = votes.report([votes.Vote(one, "a", "b", "a", "x") for one in prompts], baseline="b", level=0.95)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found["votes"], found["prompts"]) == (500, 500)
    assert most < 5e6


def test_votes_are_turned_to_one_side_whichever_stood_first():
    side = [votes.Vote("p", "tuned", "base", "a", "x"), votes.Vote("p", "base", "tuned", "b", "y")]
    (found,) = votes.report(side, baseline="base", level=0.95)
    assert (found["a"], found["choices"]["a"], found["win_rate"]["value"]) == ("tuned", 2, 1.0)
