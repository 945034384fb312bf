"""Every adapter type, the day its file appears: a module counts when it defines `init_one`."""

import functools
import importlib
import inspect
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ftjax import mesh as meshes
from ftjax import tree
import ftjax.adapters
from ftjax.adapters import adapter, attach, init, loftq, merge
from ftjax.checkpoint import peft
from ftjax.models import decoder, params
from ftjax.nn import matmul
from ftjax.quant import int8, low_rank
from ftjax.train import optimizer

MODULES = [importlib.import_module(f"ftjax.adapters.{m.name}") for m in pkgutil.iter_modules(ftjax.adapters.__path__)]
TYPES = [module for module in MODULES if hasattr(module, "init_one")]
VALUES = {
    "rank": 4, "alpha": 8.0, "dropout": 0.0, "rslora": False, "path": "blocks.k_proj", "largest": (12, 20),
    "feedforward": "down_proj", "d_initial": 0.1, "projection_key": 0,
}  # fmt: skip
each_type = pytest.mark.parametrize("kind", TYPES, ids=lambda module: module.__name__.rpartition(".")[2])
TOKENS = np.arange(24).reshape(2, 12)


def settings(kind, leave_out=()):
    return {k: v for k, v in VALUES.items() if k in inspect.signature(kind.init_one).parameters and k not in leave_out}


corrected = jax.jit(
    functools.partial(
        low_rank.decompose, quantise=functools.partial(int8.quantize, group=0), rank=VALUES["rank"], iterations=1
    )
)


def prepared(kind, weight):
    """A weight as the type begins on it: LoftQ needs one that keeps what its bits lost."""
    if kind is not loftq:
        return weight
    dense = adapter.dense(weight)
    return corrected(dense) if dense.ndim == 2 else jax.lax.map(corrected, dense)


def make(kind, weight):
    return kind.init_one(jax.random.key(0), prepared(kind, weight), **settings(kind))


def whole(kind, base):
    """Fresh adapters on every projection of a base, as a run makes them."""
    one = functools.partial(kind.init_one, **settings(kind, ("rank", "alpha", "path", "largest")))
    start = functools.partial(
        init.init, make=one, targets="all-linear", rank=4, alpha=8.0, rank_pattern={}, alpha_pattern={}
    )
    fit = lambda path, weight: prepared(kind, weight) if tree.matches(tree.name(path), init.ALL_LINEAR) else weight
    begin = lambda base: start(jax.random.key(0), jax.tree_util.tree_map_with_path(fit, base))
    return jax.jit(begin)(base)


@jax.jit
def moved(adapters):
    """The adapters after some training: every array that trains a little off."""
    off = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(1), x.shape), adapter.trained(adapters))
    keep = lambda old, new: new.replace(**{name: getattr(old, name) for name in old.constants})
    return jax.tree.map(keep, adapters, off, is_leaf=adapter.is_adapter)


@pytest.fixture(scope="module")
def fresh(tiny_params):
    """Returns a function: type -> fresh adapters on every projection, made once a type."""
    return functools.cache(lambda kind: whole(kind, tiny_params))


@pytest.fixture(scope="module")
def logits(tiny_config):
    return jax.jit(lambda base, adapters: decoder.logits(attach.attach(base, adapters), TOKENS, tiny_config()))


@pytest.fixture(scope="module")
def pair():
    return jax.random.normal(jax.random.key(2), (12, 20)), jax.random.normal(jax.random.key(3), (5, 12))


def test_there_are_adapter_types():
    names = {module.__name__.rpartition(".")[2] for module in TYPES}
    assert names >= {"lora", "dora", "pissa", "olora", "loftq", "ia3", "vera"}


@each_type
def test_it_keeps_the_contract_of_a_node(kind, pair):
    made = make(kind, pair[0])
    assert adapter.is_adapter(made)
    assert set(made.constants) < set(made.__dataclass_fields__)
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype("float32")}


@each_type
def test_a_fresh_adapter_changes_nothing(kind, pair):
    weight, x = pair
    np.testing.assert_allclose(matmul.matmul(x, attach.Adapted(weight, make(kind, weight))), x @ weight, atol=1e-5)


@each_type
def test_merging_equals_attaching(kind, pair):
    weight, x = pair
    made = moved(make(kind, weight))
    attached = matmul.matmul(x, attach.Adapted(weight, made))
    np.testing.assert_allclose(attached, x @ made.merge(weight), atol=1e-5)
    assert float(jnp.abs(attached - x @ weight).max()) > 1e-2


@each_type
def test_a_weight_in_few_bits_is_to_it_the_weight_that_these_bits_mean(kind, pair):
    few = int8.quantize(pair[0], group=0)
    dense, x = few.dequantize(jnp.float32), pair[1]
    node = moved(make(kind, few))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), node, moved(make(kind, dense)))
    run = lambda x, weight: matmul.matmul(x, attach.Adapted(weight, node))
    np.testing.assert_allclose(run(x, few), run(x, dense), atol=1e-5)
    slope = jax.grad(lambda x, weight: run(x, weight).sum())
    np.testing.assert_allclose(slope(x, few), slope(x, dense), atol=1e-5)


@each_type
def test_it_is_trained_through_a_scan_over_layers_and_its_base_is_not(kind, tiny_config, tiny_params, fresh):
    total = lambda adapters: jnp.var(decoder.logits(attach.attach(tiny_params, adapters), TOKENS, tiny_config()))
    grads = jax.jit(jax.grad(total))(moved(fresh(kind)))
    assert jax.tree.structure(grads) == jax.tree.structure(fresh(kind))
    for path, leaf in tree.paths(adapter.trained(grads)).items():
        assert np.isfinite(leaf).all(), path
        assert np.abs(np.asarray(leaf)).max(axis=tuple(range(1, leaf.ndim))).min() > 0, f"{path}: a layer has no slope"


@each_type
def test_constants_get_no_moments_no_update_and_are_not_counted(kind, pair):
    adapters = {"k_proj": make(kind, jnp.stack([pair[0], 2 * pair[0]]))}
    chain = optimizer.build(
        optax.constant_schedule(0.1), name="adamw", b1=0.9, b2=0.999, eps=1e-8, momentum=0.0, weight_decay=0.5,
        decay=".*", clip_norm=1.0, lora_plus_ratio=2.0,
    )  # fmt: skip
    state = jax.jit(chain.init)(adapters)
    count = tree.count(adapter.trained(adapters))
    assert tree.count(state[0 if len(state) < 2 else 1].mu) == count
    loud = jax.tree.map(jnp.ones_like, adapters)
    new = optax.apply_updates(adapters, jax.jit(chain.update)(loud, state, adapters)[0])
    assert jax.tree.structure(adapters) == jax.tree.structure(new)
    before, after = adapters["k_proj"], new["k_proj"]
    for name in before.__dataclass_fields__:
        old, now = getattr(before, name), getattr(after, name)
        if name in before.constants:
            np.testing.assert_array_equal(old, now)
        elif isinstance(old, jax.Array):
            assert np.abs(np.asarray(old) - np.asarray(now)).min() > 0
    alone = optimizer.build(
        optax.constant_schedule(0.1), name="sgd", b1=0.9, b2=0.999, eps=1e-8, momentum=0.0, weight_decay=0.0,
        decay=".*", clip_norm=1.0, lora_plus_ratio=1.0,
    )  # fmt: skip
    step = jax.jit(lambda grads: alone.update(grads, alone.init(grads), grads)[0])(loud)
    np.testing.assert_allclose(optax.tree.norm(step), 0.1, rtol=1e-5)  # constants had no part in the clipping


@each_type
def test_the_gradient_of_a_constant_is_zero(kind, pair):
    weight, x = pair
    grads = jax.grad(lambda node: matmul.matmul(x, attach.Adapted(weight, node)).var())(moved(make(kind, weight)))
    for name in grads.constants:
        np.testing.assert_array_equal(getattr(grads, name), 0)


@each_type
def test_several_adapters_run_over_one_base_under_vmap(kind, pair):
    weight, x = pair
    adapters = [moved(make(kind, weight)), make(kind, weight)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *adapters)
    together = jax.vmap(lambda adapter: matmul.matmul(x, attach.Adapted(weight, adapter)))(stacked)
    for row, one in zip(together, adapters, strict=True):
        np.testing.assert_allclose(row, matmul.matmul(x, attach.Adapted(weight, one)), atol=1e-5)


@each_type
def test_it_is_sharded_like_its_weight_and_gives_the_same_numbers(kind, tiny_config, tiny_params, fresh, logits):
    mesh = meshes.make(data=1, fsdp=4, tensor=2)
    adapters, letters = moved(fresh(kind)), params.axes(tiny_config())
    placed = jax.device_put(adapters, meshes.trainable_shardings(mesh, adapters, letters))
    base = jax.device_put(tiny_params, meshes.base_shardings(mesh, tiny_params, letters))
    for path, leaf in tree.paths(placed).items():
        if path.endswith((".a", ".b")) and leaf.ndim == 3:
            assert not leaf.sharding.is_fully_replicated, f"{path} is copied to every device"
    with jax.set_mesh(mesh):
        there = logits(base, placed)
    np.testing.assert_allclose(there, logits(tiny_params, adapters), atol=1e-5)


@each_type
def test_merging_a_whole_tree_leaves_no_adapter_and_the_same_logits(kind, tiny_params, fresh, logits):
    adapters = moved(fresh(kind))
    dense = jax.jit(merge.merge)(tiny_params, adapters)
    assert jax.tree.structure(dense) == jax.tree.structure(tiny_params)
    np.testing.assert_allclose(logits(dense, None), logits(tiny_params, adapters), atol=1e-5)


@each_type
def test_out_to_a_peft_folder_and_back_it_is_the_same_to_the_bit(kind, tiny_config, tiny_params, fresh, tmp_path):
    adapters = moved(fresh(kind))
    peft.save(tmp_path / "out", adapters, tiny_config(), None)
    again = peft.load(tmp_path / "out", tiny_params, tiny_config())
    plain = jax.tree.map(lambda node: node.exported(), adapters, is_leaf=adapter.is_adapter)
    assert jax.tree.structure(again) == jax.tree.structure(plain)  # scales and dropout are part of the structure
    jax.tree.map(np.testing.assert_array_equal, again, plain)
    peft.save(tmp_path / "again", again, tiny_config(), None)
    for file in peft.FILES[:2]:
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
