import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.errors import UserError
from ftjax.models import decoder
from ftjax.sampling import generate

PROMPTS = [[5, 9, 3], [7], [1, 2, 3, 4, 5, 6, 7, 8]]
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def run(tiny_params, tiny_config):
    sharp = tiny_params.replace(embed_tokens=tiny_params.embed_tokens * 20)  # or every distribution is nearly flat

    def call(prompts=PROMPTS, key=KEY, **changes):
        given = {"max_new_tokens": 8, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "stop_ids": ()}
        return generate.generate(sharp, prompts, key, tiny_config(), **(given | changes))

    call.params = sharp
    return call


@pytest.fixture(scope="module")
def greedy(run):
    return run()


@pytest.fixture(scope="module")
def sampled(run):
    return run(temperature=0.7)


def test_greedy_decoding_with_the_cache_equals_full_forward_passes(run, greedy, tiny_config):
    whole = jax.jit(lambda tokens: decoder.logits(run.params, tokens, tiny_config()))
    for row, prompt in enumerate(PROMPTS):
        padded = np.zeros((1, 16), np.int32)
        tokens = list(prompt)
        for _ in range(8):
            padded[0, : len(tokens)] = tokens
            tokens.append(int(jnp.argmax(whole(jnp.asarray(padded))[0, len(tokens) - 1])))
        assert greedy.tokens[row].tolist() == tokens[len(prompt) :]
    assert np.asarray(greedy.mask).all()


def test_sampled_logps_are_those_of_a_full_forward_pass_at_that_temperature(run, sampled, tiny_config):
    for row, prompt in enumerate(PROMPTS):
        tokens = jnp.asarray([prompt + sampled.tokens[row].tolist()])
        logps = jax.nn.log_softmax(decoder.logits(run.params, tokens, tiny_config())[0] / 0.7)
        expected = [float(logps[len(prompt) - 1 + i, sampled.tokens[row, i]]) for i in range(8)]
        np.testing.assert_allclose(sampled.logps[row], expected, atol=2e-5)


def test_a_seed_repeats_a_sample_and_another_seed_does_not(run, sampled):
    np.testing.assert_array_equal(run(temperature=0.7).tokens, sampled.tokens)
    assert not np.array_equal(run(temperature=0.7, key=jax.random.key(1)).tokens, sampled.tokens)


def test_a_rows_sample_does_not_depend_on_its_neighbours(run, sampled):
    other = run(prompts=[PROMPTS[0], [50, 51], [60]], temperature=0.7)
    np.testing.assert_array_equal(other.tokens[0], sampled.tokens[0])


def test_a_row_ends_with_its_stop_token_and_keeps_it(run, greedy):
    stop = int(greedy.tokens[0, 3])
    out = run(stop_ids=(stop,))
    first = greedy.tokens[0].tolist().index(stop)
    assert out.mask[0].tolist() == [1] * (first + 1) + [0] * (7 - first)
    assert out.tokens[0].tolist() == greedy.tokens[0].tolist()[: first + 1] + [0] * (7 - first)


def test_samples_follow_the_distribution(run, tiny_config):
    """Chi-square of 512 first tokens against the model's own probabilities, 5 cells of at least 10 expected."""
    out = run(prompts=[[5, 9, 3]] * 512, max_new_tokens=1, temperature=1.0)
    probs = np.asarray(jax.nn.softmax(decoder.logits(run.params, jnp.asarray([[5, 9, 3]]), tiny_config())[0, -1]))
    order = np.argsort(-probs)
    cells = [order[:1], order[1:2], order[2:4], order[4:8], order[8:]]
    seen = np.asarray([np.isin(out.tokens[:, 0], cell).sum() for cell in cells])
    expected = np.asarray([512 * probs[cell].sum() for cell in cells])
    assert expected.min() > 5
    assert ((seen - expected) ** 2 / expected).sum() < 18.5  # 0.1 % of a chi-square with 4 degrees of freedom


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"prompts": [[1], []]}, "every prompt needs at least one token"),
        ({"temperature": -1.0}, "temperature -1.0 must be >= 0"),
        ({"top_p": 0.0}, r"top_p 0.0 must be in \(0, 1\]"),
        ({"max_new_tokens": 600}, "exceed the context of 512; shorten the prompt or lower max_new_tokens"),
    ],
)
def test_impossible_requests_are_refused(run, changes, text):
    with pytest.raises(UserError, match=text):
        run(**changes)
