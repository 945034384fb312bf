"""What is particular to one type of adapter; what all share is in tests/contracts/test_adapters.py."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ftjax.adapters import adapter, attach, dora, ia3, init, lora, olora, pissa, vera
from ftjax.errors import UserError
from ftjax.nn import matmul
from ftjax.train import optimizer

PLAIN = {"dropout": 0.0, "rslora": False}
GOLDEN_VERA = (
    [
        [-1.0861043, -0.8641543, -0.46919563, -1.0363901, -0.06218982],
        [-0.96373695, 0.59562826, 0.5339186, 0.2068665, 0.8497514],
    ],
    [
        [-0.16963245, 1.0374659],
        [-1.2129867, -0.34132203],
        [-1.5443764, -0.14062436],
        [-1.1237364, 1.556015],
    ],
)


def golden():
    """interop golden: rng(0), W [6, 4], A [2, 4], B [6, 2], x [3, 4], magnitude [6]; r 2, alpha 6; transposed here."""
    rng = np.random.default_rng(0)
    w, a, b, x = (rng.standard_normal(s).astype(np.float32) for s in ((6, 4), (2, 4), (6, 2), (3, 4)))
    return (*map(jnp.asarray, (w.T, a.T, b.T, x)), jnp.abs(jnp.asarray(rng.standard_normal(6), jnp.float32)) + 1)


def test_dora_gives_pefts_golden_attached_and_merged():
    weight, a, b, x, magnitude = golden()
    one = dora.DoRA(a=a, b=b, m=magnitude, scale=3.0, dropout=0.0)
    y = matmul.matmul(x, attach.Adapted(weight, one))
    np.testing.assert_allclose(y.sum(), -8.061230, rtol=1e-5)
    np.testing.assert_allclose(jnp.abs(y).sum(), 36.015141, rtol=1e-5)
    np.testing.assert_allclose(y[0], [-0.98443, -0.87440, 3.31701, -3.66482, 0.66578, -4.51200], atol=1e-4)
    np.testing.assert_allclose(x @ one.merge(weight), y, atol=2e-6)


def test_the_norm_of_dora_is_a_constant_to_the_gradient():
    weight, a, b, x, magnitude = golden()
    norm = dora.norms(weight + 3.0 * a @ b)
    book = lambda a, b, m: jnp.sum(jnp.sin((x @ weight + 3.0 * x @ a @ b) * (m / norm)[None]))
    run = lambda a, b, m: jnp.sum(jnp.sin(dora.DoRA(a, b, m, 3.0, 0.0).forward(x, x @ weight, weight, None)))
    both = (jax.grad(f, argnums=(0, 1, 2))(a, b, magnitude) for f in (book, run))
    for wanted, found in zip(*both, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_the_norm_of_dora_leaves_no_dense_residual():
    """Residuals of one layer: x and what is as long as x or narrower, never a matrix [in, out] of its own."""
    weight = jax.random.normal(jax.random.key(0), (64, 48))
    one = dora.init_one(jax.random.key(1), weight, rank=2, alpha=4.0, **PLAIN)
    x = jax.random.normal(jax.random.key(2), (3, 64))
    run = lambda x, one: matmul.matmul(x, attach.Adapted(weight, one))
    residuals = jax.tree.leaves(jax.eval_shape(lambda x, one: jax.vjp(run, x, one)[1], x, one))
    wide = [leaf.shape for leaf in residuals if leaf.size >= weight.size]
    assert len(wide) <= 1, "only the weight itself, which the gradient of x needs"


def test_dropout_of_dora_is_pefts_and_spares_the_bare_product():
    """PEFT: x W + (m/n - 1) x' W + m/n scale x' A B with x' = drop(x); at m = n only the low-rank part is dropped."""
    weight, a, b, x, magnitude = golden()
    one, key = dora.DoRA(a=a, b=b, m=magnitude, scale=3.0, dropout=0.5), jax.random.key(4)
    inside = adapter.dropped(x, key, 0.5)
    assert 0 < int((inside == 0).sum()) < inside.size
    factor = (magnitude / dora.norms(weight + 3.0 * a @ b))[None]
    wanted = x @ weight + (factor - 1) * (inside @ weight) + factor * 3.0 * (inside @ a @ b)
    np.testing.assert_allclose(matmul.matmul(x, attach.Adapted(weight, one, key)), wanted, atol=1e-5)


def test_pissa_begins_as_the_principal_part_and_olora_as_the_first_of_the_qr():
    weight = golden()[0]
    one = pissa.init_one(jax.random.key(0), weight, rank=2, alpha=6.0, **PLAIN)
    part = 3.0 * one.a @ one.b
    singular = jnp.linalg.svd(weight, compute_uv=False)
    np.testing.assert_allclose(singular, [3.03607, 2.03354, 1.85633, 0.89537], atol=1e-5)
    np.testing.assert_allclose(jnp.linalg.svd(part, compute_uv=False), [3.03607, 2.03354, 0, 0], atol=1e-5)
    rest = jnp.linalg.svd(weight - part, compute_uv=False)
    np.testing.assert_allclose(rest, [1.85633, 0.89537, 0, 0], atol=1e-5)
    two = olora.init_one(jax.random.key(0), weight, rank=2, alpha=6.0, **PLAIN)
    np.testing.assert_allclose(two.b @ two.b.T, jnp.eye(2), atol=1e-6)
    np.testing.assert_allclose((two.a @ two.b)[:2], weight[:2] @ two.b.T @ two.b, atol=1e-5)  # a projection of W


@pytest.mark.parametrize("kind", [pissa, olora])
def test_a_shifted_start_trains_as_if_it_had_been_taken_out_of_the_base(kind):
    weight, _, _, x, _ = golden()
    one = kind.init_one(jax.random.key(0), weight, rank=2, alpha=6.0, **PLAIN)
    residual = weight - 3.0 * one.a @ one.b
    book = lambda a, b: jnp.sum(jnp.sin(x @ residual + 3.0 * x @ a @ b))
    run = lambda a, b: jnp.sum(jnp.sin(matmul.matmul(x, attach.Adapted(weight, one.replace(a=a, b=b)))))
    a, b = one.a + 0.1, one.b - 0.2
    for wanted, found in zip(*(jax.grad(f, argnums=(0, 1))(a, b) for f in (book, run)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-5)


def test_a_shifted_start_cancels_exactly_in_bfloat16():
    weight = 100 * jax.random.normal(jax.random.key(0), (64, 48))
    one = pissa.init_one(jax.random.key(0), weight, rank=8, alpha=8.0, **PLAIN)
    x = jax.random.normal(jax.random.key(1), (5, 64), jnp.bfloat16)
    y = (x @ weight.astype(jnp.bfloat16)).astype(jnp.float32)
    found = one.forward(x, jnp.zeros((5, 48), jnp.bfloat16), weight, None).astype(jnp.float32)
    assert float(jnp.abs(found).max()) < 1e-4 * float(jnp.abs(y).max())


def test_ia3_scales_a_bias_with_its_output_and_not_with_its_input(tiny_config):
    from ftjax.adapters import merge
    from ftjax.models import decoder, params

    config = tiny_config(qkv_bias=True, mlp_bias=True, tie_embeddings=False)
    base = params.init(jax.random.key(0), config, "float32")
    noise = lambda x: 0.3 * jax.random.normal(jax.random.key(5), x.shape)
    bump = lambda path, x: x + noise(x) if path[-1].name.endswith("bias") else x
    base = jax.tree_util.tree_map_with_path(bump, base)
    make = lambda key, weight, path: ia3.init_one(key, weight, path=path, feedforward="down_proj")
    made = init.init(
        jax.random.key(0), base, make=make, targets=("k_proj", "v_proj", "down_proj"), rank=0, alpha=0.0,
        rank_pattern={}, alpha_pattern={},
    )  # fmt: skip
    assert made.blocks.down_proj.l.shape == (3, 64)
    made = jax.tree.map(lambda l: l * 1.5, made)
    attached = attach.attach(base, made)
    np.testing.assert_allclose(attached.blocks.v_bias, base.blocks.v_bias * 1.5)
    np.testing.assert_array_equal(attached.blocks.down_bias, base.blocks.down_bias)
    np.testing.assert_array_equal(attached.blocks.q_bias, base.blocks.q_bias)
    run = jax.jit(lambda params: decoder.logits(params, jnp.arange(12)[None], config))
    np.testing.assert_allclose(run(attached), run(merge.merge(base, made)), atol=1e-5)


def test_veras_matrices_are_those_that_peft_draws():
    """peft 0.21.2: vera_A and vera_B of projection_prng_key 3, r 2, largest weight 5 x 4 (in x out)."""
    a, b = vera.projections(3, 2, 5, 4)
    np.testing.assert_array_equal(a.T, np.array(GOLDEN_VERA[0], np.float32))
    np.testing.assert_array_equal(b.T, np.array(GOLDEN_VERA[1], np.float32))


def test_all_layers_and_weights_share_veras_matrices(tiny_params):
    make = lambda key, weight, rank, largest: vera.init_one(
        key, weight, largest=largest, rank=rank, dropout=0.0, d_initial=0.1, projection_key=0
    )
    given = {"make": make, "targets": "all-linear", "rank": 40, "alpha": 0.0, "alpha_pattern": {}}
    made = init.init(jax.random.key(0), tiny_params, rank_pattern={}, **given)  # a rank above the weights' sides
    blocks = made.blocks
    assert blocks.down_proj.a.shape == (64, 40)
    np.testing.assert_array_equal(blocks.q_proj.a, blocks.down_proj.a[:32])
    np.testing.assert_array_equal(blocks.v_proj.b, blocks.up_proj.b[:, :16])
    with pytest.raises(UserError, match="shares its matrices between all weights, so has one rank"):
        init.init(jax.random.key(0), tiny_params, rank_pattern={"q_proj": 2}, **given)


def test_lora_plus_raises_the_rate_of_b_and_of_vectors_and_peft_keeps_the_embedding_out():
    chain = optimizer.build(
        optax.constant_schedule(1.0), name="sgd", b1=0.9, b2=0.999, eps=1e-8, momentum=0.0, weight_decay=0.0,
        decay=".*", clip_norm=0.0, lora_plus_ratio=16.0,
    )  # fmt: skip
    chain = optimizer.with_embedding_rate(chain, 0.25)
    ones = jnp.ones((2, 2))
    trainable = {
        "q_proj": dora.DoRA(a=ones, b=ones, m=ones, scale=1.0, dropout=0.0),
        "v_proj": vera.VeRA(a=ones, b=ones, lambda_d=ones, lambda_b=ones, dropout=0.0),
        "embed_tokens": lora.LoRA(a=ones, b=ones, scale=1.0, dropout=0.0),
    }
    moved = chain.update(trainable, chain.init(trainable), trainable)[0]
    found = jax.tree.map(lambda x: -float(x[0, 0]), moved)
    assert (found["q_proj"].a, found["q_proj"].b, found["q_proj"].m) == (1, 16, 16)
    assert (found["v_proj"].a, found["v_proj"].b) == (0, 0)
    assert (found["v_proj"].lambda_d, found["v_proj"].lambda_b) == (16, 16)
    assert (found["embed_tokens"].a, found["embed_tokens"].b) == (0.25, 0.25)
