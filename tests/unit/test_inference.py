"""What talks: a model with its tokenizer, asked with every rule of sampling."""

import pytest

from ftjax import inference
from ftjax.data.records import Message
from ftjax.errors import UserError

RULES = {"max_new_tokens": 8, "top_k": 0, "top_p": 1.0, "seed": 0}


@pytest.fixture(scope="module")
def model():
    return inference.load("base", adapter=None, template_name=None, dtype="float32")


@pytest.fixture(scope="module")
def asked(model):
    return [model.prompt_ids([Message(role="user", content="What does the shop in Ulmora sell?")])]


@pytest.fixture(scope="module")
def greedy(model, asked):
    (text,) = model.complete(asked, temperature=0.0, **RULES)
    assert len(text.split()) > 2
    return text


def test_an_answer_ends_before_the_first_stop_string(model, asked, greedy):
    words = greedy.split()
    (text,) = model.complete(asked, temperature=0.0, stop_strings=(words[2], words[1]), **RULES)
    assert text == greedy.split(words[1])[0].strip()


def test_the_likeliest_token_is_all_that_a_min_p_of_one_leaves(model, asked, greedy):
    assert model.complete(asked, temperature=1.0, min_p=1.0, **RULES) == [greedy]


def test_an_empty_stop_string_is_refused(model, asked):
    with pytest.raises(UserError, match="not empty"):
        model.complete(asked, temperature=0.0, stop_strings=("",), **RULES)
