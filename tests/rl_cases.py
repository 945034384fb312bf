"""Small experiments on own samples in memory: completions that are drawn already, algorithms, jitted steps."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import defaults
from ftjax.adapters import init, lora
from ftjax.algorithms import grpo, on_policy, online_dpo, ppo, raft
from ftjax.algorithms.algorithm import frozen
from ftjax.data import prompts
from ftjax.losses import preference
from ftjax.rl import layout, rollout
from ftjax.train import epochs, optimizer, state

PROMPTS, SAMPLES, LONGEST, NEW = 8, 2, 6, 6
INF = float("inf")
ONE = epochs.Plan(epochs=1, minibatches=1, most_kl=INF)
STILL = on_policy.Carrying(coefficient=0.05, controller=None, sync_every=1, normalise=False, reference="base")
FREE = STILL._replace(coefficient=0.0, reference="none")


def texts(seed=0, longest=LONGEST):
    """Returns prompts [P, T] at the right end of their rows, completions [P, G, N] and the masks of both.

    One completion has all N tokens and one has a single one.
    """
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, LONGEST + 1, PROMPTS)
    lengths = rng.integers(2, NEW, (PROMPTS, SAMPLES))
    lengths[1, 0], lengths[2, 1] = NEW, 1
    valid = (np.arange(longest) >= longest - sizes[:, None]).astype(np.int32)
    asked = np.zeros((PROMPTS, longest), np.int32)
    asked[:, longest - LONGEST :] = rng.integers(1, 61, (PROMPTS, LONGEST))
    mask = (np.arange(NEW) < lengths[..., None]).astype(np.int32)
    return asked * valid, valid, rng.integers(1, 61, mask.shape).astype(np.int32) * mask, mask


def drawn(seed=0, **changes):
    """Returns completions with scores, all different."""
    rng = np.random.default_rng(seed + 100)
    rows = layout.arrange(*texts(seed))
    shape = rows.mask.shape
    made = rollout.Completed(
        rows=rows,
        sampler_logps=-rng.random(shape).astype(np.float32) * rows.mask,
        scores=rng.normal(0.5, 1.5, shape[:2]).astype(np.float32),
        valid=np.ones(shape[:2], np.float32),
        ended=np.ones(shape[:2], np.float32),
    )
    return jax.tree.map(jnp.asarray, made._replace(**changes))


class Given:
    """Stands for a rollout: gives what it was made with, and keeps what it was called with."""

    def __init__(self, done, *, temperature=0.7):
        self.done, self.policies = done, []
        self.settings = types.SimpleNamespace(temperature=temperature, max_new_tokens=NEW, samples=SAMPLES)

    def __call__(self, params, base, batch, key):
        del base, batch, key
        self.policies.append(params)
        return self.done, {}

    def place(self, batch):
        return batch


def settings(kind, section, **changes):
    """Returns the settings of an algorithm as `section` of the defaults has them, with some changed."""
    return kind(**{name: section[name] for name in kind._fields} | changes)


def make_ppo(init_adapters, config, *, run, carrying=STILL, shared=False, most_kl=INF, **changes):
    """Returns PPO with these settings changed; TRL's place for the score and variance, so that more places count."""
    chosen = settings(ppo.Settings, defaults.ppo().loss, score_at="next", ddof=1, **changes)
    return ppo.make(
        init_adapters, config, run=run, settings=chosen, carrying=carrying, shared=shared, most_kl=most_kl
    )  # fmt: skip


def make_grpo(init_adapters, config, *, run, carrying=FREE, updates=1, most_kl=INF, **changes):
    """Returns GRPO with these settings changed."""
    chosen = settings(grpo.Settings, defaults.grpo().loss, **changes)
    return grpo.make(
        init_adapters, config, run=run, settings=chosen, carrying=carrying, updates=updates, most_kl=most_kl
    )  # fmt: skip


def make_raft(init_adapters, config, *, run, carrying=FREE):
    """Returns rejection-sampling fine-tuning."""
    return raft.make(init_adapters, config, run=run, carrying=carrying, most_kl=INF)


def make_online_dpo(init_adapters, config, *, run, carrying=STILL):
    """Returns online DPO."""
    loss = functools.partial(preference.dpo, beta=0.1, label_smoothing=0.0)
    return online_dpo.make(init_adapters, config, run=run, carrying=carrying, pair_loss=loss, beta=0.1, most_kl=INF)


def sgd(rate):
    """Returns plain gradient descent, whose update is the gradient, and its schedule."""
    schedule = lambda count: rate * jnp.ones_like(count, jnp.float32)
    chain = optimizer.build(
        schedule, name="sgd", b1=0.0, b2=0.0, eps=0.0, momentum=0.0, weight_decay=0.0, decay="", clip_norm=0.0,
        lora_plus_ratio=1.0,
    )  # fmt: skip
    return chain, schedule


def moved(trainable, seed=3, size=0.1):
    """Returns a tree a little away from where it begins, so that nothing in it is 0."""
    leaves, shape = jax.tree.flatten(trainable)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return jax.tree.unflatten(
        shape, [x + size * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    )  # fmt: skip


@pytest.fixture(scope="session")
def rl_init():
    """Returns the init of a small LoRA."""
    make = functools.partial(lora.init_one, dropout=0.0, rslora=False)
    return functools.partial(
        init.init, make=make, targets=("q_proj", "down_proj"), rank=4, alpha=8.0, rank_pattern={}, alpha_pattern={}
    )


@pytest.fixture(scope="session")
def rl_case(tiny_params, tiny_config, rl_init):
    """Returns a function: one of the above, what was drawn, changes -> the rollout, algorithm, state, jitted step."""
    chain, rate = sgd(0.5)

    def build(
        make, *, done=None, plan=ONE, microbatches=1, config=None, params=tiny_params, temperature=0.7, **changes
    ):
        run = Given(drawn() if done is None else done, temperature=temperature)
        algorithm = make(rl_init, tiny_config(**(config or {})), run=run, **changes)
        start = state.begin(algorithm, params, chain, jax.random.key(2))
        start = start.replace(trainable=moved(start.trainable))
        run_step = jax.jit(epochs.make(algorithm, chain, rate, microbatches=microbatches, plan=plan))
        return types.SimpleNamespace(run=run, algorithm=algorithm, state=start, step=run_step, base=params)

    return build


def experience(case, now=None, *, text=None):
    """Returns the experience of one step."""
    now = case.state if now is None else now
    batch = prompts.PromptBatch(None, None, None, text)
    key = jax.random.fold_in(now.key, now.step)
    return next(iter(case.algorithm.experience(now.trainable, frozen(case.base, now.extra), batch, key)))


def trained(case, steps=1, *, text=None):
    """Returns the state after some steps, and the metrics of each."""
    now, told = case.state, []
    for _ in range(steps):
        now, metrics = case.step(now, case.base, experience(case, now, text=text), jnp.float32(jnp.inf))
        told.append({name: float(value) for name, value in metrics.items()})
    return now, told


def change(case, now):
    """Returns how far training has moved each leaf of what trains."""
    return jax.tree.map(lambda a, b: np.asarray(a - b), now.trainable, case.state.trainable)


def assert_same(one, other, **tolerances):
    """Two trees hold the same numbers."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, **tolerances)
