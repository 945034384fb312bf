"""Where Dr. GRPO with a KL penalty in the loss comes to rest, from its gradient by enumeration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.losses import policy
from tests import bases

enumerable, kin = bases.script("repro/enumerable.py"), bases.script("repro/kin.py")


def test_the_expected_gradient_of_loss_and_penalty_is_zero_at_the_fixed_point_and_not_at_the_tilt():
    space, rng, beta = enumerable.space(3, 3), np.random.default_rng(0), 0.4
    reference, rewards = rng.standard_normal((13, 3)), rng.standard_normal(27)
    before = jnp.asarray(enumerable.log_softmax(reference), jnp.float32)[space.prefixes, space.responses]

    @jax.jit
    def gradient(table):
        chances = jnp.exp(jnp.sum(jax.nn.log_softmax(table)[space.prefixes, space.responses], axis=1))
        advantages = jnp.asarray(rewards, jnp.float32) - chances @ jnp.asarray(rewards, jnp.float32)

        def expected(table):
            logps = jax.nn.log_softmax(table)[space.prefixes, space.responses]
            losses, _ = policy.reinforce(logps=logps, advantages=jnp.broadcast_to(advantages[:, None], logps.shape))
            penalties, _ = policy.kl_penalty(logps=logps, reference=before, beta=beta)
            return jnp.sum(chances @ (losses + penalties))

        return jax.grad(expected)(table)

    def table(logps):
        """Log-probabilities of tokens after each prefix, from those of responses."""
        found = np.zeros((13, 3))
        for t in range(3):
            np.add.at(found, (space.prefixes[:, t], space.responses[:, t]), np.exp(logps))
        return jnp.asarray(np.log(found / found.sum(axis=1, keepdims=True)), jnp.float32)

    rests = kin.fixed_point(space, reference, rewards, beta)
    np.testing.assert_allclose(np.exp(rests).sum(), 1, rtol=1e-12)
    assert float(jnp.abs(gradient(table(rests))).max()) < 1e-6
    tilt = enumerable.tilt(enumerable.response_logps(space, reference), rewards, beta)
    assert float(jnp.abs(gradient(table(tilt))).max()) > 1e-2


def points(**changes):
    """A seed in which every method has .95 of the frontier; `changes` are of RLOO."""
    plain = {"kl": 2.0, "gold": 1.9, "frontier": 2.0, "ratio_error": 1e-7}
    listed = [plain | {"method": name} for name in (*kin.METHODS, kin.RESTS)]
    return {"points": [p | changes if p["method"] == "RLOO" else p for p in listed]}


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({}, None),
        ({"gold": 2.02}, "any method, less the frontier"),
        ({"gold": 1.7}, "of the frontier at its KL"),
        ({"ratio_error": 1e-4}, "ratio before the first update"),
    ],
)
def test_each_rule_can_fail_alone(changes, rule):
    text = kin.report([points(**changes), points(**changes)], {}, None)
    failed = [line for line in text.splitlines() if line.endswith("| FAIL |")]
    assert len(failed) == (rule is not None)
    assert rule is None or failed[0].startswith(f"| {rule}")
    assert text.count("95.0%") == len(kin.METHODS) + 1 - ("gold" in changes)
