"""What trains of embedding and head, where these are one weight or two; the noise of NEFTune."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax import tree
from ftjax.adapters import attach, dora, init, lora, merge, noise, tables
from ftjax.algorithms import sft
from ftjax.errors import UserError
from ftjax.models import decoder, params
from ftjax.nn import embedding

TOKENS = np.arange(1, 41, dtype=np.int32).reshape(2, 20)
NONE = {"trainable_tokens": (), "modules_to_save": (), "ensure_weight_tying": False}


def draw(seed, *shape):
    return 0.3 * jax.random.normal(jax.random.key(seed), shape)


def low(rows, columns, tied=False):
    return lora.LoRA(a=draw(1, rows, 2), b=draw(2, 2, columns), scale=1.5, dropout=0.0, tied=tied)


def magnitudes(rows, columns):
    return dora.DoRA(a=draw(1, rows, 2), b=draw(2, 2, columns), m=1 + draw(3, columns), scale=1.5, dropout=0.0)


ROWS = tables.TokenRows(values=draw(4, 2, 32), indices=(7, 3), on_head=False, tied=True)
CASES = {
    "low rank, lookup": {"embed_tokens": low(61, 32)},
    "low rank, both": {"embed_tokens": low(61, 32, tied=True)},
    "low rank, head": {"lm_head": low(32, 61)},
    "magnitudes": {"embed_tokens": magnitudes(61, 32), "lm_head": magnitudes(32, 61)},
    "rows": {"embed_tokens": ROWS},
    "rows apart": {
        "embed_tokens": ROWS.replace(tied=False),
        "lm_head": tables.TokenRows(values=draw(5, 1, 32), indices=(5,), on_head=True, tied=False),
    },
    "copy of the lookup": {"embed_tokens": tables.Copy(weight=draw(6, 61, 32))},
    "copy of both": {"embed_tokens": draw(6, 61, 32)},
    "copy of the head": {"lm_head": draw(6, 32, 61)},
}
SEES = {"low rank, both", "rows", "copy of both"}  # the head sees what is on the embedding


@pytest.fixture(scope="module")
def runs(tiny_config):
    """Returns jitted functions of parameters: (logits, log-probabilities through the training path)."""
    config = tiny_config()

    def logps(model):
        return decoder.logps(model, TOKENS, jnp.asarray(TOKENS[:, ::-1]), jnp.ones((2, 20)), config, None, None).logps

    return jax.jit(lambda model: decoder.logits(model, TOKENS, config)), jax.jit(logps)


@pytest.mark.parametrize("case", CASES)
def test_a_tied_table_is_for_lookup_head_training_and_merge_the_same(case, runs, tiny_params):
    logits, logps = runs
    hollow = jax.tree.map(lambda _: None, tiny_params)
    attached = attach.attach(tiny_params, hollow.replace(**CASES[case]))
    dense = merge.merge(tiny_params, hollow.replace(**CASES[case]))
    found = logits(attached)
    np.testing.assert_allclose(found, logits(dense), atol=1e-5)
    wanted = jnp.take_along_axis(jax.nn.log_softmax(found), jnp.asarray(TOKENS[:, ::-1, None]), axis=-1)[..., 0]
    np.testing.assert_allclose(logps(attached), wanted, atol=1e-5)
    looked_up = "embed_tokens" in CASES[case]
    assert looked_up != np.array_equal(embedding.embed(attached.embed_tokens, TOKENS), tiny_params.embed_tokens[TOKENS])
    head, tied = embedding.head(attached.lm_head, attached.embed_tokens)
    if case in SEES:
        assert dense.lm_head is None
    elif "lm_head" in CASES[case]:
        assert not tied
    else:
        assert tied
        np.testing.assert_array_equal(head, tiny_params.embed_tokens)
        np.testing.assert_array_equal(dense.lm_head, tiny_params.embed_tokens.T)


@pytest.mark.parametrize("case", ["low rank, both", "magnitudes"])
def test_gradients_of_tables_through_the_training_path_are_those_of_the_logits(case, runs, tiny_params):
    logits, logps = runs
    hollow = jax.tree.map(lambda _: None, tiny_params)

    def of_logits(leaves):
        out = jax.nn.log_softmax(logits(attach.attach(tiny_params, hollow.replace(**leaves))))
        return jnp.sum(jnp.take_along_axis(out, jnp.asarray(TOKENS[:, ::-1, None]), axis=-1))

    of_logps = lambda leaves: jnp.sum(logps(attach.attach(tiny_params, hollow.replace(**leaves))))
    # At level 0, which `make test` compiles with, XLA's CPU backend makes NaN of this program alone; run eagerly, or at
    # any other level, it is right.
    jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 1})
    found, wanted = jit(jax.grad(of_logps))(CASES[case]), jit(jax.grad(of_logits))(CASES[case])
    for path, value in tree.paths(found).items():
        assert np.abs(value).max() > 0, path
        np.testing.assert_allclose(value, tree.paths(wanted)[path], atol=2e-4, err_msg=path)


def fresh(base, targets="all-linear"):
    make = functools.partial(lora.init_one, dropout=0.0, rslora=False)
    return init.init(
        jax.random.key(1), base, make=make, targets=targets, rank=4, alpha=8.0, rank_pattern={}, alpha_pattern={}
    )


@pytest.mark.parametrize("tied", [True, False])
def test_fresh_additions_change_nothing_and_are_where_peft_puts_them(tied, tiny_config, runs):
    config = tiny_config(tie_embeddings=tied)
    base = params.init(jax.random.key(0), config, "float32")
    low_rank = fresh(base)
    array, copy = jax.Array, tables.Copy
    for changes, embed, head in (
        ({"trainable_tokens": (3, 9)}, tables.TokenRows, type(None)),
        ({"modules_to_save": ("embed_tokens",)}, copy if tied else array, type(None)),
        ({"modules_to_save": ("lm_head",)}, type(None), array),
        ({"modules_to_save": ("embed_tokens", "lm_head")}, array, array),
        *([({"modules_to_save": ("lm_head",), "ensure_weight_tying": True}, array, type(None))] if tied else []),
    ):
        made = tables.add(low_rank, base, **NONE | changes)
        assert isinstance(made.embed_tokens, embed), changes
        assert isinstance(made.lm_head, head), changes
        assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype("float32")}
        if tied:
            np.testing.assert_allclose(runs[0](attach.attach(base, made)), runs[0](base), atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, tables.add(low_rank, base, **NONE), low_rank)


def test_a_lora_of_the_embedding_begins_as_pefts_and_can_be_tied(tiny_params):
    made = fresh(tiny_params, ("embed_tokens", "lm_head", "q_proj"))
    assert not np.asarray(made.embed_tokens.a).any()
    assert 0.7 < float(made.embed_tokens.b.std()) < 1.3
    assert made.embed_tokens.a.shape == (61, 4)
    assert (made.lm_head.a.shape, made.lm_head.b.shape) == ((32, 4), (4, 61))
    assert not np.asarray(made.lm_head.b).any()
    assert tables.add(made, tiny_params, **NONE | {"ensure_weight_tying": True}).embed_tokens.tied


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"trainable_tokens": (61,)}, "trainable token 61 is not in the vocabulary of 61"),
        ({"trainable_tokens": (3, 3)}, "name a token twice"),
        ({"modules_to_save": ("embed",)}, "modules_to_save has 'embed'.*embed_tokens"),
        ({"modules_to_save": ("embed_tokens",), "trainable_tokens": (1,)}, "embed_tokens is adapted already"),
    ],
)
def test_additions_that_make_no_sense_are_refused(changes, match, tiny_params):
    with pytest.raises(UserError, match=match):
        tables.add(fresh(tiny_params), tiny_params, **NONE | changes)


def test_types_that_do_not_go_on_an_embedding_say_so(tiny_params):
    from ftjax.adapters import pissa

    make = functools.partial(pissa.init_one, dropout=0.0, rslora=False)
    with pytest.raises(UserError, match="does not go on embed_tokens; lora and dora do"):
        init.init(
            jax.random.key(1), tiny_params, make=make, targets=("embed_tokens",), rank=4, alpha=8.0, rank_pattern={},
            alpha_pattern={},
        )  # fmt: skip


def test_noise_is_uniform_in_the_papers_bounds_for_each_document_and_none_on_padding():
    table = jnp.zeros((5, 64))
    segments = jnp.asarray([[1] * 4 + [2] * 9 + [0] * 3])
    alpha = 5.0
    made = noise.on(table, segments, jax.random.key(0), alpha=alpha)
    found = np.asarray(embedding.embed(made, jnp.zeros((1, 16), jnp.int32)))[0]
    for rows, length in ((found[:4], 4), (found[4:13], 9)):
        bound = alpha / (length * 64) ** 0.5
        assert np.abs(rows).max() <= bound
        np.testing.assert_allclose(rows.std(), bound / 3**0.5, rtol=0.1)
    np.testing.assert_array_equal(found[13:], 0)


def test_neftune_moves_training_alone_and_differs_by_step(tiny_config, tiny_params, tiny_batch):
    adapters = fresh(tiny_params)
    plain = sft.make(lambda *_: adapters, tiny_config())
    noisy = sft.make_neftune(lambda *_: adapters, tiny_config(), alpha=5.0)
    run = lambda algorithm: jax.jit(lambda key: algorithm.loss(adapters, tiny_params, tiny_batch, key)[0])
    keys = jax.random.split(jax.random.key(0), 2)
    with_noise = run(noisy)
    one, two = with_noise(keys[0]), with_noise(keys[1])
    still = run(plain)(keys[0])
    assert float(jnp.abs(one - still).max()) > 1e-3
    assert float(jnp.abs(one - two).max()) > 1e-3
    asked = jax.make_jaxpr(lambda: noisy.loss(adapters, tiny_params, tiny_batch, None)[0])()
    assert str(asked) == str(jax.make_jaxpr(lambda: plain.loss(adapters, tiny_params, tiny_batch, None)[0])())
