"""Arithmetic is about the deltas scale * A B: each test compares those, not factors."""

import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax import tree
from ftjax.adapters import arithmetic, dora, init, lora, merge
from ftjax.errors import UserError


@pytest.fixture(scope="module")
def adapted(tiny_params):
    """Returns a function that gives a tree of random LoRAs on some weights of the tiny base."""

    def make(seed, *, targets=("q_proj", "down_proj"), rank=3, alpha=6.0):
        one = lambda key, weight, rank, alpha: lora.init_one(
            key, weight, rank=rank, alpha=alpha, dropout=0.1, rslora=False
        )
        fresh = init.init(
            jax.random.key(seed), tiny_params, make=one, targets=targets, rank=rank, alpha=alpha,
            rank_pattern={}, alpha_pattern={},
        )  # fmt: skip
        return jax.tree.map(lambda x: jax.random.normal(jax.random.key(seed + x.size), x.shape), fresh)

    return make


def deltas(adapters):
    leaves = tree.paths(adapters, lambda leaf: isinstance(leaf, lora.LoRA))
    return {path: np.asarray(one.scale * (one.a @ one.b)) for path, one in leaves.items()}


def assert_same(found, wanted, atol=2e-5):
    assert found.keys() == wanted.keys()
    for path, value in wanted.items():
        np.testing.assert_allclose(found[path], value, rtol=0, atol=atol, err_msg=path)


def test_a_weighted_sum_is_the_sum_of_the_deltas_also_of_other_ranks_scales_and_targets(adapted):
    one, two = adapted(0), adapted(1, targets=("down_proj", "up_proj"), rank=2, alpha=3.0)
    made = arithmetic.weighted_sum([one, two], [0.7, -0.3])
    first, second = deltas(one), deltas(two)
    wanted = {
        "blocks.q_proj": 0.7 * first["blocks.q_proj"],
        "blocks.up_proj": -0.3 * second["blocks.up_proj"],
        "blocks.down_proj": 0.7 * first["blocks.down_proj"] - 0.3 * second["blocks.down_proj"],
    }
    assert_same(deltas(made), wanted)
    assert made.blocks.down_proj.a.shape[-1] == 5
    assert made.blocks.q_proj.scale > 0
    assert made.blocks.up_proj.scale > 0, "alpha / r is written to PEFT's config, where it is positive"


def test_a_sum_merges_as_the_adapters_one_after_the_other(adapted, tiny_params):
    one, two = adapted(0), adapted(1)
    once = merge.merge(tiny_params, arithmetic.concatenate([one, two]))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), once, merge.merge(merge.merge(tiny_params, one), two)
    )


def test_a_weight_of_zero_leaves_no_rank_behind(adapted):
    one, two = adapted(0), adapted(1)
    assert_same(deltas(arithmetic.weighted_sum([one, two], [0.0, 1.0])), deltas(two))
    assert arithmetic.weighted_sum([one, two], [0.0, 1.0]).blocks.q_proj.a.shape[-1] == 3
    with pytest.raises(UserError, match="every weight is 0"):
        arithmetic.weighted_sum([one, two], [0.0, 0.0])


def test_the_linear_combination_sums_a_and_b_apart_as_peft_does(adapted):
    one, two = adapted(0), adapted(1, alpha=3.0)
    made = arithmetic.linear([one, two], [0.5, -2.0])
    roots = [(0.5 * 2.0) ** 0.5, (2.0 * 1.0) ** 0.5]
    a = roots[0] * one.blocks.q_proj.a - roots[1] * two.blocks.q_proj.a
    b = roots[0] * one.blocks.q_proj.b + roots[1] * two.blocks.q_proj.b
    np.testing.assert_allclose(deltas(made)["blocks.q_proj"], a @ b, atol=2e-5)
    assert_same(deltas(arithmetic.linear([one, one], [0.5, 0.5])), {p: 2 * d for p, d in deltas(one).items()})
    with pytest.raises(UserError, match=r"equal ranks, these have \[3, 2\]"):
        arithmetic.linear([one, adapted(1, rank=2)], [1.0, 1.0])


def test_truncation_is_the_best_one_and_its_error_is_what_is_lost(adapted):
    whole = arithmetic.concatenate([adapted(0), adapted(1)])
    made, errors = arithmetic.truncate(whole, 2)
    kept, lost = deltas(made), 0.0
    for path, delta in deltas(whole).items():
        s = np.linalg.svd(delta, compute_uv=False)
        best = np.sqrt((s[..., 2:] ** 2).sum())
        np.testing.assert_allclose(np.linalg.norm(delta - kept[path]), best, rtol=1e-4)
        assert errors[path] == pytest.approx(best / np.linalg.norm(delta), rel=1e-4)
        lost += best**2
    total = np.sqrt(lost / sum(np.linalg.norm(delta) ** 2 for delta in deltas(whole).values()))
    assert arithmetic.total_error(made, errors) == pytest.approx(total, rel=1e-4)
    assert made.blocks.q_proj.a.shape[-1] == 2


def test_a_rank_that_is_enough_loses_nothing(adapted):
    one = adapted(0)
    doubled = arithmetic.weighted_sum([one, one], [0.5, 0.5])
    made, errors = arithmetic.truncate(doubled, 3)
    assert_same(deltas(made), deltas(one), atol=5e-5)
    assert max(errors.values()) < 1e-6
    same, errors = arithmetic.truncate(one, 3)
    assert same.blocks.q_proj is one.blocks.q_proj
    assert set(errors.values()) == {0.0}


def test_truncation_never_forms_the_weight():
    wide = lora.LoRA(a=jnp.ones((300_000, 4)), b=jnp.ones((4, 300_000)), scale=1.0, dropout=0.0)  # in x out: 360 GB
    made, errors = arithmetic.truncate({"w": wide}, 1)
    assert errors["w"] < 1e-9
    np.testing.assert_allclose(made["w"].a[:9] @ made["w"].b[:, :9], 4.0, rtol=1e-5)


def test_the_difference_of_two_models_is_the_adapter_that_made_one_of_the_other(adapted, tiny_params):
    one = adapted(0)
    made, errors = arithmetic.difference(merge.merge(tiny_params, one), tiny_params, 3)
    assert_same(deltas(made), deltas(one), atol=1e-4)
    assert errors.keys() == deltas(one).keys()
    assert max(errors.values()) < 1e-5


def test_the_difference_tells_what_a_rank_loses_and_what_is_no_matrix(adapted, tiny_params):
    one = adapted(0)
    tuned = merge.merge(tiny_params, one)
    tuned = tuned.replace(norm=tuned.norm + 1, embed_tokens=tuned.embed_tokens + 1)
    made, errors = arithmetic.difference(tuned, tiny_params, 1)
    assert (errors["norm"], errors["embed_tokens"]) == (1.0, 1.0)
    for path, delta in deltas(one).items():
        lost = np.linalg.norm(delta - deltas(made)[path]) / np.linalg.norm(delta)
        assert errors[path] == pytest.approx(lost, rel=1e-3)
        assert 0.1 < lost < 1


def test_models_and_adapters_of_different_sizes_are_refused_by_name(adapted, tiny_params):
    smaller = tiny_params.replace(norm=tiny_params.norm[:8])
    with pytest.raises(UserError, match=r"norm is \(8,\) in one model and \(32,\) in the other"):
        arithmetic.difference(smaller, tiny_params, 1)
    one = adapted(0)
    cut = one.replace(blocks=one.blocks.replace(q_proj=one.blocks.q_proj.replace(a=one.blocks.q_proj.a[:, :16])))
    with pytest.raises(UserError, match=r"blocks.q_proj: .* different bases"):
        arithmetic.concatenate([one, cut])


@pytest.mark.parametrize("kind", ["vera", "pissa"])
def test_what_is_a_lora_in_another_writing_takes_part_exactly(kind):
    module = importlib.import_module(f"ftjax.adapters.{kind}")
    weight = jax.random.normal(jax.random.key(2), (3, 12, 20))
    values = {"rank": 2, "alpha": 4.0, "dropout": 0.0, "rslora": False, "largest": (12, 20), "d_initial": 0.1}
    values |= {"projection_key": 0, "iterations": 0}
    wanted = inspect.signature(module.init_one).parameters
    rng = np.random.default_rng(0)
    fresh = module.init_one(jax.random.key(0), weight, **{k: v for k, v in values.items() if k in wanted})
    one = jax.tree.map(lambda x: x + 0.1 * rng.standard_normal(x.shape, np.float32), fresh)
    made = arithmetic.weighted_sum([{"w": one}, {"w": one}], [0.5, -2.0])["w"]
    whole = one.stacked((3,)).merge(weight) - weight
    assert float(jnp.abs(whole).max()) > 1e-2
    np.testing.assert_allclose(made.scale * (made.a @ made.b), -1.5 * whole, rtol=0, atol=5e-6)


def test_what_is_no_lora_is_refused_by_name(adapted, tiny_params):
    one = adapted(0)
    doras = jax.tree.map(lambda x: dora.init_one(jax.random.key(0), x, rank=2, alpha=4.0, dropout=0.0, rslora=False),
                         {"w": jnp.ones((12, 20))})  # fmt: skip
    with pytest.raises(UserError, match="w is DoRA, and arithmetic is for LoRA"):
        arithmetic.concatenate([doras])
    with pytest.raises(UserError, match="norm is trained whole"):
        arithmetic.concatenate([one, one.replace(norm=tiny_params.norm)])
    with pytest.raises(UserError, match="rank 0 must be at least 1"):
        arithmetic.truncate(one, 0)
