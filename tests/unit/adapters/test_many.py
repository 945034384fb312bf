"""A batch in which every row has its own adapter equals the adapters one at a time."""

import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax import tree
from ftjax.adapters import attach, init, lora, many
from ftjax.errors import UserError
from ftjax.models import decoder, params
from ftjax.nn import embedding, matmul
from ftjax.sampling import generate

ROWS = [2, 0, 1, 0, 3, 1]


@pytest.fixture(scope="module")
def base(tiny_config):
    return params.init(jax.random.key(0), tiny_config(tie_embeddings=False), "float32")


@pytest.fixture(scope="module")
def config(tiny_config):
    return tiny_config(tie_embeddings=False)


@pytest.fixture(scope="module")
def adapters(base):
    """Adapters of other ranks, scales and targets, the head among them; the last is the base as it is."""

    def make(seed, targets, rank, alpha):
        one = lambda key, weight, rank, alpha: lora.init_one(
            key, weight, rank=rank, alpha=alpha, dropout=0.1, rslora=False
        )
        fresh = init.init(
            jax.random.key(seed), base, make=one, targets=targets, rank=rank, alpha=alpha,
            rank_pattern={}, alpha_pattern={},
        )  # fmt: skip
        return jax.tree.map(lambda x: 0.2 * jax.random.normal(jax.random.key(seed + x.size), x.shape), fresh)

    targets = [("q_proj", "v_proj"), "all-linear", ("down_proj", "lm_head")]
    return [make(k, t, rank, 4.0) for k, (t, rank) in enumerate(zip(targets, (1, 4, 2), strict=True))] + [None]


logits = jax.jit(decoder.logits, static_argnums=2)


def test_every_row_gets_the_logits_of_its_own_adapter(base, config, adapters):
    tokens = jax.random.randint(jax.random.key(1), (len(ROWS), 12), 0, 61)
    together = logits(attach.attach(base, many.select(many.stack(base, adapters), ROWS)), tokens, config)
    alone = [np.asarray(logits(attach.attach(base, one), tokens, config)) for one in adapters]
    for row, number in enumerate(ROWS):
        np.testing.assert_allclose(together[row], alone[number][row], rtol=0, atol=1e-5)
    gap = lambda one, two: float(np.abs(alone[one] - alone[two]).max())
    assert min(gap(0, 1), gap(0, 2), gap(1, 2), gap(2, 3)) > 1e-2


def test_cached_generation_gives_every_row_the_tokens_of_its_own_adapter(base, config, adapters):
    rows = [1, 3, 1]
    prompts = [[3, 9, 4], [7], [5, 2]]
    ask = lambda made: generate.generate(
        made, prompts, jax.random.key(0), config, max_new_tokens=8, temperature=1.0, top_k=0, top_p=1.0, stop_ids=()
    )
    together = ask(attach.attach(base, many.select(many.stack(base, adapters), rows)))
    nothing = jax.tree.map(jnp.zeros_like, adapters[1])  # the base, by the program of adapter 1
    alone = {1: ask(attach.attach(base, adapters[1])), 3: ask(attach.attach(base, nothing))}
    for row, number in enumerate(rows):
        np.testing.assert_array_equal(together.tokens[row], alone[number].tokens[row])
        np.testing.assert_allclose(together.logps[row], alone[number].logps[row], rtol=0, atol=1e-5)


def test_held_out_log_probabilities_are_those_of_each_rows_adapter(base, config, adapters):
    tokens = jax.random.randint(jax.random.key(1), (len(ROWS), 12), 0, 61)
    together = attach.attach(base, many.select(many.stack(base, adapters), ROWS))
    found = jax.jit(decoder.logps, static_argnums=4)(
        together, tokens, tokens, jnp.ones(tokens.shape), config, None, None
    )
    wanted = jax.nn.log_softmax(logits(together, tokens, config))
    wanted = jnp.take_along_axis(wanted, tokens[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(found.logps, wanted, rtol=0, atol=1e-5)


def test_there_is_no_copy_of_the_base(base, adapters):
    attached = attach.attach(base, many.select(many.stack(base, adapters), ROWS))
    assert attached.blocks.q_proj.frozen is base.blocks.q_proj
    assert attached.norm is base.norm
    stacked = many.stack(base, adapters)
    widest = sum(max(x.size for x in found) for found in zip(*(_sizes(base, one) for one in adapters), strict=True))
    assert tree.count(stacked) == len(adapters) * widest


def _sizes(base, adapters):
    """The size of A and B on every weight of the base, 0 where there is none."""
    found = {} if adapters is None else tree.paths(adapters)
    names = [f"{path}.{letter}" for path in tree.paths(base, attach.is_weight) for letter in "ab"]
    return [np.zeros(found[name].size if name in found else 0) for name in names]


def test_other_rows_are_data_not_another_program(base, config, adapters):
    stacked = many.stack(base, adapters)
    traces = []

    @jax.jit
    def run(stacked, rows, tokens):
        traces.append(1)
        return decoder.logits(attach.attach(base, many.select(stacked, rows)), tokens, config)

    tokens = jnp.arange(24).reshape(2, 12)
    first, second = run(stacked, jnp.array([0, 1]), tokens), run(stacked, jnp.array([1, 0]), tokens)
    assert len(traces) == 1
    assert float(jnp.abs(first - second).max()) > 1e-2


def test_rows_that_do_not_fit_are_refused(base, config, adapters):
    stacked = many.stack(base, adapters)
    with pytest.raises(UserError, match="numbers go from 0 to 3"):
        many.select(stacked, [0, 4])
    with pytest.raises(ValueError, match="selected for 3 rows"):
        decoder.logits(attach.attach(base, many.select(stacked, [0, 1, 2])), jnp.ones((2, 4), jnp.int32), config)
    with pytest.raises(ValueError, match="selected for None rows"):
        decoder.logits(attach.attach(base, stacked), jnp.ones((2, 4), jnp.int32), config)


def test_adapters_of_another_base_or_none_are_refused(base, adapters):
    with pytest.raises(UserError, match="at least one"):
        many.stack(base, [])
    smaller = base.replace(blocks=base.blocks.replace(q_proj=base.blocks.q_proj[:, :16]))
    with pytest.raises(UserError, match=r"blocks.q_proj is \(3, 16, 32\) in this base"):
        many.stack(smaller, adapters)
    with pytest.raises(UserError, match=r"adapter 1 is for another base: this one has no blocks.odd_proj"):
        many.stack(base, [adapters[0], {"blocks.odd_proj": adapters[0].blocks.q_proj}])


def test_several_adapters_are_not_merged(base, adapters):
    with pytest.raises(ValueError, match="cannot be merged"):
        many.stack(base, adapters).blocks.q_proj.merge(base.blocks.q_proj)


TYPES = ("dora", "ia3", "olora", "pissa", "vera")


def several(kind):
    """Two adapters of a type on one weight, moved apart."""
    module = importlib.import_module(f"ftjax.adapters.{kind}")
    weight = jax.random.normal(jax.random.key(2), (12, 20))
    values = {"rank": 2, "alpha": 4.0, "dropout": 0.0, "rslora": False, "largest": (12, 20), "d_initial": 0.1}
    values |= {"projection_key": 0, "path": "w", "feedforward": "", "iterations": 0}
    wanted = inspect.signature(module.init_one).parameters
    fresh = module.init_one(jax.random.key(0), weight, **{k: v for k, v in values.items() if k in wanted})
    rng = np.random.default_rng(0)
    move = lambda one: jax.tree.map(lambda x: x + 0.1 * rng.standard_normal(x.shape, np.float32), one)
    return {"w": weight}, [{"w": move(fresh)}, {"w": move(fresh)}]


@pytest.mark.parametrize("kind", TYPES)
def test_adapters_of_other_types_share_a_pass_as_well(kind):
    base, adapters = several(kind)
    x = jax.random.normal(jax.random.key(3), (3, 5, 12))
    together = matmul.matmul(x, attach.attach(base, many.select(many.stack(base, adapters), [1, 0, 1]))["w"])
    alone = [matmul.matmul(x, attach.attach(base, one)["w"]) for one in adapters]
    for row, number in enumerate([1, 0, 1]):
        np.testing.assert_allclose(together[row], alone[number][row], rtol=0, atol=1e-5)
    assert float(jnp.abs(alone[0] - alone[1]).max()) > 1e-2


def test_an_adapter_on_the_embedding_is_that_of_the_row(base):
    embed = lambda k: base_like(base, lora.LoRA(
        a=jax.random.normal(jax.random.key(k), (61, 2)), b=jax.random.normal(jax.random.key(k + 9), (2, 32)),
        scale=0.5, dropout=0.0,
    ))  # fmt: skip
    adapters = [embed(0), embed(1)]
    tokens = jax.random.randint(jax.random.key(1), (2, 12), 0, 61)
    together = embedding.embed(
        attach.attach(base, many.select(many.stack(base, adapters), [1, 0])).embed_tokens, tokens
    )
    for row, number in enumerate([1, 0]):
        one = embedding.embed(attach.attach(base, adapters[number]).embed_tokens, tokens)
        np.testing.assert_allclose(together[row], one[row], rtol=0, atol=1e-5)


def base_like(base, on_embedding):
    return jax.tree.map(lambda _: None, base).replace(embed_tokens=on_embedding)


def test_what_cannot_share_a_pass_is_refused_by_name():
    base, adapters = several("dora")
    with pytest.raises(UserError, match="w: only LoRA may be on it in one adapter and absent in another"):
        many.stack(base, [adapters[0], None])
    with pytest.raises(UserError, match=r"w: adapters of different make \(DoRA, VeRA\)"):
        many.stack(base, [adapters[0], several("vera")[1][0]])
    with pytest.raises(UserError, match="w is trained whole in one of the adapters"):
        many.stack(base, [adapters[0], base])
    experts = {"w": jnp.ones((2, 4, 12, 20))}
    with pytest.raises(UserError, match="w: experts see the tokens of all rows together"):
        many.stack(experts, adapters)
    scaled, ia3 = several("ia3")
    with pytest.raises(ValueError, match="IA3 scales biases"):
        many.stack(scaled, ia3)["w"].bias(jnp.ones(20))
