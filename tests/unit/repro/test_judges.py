"""Published judges on published votes: counts of the sources, and what their papers say of agreement and order."""

import itertools

import numpy as np
import pytest

from ftjax.evals import judge_report
from tests import bases

judges = bases.script("repro/judges.py")


def test_people_agree_on_pandalms_pairs_as_published(shared_data):
    # Its README: .85, .88 and .86 over 999 pairs; these are 784 of them.
    np.testing.assert_allclose(judges.between_people(shared_data), [0.85, 0.88, 0.86], atol=0.015)
    top = [judge_report.of_majority(pair.human) for pair in judges.voted(shared_data)]
    assert {vote: top.count(vote) for vote in ("a", "b", "tie")} == {"a": 339, "b": 360, "tie": 85}


@pytest.mark.parametrize(("name", "right", "none"), [("PandaLM-7B", 520, 0), ("GPT-3.5", 535, 23)])
def test_two_judges_agree_with_the_majority_as_often_as_counted_and_love_length(shared_data, name, right, none):
    found = judges.pandalm(shared_data, name)
    agreed = found["human"]["agreement_with_majority"]
    assert agreed["value"] * agreed["of"] == pytest.approx(right)
    assert found["unparsable_pairs"] == none
    assert found["length"]["longer_wins"]["low"] > 0.5
    assert found["human"]["between_people"]["low"] > found["human"]["agreement"]["high"]
    fixed = found["human"]["corrected_win_rate"]
    assert abs(fixed["value"] - found["human"]["win_rate_by_people"]) < 0.007  # ties are left out of the correction


def test_gpt_4_prefers_what_stands_first_as_the_paper_says(shared_data):
    found = judges.guanaco(shared_data, list(itertools.combinations(judges.SYSTEMS, 2)))
    place = found["position"]
    shares = [place[name] for name in ("consistent", "biased_to_first", "biased_to_second", "unparsable")]
    np.testing.assert_allclose(shares, np.array([139, 91, 8, 2]) / 240)
    assert place["first_preferred"]["low"] > 0.6
    assert (found["answers"], found["unparsable_answers"]) == (480, 2)


def test_gpt_4_finds_65b_better_than_7b(shared_data):
    found = judges.guanaco(shared_data, [("guanaco-7b", "guanaco-65b")])
    assert found["win_rate"]["high"] < 0.5
    assert (found["wins"], found["ties"], found["losses"]) == (9, 32, 39)
