"""KL between the predictions of two models is the textbook's, over the positions that count."""

import jax
import numpy as np

from ftjax.evals import divergence
from ftjax.models import decoder


def test_it_is_the_sum_over_the_positions_that_count_and_zero_for_one_model(tiny_config, tiny_params, tiny_batch):
    config, b = tiny_config(), tiny_batch
    other = jax.tree.map(lambda x: x * 1.1, tiny_params)
    program = jax.jit(lambda one, two: divergence.kl(one, two, b, config))
    logits = jax.jit(lambda model: decoder.logits(model, b.tokens, config, b.positions, b.segments))
    p, q = (np.asarray(jax.nn.log_softmax(logits(model)), np.float64) for model in (tiny_params, other))
    wanted = ((np.exp(p) * (p - q)).sum(-1) * b.weights).sum()
    found, weight = program(tiny_params, other)
    assert wanted > 0
    np.testing.assert_allclose(found, wanted, rtol=1e-3)
    assert weight == b.weights.sum()
    np.testing.assert_array_equal(program(tiny_params, tiny_params)[0], 0.0)
