"""On an accelerator: the kernel for few rows, steps, memory and decoding against the same arithmetic done otherwise.

JAX_PLATFORMS=cuda python -m pytest tests/gpu -m gpu
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax import tree
from ftjax.adapters import attach, lora
from ftjax.adapters import init as adapters_init
from ftjax.algorithms import sft
from ftjax.data import batch as batches
from ftjax.data import encode
from ftjax.models import decoder, params
from ftjax.models.families import llama
from ftjax.nn import attention, backends, flash, packed_dot
from ftjax.quant import convert
from ftjax.quant import format as quant_format
from ftjax.sampling import generate
from ftjax.train import state, step
from tests.cases import adamw

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(jax.devices()[0].platform not in ("gpu", "tpu"), reason="no accelerator"),
    pytest.mark.filterwarnings("default"),  # a driver's remarks are not ours
]

I, O = 1024, 512


def by_code():
    few = lambda name: convert.Few(name, convert.group_of(name, 0))
    return [name for name in convert.formats() if isinstance(convert.abstract((I, O), few(name)), quant_format.ByCode)]


def node(name, inputs=I, outputs=O):
    weight = np.random.default_rng(0).standard_normal((inputs, outputs), np.float32) / inputs**0.5
    return convert.matrix(jnp.asarray(weight), convert.Few(name, convert.group_of(name, 0)), where=name)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("count", [1, 5, 16])
@pytest.mark.parametrize("name", by_code())
def test_the_kernel_gives_the_product_with_the_dense_weight(name, count, dtype):
    weight = node(name)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((count, I), np.float32), dtype)
    product = backends.kernel(x, weight)
    assert product is not None, "the kernel was not taken; the log says why"
    found = np.asarray(jax.jit(product)(x, weight), np.float64)
    dense = np.asarray(weight.dequantize(dtype), np.float64)
    wanted = np.asarray(x, np.float64) @ dense
    rtol = 1e-5 if dtype == jnp.float32 else 2**-8
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=rtol * np.abs(wanted).max())


@pytest.mark.parametrize("shape", [(4096, 14336), (14336, 4096)])
def test_the_kernel_is_right_for_the_shapes_of_an_8b(shape):
    weight = node("nf4-dq", *shape)
    x = jax.random.normal(jax.random.key(0), (4, shape[0]), jnp.bfloat16)
    product = backends.kernel(x, weight)
    assert product is not None
    wanted = jnp.dot(x, weight.dequantize(jnp.bfloat16), preferred_element_type=jnp.float32)
    off = jnp.max(jnp.abs(jax.jit(product)(x, weight).astype(jnp.float32) - wanted)) / jnp.max(jnp.abs(wanted))
    assert off < 2**-7


# ------------------------------------------------------------------------------------------------------ whole programs


@functools.cache
def parts():
    facts = {
        "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2,
        "num_hidden_layers": 5,  # no other array begins so
        "vocab_size": 512, "max_position_embeddings": 512, "tie_word_embeddings": True, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "hidden_act": "silu", "model_type": "llama",
    }  # fmt: skip
    config = dataclasses.replace(llama.config_from_hf(facts), dtype="float32", remat="dots")
    dense = params.init(jax.random.key(0), config, "float32")
    quantised = convert.quantize(dense, "nf4-dq", leaves=r"blocks\.\w+_proj", group=64)
    return config, dense, quantised


def rows():
    rng = np.random.default_rng(0)
    made = []
    for size in (200, 100, 50, 160):
        ids = rng.integers(0, 512, size).astype(np.int32)
        made.append(encode.Example(ids, np.r_[0, np.ones(size - 1, np.uint8)].astype(np.uint8), "random"))
    return batches.pack_rows([made[:2], made[2:]], length=320)


def training(config):
    chain, schedule = adamw(1e-2, eps=1e-8)
    init = functools.partial(
        adapters_init.init, make=functools.partial(lora.init_one, dropout=0.0, rslora=False), targets="all-linear",
        rank=8, alpha=16.0, rank_pattern={}, alpha_pattern={},
    )  # fmt: skip
    algorithm = sft.make(init, config)
    return algorithm, chain, step.make(algorithm, chain, schedule, microbatches=1)


def losses(device, config, base, count=4):
    with jax.default_device(device):
        base = jax.device_put(base, device)
        algorithm, chain, run = training(config)
        trained = state.init(algorithm.init(jax.random.key(1), base), chain, jax.random.key(2))
        run, batch, found = jax.jit(run, donate_argnums=0), jax.device_put(rows(), device), []
        for _ in range(count):
            trained, metrics = run(trained, base, batch, jnp.float32(jnp.inf))
            found.append(float(metrics["loss"]))
    return found


@pytest.mark.parametrize("quantised", [False, True])
def test_the_loss_curve_is_that_of_a_cpu(quantised):
    config, dense, few = parts()
    base = few if quantised else dense
    here, cpu = losses(jax.devices()[0], config, base), losses(jax.devices("cpu")[0], config, base)
    assert here[-1] < here[0]
    np.testing.assert_allclose(here, cpu, rtol=1e-4)


def test_a_step_over_four_bits_keeps_no_dense_weight():
    config, _, few = parts()
    algorithm, chain, run = training(config)
    trained = state.init(algorithm.init(jax.random.key(1), few), chain, jax.random.key(2))
    program = jax.jit(run, donate_argnums=0).lower(trained, few, rows(), jnp.float32(jnp.inf)).compile()
    dense = [f"f32[{','.join(map(str, w.shape))}]" for path, w in tree.paths(parts()[1]).items() if "_proj" in path]
    text = program.as_text()
    assert not [shape for shape in dense if shape in text]


def test_decoding_over_four_bits_is_that_of_the_dequantised_weights(monkeypatch):
    config, _, few = parts()
    prompts = np.random.default_rng(2).integers(0, 512, (3, 20)).tolist()
    settings = {"max_new_tokens": 24, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "stop_ids": ()}
    ask = lambda base: np.asarray(generate.generate(base, prompts, jax.random.key(0), config, **settings).tokens)
    used, product = [], packed_dot.packed_dot
    monkeypatch.setattr(packed_dot, "packed_dot", lambda *a, **k: used.append(1) or product(*a, **k))
    ours = ask(few)
    assert used, "the kernel was not taken"
    thick = jax.tree.map(
        lambda w: jax.vmap(lambda v: v.dequantize(jnp.float32))(w) if quant_format.is_quantized(w) else w,
        few,
        is_leaf=quant_format.is_quantized,
    )
    np.testing.assert_array_equal(ours, ask(thick))


def test_bfloat16_activations_train_beside_float32_ones():
    config, _, few = parts()
    fine = losses(jax.devices()[0], config, few)
    coarse = losses(jax.devices()[0], dataclasses.replace(config, dtype="bfloat16"), few)
    np.testing.assert_allclose(coarse, fine, rtol=1e-2)


def test_adapters_change_what_is_decoded():
    config, _, few = parts()
    algorithm, _, _ = training(config)
    adapters = algorithm.init(jax.random.key(1), few)
    loud = jax.tree.map(lambda x: x + 0.3, adapters)
    tokens = jnp.asarray(rows().tokens)
    plain, changed = (decoder.logits(attach.attach(few, a), tokens, config) for a in (adapters, loud))
    base = decoder.logits(few, tokens, config)
    np.testing.assert_allclose(plain, base, atol=1e-5)
    assert float(jnp.abs(changed - base).max()) > 0.1


@pytest.mark.parametrize("groups", [(2, 4, 64), (8, 4, 128), (3, 3, 64)])
def test_the_fused_attention_passes_its_trial(groups):
    if jax.devices()[0].platform != "gpu":
        pytest.skip("cuDNN is on NVIDIA's GPUs")
    assert not flash.fault(groups, jnp.bfloat16)


@pytest.mark.parametrize("window", [0, 70])
def test_fused_attention_over_packed_documents_is_ours(window, monkeypatch):
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = ((2, 256, 2, 3, 64), (2, 256, 2, 64), (2, 256, 2, 64), (2, 256, 2, 3, 64))
    q, k, v, weight = (jax.random.normal(key, s, jnp.bfloat16) for key, s in zip(keys, shapes, strict=True))
    segments = np.ones((2, 256), np.int32)
    segments[0, 100:180], segments[0, 180:], segments[1, 230:] = 2, 3, 0
    given = jnp.int32(window) if window else None

    def run(q, k, v):
        attend = functools.partial(attention.attend, branches=None, window=given, scale=0.125, softcap=0.0)
        return jax.vjp(lambda *a: attend(*a, jnp.asarray(segments)), q, k, v)

    def both():
        out, back = jax.jit(run)(q, k, v)
        return [np.asarray(x, np.float32) for x in (out, *back(weight))]

    fused = both()
    monkeypatch.setenv("FTJAX_ATTENTION", "xla")
    for one, other in zip(fused, both(), strict=True):
        np.testing.assert_allclose(one, other, atol=0.02 * np.abs(other).max())
