"""The reference's log-probabilities: computed once, kept under a hash of all that they depend on, and then read."""

import math
import shutil

import jax
import numpy as np
import pytest

from ftjax import experiment, reference, run
from ftjax.adapters import attach
from ftjax.algorithms import completions
from ftjax.checkpoint import hf_import
from tests import bases


@pytest.fixture(autouse=True)
def cached(tmp_cache):
    """A cache of the test's own: what another one has left there must not be read."""
    return tmp_cache


@pytest.fixture
def said():
    return []


@pytest.fixture
def build(tiny_base, tiny_pairs):
    """Returns a function: changes -> a small DPO experiment on a cached reference."""

    def make(data=tiny_pairs, model=tiny_base, kind="dpo", **changes):
        return experiment.build(bases.preferences(kind, model, data, **({"reference.cache": True} | changes)))

    return make


@pytest.fixture
def filled(said):
    """Returns a function: an experiment -> the same with log-probabilities of the base."""
    return lambda x: reference.from_base(x, hf_import.load(x.model_dir)[1], said.append)


@pytest.fixture
def no_forward(monkeypatch):
    """Returns a function after whose call computing log-probabilities fails the test."""
    return lambda: monkeypatch.setattr(reference, "_logps", lambda *_: pytest.fail("the reference was run"))


def values(x):
    return [row.reference for part in (*x.data.train, x.data.chosen) for row in part]


COMPUTED, KNOWN = (
    "computing the reference's log-probabilities of 40 rows",
    "the reference's log-probabilities are known",
)


def test_the_first_run_computes_them_and_later_ones_read_them(build, filled, said, cached, no_forward):
    first = filled(build())
    assert said == [COMPUTED]
    no_forward()
    again = filled(build())
    assert said == [COMPUTED, KNOWN]
    assert values(first) == values(again)
    for one, other in zip(first.loader.batch(3), again.loader.batch(3), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(first.held_out.batches[0].reference, again.held_out.batches[0].reference)
    assert len(list(cached.glob("*.npz"))) == 2, "tokens, and log-probabilities"


def test_every_completion_has_that_of_its_own_and_training_begins_at_log_2(build, filled):
    """Rows were sorted by length and batched to be computed; training and held-out batches hold their own values."""
    x = filled(build())
    base = hf_import.load(x.model_dir)[1]
    ask = jax.jit(lambda batch: completions.of(base, batch, x.model_config, ld_alpha=1.0, squares=False).logps)
    state = jax.jit(lambda base: x.algorithm.init(jax.random.key(0), base))(base)
    evaluate = jax.jit(x.algorithm.loss)
    for batch in (x.loader.batch(0), x.loader.batch(1), *x.held_out.batches):
        assert batch.reference.any()
        known = batch.ends > 0
        np.testing.assert_allclose(batch.reference[known], np.asarray(ask(batch))[known], atol=1e-4)
        loss, weights, _ = evaluate(state, base, batch, None)
        np.testing.assert_allclose(np.asarray(loss)[np.asarray(weights) > 0], math.log(2), atol=1e-5)


@pytest.mark.parametrize("spoil", ["cut", "a flipped bit", "empty"])
def test_a_damaged_file_is_computed_again(build, filled, said, cached, spoil, monkeypatch):
    counted = iter(range(1, 10))
    monkeypatch.setattr(reference, "_logps", lambda *_: np.full(80, -float(next(counted)), np.float32))
    filled(build())
    (file,) = (path for path in cached.glob("*.npz") if "logps" in np.load(path))
    data = bytearray(file.read_bytes())
    middle = data.find(np.float32(-1.0).tobytes() * 8)
    data[middle] ^= 1
    file.write_bytes({"cut": data[:100], "a flipped bit": data, "empty": b""}[spoil])
    assert set(values(filled(build()))) == {(-2.0, -2.0)}
    assert set(values(filled(build()))) == {(-2.0, -2.0)}
    assert said == [COMPUTED, COMPUTED, KNOWN]


@pytest.fixture
def keys(monkeypatch):
    """Returns a function: an experiment and its base -> the name under which its log-probabilities are kept."""

    def name(x, base=None):
        found = []
        with monkeypatch.context() as patch:
            entry = ({"logps": np.zeros(200)}, {})
            patch.setattr(reference.cache, "read", lambda name, _: found.append(name) or entry)
            reference.from_base(reference.from_model(x, print), base, print)
        return found[0]

    return name


def test_they_are_kept_apart_by_all_that_they_depend_on(build, keys, tiny_base, finished, tmp_path):
    other_base = shutil.copytree(tiny_base, tmp_path / "base")
    weights = bytearray((other_base / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other_base / "model.safetensors").write_bytes(weights)
    other_data = bases.write_rows(tmp_path / "pairs.jsonl", [*bases.pairs(39), bases.pairs(41)[-1]])
    adapter = {"adapter.path": str(finished.folder / "adapter"), "reference.kind": "start"}
    moved = shutil.copytree(finished.folder / "adapter", tmp_path / "adapter")
    tensors = bytearray((moved / "adapter_model.safetensors").read_bytes())
    tensors[-1] ^= 1
    (moved / "adapter_model.safetensors").write_bytes(tensors)
    kinds = {
        "plain": keys(build()),
        "another base": keys(build(model=other_base)),
        "other rows": keys(build(data=other_data)),
        "ld_alpha": keys(build(loss__ld_alpha=0.5)),
        "few bits": keys(build(quant__format="nf4", quant__group=16)),
        "dtype": keys(build(model__dtype="bfloat16")),
        "weights": keys(build(model__weights="bfloat16")),
        "an adapter": keys(build(**adapter), bases_of(tiny_base)),
        "another adapter": keys(build(**(adapter | {"adapter.path": str(moved)})), bases_of(tiny_base)),
        "a model": keys(build(reference__model=str(other_base))),
        "mismatched completions": keys(build(kind="kto")),
    }
    assert len(set(kinds.values())) == len(kinds), kinds
    same = {
        "again": keys(build()),
        "other loss": keys(build(loss__names=("ipo",), loss__beta=0.5)),
        "other rate, order": keys(build(optimizer__learning_rate=1e-4)),
    }
    assert set(same.values()) == {kinds["plain"]}


def bases_of(folder):
    return hf_import.load(folder)[1]


def test_another_model_may_be_the_reference(build, said, tmp_path):
    other = bases.write_base(tmp_path / "other", seed=3)
    x = reference.from_model(build(reference__model=str(other)), said.append)
    assert said == [COMPUTED]
    assert reference.from_base(x, None, said.append) is x
    config, params = hf_import.load(other)
    batch = x.loader.batch(0)
    found = jax.jit(lambda batch: completions.of(params, batch, config, ld_alpha=1.0, squares=False).logps)(batch)
    known = batch.ends > 0
    np.testing.assert_allclose(batch.reference[known], np.asarray(found)[known], atol=1e-4)


def test_a_run_without_a_cache_is_left_as_it_is(build, said):
    x = build(reference__cache=False)
    assert reference.from_model(x, said.append) is x
    assert reference.from_base(x, None, said.append) is x
    assert said == []


@pytest.fixture(scope="module")
def continued(finished, tiny_base, tiny_pairs):
    """DPO that goes on from the adapter of a finished SFT run, before its first step."""
    config = bases.preferences(
        "dpo", tiny_base, tiny_pairs, adapter__path=str(finished.folder / "adapter"), reference__kind="start"
    )
    x = experiment.build(config)
    with run.on_mesh(x):
        return run.start(x, lambda _: None)


def test_a_run_that_goes_on_from_an_adapter_is_held_against_the_base_with_it(continued, finished):
    from ftjax.checkpoint import peft

    x, base = continued.experiment, bases_of(continued.experiment.model_dir)
    given = peft.load(finished.folder / "adapter", base, x.model_config)
    assert jax.tree.structure(given) == jax.tree.structure(continued.state.trainable)
    for tree in (continued.state.trainable, continued.state.extra):
        for one, other in zip(jax.tree.leaves(tree), jax.tree.leaves(given), strict=True):
            np.testing.assert_array_equal(one, other)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(given.blocks.q_proj.b))
    with run.on_mesh(x):
        sums = run.sums(continued, continued.state)
        loss, weight, metrics = sums(x.loader.batch(0))
    assert float(loss / weight) == pytest.approx(math.log(2), abs=1e-6)
    assert float(metrics["rewards/margins"].value) == pytest.approx(0, abs=1e-5)
    alone = jax.jit(lambda batch: completions.of(base, batch, x.model_config, ld_alpha=1.0, squares=False).logps)
    there = jax.jit(
        lambda batch: completions.of(attach.attach(base, given), batch, x.model_config, ld_alpha=1.0, squares=False)
    )(x.loader.batch(0)).logps
    mean = float(metrics["logps/chosen"].value / weight)
    chosen = np.asarray(completions.pairs(there, x.loader.batch(0)).chosen)
    assert mean == pytest.approx(chosen[x.loader.batch(0).pair_weights.reshape(-1) > 0].mean(), abs=1e-3)
    assert np.abs(np.asarray(there - alone(x.loader.batch(0)))).max() > 0.01, "the adapter does something"
