"""What travels between devices in a train step over a quantised base, read from the compiled program, and its numbers.

SFT and DPO are compiled for every mesh, the other algorithms that learn from data for the mixed one, in which all axes
move something. A new one needs its batch in BATCHES and how it is made in MAKE; those that learn from their own samples
are in `test_rl_meshes.py`.
"""

import functools
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ftjax import lookup, tree
from ftjax import mesh as meshes
from ftjax.adapters import init, lora
from ftjax.algorithms import sft
from ftjax.data import batch as batches
from ftjax.data import preference_batch as packed
from ftjax.errors import UserError
from ftjax.models import params
from ftjax.quant import convert
from ftjax.train import state, step
from tests import preference_cases

MESHES = {"data": (8, 1, 1), "fsdp": (1, 8, 1), "tensor": (1, 1, 8), "mixed": (2, 2, 2)}
EVERYWHERE = ("sft", "dpo")
OWN_SAMPLES = {"ppo", "grpo", "raft", "online_dpo"}
# Sizes of which no two are alike, so that a shape in the program says what it is of.
SHAPE = {"vocab_size": 64, "d_model": 128, "d_ff": 320, "n_heads": 8, "n_kv_heads": 8, "head_dim": 24}
GROUP, RANK, ROWS, LENGTH = 8, 4, 8, 13
OPERATION = re.compile(r"= (.+?) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-\w+)(?:-start)?\(")
ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


class Moved(NamedTuple):
    """One array that a collective gives."""

    operation: str
    dtype: str
    dims: tuple[int, ...]  # without those of size 1


def moved(program):
    """Returns every array that a collective of the program gives."""
    found = []
    for results, operation in OPERATION.findall(program):
        for dtype, dims in ARRAY.findall(results):
            sizes = (int(size) for size in dims.split(",") if size)
            found.append(Moved(operation, dtype, tuple(size for size in sizes if size > 1)))
    return found


def sft_batch():
    tokens = np.random.default_rng(0).integers(1, 64, (ROWS, LENGTH)).astype(np.int32)
    whole, counted = np.ones_like(tokens), np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1))
    return batches.SFTBatch(tokens, np.roll(tokens, -1, axis=1), np.ones(tokens.shape, np.float32), counted, whole)


def preference_batch(*, mismatched=False):
    rows = preference_cases.rows()[:ROWS]
    rows = preference_cases.with_mismatched(rows) if mismatched else rows
    places = 4 if mismatched else 2
    return packed.pack_candidates([[row] for row in rows], length=59, completions=places, pairs=1, prefix="shared")


BATCHES = {
    "sft": sft_batch,
    "dpo": preference_batch,
    "kto": functools.partial(preference_batch, mismatched=True),
    "reward_model": preference_batch,
}
MAKE = {
    "sft": sft.make,
    "dpo": preference_cases.make_dpo,
    "kto": preference_cases.make_kto,
    "reward_model": preference_cases.make_reward,
}


class Case(NamedTuple):
    """A train step whose optimizer keeps the gradients: they are the first moments of SGD."""

    config: object
    base: object
    state: object
    step: object
    batch: object


@functools.cache
def case(algorithm, config):
    base = convert.quantize(
        params.init(jax.random.key(0), config, "float32"), "nf4-dq", leaves=r"blocks\.\w+_proj", group=GROUP
    )
    adapters = functools.partial(
        init.init, make=functools.partial(lora.init_one, dropout=0.0, rslora=False), targets="all-linear", rank=RANK,
        alpha=8.0, rank_pattern={}, alpha_pattern={},
    )  # fmt: skip
    made = MAKE[algorithm](adapters, config)
    moved_away = jax.tree.map(lambda x: x + 0.01, made.init(jax.random.key(1), base))  # or a B of 0 hides A's gradient
    keeps = optax.trace(decay=0.9)
    start = state.init(moved_away, keeps, jax.random.key(2))
    run = step.make(made, keeps, lambda count: 0.0 * count, microbatches=1)
    return Case(config, base, start, run, BATCHES[algorithm]())


@functools.cache
def run_on(algorithm, config, name):
    """Returns (collectives, loss, gradients) of one step; without a name, on one device."""
    one = case(algorithm, config)
    fast = {"xla_backend_optimization_level": 0}
    limit = jnp.float32(jnp.inf)
    if name is None:
        program = jax.jit(one.step, compiler_options=fast).lower(one.state, one.base, one.batch, limit).compile()
        after, metrics = program(one.state, one.base, one.batch, limit)
        return [], float(metrics["loss"]), jax.device_get(after.opt_state.trace)
    mesh = meshes.make(**dict(zip(meshes.AXES, MESHES[name], strict=True)))
    letters = params.axes(one.config)
    shardings = meshes.trainable_shardings(mesh, one.state, letters)
    placed = jax.device_put(one.state, shardings)
    base = jax.device_put(one.base, meshes.base_shardings(mesh, one.base, letters))
    with jax.set_mesh(mesh):
        batch = meshes.place_batch(mesh, one.batch)
        jitted = jax.jit(one.step, out_shardings=(shardings, None), compiler_options=fast)
        program = jitted.lower(placed, base, batch, limit).compile()
        after, metrics = program(placed, base, batch, limit)
    return moved(program.as_text()), float(metrics["loss"]), jax.device_get(after.opt_state.trace)


@pytest.fixture(scope="module")
def config(tiny_config):
    return tiny_config(n_layers=2, windows=(0, 0), **SHAPE)


CASES = [(algorithm, name) for algorithm in MAKE for name in MESHES if algorithm in EVERYWHERE or name == "mixed"]
each = pytest.mark.parametrize(("algorithm", "name"), CASES)
of_some = pytest.mark.parametrize("algorithm", EVERYWHERE)


def test_every_algorithm_has_its_case():
    known = {name.partition(".")[0] for name in lookup.catalogue("ftjax.algorithms") if name.endswith(".make")}
    assert known == MAKE.keys() | OWN_SAMPLES


def matrices(base):
    leaves = jax.tree.leaves(base.blocks, is_leaf=tree.stands_for_weight)
    return {leaf.shape[-2:] for leaf in leaves if tree.stands_for_weight(leaf)}


def slices_of(rows, columns):
    """Returns the matrix, every slice of it that a mesh of up to 8 makes, and their transposes."""
    cut = [(rows // i, columns // j) for i in (1, 2, 4, 8) for j in (1, 2, 4, 8)]
    return {*cut, *((j, i) for i, j in cut)}


@each
def test_no_collective_touches_a_dense_base_weight(algorithm, name, config):
    found, _, _ = run_on(algorithm, config, name)
    assert found, "a program without collectives is none of this mesh"
    shapes = matrices(case(algorithm, config).base)
    weights = set().union(*(slices_of(*shape) for shape in shapes))
    stored = set().union(*(slices_of(rows // n, columns) for rows, columns in shapes for n in (2, GROUP)))
    assert not [one for one in found if one.dtype != "u8" and one.dims in weights], "unpacked"
    assert not [one for one in found if one.dtype == "u8" and one.dims not in stored], "neither codes nor scales"


@of_some
def test_fsdp_gathers_bytes(algorithm, config):
    found, _, _ = run_on(algorithm, config, "fsdp")
    gathered = {one.dims for one in found if one.operation == "all-gather" and one.dtype == "u8"}
    for rows, columns in matrices(case(algorithm, config).base):
        assert {(rows // 2, columns), (rows // GROUP, columns)} <= gathered, "codes and scales"


@of_some
@pytest.mark.parametrize("name", ["data", "tensor"])
def test_without_fsdp_no_weight_is_gathered(algorithm, name, config):
    found, _, _ = run_on(algorithm, config, name)
    assert {one.operation for one in found} == {"all-reduce"}
    vocabulary, width = config.vocab_size, config.d_model
    assert not [one for one in found if one.dims in slices_of(vocabulary, width)], "the embedding, which is the head"


@pytest.mark.parametrize("algorithm", MAKE)
def test_a_mixed_mesh_gathers_over_fsdp_alone(algorithm, config):
    found, _, _ = run_on(algorithm, config, "mixed")
    gathered = {one.dims for one in found if one.operation == "all-gather" and one.dtype == "u8"}
    assert (config.d_model // 2, config.d_ff // 2) in gathered, "codes of gate_proj: all inputs, half of the outputs"
    assert not [dims for dims in gathered if config.d_ff in dims]


@each
def test_loss_and_gradients_are_those_of_one_device(algorithm, name, config):
    _, loss, grads = run_on(algorithm, config, name)
    _, alone, wanted = run_on(algorithm, config, None)
    np.testing.assert_allclose(loss, alone, rtol=1e-5)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, atol=1e-5 * np.abs(w).max()), grads, wanted)


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ((1, 8, 1), r"^blocks\.q_proj: mesh\.fsdp 8 cuts its 128 inputs every 16, inside the groups of 64 .* "
         r"set mesh\.fsdp to a divisor of 2 or quant\.group to 8 or 16$"),
        ((1, 1, 8), r"^blocks\.down_proj: mesh\.tensor 8 cuts its 320 inputs every 40, inside .* a divisor of 5 or "
         r"quant\.group to 8$"),
    ],
)  # fmt: skip
def test_a_mesh_that_cuts_through_groups_is_refused_by_shapes_alone(sizes, text, config):
    dense, leaves = params.abstract(config, "float32"), r"blocks\.(q|gate|down)_proj"
    wide = lambda name, group: convert.abstract_tree(dense, convert.plan_of(dense, name, leaves=leaves, group=group))
    mesh, letters = meshes.make(**dict(zip(meshes.AXES, sizes, strict=True))), params.axes(config)
    with pytest.raises(UserError, match=text):
        meshes.check_groups(mesh, wide("nf4-dq", group=64), letters)
    meshes.check_groups(mesh, wide("nf4-dq", group=8), letters)
    meshes.check_groups(mesh, wide("int8", group=0), letters)


def test_the_outer_scales_of_nf4_dq_do_not_keep_its_codes_whole():
    mesh = meshes.make(data=1, fsdp=1, tensor=8)
    node = convert.abstract((2, 128, 320), convert.Few("nf4-dq", GROUP))  # 320 outputs: 2 blocks of 256 for 8 devices
    laid = meshes.leaf_shardings(mesh, ("L", "D", "F"), node)
    assert laid.codes.spec[2] == laid.scales.spec[2] == "tensor"
    assert laid.nested.spec[2] is None


def test_what_adapters_train_lies_like_the_axes_that_it_is_over(config):
    mesh = meshes.make(data=1, fsdp=2, tensor=4)
    shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, "float32")
    fields = {"a": shape(2, 128, 4), "b": shape(2, 4, 320), "m": shape(2, 320), "lambda_d": shape(2, 4)}
    tree_of = {"mu": {"blocks": {"gate_proj": fields}}, "count": shape()}
    tree_of["shared"] = {"blocks": {"up_proj": {"a": shape(128, 4), "b": shape(4, 320)}}}
    laid = {name: tuple(s.spec) for name, s in tree.paths(
        meshes.trainable_shardings(mesh, tree_of, params.axes(config))).items()}  # fmt: skip
    assert laid["mu.blocks.gate_proj.a"] == (None, "fsdp", None)
    assert laid["mu.blocks.gate_proj.b"] == (None, None, "tensor")
    assert laid["mu.blocks.gate_proj.m"] == (None, "tensor")
    assert laid["mu.blocks.gate_proj.lambda_d"] == (None, None)
    assert laid["shared.blocks.up_proj.a"] == ("fsdp", None)
    assert laid["shared.blocks.up_proj.b"] == (None, "tensor")
    assert laid["count"] == ()
