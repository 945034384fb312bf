"""E10: estimators of the policy gradient against the exact one, and the constants of the N implementation details."""

from collections.abc import Callable, Sequence
import math

import jax
import jax.numpy as jnp
import numpy as np

from ftjax.losses import policy as policy_losses
from ftjax.rl import advantages, groups, kl
from ftjax.train import adam
from scripts.repro import enumerable, frontier, policies
from scripts.repro.check import Check, table

Method = Callable[[jax.Array, jax.Array], jax.Array]  # (scores, valid) [P, G] -> advantages

VOCAB, LENGTHS, HIDDEN = 4, (1, 2, 3), (16,)
SIZE, DRAWS = 4, 200_000  # completions of a group, and groups
BLOG = ((1.2, 1.3, 1.4), (1.5, 1.6, 1.7), (1.8, 1.9, 2.0))
WHITENED = ((0.05080712, 0.4381051, 0.8254035), None, (2.3745968, 2.7618952, 3.1491938))
BESSEL = 0.1394  # the first number where the variance has n - 1
ADAM = ((1, 1e-3, 1.30), (1, 1e-4, 3.78), (1, 1e-5, 16.3), (1000, 1e-4, 1.02))  # step, |g|, PyTorch's over TensorFlow's


def run(seeds: Sequence[int]) -> str:
    """Returns the checks of E10."""
    checks = [check for length in LENGTHS for check in gradients(length, seeds)]
    checks += [*weights(seeds[0]), *whitening(), *forms_of_adam(), *controllers(), *identities(seeds[0])]
    return table(checks)


def gradients(length: int, seeds: Sequence[int]) -> list[Check]:
    """Returns the checks of the gradient of RLOO, and of GRPO's advantages without the std, in every seed."""
    found = [compare(length, seed) for seed in seeds]
    cosines, ratios, apart = zip(*found, strict=True)
    listed = lambda numbers, form: ", ".join(format(x, form) for x in numbers)
    off = max(abs(ratio - 1) for ratio in ratios)
    return [
        Check(f"(a) RLOO, T {length}: cosine", "above .999", listed(cosines, ".5f"), min(cosines) > 0.999),
        Check(f"(a) RLOO, T {length}: norm over the true one", "1 ± .01", listed(ratios, ".4f"), off <= 0.01),
        Check(
            f"(a) GRPO without std less (1 - 1/k) RLOO, T {length}",
            "at most 1e-6",
            listed(apart, ".1e"),
            max(apart) <= 1e-6,
        ),
    ]


def compare(length: int, seed: int) -> tuple[float, float, float]:
    """Returns cosine and ratio of norms of RLOO's mean gradient and the true one, and how far the identity is off."""
    made = enumerable.space(VOCAB, length)
    params, at = policies.policy_init(jax.random.key(seed), made, HIDDEN, head=1.0), policies.places(made)
    reference = frontier.exact(made, params, at)
    rewards = enumerable.gold_rewards(made, reference, np.random.default_rng(seed), free=length, slope=0.0)
    scores = jnp.asarray(rewards, jnp.float32)
    true = flat(exact(params, at, scores))
    gradient, apart = estimated(params, at, scores, jax.random.fold_in(jax.random.key(seed), length))
    norms = float(jnp.linalg.norm(flat(gradient))), float(jnp.linalg.norm(true))
    return float(flat(gradient) @ true) / math.prod(norms), norms[0] / norms[1], float(apart)


@jax.jit
@jax.grad
def exact(params: policies.Params, at: policies.Places, rewards: jax.Array) -> jax.Array:
    """Returns the gradient of the expected reward, by the sum over all responses."""
    logps = policies.summed(policies.token_logps(params, at), jnp.arange(len(rewards)), at)
    return jnp.sum(jnp.exp(logps) * rewards)


@jax.jit
def estimated(
    params: policies.Params, at: policies.Places, rewards: jax.Array, key: jax.Array
) -> tuple[policies.Params, jax.Array]:
    """Returns the mean gradient of REINFORCE with RLOO's advantages, over DRAWS groups of SIZE completions.

    And the largest difference between GRPO's advantages without the std and (1 - 1/k) times those.
    """
    table, length = policies.token_logps(params, at), at.responses.shape[1]
    prefixes, tokens, numbers = policies.sample(key, table, DRAWS * SIZE, length)
    scores = rewards[numbers].reshape(DRAWS, SIZE)
    every = jnp.ones_like(scores)
    given = groups.rloo(scores, every)
    apart = jnp.max(jnp.abs(groups.centred(scores, every) - (1 - 1 / SIZE) * given))
    by_token = jnp.broadcast_to(given.reshape(-1, 1), tokens.shape)

    def gain(params: policies.Params) -> jax.Array:
        logps = policies.token_logps(params, at)[prefixes, tokens]
        return -jnp.sum(policy_losses.reinforce(logps=logps, advantages=by_token)[0]) / len(tokens)

    return jax.grad(gain)(params), apart


def flat(params: policies.Params) -> jax.Array:
    """Returns all numbers of a tree as one vector."""
    return jnp.concatenate([x.ravel() for x in jax.tree.leaves(params)])


def weights(seed: int) -> list[Check]:
    """Returns the checks of what prompts of other pass rates weigh, and of groups without signal."""
    rng = np.random.default_rng(seed)

    def passes(rate: float, size: int) -> jax.Array:
        return jnp.asarray(rng.random((DRAWS, size)) < rate, jnp.float32)

    def weight(method: Method, rate: float) -> float:
        scores = passes(rate, 8)
        return float(jnp.mean(method(scores, jnp.ones_like(scores)) * (scores - rate)))

    checks = []
    standard = lambda scores, valid: groups.grpo(scores, valid, eps=1e-4)
    for name, method, expected in (("GRPO", standard, 0.253), ("RLOO", groups.rloo, 0.190)):
        found = weight(method, 0.05) / weight(method, 0.5)
        what = f"(a) weight of a prompt, pass rate .05 over .5, {name}, k 8"
        checks.append(Check(what, f"{expected:.3f} ± .01", f"{found:.4f}", abs(found - expected) <= 0.01))
    for size, expected in ((8, 0.663), (16, 0.440)):
        scores = passes(0.05, size)
        found = float(groups.metrics(scores, jnp.ones_like(scores))["frac_reward_zero_std"])
        what = f"(a) groups without signal at .05, k {size}"
        checks.append(Check(what, f"{expected:.3f} ± .01", f"{found:.4f}", abs(found - expected) <= 0.01))
    return checks


def whitening() -> list[Check]:
    """Returns the check of the constants of the N implementation details."""
    values = jnp.array(BLOG)
    found = advantages.rescale(values, jnp.ones_like(values), ddof=0, eps=1e-8)
    off = max(float(jnp.abs(found[row] - jnp.array(wanted)).max()) for row, wanted in enumerate(WHITENED) if wanted)
    first = float(advantages.rescale(values, jnp.ones_like(values), ddof=1, eps=1e-8)[0, 0])
    return [
        Check("(b) whitening, variance of the population, off by", "at most 1e-6", f"{off:.1e}", off <= 1e-6),
        Check("(b) whitening, the sample's, first number", "0.1394", f"{first:.4f}", abs(first - BESSEL) < 5e-5),
    ]


def forms_of_adam() -> list[Check]:
    """Returns the checks of PyTorch's form of Adam over TensorFlow's, eps 1e-5, gradients that are all the same."""
    checks = []
    for steps, size, expected in ADAM:
        found = last_step(adam.scale_by_adam, steps, size) / last_step(adam.scale_by_adam_tf, steps, size)
        what = f"(c) Adam, PyTorch's form over TensorFlow's, step {steps}, gradient {size:g}"
        digits = 10.0 ** (math.floor(math.log10(expected)) - 2) / 2  # half a unit of the last of three digits
        checks.append(Check(what, f"{expected:g}", f"{found:.4g}", abs(found - expected) <= digits))
    return checks


def last_step(scale: Callable, steps: int, size: float) -> float:
    """Returns the direction of Adam after some steps of one gradient."""
    chain = scale(b1=0.9, b2=0.999, eps=1e-5)
    once = lambda state, _: chain.update(jnp.float32(size), state)[::-1]
    return float(jax.lax.scan(once, chain.init(jnp.float32(0)), None, steps)[1][-1])


def controllers() -> list[Check]:
    """Returns the checks of the factor that a KL far above its target gives the coefficient, after 512 episodes."""
    at = jnp.float32(1.0), jnp.float32(100.0)
    by_code = float(kl.adapt_by_code(*at, target=6.0, horizon=10_000.0, episodes=512))
    by_paper = float(kl.adapt_by_paper(*at, target=6.0, gain=0.1))
    return [
        Check("(d) KL coefficient at saturation, code", "1.0102", f"{by_code:.4f}", abs(by_code - 1.01024) < 1e-5),
        Check("(d) KL coefficient at saturation, paper", "1.02", f"{by_paper:.4f}", abs(by_paper - 1.02) < 1e-5),
    ]


def identities(seed: int) -> list[Check]:
    """Returns the checks of GAE at lambda 1, and of k1 and k3 over samples of a policy by enumeration."""
    rng = np.random.default_rng(seed)
    rewards, values = (jnp.asarray(x, jnp.float32) for x in rng.standard_normal((2, 64, 9)))
    found = advantages.gae(rewards=rewards, values=values, weights=jnp.ones((64, 9)), gamma=1.0, lam=1.0)
    to_go = np.cumsum(np.asarray(rewards, np.float64)[:, ::-1], axis=1)[:, ::-1]
    off = float(np.abs(np.asarray(found) - (to_go - np.asarray(values))).max())
    p, q = enumerable.log_softmax(rng.standard_normal((2, 1, 1000)))
    one, three = (np.asarray(f(jnp.asarray(p), jnp.asarray(q)), np.float64) for f in (kl.k1, kl.k3))
    true = enumerable.kl(p, q)
    error = float(np.sum(np.exp(p) * one)) / true - 1
    return [
        Check("(e) GAE, lambda 1, less Monte-Carlo less V", "at most 1e-5", f"{off:.1e}", off <= 1e-5),
        Check("(e) mean of k1 over the KL, less 1", "at most 1e-5", f"{error:+.1e}", abs(error) <= 1e-5),
        Check("(e) the least k3 of 1,000 tokens", "at least 0", f"{three.min():.1e}", three.min() >= 0),
    ]
