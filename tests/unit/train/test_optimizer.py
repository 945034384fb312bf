import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ftjax.errors import UserError
from ftjax.train import optimizer

RATE = {
    "schedule": "cosine",
    "learning_rate": 1.0,
    "steps": 100,
    "warmup_steps": 10,
    "end_ratio": 0.1,
    "decay_share": 0.2,
}
CHAIN = {
    "name": "adamw", "b1": 0.9, "b2": 0.999, "eps": 1e-8, "momentum": 0.9, "weight_decay": 0.0, "decay": ".*proj.*",
    "clip_norm": 0.0, "lora_plus_ratio": 1.0,
}  # fmt: skip


def rate(**changes):
    return optimizer.schedule(**(RATE | changes))


def first_update(params, grads, **changes):
    chain = optimizer.build(optax.constant_schedule(0.1), **(CHAIN | changes))
    return chain.update(grads, chain.init(params), params)[0]


@pytest.mark.parametrize("name", optimizer.SCHEDULES)
def test_every_schedule_warms_up_linearly_to_the_peak(name):
    found = [float(rate(schedule=name)(i)) for i in range(11)]
    np.testing.assert_allclose(found[:10], np.arange(1, 11) / 10, rtol=1e-6)
    np.testing.assert_allclose(found[10], 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [
        ("constant", 99, 1.0),
        ("linear", 55, 0.55),
        ("linear", 100, 0.1),
        ("cosine", 55, 0.55),
        ("cosine", 100, 0.1),
        ("wsd", 79, 1.0),
        ("wsd", 90, 0.55),
        ("wsd", 100, 0.1),
    ],
)
def test_schedules_have_their_shape(name, at, value):
    np.testing.assert_allclose(float(rate(schedule=name)(at)), value, atol=1e-6)


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_every_optimizer_lowers_a_quadratic_over_stacked_matrices(name):
    params = {"blocks": {"q_proj": jax.random.normal(jax.random.key(0), (2, 16, 16)), "norm": jnp.ones((2, 16))}}
    total = lambda p: sum(jnp.sum(x**2) for x in jax.tree.leaves(p))
    chain = optimizer.build(optax.constant_schedule(0.02), **(CHAIN | {"name": name}))
    state, start = chain.init(params), total(params)

    @jax.jit
    def step(params, state):
        updates, state = chain.update(jax.grad(total)(params), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(20):
        params, state = step(params, state)
    assert float(total(params)) < 0.9 * float(start)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(state) if x.dtype.kind == "f")


def test_adamw_is_pytorchs_form():
    """Two steps worked by hand: m and v bias-corrected, eps outside the root."""
    chain = optimizer.build(optax.constant_schedule(0.1), **(CHAIN | {"eps": 1e-2}))
    p, state = jnp.array([1.0]), None
    state = chain.init(p)
    for grad, expected in ((0.5, -0.1 * 0.5 / (0.5 + 1e-2)), (0.1, None)):
        update, state = chain.update(jnp.array([grad]), state, p)
        if expected is None:
            m, v = (0.9 * 0.05 + 0.1 * 0.1) / (1 - 0.81), (0.999 * 0.00025 + 0.001 * 0.01) / (1 - 0.999**2)
            expected = -0.1 * m / (v**0.5 + 1e-2)
        np.testing.assert_allclose(update, [expected], rtol=1e-4)


def test_weight_decay_shrinks_only_the_paths_it_names():
    params = {"q_proj": jnp.ones((2, 2)), "norm": jnp.ones(2)}
    update = first_update(params, jax.tree.map(jnp.zeros_like, params), weight_decay=0.5)
    np.testing.assert_allclose(update["q_proj"], -0.05, rtol=1e-5)
    np.testing.assert_array_equal(update["norm"], 0.0)


def test_lora_plus_multiplies_the_learning_rate_of_b():
    params = {"q_proj": {"a": jnp.ones((2, 2)), "b": jnp.ones((2, 2))}}
    update = first_update(params, params, lora_plus_ratio=16.0)
    np.testing.assert_allclose(update["q_proj"]["b"], 16 * update["q_proj"]["a"], rtol=1e-6)


def test_clipping_is_by_the_norm_of_the_whole_tree():
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    update = first_update(
        params, {"a": jnp.array([30.0]), "b": jnp.array([40.0])}, name="sgd", momentum=0.0, clip_norm=1.0
    )
    np.testing.assert_allclose([update["a"][0], update["b"][0]], [-0.06, -0.08], rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: rate(schedule="cosin"), "no schedule 'cosin'. Did you mean 'cosine'?"),
        (lambda: rate(warmup_steps=100), "warmup_steps 100 must be at least 0 and below the 100 steps"),
        (lambda: first_update({}, {}, name="adamW"), "no optimizer 'adamW'. Did you mean 'adamw'?"),
    ],
)
def test_a_wrong_name_or_number_says_what_would_be_right(call, text):
    with pytest.raises(UserError, match=text.replace("?", r"\?")):
        call()
