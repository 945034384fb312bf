import math

import numpy as np
import pytest

from ftjax.errors import UserError
from ftjax.evals import perplexity, tasks


def test_perplexities_by_token_word_and_byte_share_one_sum():
    batches = [(6.0, 3.0, {"entropy": (3.0, 3.0)}), (2.0, 1.0, {"entropy": (1.0, 1.0)})]
    size = perplexity.units(["two words", "one é"])
    assert size == (4, 9 + 6)
    found = perplexity.evaluate(lambda i: batches[i], [0, 1], size)
    assert found["eval_loss"] == 2.0
    np.testing.assert_allclose(found["eval_perplexity"], math.exp(2.0))
    np.testing.assert_allclose(found["eval_word_perplexity"], math.exp(8.0 / 4))
    np.testing.assert_allclose(found["eval_byte_perplexity"], math.exp(8.0 / 15))
    np.testing.assert_allclose(found["eval_bits_per_byte"], 8.0 / 15 / math.log(2))
    assert found["eval_entropy"] == 1.0


def test_a_hopeless_model_has_infinite_perplexity_and_no_overflow():
    assert perplexity.evaluate(lambda _: (1e4, 1.0, {}), [0], perplexity.Units(0, 0))["eval_perplexity"] == math.inf


def test_a_set_without_a_token_that_counts_is_refused():
    with pytest.raises(UserError, match="no token counts"):
        perplexity.evaluate(lambda _: (0.0, 0.0, {}), [0], perplexity.Units(0, 0))


def item(text, length):
    row = {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text.upper()}]}
    return tasks.Item(list(range(length)), row, text, text.upper())


@pytest.mark.parametrize("batch_size", [1, 2, 3, 10])
def test_answers_come_back_in_the_order_of_the_items_whatever_the_batches(batch_size):
    items = [item(text, length) for text, length in (("a", 5), ("b", 1), ("c", 3), ("d", 2), ("e", 4))]
    names = {tuple(i.prompt_ids): i.reference for i in items}
    sizes = []

    def complete(prompts):
        sizes.append(len(prompts))
        return [names[tuple(prompt)] if len(prompt) != 3 else "wrong" for prompt in prompts]

    given = tasks.answer(complete, items, tasks.exact_match, batch_size=batch_size)
    assert [a.item.prompt for a in given] == ["a", "b", "c", "d", "e"]
    assert [a.score for a in given] == [1.0, 1.0, 0.0, 1.0, 1.0]
    assert tasks.mean_score(given) == 0.8
    assert set(sizes) == {min(batch_size, 5)}, "every call has the same number of prompts, or jit compiles again"


def test_exact_match_ignores_only_white_space_around_the_answer():
    row = item("x", 1).row
    assert tasks.exact_match(row, " X\n") == 1.0
    assert tasks.exact_match(row, "x") == 0.0
    assert tasks.exact_match(row, "X X") == 0.0


@pytest.mark.parametrize("mark", [None, "yes", float("nan"), float("inf"), [1.0]])
def test_a_check_that_gives_no_finite_number_is_refused(mark):
    with pytest.raises(TypeError, match="and a mark is a finite number"):
        tasks.answer(lambda prompts: ["x"] * len(prompts), [item("a", 2)], lambda *_: mark, batch_size=1)


@pytest.mark.parametrize("mark", [True, 1, 0.5, np.float32(0.5), np.bool_(True)])
def test_a_check_may_give_any_kind_of_number(mark):
    assert tasks.marked(lambda *_: mark, {}, "x") == float(mark)


def test_a_number_is_that_of_the_answer_or_where_that_is_null_of_the_message():
    row = {"answer": None, "messages": [{"role": "assistant", "content": "It is 72."}]}
    assert tasks.numeric(row, "72") == 1.0
    assert tasks.numeric({**row, "answer": 5}, "72") == 0.0
