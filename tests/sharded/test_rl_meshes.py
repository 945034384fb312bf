"""The number of devices must not change a number of a step on own samples, given the same samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax import mesh as meshes
from ftjax.models import params
from ftjax.train import epochs
from tests import rl_cases as cases

SIZES = {"data": 2, "fsdp": 2, "tensor": 2}
TWO = epochs.Plan(epochs=2, minibatches=2, most_kl=cases.INF)
MADE = {
    "ppo": (cases.make_ppo, {"plan": TWO}),
    "grpo": (cases.make_grpo, {"advantage": "grpo", "carrying": cases.STILL}),
}


def on_mesh(case, config, steps):
    """Returns the metrics of some steps on 8 devices, completions and weights over them."""
    mesh = meshes.make(**SIZES)
    letters = params.axes(config)
    state = jax.device_put(case.state, meshes.trainable_shardings(mesh, case.state, letters))
    case.base = jax.device_put(case.base, meshes.base_shardings(mesh, case.base, letters))
    case.run.done = meshes.place_batch(mesh, case.run.done)
    with jax.set_mesh(mesh):
        told = []
        for _ in range(steps):
            state, metrics = case.step(state, case.base, cases.experience(case, state), jnp.float32(jnp.inf))
            told.append({name: float(value) for name, value in metrics.items()})
    assert not case.run.done.rows.tokens.sharding.is_fully_replicated
    return told


@pytest.mark.parametrize("name", MADE)
def test_eight_devices_give_the_metrics_of_one(name, rl_case, tiny_config):
    make, changes = MADE[name]
    alone = cases.trained(rl_case(make, **changes), 2)[1]
    spread = on_mesh(rl_case(make, **changes), tiny_config(), 2)
    for one, other in zip(alone, spread, strict=True):
        assert one.keys() == other.keys()
        for metric in one:
            np.testing.assert_allclose(other[metric], one[metric], rtol=1e-4, atol=1e-5, err_msg=metric)
    assert alone[1]["loss"] != alone[0]["loss"]
