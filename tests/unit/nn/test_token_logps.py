import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax import mesh as meshes
from ftjax.adapters import attach, lora
from ftjax.nn import token_logps
from ftjax.quant import int8

B, T, D, V = 3, 70, 16, 50


@pytest.fixture(scope="module")
def case():
    keys = jax.random.split(jax.random.key(0), 4)
    hidden = jax.random.normal(keys[0], (B, T, D)) / 4
    head = jax.random.normal(keys[1], (D, V))
    targets = jax.random.randint(keys[2], (B, T), 0, V)
    weights = (jax.random.uniform(keys[3], (B, T)) > 0.5).astype(jnp.float32)
    return hidden, head, targets, weights


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(token_logps, "CHUNK_ROWS", 16)
    monkeypatch.setattr(token_logps, "CHUNK_SCALARS", 16 * V)


def bent(logits, softcap):
    return softcap * jnp.tanh(logits / softcap) if softcap else logits


def dense(hidden, head, targets, softcap=0.0):
    logps = jax.nn.log_softmax(bent(hidden @ head, softcap))
    return jnp.take_along_axis(logps, targets[..., None], -1)[..., 0]


def dense_squares(hidden, head, weights, softcap=0.0):
    logps = jax.nn.log_softmax(bent(hidden @ head, softcap))
    return jnp.where(weights != 0, jax.nn.logsumexp(2 * logps, axis=-1), 0.0)


@pytest.mark.parametrize("softcap", [0.0, 1.5])
@pytest.mark.parametrize("tied", [False, True])
def test_values_are_those_of_log_softmax_where_the_weight_is_not_zero(case, tied, softcap):
    hidden, head, targets, weights = case
    settings = {"tied": tied, "softcap": softcap, "squares": True}
    out = token_logps.token_logps(hidden, head.T if tied else head, targets, weights, **settings)
    live = np.asarray(weights) != 0
    book = np.asarray(dense(hidden, head, targets, softcap))
    np.testing.assert_allclose(np.asarray(out.logps)[live], book[live], atol=2e-6)
    logps = jax.nn.log_softmax(bent(hidden @ head, softcap))
    np.testing.assert_allclose(np.asarray(out.entropy)[live], -(jnp.exp(logps) * logps).sum(-1)[live], atol=1e-5)
    np.testing.assert_array_equal(np.asarray(out.correct)[live], (logps.argmax(-1) == targets)[live])
    np.testing.assert_allclose(out.log_sum_squares, dense_squares(hidden, head, weights, softcap), atol=1e-5)
    for found in out:
        assert not np.asarray(found)[~live].any()


@pytest.mark.parametrize("softcap", [0.0, 1.5])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("argnums", [0, 1, (0, 1)], ids=["frozen head", "head alone", "both"])
def test_gradients_are_those_of_log_softmax(case, tied, argnums, softcap):
    """Through a non-linear function of every log-probability, as policy gradients need it; the rest gives none."""
    hidden, head, targets, weights = case
    settings = {"tied": tied, "softcap": softcap, "squares": True}

    def ours(hidden, head):
        out = token_logps.token_logps(hidden, head.T if tied else head, targets, weights, **settings)
        rest = jnp.sum(out.entropy + out.correct + out.log_sum_squares)
        return jnp.sum(jnp.sin(out.logps) * weights) + rest, out.log_sum_squares

    def theirs(hidden, head):
        value = jnp.sum(jnp.sin(dense(hidden, head, targets, softcap)) * weights)
        return value, dense_squares(hidden, head, weights, softcap)

    mine, book = (jax.jit(jax.grad(f, argnums, has_aux=True))(hidden, head) for f in (ours, theirs))
    for one, other in zip(jax.tree.leaves(mine[0]), jax.tree.leaves(book[0]), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)
    np.testing.assert_allclose(mine[1], book[1], atol=1e-5)


@pytest.mark.parametrize("softcap", [0.0, 1.5])
def test_a_head_with_an_adapter_gives_the_merged_heads_values_and_gradients(case, softcap):
    hidden, head, targets, weights = case
    keys = jax.random.split(jax.random.key(5), 2)
    made = lora.LoRA(a=jax.random.normal(keys[0], (D, 4)), b=jax.random.normal(keys[1], (4, V)), scale=0.5, dropout=0.0)

    def ours(made):
        adapted = attach.Adapted(frozen=head, adapter=made)
        out = token_logps.token_logps(hidden, adapted, targets, weights, tied=False, softcap=softcap, squares=True)
        rest = jnp.sum(out.entropy + out.correct + out.log_sum_squares)
        return jnp.sum(out.logps) + (rest - jax.lax.stop_gradient(rest)), out.log_sum_squares

    def theirs(made):
        merged = made.merge(head)
        value = jnp.sum(dense(hidden, merged, targets, softcap) * weights)
        return value, dense_squares(hidden, merged, weights, softcap)

    mine, book = (jax.value_and_grad(f, has_aux=True)(made) for f in (ours, theirs))
    np.testing.assert_allclose(mine[0][0], book[0][0], rtol=1e-5)
    np.testing.assert_allclose(mine[0][1], book[0][1], atol=1e-5)
    for one, other in zip(jax.tree.leaves(mine[1]), jax.tree.leaves(book[1]), strict=True):
        np.testing.assert_allclose(one, other, atol=5e-5)


def test_a_head_in_few_bits_gives_the_squares_of_what_it_stands_for(case):
    hidden, head, targets, weights = case
    packed = int8.quantize(head, group=0)
    out = token_logps.token_logps(hidden, packed, targets, weights, tied=False, softcap=1.5, squares=True)
    book = dense_squares(hidden, packed.dequantize(jnp.float32), weights, softcap=1.5)
    np.testing.assert_allclose(out.log_sum_squares, book, atol=1e-5)


def test_shards_of_rows_and_of_the_vocabulary_give_the_squares_of_one_device(case):
    hidden, head, targets, weights = case
    mesh = meshes.make(data=B, fsdp=1, tensor=2, devices=jax.devices()[: 2 * B])
    placed = jax.device_put(head, meshes.weight_sharding(mesh, ("D", "V"), head.shape))
    assert not placed.sharding.is_fully_replicated
    ours = jax.jit(lambda *given: token_logps.token_logps(*given, tied=False, softcap=0.0, squares=True))
    with jax.set_mesh(mesh):
        out = ours(meshes.place_batch(mesh, np.asarray(hidden)), placed, *meshes.place_batch(mesh, (targets, weights)))
    np.testing.assert_allclose(out.log_sum_squares, dense_squares(hidden, head, weights), atol=1e-5)


def test_squares_that_nobody_asks_for_are_not_computed(case):
    """One logarithm a chunk, that of the sum of exponentials: SFT does not pay for WPO."""
    run = lambda squares: token_logps.token_logps(*case, tied=False, softcap=0.0, squares=squares)
    assert run(False).log_sum_squares is None
    asked, plain = (str(jax.make_jaxpr(run, static_argnums=0)(squares)) for squares in (True, False))
    assert (asked.count("= log "), plain.count("= log ")) == (2, 1)


@pytest.mark.parametrize("argnums", [0, (0, 1)], ids=["frozen head", "trained head"])
def test_no_array_of_all_logits_exists_in_training(monkeypatch, argnums):
    monkeypatch.setattr(token_logps, "CHUNK_ROWS", 64)
    monkeypatch.setattr(token_logps, "CHUNK_SCALARS", 0)
    rows, length, width, vocab = 4, 512, 8, 4096
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((rows, length, width), (width, vocab))]
    targets = jax.ShapeDtypeStruct((rows, length), jnp.int32)
    weights = jax.ShapeDtypeStruct((rows, length), jnp.float32)
    settings = {"tied": False, "softcap": 0.0, "squares": True}
    total = lambda h, w, y, m: jnp.sum(token_logps.token_logps(h, w, y, m, **settings).logps)
    program = jax.jit(jax.value_and_grad(total, argnums)).lower(*shapes, targets, weights).compile()
    all_logits = rows * length * vocab * 4
    assert program.memory_analysis().temp_size_in_bytes < all_logits / 8


def test_rows_without_any_weight_cost_nothing_and_give_zero(case):
    hidden, head, targets, weights = case
    settings = {"tied": False, "softcap": 0.0, "squares": False}
    total = lambda h: jnp.sum(token_logps.token_logps(h, head, targets, jnp.zeros_like(weights), **settings).logps)
    value, grad = jax.value_and_grad(total)(hidden)
    assert float(value) == 0.0
    assert not np.asarray(grad).any()
