"""The kernel for few rows, in Pallas's interpreter and lowered for devices, and the rule that chooses it."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax import mesh as meshes
from ftjax.errors import UserError
from ftjax.nn import backends, matmul, packed_dot
from ftjax.quant import convert
from ftjax.quant import format as fmt

I, O = 256, 128


@functools.cache
def node(name, group=0, inputs=I, outputs=O, layers=()):
    """A random weight, also while something is traced; one program quantises it, which is most of the time it takes."""
    group = convert.group_of(name, group if convert.module(name).GROUP else 0)
    weight = np.random.default_rng(0).standard_normal((*layers, inputs, outputs), np.float32) / inputs**0.5
    with jax.ensure_compile_time_eval():  # it is kept for other tests
        return jax.jit(functools.partial(convert.module(name).quantize, group=group))(weight)


def by_code():
    """The formats that the kernel takes."""
    few = lambda name: convert.Few(name, convert.group_of(name, 0))
    return [name for name in convert.formats() if isinstance(convert.abstract((I, O), few(name)), fmt.ByCode)]


def rows(count, dtype=jnp.float32, inputs=I):
    return jnp.asarray(np.random.default_rng(1).standard_normal((count, inputs), np.float32), dtype)


def dense(x, weight):
    """The product that XLA makes: numbers in float32, rounded to the dtype of x, summed in float32, not yet rounded."""
    return jnp.dot(x, weight.dequantize(x.dtype), preferred_element_type=jnp.float32)


def interpret(platform):
    return functools.partial(packed_dot.packed_dot, platform=platform, interpret=True)


def check(product, x, weight):
    """Sums are float32 in another order; with bfloat16 the product is then rounded, by 2^-9 of itself at most."""
    found, wanted = jax.jit(lambda x, weight: (product(x, weight), dense(x, weight)))(x, weight)
    assert found.dtype == x.dtype
    rtol = 1e-5 if x.dtype == jnp.float32 else 2**-8
    np.testing.assert_allclose(found.astype(jnp.float32), wanted, rtol=rtol, atol=1e-5)


each_platform = pytest.mark.parametrize("platform", ["gpu", "tpu"])


CASES = [*((name, 16, jnp.bfloat16) for name in by_code()), ("nf4", 1, jnp.bfloat16), ("nf4-dq", 3, jnp.float32)]


@each_platform
@pytest.mark.parametrize(("name", "count", "dtype"), CASES)
def test_a_product_is_that_with_the_dense_weight(name, count, dtype, platform):
    check(interpret(platform), rows(count, dtype), node(name))


@each_platform
@pytest.mark.parametrize("group", [16, 32, 128, 256])
def test_groups_may_be_smaller_or_larger_than_a_step(group, platform):
    weight = node("int4-asym", group)
    if packed_dot.tiles_of(weight, platform) is None:
        assert (group, platform) == (128, "tpu")  # 2 groups in 256 rows are whole; below, 512 rows hold 4
        weight = node("int4-asym", group, 512)
    x = rows(3, inputs=weight.shape[0])
    check(interpret(platform), x, weight)


@each_platform
def test_many_tiles_along_both_axes_are_all_added_and_all_written(platform):
    weight = node("nf4", inputs=2048, outputs=384)
    cut = packed_dot.tiles_of(weight, platform)._replace(rows=512, columns=128)
    product = functools.partial(packed_dot._multiply, kind=type(weight), cut=cut, interpret=True)
    check(lambda x, weight: product(x, weight.codes, weight.terms()), rows(5, inputs=2048), weight)


def test_a_program_of_one_step_is_enough_for_a_small_weight():
    weight = node("nf4", inputs=64, outputs=32)
    assert packed_dot.tiles_of(weight, "gpu") == packed_dot.Tiles("gpu", 64, 64, 32)
    x = rows(2, inputs=64)
    check(interpret("gpu"), x, weight)


def test_a_tree_of_selects_finds_every_level():
    table, codes = np.linspace(-3, 5, 16, dtype=np.float32), jnp.arange(16)
    np.testing.assert_array_equal(packed_dot.select(table, codes), table)


@pytest.mark.parametrize("shape", [(2048, 512), (2048, 2048), (2048, 8192), (8192, 2048), (4096, 14336), (14336, 4096)])
def test_every_projection_of_a_llama_is_cut_on_both_platforms(shape):
    for platform in ("gpu", "tpu"):
        for group, planes in ((64, 2), (shape[0], 1)):
            cut = packed_dot.tiles(*shape, group, planes, platform)
            assert shape[0] % cut.rows == 0
            assert shape[1] % cut.columns == 0
            assert cut.rows % cut.step == 0
            assert cut.step % group == 0 or group % cut.step == 0


@pytest.mark.parametrize("shape_group", [(96, 128, 48), (256, 100, 64), (144, 128, 16)])
def test_a_weight_that_does_not_come_out_even_is_not_cut(shape_group):
    inputs, outputs, group = shape_group
    assert packed_dot.tiles(inputs, outputs, group, 2, "gpu") is None
    assert packed_dot.tiles(inputs, outputs, group, 2, "tpu") is None


def test_too_many_rows_are_refused():
    with pytest.raises(ValueError, match=r"\(17, 256\) @ \(256, 128\) does not tile for gpu"):
        packed_dot.packed_dot(rows(17), node("nf4"), platform="gpu", interpret=True)


# ----------------------------------------------------------------------------------------------- lowering for devices


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")  # since jax 0.11
@pytest.mark.parametrize(("name", "dtype"), [*((name, "bfloat16") for name in by_code()), ("nf4", "float32")])
@pytest.mark.parametrize(
    ("platform", "lowered", "call"), [("gpu", "cuda", "triton"), ("tpu", "tpu", "tpu_custom_call")]
)
def test_it_lowers_for_a_device_that_is_not_here(name, dtype, platform, lowered, call):
    few = convert.Few(name, convert.group_of(name, 0))
    run = jax.jit(functools.partial(packed_dot.packed_dot, platform=platform))
    traced = run.trace(jax.ShapeDtypeStruct((4, 1024), dtype), convert.abstract((1024, 512), few))
    try:
        text = traced.lower(lowering_platforms=(lowered,)).as_text()
    except (ImportError, RuntimeError) as missing:  # a jaxlib that compiles Triton while lowering needs its CUDA plugin
        pytest.skip(f"this jaxlib does not lower for {lowered}: {missing}")
    assert call in text
    assert not [kind for kind in ("1024x512xf32", "1024x512xbf16") if kind in text], "the dense weight is made"


# ------------------------------------------------------------------------------------------------------- in the model


@pytest.fixture
def interpreted(monkeypatch):
    """The kernel forced, in the interpreter; says whether it was used."""
    used = []
    product = packed_dot.packed_dot
    monkeypatch.setattr(packed_dot, "packed_dot", lambda x, *a, **k: used.append(x.shape) or product(x, *a, **k))
    monkeypatch.setenv(backends.VARIABLE, "interpret")
    return used


def test_decoding_shapes_and_layers_in_a_scan_give_the_same_products(interpreted):
    stacked = node("nf4-dq", layers=(3,), outputs=I)
    x_B1D = rows(4)[:, None, :]
    run = jax.jit(lambda x, node: jax.lax.scan(lambda x, w: (jnp.tanh(matmul.matmul(x, w)), None), x, node)[0])
    found = run(x_B1D, stacked)
    assert interpreted == [(4, I)]
    wanted = x_B1D
    for weight in jax.jit(lambda node: node.dequantize(jnp.float32))(stacked):
        wanted = jnp.tanh(wanted @ weight)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["nf4-dq", "int8"])
def test_gradients_are_those_of_the_dense_weight(name, interpreted):
    x, weight = rows(4).reshape(2, 2, I), node(name)
    loss = lambda product: lambda x: jnp.sum(jnp.sin(product(x)))
    value, grad = jax.jit(jax.value_and_grad(loss(lambda x: matmul.matmul(x, weight))))(x)
    assert interpreted
    wanted, expected = jax.jit(jax.value_and_grad(loss(lambda x: x @ weight.dequantize(x.dtype))))(x)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    np.testing.assert_allclose(grad, expected, atol=1e-5)


def test_a_mapped_product_is_one_product_for_each(interpreted):
    x = rows(6).reshape(2, 3, I)
    check(jax.vmap(matmul.matmul, (0, None)), x, node("nf4"))
    assert interpreted == [(3, I)]


# --------------------------------------------------------------------------------------------------------- the choice


class Device:
    platform, device_kind = "gpu", "Made-up GPU"


@pytest.fixture
def on_a_gpu(monkeypatch):
    """A process that takes itself to be on a GPU where the kernel works."""
    monkeypatch.delenv(backends.VARIABLE, raising=False)
    monkeypatch.setattr(jax, "devices", lambda: [Device()])
    monkeypatch.setattr(packed_dot, "fault", lambda *_: "")
    backends._say.cache_clear()


@pytest.mark.usefixtures("on_a_gpu")
def test_on_a_gpu_few_rows_take_the_kernel_and_that_is_said_once_for_each_format(caplog):
    for _ in range(2):
        assert backends.kernel(rows(16), node("nf4")) is not None
        assert backends.kernel(rows(2, jnp.bfloat16).reshape(2, 1, I), node("int8")) is not None
    said = "{} on Made-up GPU: a kernel multiplies up to 16 rows; FTJAX_PACKED_DOT=xla turns it off"
    assert caplog.messages == [said.format("NF4"), said.format("INT8")]


@pytest.mark.usefixtures("on_a_gpu")
def test_too_many_rows_other_dtypes_and_formats_and_stacked_weights_stay_with_xla(caplog):
    assert backends.kernel(rows(17), node("nf4")) is None
    assert backends.kernel(rows(0), node("nf4")) is None
    assert backends.kernel(rows(1, jnp.float16), node("nf4")) is None
    assert backends.kernel(rows(1), node("fp8")) is None
    assert backends.kernel(rows(1), node("nf4", layers=(2,))) is None
    assert caplog.messages == []


@pytest.mark.usefixtures("on_a_gpu")
def test_a_weight_that_is_not_cut_stays_with_xla_which_is_said(caplog):
    assert backends.kernel(rows(1, inputs=144), node("nf4", 16, 144)) is None
    said = "NF4 on Made-up GPU: XLA multiplies by weights that the kernel for few rows cannot cut evenly"
    assert caplog.messages == [said]


@pytest.mark.usefixtures("on_a_gpu")
def test_a_mesh_of_several_devices_stays_with_xla():
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()[:2]).reshape(1, 2, 1), meshes.AXES)
    with jax.set_mesh(mesh):
        assert backends.kernel(rows(1), node("nf4")) is None
    with jax.set_mesh(jax.sharding.Mesh(np.array(jax.local_devices()[:1]).reshape(1, 1, 1), meshes.AXES)):
        assert backends.kernel(rows(1), node("nf4")) is not None


@pytest.mark.usefixtures("on_a_gpu")
def test_a_cpu_and_a_process_whose_default_device_is_one_stay_with_xla(monkeypatch):
    with jax.default_device(jax.local_devices()[0]):
        assert backends.kernel(rows(1), node("nf4")) is None
    monkeypatch.setattr(Device, "platform", "cpu")
    assert backends.kernel(rows(1), node("nf4")) is None


@pytest.mark.usefixtures("on_a_gpu")
def test_the_variable_turns_it_off_and_a_misspelt_one_is_refused(monkeypatch):
    monkeypatch.setenv(backends.VARIABLE, "xla")
    assert backends.kernel(rows(1), node("nf4")) is None
    monkeypatch.setenv(backends.VARIABLE, "off")
    with pytest.raises(UserError, match="FTJAX_PACKED_DOT=off: it may be xla"):
        backends.kernel(rows(1), node("nf4"))


proof = packed_dot.fault.__wrapped__  # without its cache


def fault_of(weight, x, **how):
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), weight)
    leaves, structure = jax.tree.flatten(shapes, is_leaf=lambda leaf: isinstance(leaf, tuple))
    return proof(x.shape[0], x.dtype, structure, tuple(leaves), "gpu", **how)


@pytest.mark.parametrize("name", ["nf4-dq", "int4-asym"])
def test_the_proof_on_the_device_passes_where_the_kernel_is_right_also_while_tracing(name):
    found = []
    jax.jit(lambda x: found.append(fault_of(node(name), x, interpret=True)) or x)(rows(3, jnp.bfloat16))
    assert found == [""]


def test_the_proof_finds_a_kernel_that_is_wrong(monkeypatch):
    right = packed_dot._multiply
    monkeypatch.setattr(packed_dot, "_multiply", lambda x, *a, **k: right(x, *a, **k).at[0, 7].multiply(1.5))
    assert "of the largest number" in fault_of(node("nf4"), rows(1), interpret=True)


@pytest.mark.usefixtures("on_a_gpu")
def test_a_kernel_that_does_not_compile_leaves_the_product_to_xla_and_says_why(monkeypatch, caplog):
    monkeypatch.setattr(packed_dot, "fault", proof)  # compiles for a GPU, and there is none
    np.testing.assert_array_equal(matmul.matmul(rows(1), node("nf4")), rows(1) @ node("nf4").dequantize(jnp.float32))
    (said,) = caplog.messages
    assert said.startswith("NF4 on Made-up GPU: XLA multiplies, for the kernel does not compile or run (ValueError: ")
    assert said.endswith("FTJAX_PACKED_DOT=xla no longer tries it")


ON_A_CPU = """
import sys
import jax.numpy as jnp
from ftjax.nn import matmul
from ftjax.quant import nf4
matmul.matmul(jnp.ones((1, 64)), nf4.quantize(jnp.ones((64, 128)), group=64)).block_until_ready()
assert "ftjax.nn.packed_dot" not in sys.modules
"""


def test_a_cpu_neither_imports_the_kernel_nor_says_anything():
    done = subprocess.run([sys.executable, "-c", ON_A_CPU], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
