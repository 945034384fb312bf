"""Every adapter type, the day its file appears: a module counts when it defines `init_one`."""

import importlib
import inspect
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax import mesh as meshes
import ftjax.adapters
from ftjax.adapters import attach, merge
from ftjax.models import decoder, params
from ftjax.nn import matmul

MODULES = [importlib.import_module(f"ftjax.adapters.{m.name}") for m in pkgutil.iter_modules(ftjax.adapters.__path__)]
TYPES = [module for module in MODULES if hasattr(module, "init_one")]
VALUES = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "rslora": False}
each_type = pytest.mark.parametrize("kind", TYPES, ids=lambda module: module.__name__.rpartition(".")[2])


def make(kind, weight):
    wanted = inspect.signature(kind.init_one).parameters
    return kind.init_one(jax.random.key(0), weight, **{k: v for k, v in VALUES.items() if k in wanted})


def moved(adapter):
    """The adapter after some training: every array a little off."""
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(1), x.shape), adapter)


def test_there_are_adapter_types():
    assert "ftjax.adapters.lora" in [module.__name__ for module in TYPES]


@each_type
def test_a_fresh_adapter_changes_nothing(kind):
    weight, x = jax.random.normal(jax.random.key(2), (12, 20)), jax.random.normal(jax.random.key(3), (5, 12))
    np.testing.assert_allclose(matmul.matmul(x, attach.Adapted(weight, make(kind, weight))), x @ weight, atol=1e-5)


@each_type
def test_merging_equals_attaching(kind):
    weight, x = jax.random.normal(jax.random.key(2), (12, 20)), jax.random.normal(jax.random.key(3), (5, 12))
    adapter = moved(make(kind, weight))
    attached = matmul.matmul(x, attach.Adapted(weight, adapter))
    np.testing.assert_allclose(attached, x @ adapter.merge(weight), atol=2e-5)
    assert float(jnp.abs(attached - x @ weight).max()) > 1e-2


@each_type
def test_it_is_trained_through_a_scan_over_layers_and_its_base_is_not(kind, tiny_config, tiny_params):
    pick = lambda path, w: make(kind, w) if path[-1].name.endswith("_proj") else None
    adapters = jax.tree_util.tree_map_with_path(pick, tiny_params)
    tokens = jnp.arange(24).reshape(2, 12)
    total = lambda adapters: jnp.sum(decoder.logits(attach.attach(tiny_params, moved(adapters)), tokens, tiny_config()))
    grads = jax.jit(jax.grad(total))(adapters)
    assert jax.tree.structure(grads) == jax.tree.structure(adapters)
    for leaf in jax.tree.leaves(grads):
        assert np.isfinite(leaf).all()
        assert np.abs(np.asarray(leaf)).max(axis=tuple(range(1, leaf.ndim))).min() > 0, "a layer got no gradient"


@each_type
def test_several_adapters_run_over_one_base_under_vmap(kind):
    weight, x = jax.random.normal(jax.random.key(2), (12, 20)), jax.random.normal(jax.random.key(3), (5, 12))
    adapters = [moved(make(kind, weight)), make(kind, weight)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *adapters)
    together = jax.vmap(lambda adapter: matmul.matmul(x, attach.Adapted(weight, adapter)))(stacked)
    for row, adapter in zip(together, adapters, strict=True):
        np.testing.assert_allclose(row, matmul.matmul(x, attach.Adapted(weight, adapter)), atol=1e-5)


@each_type
def test_it_is_sharded_like_its_weight_and_gives_the_same_numbers(kind, tiny_config, tiny_params):
    mesh = meshes.make(data=1, fsdp=4, tensor=2)
    pick = lambda path, w: moved(make(kind, w)) if path[-1].name.endswith("_proj") else None
    adapters = jax.tree_util.tree_map_with_path(pick, tiny_params)
    letters = params.axes(tiny_config())
    placed = jax.device_put(adapters, meshes.trainable_shardings(mesh, adapters, letters))
    base = jax.device_put(tiny_params, meshes.base_shardings(mesh, tiny_params, letters))
    split = [leaf for leaf in jax.tree.leaves(placed) if not leaf.sharding.is_fully_replicated]
    assert len(split) >= 7, "none of the adapters' arrays is split over the mesh"
    tokens = jnp.arange(24).reshape(2, 12)
    run = jax.jit(lambda base, adapters: decoder.logits(attach.attach(base, adapters), tokens, tiny_config()))
    with jax.set_mesh(mesh):
        there = run(base, placed)
    np.testing.assert_allclose(there, run(tiny_params, adapters), atol=2e-5)


@each_type
def test_merging_a_whole_tree_leaves_no_adapter(kind, tiny_params):
    pick = lambda path, w: moved(make(kind, w)) if path[-1].name.endswith("_proj") else None
    dense = merge.merge(tiny_params, jax.tree_util.tree_map_with_path(pick, tiny_params))
    assert jax.tree.structure(dense) == jax.tree.structure(tiny_params)
