"""Live against the harness's own `hf` backend on the embedded base: log-likelihoods, rolling ones, answers."""

import numpy as np
import pytest

pytest.importorskip("lm_eval")
from lm_eval.api.instance import Instance
from parity import peers

from ftjax import inference

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
BASE = str(inference.embedded_base())
WORDS = ["the", "lamp", "of", "Mara", "is", "red", "and", "her", "boat", "lies", "at", "north", "pier", "town"]


@pytest.fixture(scope="module")
def both():
    """Our model and theirs, as the harness sees them."""
    return peers.harnesses(BASE)


def asked(kind, arguments):
    return [Instance(kind, {}, one, number) for number, one in enumerate(arguments)]


def test_log_likelihoods_are_the_harness_own(both):
    rng = np.random.default_rng(0)
    text = lambda count: " ".join(rng.choice(WORDS, count))
    pairs = [(context, f" {text(n)}") for context in (text(9), text(30), "") for n in (1, 2, 6)]
    ours, theirs = (one.loglikelihood(asked("loglikelihood", pairs)) for one in both)
    np.testing.assert_allclose([one[0] for one in ours], [one[0] for one in theirs], atol=1e-3)
    assert [one[1] for one in ours] == [one[1] for one in theirs]


def test_rolling_log_likelihoods_are_the_harness_own(both):
    texts = [(" ".join(WORDS * 60),), ("Once.",)]
    ours, theirs = (one.loglikelihood_rolling(asked("loglikelihood_rolling", texts)) for one in both)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-3)


def test_answers_are_the_harness_own(both):
    settings = {"max_gen_toks": 16, "until": ["."], "do_sample": False}
    prompts = [("The lamp of", dict(settings)), ("What is the colour of the lamp?", dict(settings))]
    ours, theirs = (one.generate_until(asked("generate_until", prompts)) for one in both)
    assert ours == theirs


def test_a_chat_is_rendered_as_there(both):
    chat = [{"role": "user", "content": "Hello."}]
    ours, theirs = (one.apply_chat_template(chat) for one in both)
    assert ours == theirs
