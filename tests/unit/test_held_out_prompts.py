"""Held-out prompts of a run on own samples: what is asked, and the score that the best checkpoint goes by."""

import types

import numpy as np
import pytest

from ftjax import experiment, held_out_prompts
from ftjax.data import prompts
from ftjax.errors import UserError
from tests import bases

USER = {"role": "user", "content": "Say red."}


def one(row, text="Say red."):
    return prompts.Prompt(np.arange(3, dtype=np.int32), text, row, "f:1", 0)


@pytest.mark.parametrize(
    ("row", "reference", "asked"),
    [
        ({"prompt_messages": [USER], "reference": "red!", "answer": "other"}, "red!", [USER]),
        ({"prompt_messages": [USER], "answer": 7}, "7", [USER]),
        ({"prompt": "Say red."}, "", [USER]),
    ],
)
def test_a_prompt_is_a_question_with_the_answer_of_its_row(row, reference, asked):
    """A check sees the columns of the row, and a chat that ends on the answer."""
    section = {"check": "", "samples": 5, "max_new_tokens": 4, "generate_batch": 2, "kl_prompts": 1}
    held = held_out_prompts.build([one(row)] * 7, {"f:1": row}, section, config=None, seed=0)
    assert (held.rows, len(held.items), held.kl_prompts) == (7, 5, [[0, 1, 2]])
    item = held.items[0]
    assert (item.reference, item.prompt, item.prompt_ids) == (reference, "Say red.", [0, 1, 2])
    assert item.row["messages"] == [*asked, {"role": "assistant", "content": reference}]
    assert all(item.row[key] == value for key, value in row.items())


def model(answer):
    """Stands for a model that always says the same."""
    return types.SimpleNamespace(complete=lambda prompts, **_: [answer] * len(prompts))


def held_with(check):
    section = {"check": check, "samples": 1, "max_new_tokens": 4, "generate_batch": 2, "kl_prompts": 0}
    rows = [one({"prompt_messages": [USER], "answer": word}) for word in ("red", "blue", "red", "red")]
    return held_out_prompts.build(rows, {"f:1": {}}, section, config=None, seed=0)


def test_with_a_check_all_prompts_are_asked_and_the_loss_is_less_the_mean_score():
    held = held_with("tasks.exact_match")
    assert len(held.items) == 4
    found = held.during(None, lambda: model("red"))
    assert found == {"eval_reward": 0.75, "eval_loss": -0.75}
    assert [answer.score for answer in held.answers(model("blue"), held.items)] == [0.0, 1.0, 0.0, 0.0]


def test_without_a_check_nothing_is_measured_while_training():
    assert held_with("").during(None, lambda: pytest.fail("asked")) == {}


def test_a_check_that_cannot_read_the_rows_is_named(tiny_base, tiny_pairs):
    name = f"{bases.ROOT}/configs/smoke/grpo.py:model={tiny_base}"
    config = experiment.configs.load(name)
    changes = {"data.paths": (str(tiny_pairs),), "eval.path": "", "data.batch_size": 8}
    with pytest.raises(UserError, match=r"pairs.jsonl:\d+: config.eval.check 'ftjax.assets.world:reward' cannot score"):
        experiment.build(experiment.configs.override(config, changes))
