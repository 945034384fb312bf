import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.errors import UserError
from ftjax.nn import attention, backends, flash

B, T, K, G, H = 2, 300, 2, 2, 8  # 300 queries are three blocks, the last one short


def textbook(q, k, v, segments, window, scale, softcap=0.0):
    """softmax(q k^T + mask) v with the whole square in memory."""
    scores = jnp.einsum("BTKGH,BSKH->BKGTS", q, k) * scale
    scores = softcap * jnp.tanh(scores / softcap) if softcap else scores
    distance = jnp.arange(T)[:, None] - jnp.arange(T)[None]
    seen = (distance >= 0) & ((distance < window) if window else True)
    mask = seen[None] & (segments[:, :, None] == segments[:, None])
    weights = jax.nn.softmax(jnp.where(mask[:, None, None], scores, -jnp.inf), axis=-1)
    return jnp.einsum("BKGTS,BSKH->BTKGH", weights, v)


@pytest.fixture(scope="module")
def qkv():
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = ((B, T, K, G, H), (B, T, K, H), (B, T, K, H))
    return tuple(jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True))


@pytest.fixture(scope="module")
def segments():
    rows = np.ones((B, T), np.int32)
    rows[0, 70:150], rows[0, 150:], rows[1, 290:] = 2, 3, 0
    return jnp.asarray(rows)


@pytest.mark.parametrize(("window", "softcap"), [(0, 0.0), (37, 0.0), (37, 0.8)])
def test_blocks_give_the_textbook_attention_and_its_gradients(qkv, segments, window, softcap):
    weights = jax.random.normal(jax.random.key(1), (B, T, K, G, H))

    def ours(q, k, v):
        given = jnp.int32(window) if window else None
        return attention.attend(q, k, v, segments, branches=None, window=given, scale=0.3, softcap=softcap)

    def theirs(q, k, v):
        return textbook(q, k, v, segments, window, 0.3, softcap)

    np.testing.assert_allclose(ours(*qkv), theirs(*qkv), atol=2e-6)
    mine = jax.jit(jax.grad(lambda *a: jnp.sum(weights * ours(*a)), argnums=(0, 1, 2)))(*qkv)
    book = jax.jit(jax.grad(lambda *a: jnp.sum(weights * theirs(*a)), argnums=(0, 1, 2)))(*qkv)
    for one, other in zip(mine, book, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_a_query_sees_neither_later_tokens_nor_other_documents(qkv, segments):
    q, k, v = qkv
    see = lambda v: attention.attend(q, k, v, segments, branches=None, window=None, scale=0.3, softcap=0.0)[
        0, 100, 0, 0, 0
    ]
    reach = jax.jacrev(see)(v)
    seen = np.abs(np.asarray(reach))[0].sum(axis=(1, 2))
    assert np.flatnonzero(seen).tolist() == list(range(70, 101))


def test_gradient_keeps_no_square_of_scores():
    """Saved for the backward pass: q, k, v, output and one number a query, nothing of size T x T."""
    shape = jax.ShapeDtypeStruct((1, 1024, 1, 1, 4), jnp.float32)
    kv = jax.ShapeDtypeStruct((1, 1024, 1, 4), jnp.float32)
    ones = jnp.ones((1, 1024), jnp.int32)
    attend = lambda q, k, v: attention.attend(q, k, v, ones, branches=None, window=None, scale=1.0, softcap=0.0)
    _, pull = jax.eval_shape(lambda *a: jax.vjp(attend, *a), shape, kv, kv)
    assert max(leaf.size for leaf in jax.tree.leaves(pull)) <= 1024 * 4


@pytest.mark.parametrize("softcap", [0.0, 0.8])
def test_attention_to_a_cache_equals_attention_to_the_whole(qkv, softcap):
    q, k, v = qkv
    ones = jnp.ones((B, T), jnp.int32)
    settings = {"window": jnp.int32(20), "scale": 0.3, "softcap": softcap}
    whole = attention.attend(q, k, v, ones, branches=None, **settings)
    by_head = lambda y_BSKH: y_BSKH.swapaxes(1, 2)
    step = attention.attend_cached(q[:, 99:101], by_head(k), by_head(v), ones, jnp.int32(99), **settings)
    np.testing.assert_allclose(step, whole[:, 99:101], atol=2e-6)


@pytest.mark.parametrize("softcap", [0.0, 0.8])
@pytest.mark.parametrize("window", [None, 20])
def test_a_token_that_is_not_in_the_cache_yet_is_seen_like_one_that_is(qkv, softcap, window):
    q, k, v = qkv
    valid = jnp.ones((B, T), jnp.int32).at[0, :90].set(0)
    by_head, at = lambda y_BSKH: y_BSKH.swapaxes(1, 2), slice(99, 100)
    settings = {"window": None if window is None else jnp.int32(window), "scale": 0.3, "softcap": softcap}
    inside = attention.attend_cached(q[:, at], by_head(k), by_head(v), valid, jnp.int32(99), **settings)
    stale = by_head(k).at[:, :, 99:].set(7.0), by_head(v).at[:, :, 99:].set(7.0)
    beside = attention.attend_next(q[:, at], k[:, at], v[:, at], *stale, valid, jnp.int32(99), **settings)
    np.testing.assert_allclose(beside, inside, atol=2e-6)


def test_without_a_cap_the_program_has_no_tanh(qkv, segments):
    def program(softcap):
        attend = lambda *a: attention.attend(*a, segments, branches=None, window=None, scale=0.3, softcap=softcap).sum()
        return jax.jit(jax.grad(attend, argnums=(0, 1, 2))).lower(*qkv).as_text()

    assert "tanh" not in program(0.0)
    assert "tanh" in program(0.8)


def test_the_fused_kernel_is_given_the_same_mask_and_heads(qkv, segments, monkeypatch):
    """cuDNN is on NVIDIA's GPUs only; `jax.nn.dot_product_attention` has the same arguments in XLA."""
    settings = {"branches": None, "window": jnp.int32(37), "scale": 0.3, "softcap": 0.0}
    wanted = attention.attend(*qkv, segments, **settings)
    monkeypatch.setattr(flash, "IMPLEMENTATION", "xla")
    monkeypatch.setattr(backends, "flash", lambda *_: True)
    np.testing.assert_allclose(attention.attend(*qkv, segments, **settings), wanted, atol=2e-6)


def test_the_fused_kernel_is_not_taken_where_it_cannot_be(monkeypatch):
    half = jnp.zeros((1, 4, 1, 1, 8), jnp.bfloat16)
    assert not backends.flash(half, 0.0), "a CPU"
    monkeypatch.setattr(backends, "_device", lambda: ("H100", "gpu"))
    monkeypatch.setattr(flash, "fault", lambda *_: "")
    assert backends.flash(half, 0.0)
    assert not backends.flash(half, 30.0), "bent scores"
    assert not backends.flash(half.astype(jnp.float32), 0.0), "float32"
    assert not backends.flash(half[:, :3], 0.0), "an odd number of tokens"
    monkeypatch.setattr(flash, "fault", lambda *_: "is off by 9%")
    assert not backends.flash(half, 0.0), "a kernel that failed its trial"
    monkeypatch.setenv(backends.ATTENTION, "cudnn")
    with pytest.raises(UserError, match="FTJAX_ATTENTION=cudnn: it may be xla"):
        backends.flash(half, 0.0)


def test_without_cudnn_the_trial_says_so():
    assert "does not compile or run" in flash.fault((1, 2, 16), jnp.bfloat16)


@pytest.mark.parametrize("window", [0, 37])
def test_a_shared_beginning_gives_what_copies_of_it_give(qkv, window):
    """One row [beginning, branch, branch] against two rows [beginning, branch], branches of unequal length."""
    q, k, v = (x[:1] for x in qkv)
    given = jnp.int32(window) if window else None
    number = np.r_[np.zeros(150, np.int32), np.full(90, 1, np.int32), np.full(60, 2, np.int32)]
    positions = np.r_[0:150, 150:240, 150:210]
    settings = {"window": given, "scale": 0.3, "softcap": 0.0}
    apart = attention.Branches(jnp.asarray(number)[None], jnp.asarray(positions)[None])
    ones = jnp.ones((1, T), jnp.int32)

    def together(q, k, v):
        return attention.attend(q, k, v, ones, branches=apart, **settings)

    def alone(q, k, v):
        outs = []
        for branch in (1, 2):
            at = np.flatnonzero((number == 0) | (number == branch))
            cut = (x[:, at] for x in (q, k, v))
            out = attention.attend(*cut, ones[:, : len(at)], branches=None, **settings)
            outs.append(out if branch == 1 else out[:, 150:])
        return jnp.concatenate(outs, axis=1)

    np.testing.assert_allclose(jax.jit(together)(q, k, v), jax.jit(alone)(q, k, v), atol=2e-6)
    weights = jax.random.normal(jax.random.key(1), (1, T, K, G, H))
    total = lambda way: lambda *a: jnp.sum(weights * way(*a))
    one, two = (jax.jit(jax.grad(total(way), argnums=(0, 1, 2)))(q, k, v) for way in (together, alone))
    for mine, theirs in zip(one, two, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5)
