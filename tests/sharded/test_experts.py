"""A mixture of experts on a mesh: every shard of the batch dispatches its own tokens, and no number changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax import mesh as meshes
from ftjax.models import decoder, params


@pytest.fixture(scope="module")
def case(tiny_config):
    config = tiny_config(n_experts=4, top_k=2, normalize_top_k=True, d_ff=16)
    base = params.init(jax.random.key(0), config, "float32")
    tokens = np.asarray(jax.random.randint(jax.random.key(1), (8, 24), 1, 61), np.int32)
    return config, base, {"tokens": tokens, "weights": np.ones_like(tokens, np.float32)}


def loss(base, batch, config):
    targets = jnp.roll(batch["tokens"], -1, axis=1)
    out = decoder.logps(base, batch["tokens"], targets, batch["weights"], config, None, None)
    return jnp.mean(out.logps)


def test_experts_on_eight_devices_give_the_loss_and_gradients_of_one(case):
    config, base, batch = case
    step = jax.jit(jax.value_and_grad(loss), static_argnums=2, compiler_options={"xla_backend_optimization_level": 0})
    alone = step(base, batch, config)
    mesh = meshes.make(data=2, fsdp=2, tensor=2)
    placed = jax.device_put(base, meshes.base_shardings(mesh, base, params.axes(config)))
    assert not placed.blocks.gate_proj.sharding.is_fully_replicated
    with jax.set_mesh(mesh):
        found = step(placed, meshes.place_batch(mesh, batch), config)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), atol=1e-5)
