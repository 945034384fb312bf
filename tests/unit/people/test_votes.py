"""What becomes of raters' answers: votes, preferences that training reads, pairs for a judge, a report."""

import json

import pytest

from ftjax import config as configs
from ftjax import errors
from ftjax.data import pairs, preferences
from ftjax.people import rating, rating_export, rating_report, verdicts, votes
from tests import bases, rated

SAID = {  # row -> what Anna, Ben and Cleo prefer
    0: ("Blue", "Blue", "Red"),
    1: ("Red", "Red", "Red"),
    2: ("tie", "Blue", "both_bad"),
    3: ("both_bad", "both_bad", "skip"),
}


@pytest.fixture
def store(tmp_path):
    with rated.opened(tmp_path, known=rating.checks(rated.checks(tmp_path)), ratings=3) as made:
        rated.join(made, "Anna", "Ben", "Cleo")
        for item in made.items():
            for place, rater in enumerate(("Anna", "Ben", "Cleo")):
                if item.question == "preference":
                    rated.choose(made, item, rater, SAID[item.payload["row"]][place])
                elif item.question == "preference check":
                    rated.choose(made, item, rater, "A banana" if rater == "Cleo" else "4 it is")
                elif item.question == "rating":
                    tuned = item.payload["answers"][0][0] == rated.NAMES[1]
                    rated.answer(made, item, rater, rated.scores(4 if tuned else 2))
        yield made


def test_a_vote_says_whose_answer_is_better_however_it_stood(store):
    found = votes.votes(store)
    words = {"a": "Red", "b": "Blue"}
    for vote in found:
        assert (vote["run_a"], vote["run_b"]) == rated.NAMES
        assert (vote["a"][:3], vote["b"][:4]) == ("Red", "Blue")
        row = int(vote["a"][4])
        assert vote["prompt"] == rated.prompts(4)[row]
        place = ("Anna", "Ben", "Cleo").index(vote["rater"])
        assert words.get(vote["choice"], vote["choice"]) == SAID[row][place]
        assert vote["flagged"] == (vote["rater"] == "Cleo")
    assert len(found) == 11  # the one that was skipped is in no file, nor are the checks


def test_most_raters_make_a_preference_and_ties_make_none(store):
    found = votes.preferences(votes.votes(store))
    said = sorted(
        (row["chosen"][0]["content"], row["rejected"][0]["content"], row["votes"], row["many"]) for row in found
    )
    assert said == [("Blue 0.", "Red 0.", 2, 3), ("Red 1.", "Blue 1.", 3, 3)]
    alone = [vote for vote in votes.votes(store) if vote["rater"] != "Ben"]
    assert [row["chosen"][0]["content"] for row in votes.preferences(alone)] == ["Red 1."]


def test_an_answer_without_text_makes_no_preference(store):
    own = [vote for vote in votes.votes(store) if vote["a"] == "Red 1."]
    for texts in ({"b": " \n"}, {"b": "Red 1."}):
        assert votes.preferences([vote | texts for vote in own]) == []


def test_the_loop_closes_over_preferences_that_dpo_trains_on(store, tmp_path, tiny_base, monkeypatch):
    from ftjax import experiment

    monkeypatch.chdir(bases.ROOT)
    out = tmp_path / "dpo.jsonl"
    rating_export.write(store, {"preferences": out}, flagged="keep")
    read = preferences.read(str(out))
    assert [one.pairs for one in read] == [((0, 1),)] * 2
    config = configs.load(f"configs/dpo/jsonl.py:data={out},model={tiny_base},steps=1")
    small = {"data.max_length": 64, "data.batch_size": 8, "adapter.rank": 4, "retention.path": "", "eval.kl_prompts": 0}
    built = experiment.build(configs.override(config, small))
    assert built.data is not None


def test_a_judge_is_held_against_the_votes(store, tmp_path):
    out = tmp_path / "pairs.jsonl"
    rating_export.write(store, {"pairs": out}, flagged="keep")
    found = {one.a: one for one in pairs.read(out)}
    assert sorted(found["Red 0."].human) == ["a", "b", "b"]
    assert sorted(found["Red 2."].human) == ["b", "tie", "tie"]
    assert found["Red 3."].prompt == "system: Be brief.\n\nuser: Last question?"


def test_flagged_raters_are_left_out_only_when_asked_and_it_is_said(store, tmp_path):
    said = rating_export.write(store, {"out": tmp_path / "all.jsonl"}, flagged="keep")
    assert said[-1] == "failed an attention check: Cleo (kept, with the column `flagged`)"
    said = rating_export.write(store, {"out": tmp_path / "some.jsonl"}, flagged="drop")
    assert said[-1] == "failed an attention check: Cleo (left out)"
    raters = lambda name: {json.loads(line)["rater"] for line in (tmp_path / name).read_text().splitlines()}
    assert raters("all.jsonl") == {"Anna", "Ben", "Cleo"}
    assert raters("some.jsonl") == {"Anna", "Ben"}


def test_nothing_is_written_over_and_nothing_by_halves(store, tmp_path):
    taken = tmp_path / "taken.md"
    taken.write_text("mine")
    places = {"out": tmp_path / "votes.jsonl", "report": taken}
    with pytest.raises(errors.UserError, match=r"taken.md: is there already"):
        rating_export.write(store, places, flagged="keep")
    with pytest.raises(errors.UserError, match="there is no folder"):
        rating_export.write(store, {**places, "report": tmp_path / "no" / "r.md"}, flagged="keep")
    with pytest.raises(errors.UserError, match="two of the files have one name"):
        rating_export.write(store, {**places, "report": places["out"]}, flagged="keep")
    with (
        rated.opened(tmp_path, store="new.sqlite") as empty,
        pytest.raises(errors.UserError, match="nothing to write yet"),
    ):
        rating_export.write(empty, {"out": places["out"]}, flagged="keep")
    assert not places["out"].exists()
    assert taken.read_text() == "mine"


def test_the_report_has_the_numbers_by_hand(store, tmp_path):
    told = verdicts.report(store, flagged="keep")
    assert told["preferences"][0]["choices"] == {"a": 4, "b": 3, "tie": 1, "both_bad": 3}
    assert told["preferences"][0]["share_of_b"]["value"] == pytest.approx((3 + 0.5 * 4) / 11)
    accuracy = told["axes"][0]
    assert {name: one["mean"] for name, one in accuracy["systems"].items()} == dict(
        zip(rated.NAMES, (2, 4), strict=True)
    )
    assert accuracy["differences"][0]["value"] == 2
    assert accuracy["differences"][0]["of"] == 4
    dropped = verdicts.report(store, flagged="drop")["preferences"][0]["choices"]
    assert dropped == {"a": 2, "b": 3, "tie": 1, "both_bad": 2}
    text = rating_report.markdown(told)
    assert "Failed an attention check: Cleo (in all numbers" in text
    assert f"| {rated.NAMES[0]} | {rated.NAMES[1]} | 4 | 3 | 1 | 3 | 45.5%" in text
    rating_export.write(store, {"report": tmp_path / "r.json"}, flagged="keep")
    assert json.loads((tmp_path / "r.json").read_text())["preferences"] == told["preferences"]


def test_dropped_raters_are_in_no_number_and_their_places_are_not_asked_for_again(store):
    kept, dropped = (verdicts.report(store, flagged=flagged) for flagged in ("keep", "drop"))
    standing = lambda told: next(one for one in told["standings"] if one["measure"] == "preference")
    # Row 3 has one answer too few. Of the others Anna and Ben alone make 1, 0 and 3/4 for the later system.
    assert standing(kept)["share"] == pytest.approx((2 / 3 + 0 + (0.5 + 1 + 0.5) / 3) / 3)
    assert standing(dropped)["share"] == pytest.approx((1 + 0 + (0.5 + 1) / 2) / 3)
    assert [(one["done"], one["left"]) for one in map(standing, (kept, dropped))] == [(3, 1), (3, 1)]
    same = lambda told: next(one for one in told["agreement"] if one["label"] == "preference")
    assert same(kept)["raters"] == ["Anna", "Ben", "Cleo"]
    assert same(dropped)["raters"] == ["Anna", "Ben"]
    assert (same(kept)["same"], same(dropped)["same"]) == (0.5, 0.75)
    assert "Cleo (left out of all numbers)" in rating_report.markdown(dropped)


def test_agreement_is_of_systems_and_not_of_sides(store):
    found = {one["label"]: one for one in verdicts.measured(store)}
    assert found["preference"]["items"] == 4
    assert found["preference"]["same"] == 0.5  # rows 1 and 3
    assert found["accuracy"]["alpha"] == 1
    assert found["safety"]["alpha"] is None  # nobody gave another number
    assert found["preference"]["pairs"][0]["raters"] == ["Anna", "Ben"]
