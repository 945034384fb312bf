"""A comparison says what the rows say: signs, undecided differences, corrected p, the same for any order of rows."""

import json
import random
import shutil

import numpy as np
import pytest

from ftjax.compare import findings, outputs, systems, votes
from ftjax.data import used
from ftjax.errors import UserError
from ftjax.evals import statistics
from tests import run_folders
from tests.run_folders import COUNT, flips, told


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Runs: `weak` and `strong` on the same rows, a `copy` of weak, and the rows of weak in another order."""
    folder = tmp_path_factory.mktemp("runs")
    retained = lambda nats: [
        run_folders.line(
            1000 + n, before={"nats": 30.0, "tokens": 20}, after={"nats": 30 + nats * (1 + n % 3), "tokens": 20}
        )
        for n in range(60)
    ]
    weak, strong = run_folders.lines(flips(0.3), nats=1.0), run_folders.lines(flips(0.9, 1), nats=0.4)
    run_folders.write(folder / "weak", weak, retention=retained(0.1))
    run_folders.write(
        folder / "strong",
        strong,
        retention=retained(0.4),
        config={"adapter": {"name": "lora", "rank": 64}},
        summary={"trainable_parameters": 327_680},
    )
    shutil.copytree(folder / "weak", folder / "copy")
    run_folders.write(folder / "shuffled", random.Random(3).sample(weak, len(weak)), retention=retained(0.1)[::-1])
    return folder


def entry(found, name, field="score", part=systems.HELD_OUT):
    return next(one for one in found["metrics"] if (one["set"], one["field"]) == (part, field))["against"][name]


def test_a_run_against_a_copy_of_itself_differs_by_nothing_and_is_undecided(root):
    found = told([root / "weak", root / "copy"])
    assert {one["field"] for one in found["metrics"]} == {"score", "nats"}
    for one in found["metrics"]:
        against = one["against"]["copy"]
        assert against["value"] == 0
        assert against["low"] <= 0 <= against["high"]
        assert against["p_corrected"] == 1
        assert not against["decided"]
    assert "copy against weak is undecided: 0.0 points" in found["verdict"][0]
    assert found["changed"]["copy"] == {"won": [], "lost": [], "won_count": 0, "lost_count": 0}


def test_the_order_of_rows_changes_nothing(root):
    one, other = told([root / "weak", root / "strong"]), told([root / "shuffled", root / "strong"])
    assert [one["values"]["strong"] for one in other["metrics"]] == [one["values"]["strong"] for one in one["metrics"]]
    assert entry(one, "strong") == entry(other, "strong")
    assert [part["against"] for part in one["slices"]] == [part["against"] for part in other["slices"]]


def test_more_right_answers_and_less_loss_are_better_and_the_exchanged_comparison_says_the_opposite(root):
    found, turned = told([root / "weak", root / "strong"]), told([root / "strong", root / "weak"])
    assert entry(found, "strong")["value"] == pytest.approx(np.mean(flips(0.9, 1)) - np.mean(flips(0.3)))
    assert entry(found, "strong")["value"] == pytest.approx(-entry(turned, "weak")["value"])
    assert entry(found, "strong", "nats")["value"] == pytest.approx(-0.6, abs=0.01)
    assert found["verdict"][0].startswith("strong answers ")
    assert "points more often exactly right than weak (p < .001; 120 rows" in found["verdict"][0]
    assert "points less often exactly right than strong" in turned["verdict"][0]
    assert any(
        line.startswith("loss on retention against weak: strong (") and line.endswith(" worse")
        for line in found["verdict"]
    )


def test_the_base_is_what_the_run_was_before(root):
    found = told(["base", root / "weak", root / "strong"])
    assert found["baseline"] == "base"
    assert found["metrics"][0]["values"]["base"]["value"] == 0
    assert found["cost"]["base"]["trainable_parameters"] == 0
    assert found["cost"]["strong"]["saved_bytes"] == 1000
    assert "base" not in found["configs"]["adapter.rank"]


def test_the_p_of_all_runs_and_metrics_are_one_family(root):
    found = told(["base", root / "weak", root / "strong", root / "copy"])
    entries = [one for metric in found["metrics"] for one in metric["against"].values()]
    assert len(entries) == 9
    assert [one["p_corrected"] for one in entries] == pytest.approx(
        list(statistics.holm([one["p"] for one in entries]))
    )
    assert {one["family"] for one in entries} == {9}


def test_a_difference_whose_corrected_p_is_too_large_is_undecided_though_its_own_interval_leaves_zero_out(tmp_path):
    right = [n % 2 == 0 for n in range(COUNT)]
    better = [old or n < 14 for n, old in enumerate(right)]  # 7 gained, none lost: p = 2 / 2^7
    run_folders.write(tmp_path / "a", run_folders.lines(right))
    alone = run_folders.write(tmp_path / "b", run_folders.lines(better))
    others = [run_folders.write(tmp_path / f"c{n}", run_folders.lines(right)) for n in range(4)]
    first, many = told([tmp_path / "a", alone]), told([tmp_path / "a", alone, *others])
    assert entry(first, "b")["p"] == entry(many, "b")["p"] == pytest.approx(2 / 2**7)
    assert entry(many, "b")["low"] > 0
    assert entry(first, "b")["decided"]
    assert not entry(many, "b")["decided"]
    assert many["verdict"][0].startswith("b against a is undecided: +5.8 points (")


def test_rows_of_one_id_are_paired_one_by_one(tmp_path):
    rows = run_folders.lines([True, False] * 20)
    for row in rows:
        row["id"] = run_folders.row_id(0)
    for name in "ab":
        run_folders.write(tmp_path / name, rows)
    found = told([tmp_path / "a", tmp_path / "b"])
    assert found["metrics"][0]["rows"] == 40
    assert entry(found, "b")["value"] == 0


def test_a_number_that_is_not_finite_leaves_its_row_out_of_that_metric_for_all(tmp_path):
    rows = run_folders.lines(flips(0.5))
    run_folders.write(tmp_path / "a", rows)
    broken = json.loads(json.dumps(rows))
    broken[3]["after"]["nats"] = "Infinity"
    run_folders.write(tmp_path / "b", broken)
    counts = {one["field"]: one["rows"] for one in told([tmp_path / "a", tmp_path / "b"])["metrics"]}
    assert counts == {"score": COUNT, "nats": COUNT - 1}


def test_rows_that_one_system_has_no_number_on_are_named_and_the_verdict_says_which_are_left(tmp_path):
    rows = run_folders.lines([True] * 60)
    run_folders.write(tmp_path / "a", run_folders.lines([False] * 60))
    for row in rows[::2]:
        del row["after"]["score"]
    run_folders.write(tmp_path / "b", rows)
    lost = [{**row, "after": {**row["after"], "nats": "NaN"}} for row in run_folders.lines([True] * 60)]
    run_folders.write(tmp_path / "c", lost)
    found = told([tmp_path / "a", tmp_path / "b", tmp_path / "c"])
    assert found["notes"] == [
        "score of the answers on held-out: of 60 rows b has none on 30, so only the 30 that all have are compared",
        "loss on held-out: of 60 rows c has none on 60, so it is not compared",
    ]
    assert "than a on the 30 of 60 rows on which all have it (p < .001; 30 rows" in found["verdict"][0]
    assert [(one["field"], one["rows"], one["shared"]) for one in found["metrics"]] == [("score", 30, 60)]


def test_rows_that_no_system_has_a_number_on_need_no_note(tmp_path):
    rows = run_folders.lines(flips(0.5))
    for row in rows[:20]:
        del row["after"]["score"]
    for name in "ab":
        run_folders.write(tmp_path / name, rows)
    assert told([tmp_path / "a", tmp_path / "b"])["notes"] == []


def test_instructions_kept_stand_in_the_verdict_by_prompt_and_by_instruction(tmp_path):
    run = run_folders.write(tmp_path / "run", run_folders.lines(flips(0.5)))
    folders = []
    for name, keeps in (("of_run", True), ("of_base", False)):
        folder = tmp_path / name
        folder.mkdir()
        model = {"run": str(run) if name == "of_run" else ""}
        (folder / "config.json").write_text(json.dumps({"model": model, "harness": {}}))
        (folder / "benchmarks.json").write_text(json.dumps({"model": {"hash": "cd" * 32, "adapter": None}}))
        each = [[keeps or n % 2 == 0] + [True] * (n % 3) for n in range(60)]
        lines = [
            {
                "task": "ifeval_local",
                "doc": n,
                "doc_hash": str(n),
                "filter": "none",
                "answers": [],
                **{f"prompt_level_{how}_acc": all(kept) for how in ("strict", "loose")},
                **{f"inst_level_{how}_acc": kept for how in ("strict", "loose")},
            }
            for n, kept in enumerate(each)
        ]
        run_folders.write_lines(folder / "samples.jsonl", lines)
        folders.append(folder)
    found = told(["base", run], folders=folders)
    own = {one["field"]: one for one in found["metrics"] if one["set"] == "ifeval_local"}
    assert own["prompt_level_strict_acc"]["values"]["base"]["value"] == 0.5
    assert own["inst_level_strict_acc"]["values"]["base"]["value"] == pytest.approx(1 - 30 / 120), "of instructions"
    for level in ("prompts with every instruction kept", "instructions kept"):
        line = next(
            line for line in found["verdict"] if line.startswith(f"{level} on ifeval_local against base: run (")
        )
        assert line.endswith(" better")
    assert {one["against"]["run"]["family"] for one in found["metrics"]} == {6}


def test_a_number_without_a_better_side_is_told_as_higher_or_lower(tmp_path):
    for name, value in (("a", 1.0), ("b", 2.0)):
        rows = run_folders.lines(flips(0.5))
        for n, row in enumerate(rows):
            row["after"]["oddity"] = value + n % 5
        run_folders.write(tmp_path / name, rows)
    verdict = told([tmp_path / "a", tmp_path / "b"])["verdict"]
    assert any(x.startswith("oddity on held-out against a: b (1 to 1") and x.endswith("higher") for x in verdict)


def test_where_tokens_differ_the_loss_is_that_of_a_row(tmp_path):
    rows = run_folders.lines(flips(0.5))
    run_folders.write(tmp_path / "a", rows)
    other = json.loads(json.dumps(rows))
    for row in other:
        row["after"]["tokens"] *= 2
    run_folders.write(tmp_path / "b", other)
    units = {one["field"]: one["unit"] for one in told([tmp_path / "a", tmp_path / "b"])["metrics"]}
    assert units["nats"] == "nats a row"


def test_parts_hold_every_row_once_and_name_their_rows(root):
    found = told([root / "weak", root / "strong"])
    by = {}
    for part in found["slices"]:
        by[part["by"]] = by.get(part["by"], 0) + part["rows"]
    assert by["length of the prompt"] == by["length of the reference"] == COUNT
    assert set(by) == {"length of the prompt", "length of the reference", "words of the prompt"}


def test_a_part_on_which_every_loss_falls_is_decided_among_many_runs_and_parts(tmp_path):
    rows = run_folders.lines([False] * 60, nats=10.0)
    base = run_folders.write(tmp_path / "base0", rows)
    runs = [
        run_folders.write(tmp_path / f"r{n}", run_folders.lines([False] * 60, nats=1.0 + 0.001 * n)) for n in range(5)
    ]
    for folder in (base, *runs):
        text = (folder / "held_out.jsonl").read_text()
        (folder / "held_out.jsonl").write_text(text.replace('"score": 0.0, ', ""))
    found = told([base, *runs], resamples=10_000)
    thirds = [part for part in found["slices"] if part["by"] == "length of the prompt"]
    assert len(thirds) == 3
    assert all(entry["decided"] for part in thirds for entry in part["against"].values())
    assert all(entry["high"] < -8.9 for part in thirds for entry in part["against"].values())


def test_rows_with_tasks_are_told_apart_by_task(tmp_path):
    rows = [{**row, "task": "sums" if n % 3 else "lists"} for n, row in enumerate(run_folders.lines(flips(0.5)))]
    for name in "ab":
        run_folders.write(tmp_path / name, rows)
    parts = {
        part["name"]: part["rows"] for part in told([tmp_path / "a", tmp_path / "b"])["slices"] if part["by"] == "task"
    }
    assert parts == {"lists": COUNT // 3, "sums": COUNT - COUNT // 3}


def test_samples_are_rows_that_changed_and_carry_both_answers(root):
    found = told([root / "weak", root / "strong"])["changed"]["strong"]
    assert len(found["won"]) == findings.SAMPLES
    assert all(one["numbers"] == [0, 1] for one in found["won"])
    assert all(one["numbers"] == [1, 0] for one in found["lost"])
    assert found["won_count"] == sum(b and not a for a, b in zip(flips(0.3), flips(0.9, 1), strict=True))
    for one in found["won"]:
        assert one["answers"] == [f"I <b>do not</b> know {one['reference'].split()[1]}", one["reference"]]


def test_who_cannot_be_told_from_the_best_is_named_with_its_size(tmp_path):
    right = flips(0.9)
    nearly = [not one if n < 3 else one for n, one in enumerate(right)]
    run_folders.write(tmp_path / "large", run_folders.lines(right), summary={"parameters": 9_000_000})
    run_folders.write(tmp_path / "small", run_folders.lines(nearly), summary={"parameters": 3_000_000})
    verdict = told(["base", tmp_path / "large", tmp_path / "small"], bar=0.7)["verdict"]
    assert any(line.startswith("small is not distinguishable from large at a third of its size: -") for line in verdict)
    assert "the one with the least parameters that meets 70.0% with the lower end of its interval: small" in verdict


def test_votes_of_people_stand_in_the_verdict(root):
    people = [votes.Vote(f"{n}", "strong", "weak", "a" if n % 4 else "b", "x") for n in range(80)]
    found = told([root / "weak", root / "strong"], people=people)
    assert found["people"][0]["win_rate"]["value"] == 0.75
    assert "people prefer strong to weak: strong has 75% (65% to 83%) of 80 votes, a tie is half" in found["verdict"]


def test_a_comparison_is_written_as_three_files_and_read_back(root, tmp_path):
    found = told(["base", root / "weak", root / "strong"])
    outputs.write(tmp_path / "out", found)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == sorted(outputs.FILES)
    again = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert again["verdict"] == found["verdict"]
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert text.startswith("# weak, strong against base\n\n- weak answers ")
    with pytest.raises(UserError, match="is not empty; give a new folder as --out"):
        outputs.check(tmp_path / "out")


def test_a_loss_of_samples_is_that_of_a_token(tmp_path):
    rows = run_folders.lines([False] * 40, nats=0.5)
    for row in rows:
        for side in ("before", "after"):
            del row[side]["score"]
    run_folders.write(tmp_path / "a", rows)
    found = told(["base", tmp_path / "a"])
    assert found["verdict"][0].startswith("a: loss lower than that of base by 1.4")
    for one in found["changed"]["a"]["won"]:
        assert one["numbers"][0] - one["numbers"][1] == pytest.approx(1.5, abs=0.05)


def test_three_rows_are_compared_and_called_rough(tmp_path):
    rows = run_folders.lines([True, False, True])
    run_folders.write(tmp_path / "a", rows)
    run_folders.write(tmp_path / "b", rows, summary={"parameters": 9})
    found = told(["base", tmp_path / "a", tmp_path / "b"])
    assert found["verdict"][-1] == "all of this rests on 3 rows; fewer than 30 are rough"
    outputs.write(tmp_path / "out", found)
    assert "nan" not in (tmp_path / "out" / "index.html").read_text().lower().replace("finance", "")


def test_rows_that_one_run_was_trained_on_and_the_other_not_are_counted(tmp_path):
    rows = run_folders.lines(flips(0.5))
    texts = {"one": ["a", "b", "c", "d"], "two": ["b", "c", "d changed"]}
    for name, words in texts.items():
        chats = [{"messages": [{"role": "user", "content": x}, {"role": "assistant", "content": x}]} for x in words]
        run_folders.write_lines(tmp_path / f"{name}.jsonl", chats)
        folder = run_folders.write(tmp_path / name, rows, data={"paths": [str(tmp_path / f"{name}.jsonl")]})
        source = used.Source(str(tmp_path / f"{name}.jsonl"), {}, used.TRAINED)
        (folder / used.ROWS).write_bytes(used.seen([source])[1].dumped())
    first, second = told([tmp_path / "one", tmp_path / "two"])["data_differences"]
    assert first == "two was trained on 3 different rows, 1 of them unknown to one, which has 2 that two has not"
    assert second.endswith("1 rows added, 2 removed, 0 changed, 2 the same")
    assert told([tmp_path / "one", "base"])["data_differences"] == []
