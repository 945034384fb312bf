import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax import tree
from ftjax.adapters import attach, init, lora, merge
from ftjax.errors import UserError
from ftjax.models import decoder, params
from ftjax.nn import matmul


def make(key, weight, *, rank, alpha):
    return lora.init_one(key, weight, rank=rank, alpha=alpha, dropout=0.0, rslora=False)


def fresh(base, targets="all-linear", rank_pattern=None, alpha_pattern=None, make=make, key=1):
    return init.init(
        jax.random.key(key), base, make=make, targets=targets, rank=4, alpha=8.0,
        rank_pattern=rank_pattern or {}, alpha_pattern=alpha_pattern or {},
    )  # fmt: skip


def filled(adapters):
    """The same adapters with B no longer zero."""
    bump = lambda leaf: leaf.replace(b=0.1 * jax.random.normal(jax.random.key(7), leaf.b.shape))
    return jax.tree.map(bump, adapters, is_leaf=lambda x: isinstance(x, lora.LoRA))


def test_output_is_pefts_golden():
    """interop golden: rng(0), W [6, 4], A [2, 4], B [6, 2], x [3, 4], r 2, alpha 6; PEFT 0.21.2 gave these numbers."""
    rng = np.random.default_rng(0)
    w, a, b, x = (rng.standard_normal(s).astype(np.float32) for s in ((6, 4), (2, 4), (6, 2), (3, 4)))
    for rslora, total, first in (
        (False, -24.889526, [-0.86735, -0.43345, 5.44879, -19.38904, 3.31575, -16.42766]),
        (True, -32.342548, [-1.72951, -2.06381, 7.96115, -25.84699, 3.61259, -22.92414]),
    ):
        one = lora.init_one(jax.random.key(0), w.T, rank=2, alpha=6.0, dropout=0.0, rslora=rslora)
        adapted = attach.Adapted(frozen=jnp.asarray(w.T), adapter=one.replace(a=jnp.asarray(a.T), b=jnp.asarray(b.T)))
        y = matmul.matmul(jnp.asarray(x), adapted)
        np.testing.assert_allclose(y.sum(), total, rtol=1e-5)
        np.testing.assert_allclose(y[0], first, atol=1e-4)
        np.testing.assert_allclose(x @ adapted.adapter.merge(adapted.frozen), y, atol=2e-5)


def test_a_fresh_adapter_is_uniform_in_pefts_bounds_and_adds_nothing():
    one = make(jax.random.key(0), jax.ShapeDtypeStruct((64, 256), "bfloat16"), rank=64, alpha=16.0)
    assert one.a.dtype == one.b.dtype == jnp.float32
    assert float(jnp.abs(one.a).max()) <= 64**-0.5
    np.testing.assert_allclose(float(one.a.std()), 64**-0.5 / 3**0.5, rtol=0.02)
    assert not np.asarray(one.b).any()
    assert one.scale == 16.0 / 64


def test_adapters_have_the_bases_structure_with_none_elsewhere(tiny_params):
    adapters = fresh(tiny_params, targets=("q_proj", "down_proj"))
    assert sorted(tree.paths(adapters)) == [
        "blocks.down_proj.a", "blocks.down_proj.b", "blocks.q_proj.a", "blocks.q_proj.b",
    ]  # fmt: skip
    assert adapters.embed_tokens is None
    assert adapters.blocks.v_proj is None


def test_adding_a_target_does_not_change_the_others(tiny_params):
    few, many = fresh(tiny_params, targets=("q_proj",)), fresh(tiny_params)
    np.testing.assert_array_equal(few.blocks.q_proj.a, many.blocks.q_proj.a)
    assert not np.array_equal(many.blocks.q_proj.a, many.blocks.o_proj.a)


@pytest.mark.parametrize("targets", ["blocks\\.(q|v)_proj", ("q_proj", "v_proj"), ("blocks.q_proj", "blocks.v_proj")])
def test_a_regex_and_pefts_list_of_names_choose_alike(tiny_params, targets):
    assert init.targeted(tiny_params, targets) == ["blocks.q_proj", "blocks.v_proj"]


@pytest.mark.parametrize(
    ("targets", "text"),
    [
        (("qproj",), r"\['qproj'\] match no weight; .*blocks\.q_proj"),
        ("q_proj", r"'q_proj' match no weight; .*blocks\.q_proj"),
        (("q_proj", "wrong"), r"\['wrong'\] match no weight"),
        (("input_norm",), "match no weight"),
    ],
)
def test_targets_that_match_nothing_list_the_names_there_are(tiny_params, targets, text):
    with pytest.raises(UserError, match=text):
        init.targeted(tiny_params, targets)


def test_patterns_give_single_weights_another_rank_and_scale(tiny_params):
    made = fresh(tiny_params, rank_pattern={"q_proj": 2}, alpha_pattern={"down_proj": 32.0})
    assert made.blocks.q_proj.a.shape == (3, 32, 2)
    assert made.blocks.q_proj.scale == 8.0 / 2
    assert made.blocks.down_proj.scale == 32.0 / 4
    assert made.blocks.k_proj.scale == 8.0 / 4
    with pytest.raises(UserError, match="pattern 'nothing' matches none of the targets"):
        fresh(tiny_params, rank_pattern={"nothing": 2})


def test_a_rank_above_the_weights_smaller_side_is_refused(tiny_params):
    with pytest.raises(UserError, match=r"adapter rank 99 is above the smaller side of blocks\.q_proj \(32, 32\)"):
        fresh(tiny_params, rank_pattern={"q_proj": 99})


def test_merged_weights_give_the_attached_models_logits(tiny_params, tiny_config):
    adapters, tokens = filled(fresh(tiny_params)), jnp.arange(40).reshape(2, 20)
    attached = decoder.logits(attach.attach(tiny_params, adapters), tokens, tiny_config())
    merged = decoder.logits(merge.merge(tiny_params, adapters), tokens, tiny_config())
    plain = decoder.logits(tiny_params, tokens, tiny_config())
    np.testing.assert_allclose(attached, merged, atol=2e-5)
    assert float(jnp.abs(attached - plain).max()) > 0.01


def test_its_own_backward_pass_gives_autodiffs_gradients():
    keys = jax.random.split(jax.random.key(0), 3)
    x, a, b = (jax.random.normal(k, s) for k, s in zip(keys, ((2, 5, 8), (8, 3), (3, 6)), strict=True))
    ours = jax.grad(lambda *p: jnp.sum(jnp.sin(lora.low_rank(*p))), argnums=(0, 1, 2))(x, a, b)
    book = jax.grad(lambda x, a, b: jnp.sum(jnp.sin(x @ a @ b)), argnums=(0, 1, 2))(x, a, b)
    for one, other in zip(ours, book, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_dropout_needs_a_key_keeps_the_mean_and_differs_by_layer_and_weight(tiny_params):
    drop = lambda key, w, *, rank, alpha: lora.init_one(key, w, rank=rank, alpha=alpha, dropout=0.5, rslora=False)
    adapters = filled(fresh(tiny_params, make=drop))
    still = attach.attach(tiny_params, adapters)
    assert still.blocks.q_proj.key is None
    keyed = attach.attach(tiny_params, adapters, jax.random.key(3))
    drawn = jax.random.key_data(jnp.concatenate([keyed.blocks.q_proj.key, keyed.blocks.k_proj.key]))
    assert len({tuple(row.tolist()) for row in np.asarray(drawn)}) == 6
    one = jax.tree.map(lambda x: x[0], adapters.blocks.q_proj)
    x, frozen = jnp.ones((1, 32)), jnp.zeros((32, 32))
    draw = jax.vmap(lambda key: one.forward(x, x @ frozen, frozen, key))(jax.random.split(jax.random.key(0), 4000))
    np.testing.assert_allclose(draw.mean(axis=0), one.forward(x, x @ frozen, frozen, None), atol=0.02)


def test_full_fine_tuning_is_the_same_attach(tiny_params, tiny_config):
    hollow = jax.tree.map(lambda _: None, tiny_params)
    tokens = jnp.arange(10)[None]
    whole = decoder.logits(attach.attach(hollow, tiny_params), tokens, tiny_config())
    np.testing.assert_array_equal(whole, decoder.logits(tiny_params, tokens, tiny_config()))


def test_abstract_shapes_are_those_of_the_weights(tiny_config, tiny_params):
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tiny_params)
    assert jax.tree.map(lambda s: (s.shape, s.dtype), params.abstract(tiny_config(), "float32")) == shapes
