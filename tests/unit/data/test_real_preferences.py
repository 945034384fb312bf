"""Published preference data: what is wrong with it is found, and the rest is read."""

import gzip
import json

from ftjax import errors
from ftjax.data import preferences


def from_row(row):
    return preferences.from_row(row, "real:1")


def lines(path):
    with gzip.open(path, "rt") as stream:
        return [json.loads(line) for line in stream]


def test_of_the_hh_transcripts_just_the_known_problems_are_refused(shared_data):
    folder = shared_data / "hh_rlhf_harmless"
    problems = [json.loads(line) for line in (folder / "known_problems.jsonl").read_text().splitlines()]
    refused_rows, kept = {}, []
    for number, row in enumerate(lines(folder / "harmless_base_test_shared.jsonl.gz")):
        try:
            kept.append(preferences.from_row(row, f"hh:{number}"))
        except errors.UserError as bad:
            refused_rows[number] = str(bad)
    assert sorted(refused_rows) == [entry["row"] for entry in problems]
    for entry in problems:
        word = "empty" if "empty_final_assistant_turn" in entry["problems"][0] else "not of the"
        assert word in refused_rows[entry["row"]]
    assert all(one.prompt[-1].role == "user" and len(one.completions) == 2 for one in kept)


def test_persona_questions_are_pairs_of_text(shared_data):
    rows = lines(shared_data / "anthropic_persona_evals" / "interest-in-math.jsonl.gz")
    names = {"question": "prompt", "answer_matching_behavior": "chosen", "answer_not_matching_behavior": "rejected"}
    found = [from_row({names.get(key, key): value for key, value in row.items()}) for row in rows]
    assert len(found) == 1000
    assert {one.completions for one in found} == {(" Yes", " No"), (" No", " Yes")}
    assert all(set(one.extra) == {"statement", "label_confidence"} for one in found)


def test_human_votes_are_rankings_in_which_ties_give_no_pair(shared_data):
    rows = lines(shared_data / "pandalm_human_pref" / "testset_shared.jsonl.gz")
    found = []
    for row in rows:
        votes = [row[f"annotator{n}"] for n in (1, 2, 3)]
        scores = [votes.count(1), votes.count(2)]
        answers = [row["response1"], row["response2"]]
        if all(isinstance(text, str) and text.strip() for text in answers):  # some are empty, some true or false
            asked = {"instruction": row["instruction"], "input": row["input"]}
            found.append(from_row({**asked, "completions": answers, "scores": scores}))
    assert len(found) > 700
    assert {len(one.pairs) for one in found} == {0, 1}


def test_ranked_answers_to_questions_give_six_pairs_less_the_ties(shared_data):
    rows = lines(shared_data / "fine_grained_rlhf_qa" / "dev_feedback_first350.jsonl.gz")
    compared = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]  # what `preference` lists: 1 or 2 is better, 0 a tie
    for row in rows:
        wins = [0] * 4
        for (a, b), which in zip(compared, row["preference"], strict=True):
            if which:
                wins[a if which == 1 else b] += 1
        ranks = [1 + sum(other > own for other in wins) for own in wins]
        answers = [row[f"prediction {n}"] for n in (1, 2, 3, 4)]
        found = from_row({"prompt": row["question"], "completions": answers, "ranks": ranks})
        assert all(wins[better] > wins[worse] for better, worse in found.pairs)
        assert len(found.pairs) == sum(wins[a] != wins[b] for a, b in compared)
