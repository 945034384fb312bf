"""The KL of a policy to its reference, from its own samples."""

import itertools
import math

import jax
import numpy as np
import pytest

from ftjax.evals import policy_kl
from ftjax.models import decoder, params

STOP, NEW = (2, 5), 3


@pytest.fixture(scope="module")
def models(tiny_config):
    """A config of 8 tokens, a policy, and another model."""
    config = tiny_config(vocab_size=8, n_layers=1, windows=(0,))
    made = [params.init(jax.random.key(seed), config, "float32") for seed in (0, 1)]
    return config, *(jax.tree.map(lambda w: 4 * w, one) for one in made)


def sampled(config, policy, reference, prompts, **changes):
    settings = {"max_new_tokens": NEW, "stop_ids": STOP, "batch_size": 512, "seed": 0}
    return policy_kl.sampled(policy, reference, prompts, config=config, **(settings | changes))


def completions():
    """Yields everything that may be written: up to a stop token, or three tokens."""
    for ids in itertools.product(range(8), repeat=NEW):
        end = next((n for n, token in enumerate(ids) if token in STOP), NEW - 1)
        if all(token == 0 for token in ids[end + 1 :]):
            yield ids[: end + 1]


def exactly(config, policy, reference, prompt):
    """The KL by enumeration: sum of p log (p / q) over all completions."""
    ask = jax.jit(lambda model, ids: jax.nn.log_softmax(decoder.logits(model, ids, config)))
    rows = list(completions())
    filled = np.array([[*prompt, *row, *[0] * (NEW - len(row))] for row in rows], np.int32)
    total = []
    for model in (policy, reference):
        logps = np.asarray(ask(model, filled), np.float64)
        places = [range(len(prompt) - 1, len(prompt) - 1 + len(row)) for row in rows]
        total.append(np.array([sum(logps[n, t, filled[n, t + 1]] for t in at) for n, at in enumerate(places)]))
    assert np.exp(total[0]).sum() == pytest.approx(1, abs=1e-5)
    return float((np.exp(total[0]) * (total[0] - total[1])).sum())


def test_it_is_within_four_standard_errors_of_the_sum_over_all_completions(models):
    config, policy, reference = models
    prompts = [[1, 3], [4, 6, 7]]
    found = sampled(config, policy, reference, [prompts[n % 2] for n in range(1024)])
    exact = np.mean([exactly(config, policy, reference, prompt) for prompt in prompts])
    assert exact > 0.2
    assert 0 < found["eval_sampled_kl_error"] < 0.1 * exact
    assert abs(found["eval_sampled_kl"] - exact) < 4 * found["eval_sampled_kl_error"]


def test_a_policy_is_exactly_its_own_reference_and_a_last_batch_may_be_short(models):
    config, policy, _ = models
    prompts = [[1, 3], [4, 6, 7]] * 300
    assert sampled(config, policy, policy, prompts) == {"eval_sampled_kl": 0.0, "eval_sampled_kl_error": 0.0}


def test_the_same_seed_draws_the_same_and_one_prompt_has_no_error(models):
    config, policy, reference = models
    first, again, other = (sampled(config, policy, reference, [[1, 3]] * 512, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert math.isnan(sampled(config, policy, reference, [[1, 3]], batch_size=1)["eval_sampled_kl_error"])
