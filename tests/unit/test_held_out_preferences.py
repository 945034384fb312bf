"""What is said of a policy on held-out preferences, and when a user is warned."""

import pytest

from ftjax import experiment
from ftjax.held_out_preferences import HeldOutPreferences
from tests import bases

CHOSEN, MARGIN = "eval_logps/chosen", "eval_rewards/margins"
BEFORE = {CHOSEN: -30.0, MARGIN: 0.0}


@pytest.mark.parametrize(
    ("now", "warned"),
    [
        ({CHOSEN: -31.5, MARGIN: 0.5}, True),
        ({CHOSEN: -31.0, MARGIN: 0.5}, False),  # one nat is not more than one
        ({CHOSEN: -29.0, MARGIN: 0.5}, False),
        ({CHOSEN: -35.0, MARGIN: 0.0}, False),  # the margin has not grown
        ({CHOSEN: -35.0, MARGIN: -0.5}, False),
        ({CHOSEN: -35.0}, False),  # of an objective that has none
        ({MARGIN: 1.0}, False),
    ],
)
def test_a_fall_of_the_chosen_completions_while_the_margin_grows_is_remarked_on(now, warned):
    said = HeldOutPreferences.remark(None, BEFORE, now)
    assert bool(said) == warned
    assert "\n" not in said


def test_the_warning_has_the_numbers_and_the_ways_out():
    said = HeldOutPreferences.remark(None, BEFORE, {CHOSEN: -35.25, MARGIN: 0.5})
    assert said.startswith(
        "warning: the chosen completions have lost 5.2 nats (log-probability -30.0 -> -35.2) while the margin grew "
        "(0.00 -> 0.50): the policy moves to text that is in no pair. "
    )
    for way in ("config.loss.names=\"('dpo', 'sft')\"", "Lower the learning rate", "raise config.loss.beta"):
        assert way in said


def test_the_questions_are_the_prompts_with_the_better_completion_as_reference(tiny_base, tiny_pairs):
    built = experiment.build(bases.preferences("dpo", tiny_base, tiny_pairs, eval__samples=2, eval__holdout=0.2))
    held = built.held_out
    assert held.rows == 8
    assert [item.reference for item in held.items] == [
        built.tokenizer.decode(row.completions[0].tolist(), skip_special=True) for row in built.data.chosen[:2]
    ]
    assert all(item.prompt.startswith("Say ") for item in held.items)
    assert all(item.reference.endswith("!") for item in held.items)
    assert held.kl_prompts == []


def test_a_reward_model_is_asked_nothing(tiny_base, tiny_pairs):
    held = experiment.build(bases.preferences("reward", tiny_base, tiny_pairs, eval__samples=3)).held_out
    assert (held.items, held.kl_prompts, held.check) == ([], [], None)


def test_prompts_for_the_kl_are_as_many_as_are_asked_for(tiny_base, tiny_pairs):
    held = experiment.build(
        bases.preferences("dpo", tiny_base, tiny_pairs, eval__kl_prompts=3, eval__holdout=0.2)
    ).held_out
    assert len(held.kl_prompts) == 3
