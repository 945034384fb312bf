"""A checkpoint becomes a folder in few bits with its costs beside it, or one line says why not."""

import json

from golden import cases
import numpy as np
import pytest

from ftjax import config as configs
from ftjax import experiment, quantization, run
from ftjax import tree as trees
from ftjax.checkpoint import hf_import
from ftjax.data import tokenizer
from ftjax.errors import UserError
from tests import bases

PLAIN = {
    "format": "nf4", "leaves": r"blocks\.(q|o|up)_proj", "group": 32, "head": None, "embeddings": False,
    "search": False, "rank": 0, "iterations": 1, "budget": None, "text": None,
}  # fmt: skip


@pytest.fixture
def ask(tiny_base):
    """Returns a function: changed flags, or another model -> what is asked for."""
    return lambda model=tiny_base, **changes: quantization.ask(str(model), **PLAIN | changes)


@pytest.fixture
def refused(ask):
    """Returns a function: changed flags -> the one line of their refusal."""

    def line(**changes):
        with pytest.raises(UserError) as caught:
            ask(**changes)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return line


def write(asked, out, said=None):
    say = (lambda _: None) if said is None else said.append
    return quantization.write(asked, out, max_shard_bytes=10**9, command="python scripts/quantize.py", say=say)


@pytest.fixture(scope="module")
def budgeted(tiny_base, tiny_rows, tmp_path_factory):
    """What a budget between four and eight bits made of the tiny base."""
    out, said = tmp_path_factory.mktemp("few") / "base", []
    asked = quantization.ask(str(tiny_base), **PLAIN | {"budget": 6.5, "text": str(tiny_rows)})
    return out, write(asked, out, said), said


def test_bits_and_errors_are_those_of_what_is_loaded(ask, tiny_base, tmp_path):
    report = write(ask(), tmp_path / "out")
    _, base = hf_import.load(tmp_path / "out")
    dense = trees.paths(hf_import.load(tiny_base)[1])
    assert report.nbytes == trees.nbytes(base)
    assert report.before is report.after is None
    kept = json.loads((tmp_path / "out" / quantization.FILE).read_text())
    for one in report.costs:
        node = trees.paths(base, trees.stands_for_weight)[one.leaf]
        off = np.asarray(node.dequantize("float32") - dense[one.leaf])
        assert one.bits == 8 * trees.nbytes(node) / off.size == 5.0
        assert one.whole.relative_rms == pytest.approx(np.sqrt((off**2).mean() / (dense[one.leaf] ** 2).mean()), 1e-4)
        assert one.whole.largest == pytest.approx(np.abs(off).max(), rel=1e-5)
        assert kept["leaves"][one.leaf]["tensors"]["1"]["max_error"] == pytest.approx(np.abs(off[1]).max(), rel=1e-5)
    assert "perplexity was not measured: there is no text; give one with --text FILE" in quantization.as_lines(report)


def test_a_budget_is_kept_and_buys_bits_where_they_matter(budgeted, tiny_base):
    out, report, said = budgeted
    formats = {one.leaf: one.few.format for one in report.costs}
    assert len(set(formats.values())) > 1
    kept = json.loads((out / quantization.FILE).read_text())
    assert 5.0 <= kept["bits"] <= 6.5
    assert set(kept["harms"]) == {"blocks.q_proj", "blocks.o_proj", "blocks.up_proj"}
    assert all(found["nf4"] > 10 * found["int8"] > 0 for found in kept["harms"].values())
    assert sum("nats a token" in line for line in said) == 3
    bought = [path for path, name in formats.items() if name == "int8"]
    per_byte = lambda path: report.harms[path]["nf4"] / trees.count(trees.paths(hf_import.load(tiny_base)[1])[path])
    assert max(report.harms, key=per_byte) in bought
    assert trees.nbytes(hf_import.load(out)[1]) == report.nbytes


def test_perplexity_is_measured_before_and_after_and_on_the_card(budgeted):
    out, report, _ = budgeted
    before, after = (numbers["eval_perplexity"] for numbers in (report.before, report.after))
    assert before != after
    assert after == pytest.approx(before, rel=0.05)
    assert f"perplexity a token {before:.4f} dense, {after:.4f} in few bits" in quantization.as_lines(report)[-1]
    card = (out / "README.md").read_text()
    assert f"| eval_perplexity | {before:.4g} | {after:.4g} |" in card
    assert "hf_import.load" in card


def test_plain_text_is_cut_into_rows_that_hold_every_token(ask, tiny_base, tmp_path):
    text = "red green blue lamp. " * 200
    (tmp_path / "text.txt").write_text(text)
    asked = ask(text=str(tmp_path / "text.txt"))
    ids = tokenizer.load(tiny_base).encode(text).ids
    tokens = np.concatenate([batch.tokens[batch.segments > 0] for batch in asked.text.batches])
    np.testing.assert_array_equal(tokens, ids)
    rows = -(-len(ids) // 128)
    assert sum(batch.weights.sum() for batch in asked.text.batches) == len(ids) - rows


def test_only_the_embedded_base_brings_a_text(ask):
    assert ask().text is None
    assert "made world" in ask(model="base").text.name


def test_what_does_not_go_together_is_refused(ask, refused, budgeted, tmp_path):
    assert "Did you mean 'nf4-dq'" in refused(format="nf4dq")
    assert "32 input rows do not split into even groups of 24" in refused(group=24)
    assert "is in few bits already; give the dense checkpoint" in refused(model=budgeted[0])
    assert "match embed_tokens, which stays dense" in refused(leaves=".*", format="int8", group=0)
    assert "its embedding (tie_word_embeddings)" in refused(head="int8")
    assert "rank 40 is above the smaller side of blocks.q_proj (32, 32)" in refused(rank=40)
    assert "give one with --text FILE" in refused(budget=6.0)
    assert "--budget 4.5: the smallest choices take 5 bits a parameter" in refused(budget=4.5)
    (tmp_path / "mine").write_text("here")
    with pytest.raises(UserError, match="is not empty"):
        write(ask(), tmp_path)


def test_an_embedding_is_put_into_few_bits_where_that_is_meant(ask, tmp_path):
    asked = ask(head="int8", embeddings=True)
    assert asked.plan["embed_tokens"].format == "int8"
    assert ask(leaves=".*", format="int8", group=0, embeddings=True).plan.keys() > asked.plan.keys()
    untied = ask(model=cases.unpack("llama_plain", tmp_path / "untied"), leaves=r"blocks\.q_proj", head="int8", rank=4)
    assert untied.plan["lm_head"].format == "int8"
    assert untied.plan["lm_head"].rank == 0
    assert untied.plan["blocks.q_proj"].rank == 4


@pytest.fixture
def build(tiny_rows, tiny_base):
    def make(model=tiny_base, **changes):
        config = configs.load(f"{bases.ROOT}/configs/sft/jsonl.py:data={tiny_rows},model={model}")
        return experiment.build(configs.override(config, bases.SMALL | changes))

    return make


def test_a_run_on_a_folder_in_few_bits_knows_its_bits_and_needs_an_adapter(build, budgeted):
    folder, _, _ = budgeted
    built = build(folder)
    assert trees.nbytes(built.abstract_base) == trees.nbytes(hf_import.load(folder)[1])
    with pytest.raises(
        UserError, match=r"is in few bits, which freezes the base, and config\.adapter\.name none trains"
    ):
        build(folder, **{"adapter.name": "none"})
    with pytest.raises(UserError, match="but int4-asym was asked for"):
        build(folder, **{"quant.format": "int4-asym", "quant.leaves": r"blocks\.q_proj"})
    with pytest.raises(UserError, match=r"keeps nothing of what blocks\.q_proj lost"):
        build(folder, **{"adapter.name": "loftq"})


def test_a_run_begins_at_what_the_bits_lost(build, ask, tmp_path):
    write(ask(rank=4), tmp_path / "loftq")
    few = {"adapter.name": "loftq", "adapter.rank": 4, "adapter.targets": "q_proj,o_proj,up_proj"}
    built = build(tmp_path / "loftq", **few)
    parts = run.start(built, lambda _: None)
    adapter, weight = parts.state.trainable.blocks.q_proj, parts.base.blocks.q_proj
    np.testing.assert_allclose(adapter.scale * adapter.a @ adapter.b, weight.a @ weight.b, atol=1e-6)
