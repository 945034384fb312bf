"""Completions as branches behind their prompt: the layout changes no number, nor does padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.models import decoder, heads
from ftjax.rl import layout
from tests import rl_cases as cases


def program(config, temperature=1.0):
    """Returns what the policy says of rows: log-probabilities, and the hidden states."""

    @jax.jit
    def run(params, rows):
        hidden = layout.hidden(params, rows, config)
        return layout.logps(params, hidden, rows, config, temperature=temperature), hidden

    return run


@pytest.fixture(scope="module")
def run(tiny_config):
    return program(tiny_config())


def test_branches_behind_a_prompt_are_the_rows_that_repeat_it(run, tiny_params):
    """(1), (3): positions of every completion go on from its prompt, and none sees another one."""
    asked, valid, completions, mask = cases.texts()
    found, hidden = run(tiny_params, layout.arrange(asked, valid, completions, mask))
    twice = [np.repeat(x, cases.SAMPLES, axis=0) for x in (asked, valid)]
    alone = [x.reshape(-1, 1, cases.NEW) for x in (completions, mask)]
    rows = layout.arrange(*twice, *alone)
    assert rows.branches is None
    single, states = run(tiny_params, rows)
    places = np.concatenate([np.ones((*mask.shape[:2], 1)), mask], axis=2) > 0
    np.testing.assert_allclose(np.asarray(hidden)[places], np.asarray(states).reshape(hidden.shape)[places], atol=1e-5)
    for one, other in zip(found[:2], single[:2], strict=True):
        np.testing.assert_allclose(one, np.asarray(other).reshape(one.shape), atol=1e-5)
    assert float(jnp.abs(found.logps).max()) > 1


def test_padding_in_front_of_the_prompt_changes_nothing(run, tiny_params):
    """(2), (3)"""
    short = run(tiny_params, layout.arrange(*cases.texts()))[0]
    rows = layout.arrange(*cases.texts(longest=cases.LONGEST + 5))
    rows = rows._replace(tokens=np.where(rows.segments > 0, rows.tokens, 7))  # whatever stands there
    np.testing.assert_allclose(run(tiny_params, rows)[0].logps, short.logps, atol=1e-5)


@pytest.mark.parametrize("softcap", [0.0, 0.3])
def test_logps_at_a_temperature_are_those_of_the_logits_over_it(tiny_config, tiny_params, softcap):
    """(5); with a bound of logits, as Gemma 2 has it, which is at the logits before they are divided."""
    config = tiny_config(logit_softcap=softcap)
    asked, valid, completions, mask = cases.texts()
    rows = layout.arrange(asked, valid, completions[:, :1], mask[:, :1])
    found = program(config, temperature=0.6)(tiny_params, rows)[0].logps[:, 0]
    ask = jax.jit(lambda params: decoder.logits(params, rows.tokens, config, rows.positions, rows.segments))
    logits = ask(tiny_params)[:, rows.head : -1]
    assert not softcap or float(jnp.abs(logits).max()) > 0.5 * softcap
    wanted = jnp.take_along_axis(jax.nn.log_softmax(logits / 0.6), rows.completions[:, 0, :, None], axis=-1)[..., 0]
    np.testing.assert_allclose(found, wanted * rows.mask[:, 0], atol=1e-5)


def test_tokens_behind_the_end_have_no_logps_and_no_pull(run, tiny_params):
    """(10)"""
    rows = layout.arrange(*cases.texts())
    found = run(tiny_params, rows)[0].logps
    assert not np.asarray(found)[np.asarray(rows.mask) == 0].any()


def test_a_score_is_read_at_the_last_token_of_the_completion_and_values_before_each(tiny_config, tiny_params):
    """(6), (1): in a row of its own, prompt and completion without padding."""
    config, rng = tiny_config(), np.random.default_rng(0)
    params = tiny_params.replace(score=jnp.asarray(rng.normal(size=(32, 1)), jnp.float32))
    texts = cases.texts()
    rows = layout.arrange(*texts)

    @jax.jit
    def read(params, rows):
        hidden = layout.hidden(params, rows, config)
        flat = hidden.reshape(cases.PROMPTS, -1, hidden.shape[-1])
        return heads.score(params, flat, layout.ends(rows) - rows.head), layout.values(params, hidden)

    scores, values = read(params, rows)
    asked, valid, completions, mask = texts
    whole = jax.jit(lambda params, tokens: decoder.hidden(params, tokens, config, None, None)[0] @ params.score[:, 0])
    for prompt, sample in ((0, 1), (1, 0)):
        own = completions[prompt, sample][mask[prompt, sample] > 0]
        text = np.concatenate([asked[prompt][valid[prompt] > 0], own])
        said = np.asarray(whole(params, np.pad(text, (0, 12 - len(text)))[None]))[: len(text)]
        np.testing.assert_allclose(scores[prompt, sample], said[-1], atol=1e-5)
        np.testing.assert_allclose(values[prompt, sample, : len(own) + 1], said[-len(own) - 1 :], atol=1e-5)
