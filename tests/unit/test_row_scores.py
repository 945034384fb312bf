"""What a model says of each row of a file: against a plain forward pass, in any order, and over a kill."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from ftjax import inference, row_scores
from ftjax.data import encode, records, rows, scores, scores_told
from ftjax.errors import UserError
from ftjax.evals import rows as evals
from ftjax.models import decoder
from tests import bases

SETTINGS = row_scores.Settings("tasks.exact_match", samples=0, temperature=1.0, max_new_tokens=0, seed=0)


@pytest.fixture(scope="module")
def model(tiny_base):
    return inference.load(str(tiny_base), adapter=None, template_name=None, dtype="float32")


@pytest.fixture(scope="module")
def examples(model):
    """Rows of one, two and three answers of unequal lengths, and one of plain text."""
    found = []
    for n, row in enumerate(bases.rows(9)):
        turns = row["messages"] * (1 + n % 3)
        found.append(records.from_row({"messages": turns}, f"a:{n + 1}"))
    found.append(records.from_row({"text": "red green"}, "a:10"))
    made, _ = encode.encode_records(
        found, model.tokenizer, made=model.template, max_length=None, truncation="error", train_on="assistant"
    )
    return made


def plain(model, example):
    """NLL, mean |p - y| and mean hidden state of a row by itself, in float64 behind the logits."""
    size = len(example.ids)
    tokens = jnp.asarray(np.pad(example.ids, (0, 96 - size))[None])  # what follows changes nothing before it
    logits = np.asarray(decoder.logits(model.params, tokens, model.config)[0, :size], np.float64)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    counted = np.flatnonzero(example.mask)
    errors = p[counted - 1].copy()
    errors[np.arange(len(counted)), example.ids[counted]] -= 1
    nll = -np.log(p[counted - 1, example.ids[counted]]).sum()
    hidden = np.asarray(decoder.hidden(model.params, tokens, model.config)[0, :size], np.float64)
    return nll, np.linalg.norm(errors, axis=1).mean(), hidden.mean(axis=0)


def test_scores_of_a_batch_are_those_of_a_plain_forward_pass_of_each_row(model, examples):
    said = evals.read(model.params, model.config, examples, rows=16)
    expected = [plain(model, one) for one in examples]
    np.testing.assert_allclose(said.nll, [nll for nll, _, _ in expected], rtol=1e-5)
    np.testing.assert_allclose(said.surprise, [error for _, error, _ in expected], rtol=1e-5)
    np.testing.assert_allclose(said.embedding, [state for _, _, state in expected], atol=1e-3, rtol=1e-3)  # float16
    assert said.tokens.tolist() == [int(one.mask.sum()) for one in examples]


def test_neither_order_nor_batch_size_changes_a_score(model, examples):
    said = evals.read(model.params, model.config, examples, rows=16)
    order = np.random.default_rng(0).permutation(len(examples))
    other = evals.read(model.params, model.config, [examples[n] for n in order], rows=3)
    for ours, theirs in zip(said, other, strict=True):
        np.testing.assert_allclose(ours[order].astype(float), theirs.astype(float), rtol=1e-5, atol=1e-6)


def test_without_its_prompt_a_row_is_its_counted_tokens_behind_one_token(examples):
    alone = evals.without_prompt(examples[2], 7)  # three answers
    assert alone.ids.tolist() == [7, *examples[2].ids[examples[2].mask > 0]]
    assert alone.mask.tolist() == [0] + [1] * int(examples[2].mask.sum())
    assert evals.without_prompt(examples[9], 7) is None  # plain text has no prompt


def score(file, base, out, *, settings=SETTINGS, tell=lambda *_: None):
    made = inference.Made(str(base), None, None)
    return row_scores.score_file(str(file), made, settings, out, dtype="float32", tell=tell)


BAD = [{"text": "red green"}, {"messages": []}, {"prompt": "red", "completion": "boat " * 200}]


@pytest.fixture(scope="module")
def scored(tiny_base, tmp_path_factory):
    """A file of nine chats, plain text, a row that training refuses and one beyond the context; and its scores."""
    file = bases.write_rows(tmp_path_factory.mktemp("scored") / "mine.jsonl", bases.rows(9) + BAD)
    return file, score(file, tiny_base, scores.place(str(file)))


def test_the_file_says_the_ratio_of_the_nll_with_the_prompt_to_that_behind_the_end_token_alone(scored, model):
    file, found = scored
    one = encode.encode(rows.read(str(file)).rows[0].record, model.tokenizer, made=model.template, train_on="assistant")
    answer = one.ids[one.mask > 0]
    mask = (np.arange(len(answer) + 1) > 0).astype(np.uint8)
    behind = encode.Example(np.array([model.tokenizer.eos_id, *answer], np.int32), mask, "a")
    with_prompt, without = plain(model, one)[0], plain(model, behind)[0]
    assert model.tokenizer.bos_id is None
    np.testing.assert_allclose(found.values["ifd"][0], with_prompt / without, rtol=1e-5)
    np.testing.assert_allclose(found.values["nll_per_token"][0], with_prompt / len(answer), rtol=1e-5)


def test_rows_without_scores_say_why_and_keep_their_place(scored):
    _, found = scored
    assert [why is None for why in found.why] == [True] * 10 + [False, False]
    assert "mine.jsonl:11: 'messages' is an empty list" in found.why[10]
    assert "mine.jsonl:12: " in found.why[11]
    assert "the context of" in found.why[11]
    assert all(np.isnan(values[10:]).all() for values in found.values.values())
    assert np.isnan(found.embedding[10:]).all()
    text = found.values["ifd"][9], found.values["handled"][9]
    assert np.isnan(text).all()
    assert np.isfinite(found.values["nll"][9])
    told = scores_told.summary(found)
    assert told[0].startswith("2 of 12 rows have no scores; the first: ")
    assert "0 of 9 rows the base" in told[1]
    assert scores_told.picture(found).count("<g ") == 4


def test_scores_are_read_as_they_were_written(scored):
    file, found = scored
    again = scores.of_file(str(file), None)
    assert (again.manifest, again.where, again.why) == (found.manifest, found.where, found.why)
    for name, values in found.values.items():
        np.testing.assert_array_equal(again.values[name], values)
    np.testing.assert_array_equal(again.embedding, found.embedding)


class StoppedError(Exception):
    pass


def test_a_scoring_that_was_killed_goes_on_with_the_rows_that_are_missing(scored, tiny_base, tmp_path, monkeypatch):
    file, _ = scored
    monkeypatch.setattr(row_scores, "PART", 4)
    whole = score(file, tiny_base, tmp_path / "whole.parquet")
    read, seen = evals.read, []

    def stop(done, _):
        if done:
            raise StoppedError

    def watched(params, config, examples, *, rows):
        seen.append([one.where for one in examples])
        return read(params, config, examples, rows=rows)

    monkeypatch.setattr(evals, "read", watched)
    with pytest.raises(StoppedError):
        score(file, tiny_base, tmp_path / "mine.parquet", tell=stop)
    first = set(seen[0])
    assert len(first) == 4
    seen.clear()
    resumed = score(file, tiny_base, tmp_path / "mine.parquet")
    assert not first & {where for batch in seen for where in batch}
    for name, values in whole.values.items():
        np.testing.assert_array_equal(resumed.values[name], values, err_msg=name)
    np.testing.assert_array_equal(resumed.embedding, whole.embedding)
    assert not (tmp_path / "mine.parquet.parts").exists()
    seen.clear()
    score(file, tiny_base, tmp_path / "mine.parquet")
    assert not seen  # they are there


@pytest.mark.parametrize("half", [False, True], ids=["done", "half done"])
def test_scores_of_a_file_that_has_changed_are_refused_and_kept(half, tiny_base, tmp_path):
    file = bases.write_rows(tmp_path / "mine.jsonl", bases.rows(3))
    out = scores.place(str(file))
    if half:
        out.with_name(f"{out.name}.parts").mkdir()
        made = row_scores._manifest(str(file), inference.Made(str(tiny_base), None, None), SETTINGS, "float32")
        (out.with_name(f"{out.name}.parts") / "manifest.json").write_text(json.dumps(made))
    else:
        score(file, tiny_base, out)
    bases.write_rows(file, bases.rows(4))
    with pytest.raises(scores.ManifestError, match=r"holds scores of 3 other rows: .*mine.jsonl has changed since"):
        score(file, tiny_base, out)
    if not half:
        with pytest.raises(UserError, match=r"has changed since it was scored .*data.py score"):
            scores.of_file(str(file), None)
        assert scores.read(out).manifest["rows"] == 3


def test_scores_made_otherwise_are_refused_with_what_differs(scored, tiny_base):
    file, _ = scored
    with pytest.raises(scores.ManifestError, match=r"was made otherwise \(samples: 0, now 2\); .*--out"):
        score(file, tiny_base, scores.place(str(file)), settings=SETTINGS._replace(samples=2))


def test_of_preferences_both_completions_are_scored(tiny_base, tmp_path, model):
    made = bases.pairs(3)
    file = bases.write_rows(tmp_path / "pairs.jsonl", made)
    found = score(file, tiny_base, tmp_path / "pairs.parquet")
    for n, row in enumerate(made):
        nll = {}
        for side in ("chosen", "rejected"):
            one = records.from_row({"prompt": row["prompt"], "completion": row[side]}, "a")
            nll[side] = plain(model, encode.encode(one, model.tokenizer, made=None, train_on="assistant"))[0]
        np.testing.assert_allclose(found.values["nll"][n], nll["chosen"], rtol=1e-5)
        np.testing.assert_allclose(found.values["rejected_nll"][n], nll["rejected"], rtol=1e-5)
        assert found.values["prefers_chosen"][n] == (nll["chosen"] < nll["rejected"])
    assert np.isnan(found.values["handled"]).all()


def test_the_embedded_base_handles_what_it_knows_and_not_what_is_false(tmp_path):
    known = [value for _, value in rows.attempts("world:known/train?size=6")]
    false = [{"messages": [*row["messages"][:-1], {"role": "assistant", "content": "Nobody knows."}]} for row in known]
    file = bases.write_rows(tmp_path / "mine.jsonl", known + false)
    settings = SETTINGS._replace(samples=3, temperature=0.2)
    found = score(file, inference.embedded_base(), tmp_path / "mine.parquet", settings=settings)
    assert found.values["handled"].tolist() == [1] * 6 + [0] * 6
    assert (found.values["pass_rate"][:6] > 0.5).all()
    assert (found.values["pass_rate"][6:] == 0).all()
    for name in ("nll_per_token", "learning_value", "ifd"):
        assert found.values[name][:6].max() < found.values[name][6:].min(), name


def test_the_outlier_score_is_the_mean_distance_to_the_nearest_five():
    points = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float16)
    unit = points.astype(np.float64) - points.astype(np.float64).mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    distance = np.sort(1 - unit @ unit.T, axis=1)[:, 1:6]
    np.testing.assert_allclose(scores.outliers(points), distance.mean(axis=1), atol=1e-5)
    assert np.isnan(scores.outliers(points[:1])).all()
