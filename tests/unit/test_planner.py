"""The planner's bytes beside those of the compiled step, on shape S of the benchmarks."""

import functools

import jax
import jax.numpy as jnp
import pytest

from ftjax import planner, tree
from ftjax.adapters import init, lora
from ftjax.algorithms import sft
from ftjax.data import batch as batches
from ftjax.models import params
from ftjax.quant import convert
from ftjax.train import optimizer, state, step

ROWS, LENGTH = 4, 512
SHAPE = {
    "vocab_size": 4096, "d_model": 256, "d_ff": 688, "n_heads": 4, "n_kv_heads": 4, "head_dim": 64, "n_layers": 4,
    "windows": (0,) * 4, "tie_embeddings": False,
}  # fmt: skip


@pytest.fixture
def abstract(tiny_config):
    """Returns a function: format, remat -> (config, base, state, step), all but the step of shapes."""

    def build(name, remat):
        config = tiny_config(remat=remat, **SHAPE)
        dense = params.abstract(config, "bfloat16")
        base = convert.abstract_tree(dense, convert.plan_of(dense, name, leaves=r"blocks\.\w+_proj", group=16))
        adapters = functools.partial(
            init.init, make=functools.partial(lora.init_one, dropout=0.0, rslora=False), targets="all-linear", rank=16,
            alpha=32.0, rank_pattern={}, alpha_pattern={},
        )  # fmt: skip
        update = optimizer.build(
            lambda count: 1e-3 + 0 * count, name="adamw", b1=0.9, b2=0.999, eps=1e-8, momentum=0.0, weight_decay=0.0,
            decay=".*", clip_norm=1.0, lora_plus_ratio=1.0,
        )  # fmt: skip
        algorithm = sft.make(adapters, config)
        make = lambda base: state.init(algorithm.init(jax.random.key(0), base), update, jax.random.key(1))
        run = step.make(algorithm, update, lambda count: 1e-3 + 0 * count, microbatches=1)
        return config, base, jax.eval_shape(make, base), run

    return build


@pytest.mark.parametrize(("name", "remat"), [("nf4-dq", "full"), ("none", "dots")])
def test_the_prediction_is_within_a_tenth_of_what_is_compiled(name, remat, abstract):
    config, base, start, run = abstract(name, remat)
    roles = planner.predict(config, base, start, rows=ROWS, length=LENGTH)
    shape = lambda kind: jax.ShapeDtypeStruct((ROWS, LENGTH), kind)
    batch = batches.SFTBatch(shape("int32"), shape("int32"), shape("float32"), shape("int32"), shape("int32"))
    jitted = jax.jit(run, donate_argnums=0, compiler_options={"xla_backend_optimization_level": 0})
    found = jitted.lower(start, base, batch, jnp.float32(jnp.inf)).compile().memory_analysis()
    measured = found.argument_size_in_bytes + found.temp_size_in_bytes
    assert sum(roles.values()) == pytest.approx(measured, rel=0.1)


def test_what_is_allocated_is_counted_to_the_byte(abstract):
    config, base, start, _ = abstract("nf4-dq", "full")
    roles = planner.predict(config, base, start, rows=ROWS, length=LENGTH)
    assert roles["codes"] + roles["scales"] + roles["dense"] == tree.nbytes(base)
    assert roles["codes"] * 2 == sum(
        leaf.size for name, leaf in tree.paths(params.abstract(config, "bfloat16")).items() if "_proj" in name
    )
    assert roles["adapters"] + roles["moments"] == tree.nbytes((start.trainable, start.opt_state))
    assert roles["residuals"] == 4 * ROWS * LENGTH * 256 * config.n_layers


def test_a_mixture_of_experts_is_refused(tiny_config, abstract):
    _, base, start, _ = abstract("none", "full")
    with pytest.raises(ValueError, match="does not know mixtures of experts"):
        planner.predict(tiny_config(n_experts=4, top_k=2), base, start, rows=ROWS, length=LENGTH)
