"""A small SFT experiment in memory: base, algorithm and jitted steps, as fixtures."""

import functools
import types

import jax
import jax.numpy as jnp
import pytest

from ftjax.adapters import init, lora
from ftjax.algorithms import sft
from ftjax.train import optimizer, state, step


def adamw(rate, *, eps=1e-6):
    """Returns AdamW at a constant rate, and the schedule of that rate."""
    schedule = optimizer.schedule(
        schedule="constant", learning_rate=rate, steps=100, warmup_steps=0, end_ratio=0.0, decay_share=0.1
    )
    chain = optimizer.build(
        schedule, name="adamw", b1=0.9, b2=0.999, eps=eps, momentum=0.0, weight_decay=0.0, decay=".*", clip_norm=1.0,
        lora_plus_ratio=1.0,
    )  # fmt: skip
    return chain, schedule


@pytest.fixture(scope="session")
def sft_case(tiny_config, tiny_params):
    """Returns a function: changes of the model config and microbatches -> algorithm, state, jitted step, evaluate."""
    make = functools.partial(lora.init_one, dropout=0.0, rslora=False)
    init_adapters = functools.partial(
        init.init, make=make, targets="all-linear", rank=4, alpha=8.0, rank_pattern={}, alpha_pattern={}
    )
    chain, rate = adamw(1e-2)

    def build(*, microbatches=1, full=False, params=tiny_params, **changes):
        whole = lambda _, base: jax.tree.map(jnp.copy, base)
        algorithm = sft.make(whole if full else init_adapters, tiny_config(**changes))
        start = state.init(algorithm.init(jax.random.key(1), params), chain, jax.random.key(2))
        run = jax.jit(step.make(algorithm, chain, rate, microbatches=microbatches))
        base = jax.tree.map(lambda _: None, params) if full else params
        return types.SimpleNamespace(
            algorithm=algorithm, state=start, step=run, base=base, optimizer=chain,
            evaluate=jax.jit(step.make_evaluate(algorithm)),
        )  # fmt: skip

    return build


@pytest.fixture(scope="session")
def curve():
    """Returns a function that gives the losses of some steps on one batch."""

    def losses(case, batch, steps=5):
        state, found = case.state, []
        for _ in range(steps):
            state, metrics = case.step(state, case.base, batch, jnp.float32(jnp.inf))
            found.append(float(metrics["loss"]))
        return found

    return losses
