"""Optimizer state in the host's memory: the same numbers, before and after a checkpoint, on one device and on eight."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax import mesh as meshes
from ftjax.checkpoint.store import Store
from ftjax.errors import UserError
from ftjax.models import params
from ftjax.train import state as states
from ftjax.train import step

INF = jnp.float32(jnp.inf)


def kinds(tree_of):
    return {x.sharding.memory_kind for x in jax.tree.leaves(tree_of) if x.ndim}


@pytest.mark.parametrize("sizes", [None, (2, 2, 2)])
def test_an_offloaded_state_stays_on_the_host_and_changes_no_number(sizes, sft_case, tiny_batch, tiny_config, tmp_path):
    case, letters = sft_case(), params.axes(tiny_config())
    mesh = None if sizes is None else meshes.make(**dict(zip(meshes.AXES, sizes, strict=True)))
    laid = states.shardings(mesh, case.state, letters, offload="host")
    base = case.base if mesh is None else jax.device_put(case.base, meshes.base_shardings(mesh, case.base, letters))
    update = step.make(case.algorithm, case.optimizer, lambda count: 0.0 * count, microbatches=1)
    run = jax.jit(update, donate_argnums=0, out_shardings=(laid, None))
    store = Store(tmp_path / "store", 1)
    now, wanted = jax.device_put(jax.tree.map(jnp.copy, case.state), laid), case.state
    with jax.set_mesh(mesh) if mesh else contextlib.nullcontext():
        for number in range(4):
            assert kinds(now.opt_state) == {"pinned_host"}
            assert kinds(now.trainable) == {"device"}
            if number == 2:  # as a run that is resumed: the state of a checkpoint, in the places of a fresh one
                store.save(number, now, {})
                now, _ = store.restore(None, now)
                assert kinds(now.opt_state) == {"pinned_host"}
            now, found = run(now, base, meshes.place_batch(mesh, tiny_batch), INF)
            wanted, metrics = case.step(wanted, case.base, tiny_batch, INF)
            np.testing.assert_allclose(float(found["loss"]), float(metrics["loss"]), atol=1e-5 if mesh else 0)
    for one, other in zip(jax.tree.leaves(now.opt_state), jax.tree.leaves(wanted.opt_state), strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), atol=1e-5 if mesh else 0)


def test_without_offload_one_device_needs_no_shardings(sft_case, tiny_config):
    assert states.shardings(None, sft_case().state, params.axes(tiny_config()), offload="none") is None


def test_a_device_without_pinned_memory_is_told_so(monkeypatch, sft_case, tiny_config):
    monkeypatch.setattr(meshes, "HOST", "no_such_kind")
    with pytest.raises(UserError, match=r"^optimizer\.offload host: .* has no no_such_kind memory; set .* none$"):
        states.shardings(None, sft_case().state, params.axes(tiny_config()), offload="host")
