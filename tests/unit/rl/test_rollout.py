"""Prompts -> completions -> scores: what is drawn, how it is scored, and what is left out."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.data import prompts
from ftjax.errors import UserError
from ftjax.rl import layout, rewards, rollout

SETTINGS = rollout.Settings(
    samples=2, max_new_tokens=24, temperature=0.8, top_k=0, top_p=1.0, min_p=0.0, slots=0, stop_ids=(7, 11, 12),
    stop_strings=(), fixed_length=False, stop_from=0,
)  # fmt: skip


class Numbers:
    """A tokenizer that writes a token as its number."""

    def encode(self, text):
        return types.SimpleNamespace(ids=[int(word) for word in text.split()])

    def decode(self, ids, *, skip_special):
        del skip_special
        return " ".join(str(int(one)) for one in ids)


def asked(count=4):
    rng = np.random.default_rng(0)
    return [
        prompts.Prompt(rng.integers(1, 61, 2 + n).astype(np.int32), f"prompt {n}", {"answer": str(n)}, f"f:{n}", n)
        for n in range(count)
    ]


def total(samples):
    """The score is the number of tokens of a completion."""
    scores = np.array([sample.tokens for sample in samples], np.float32)
    return rewards.Scored(scores, np.ones(len(samples), bool), {"length": scores}, [])


@pytest.fixture(scope="module")
def make(tiny_config):
    def build(score=total, judges=(), ending=lambda scores, *_: scores, **changes):
        return rollout.Rollout(
            config=tiny_config(),
            settings=SETTINGS._replace(**changes),
            prompts={one.number: one for one in asked()},
            tokenizer=Numbers(),
            score=score,
            judges=list(judges),
            ending=ending,
            place=lambda x: jax.tree.map(jnp.asarray, x),
        )

    return build


@pytest.fixture(scope="module")
def batch():
    return prompts.collate([[one] for one in asked()], length=8)


@pytest.fixture(scope="module")
def drawn(make, batch, tiny_params):
    """A rollout with what it gave."""
    run = make()
    return run, *run(tiny_params, tiny_params, batch, jax.random.key(3))


def test_the_samplers_logps_are_those_of_a_training_forward_at_that_temperature(drawn, tiny_config, tiny_params):
    """(5): so the first update has the ratio 1."""
    done = drawn[1]
    logps = jax.jit(
        lambda p, rows: layout.logps(p, layout.hidden(p, rows, tiny_config()), rows, tiny_config(), temperature=0.8)
    )(tiny_params, done.rows).logps
    np.testing.assert_allclose(logps, done.sampler_logps, atol=1e-5)
    assert float(done.rows.mask.sum()) > 40


def test_every_completion_is_scored_by_its_text_its_end_and_the_row_of_its_prompt(drawn, make, batch, tiny_params):
    seen = []

    def score(samples):
        seen.extend(samples)
        return total(samples)

    done, _ = make(score)(tiny_params, tiny_params, batch, jax.random.key(3))
    assert [one.prompt for one in seen] == [f"prompt {p}" for p in range(4) for _ in range(2)]
    assert [one.row["answer"] for one in seen] == [str(p) for p in range(4) for _ in range(2)]
    assert seen[0].row["whole_row"] == {"answer": "0"}
    for one, tokens, mask, ended in zip(
        seen, done.rows.completions.reshape(8, -1), done.rows.mask.reshape(8, -1), done.ended.reshape(-1), strict=True
    ):
        assert one.completion == Numbers().decode(tokens[mask > 0], skip_special=True)
        assert one.ended == bool(ended) == (int(tokens[mask > 0][-1]) in SETTINGS.stop_ids)
    np.testing.assert_array_equal(done.scores.reshape(-1), [one.tokens for one in seen])
    np.testing.assert_array_equal(done.rows.completions, drawn[1].rows.completions)


def test_metrics_and_table_are_of_what_was_drawn(drawn):
    run, done, told = drawn
    lengths, ended = np.asarray(done.rows.mask.sum(axis=2)), np.asarray(done.ended) > 0
    assert ended.any()
    assert not ended.all()
    assert told["completions/mean_length"] == np.float32(lengths.mean())
    assert told["completions/max_terminated_length"] == lengths[ended].max()
    assert told["completions/clipped_ratio"] == np.float32(1 - ended.mean())
    assert told["val/num_eos_tokens"] == ended.sum()
    assert told["objective/scores"] == told["rewards/length/mean"] == np.float32(lengths.mean())
    assert told["tokens"] == lengths.sum()
    table = run.last.table
    assert [row["score"] for row in table] == lengths.reshape(-1).tolist()
    assert table[0].keys() == {"prompt", "completion", "score", "length"}


def test_there_is_a_place_behind_every_completion_but_those_of_full_length(drawn, make, batch, tiny_params):
    """(8): TRL's place of the score must not depend on how long the neighbours are."""
    done = drawn[1]
    assert done.rows.completions.shape[2] == SETTINGS.max_new_tokens, "some completion is of full length here"
    short, _ = make(stop_ids=tuple(range(61)))(tiny_params, tiny_params, batch, jax.random.key(3))
    assert float(short.rows.mask.sum(axis=2).max()) == 1
    assert short.rows.completions.shape[2] == rollout.ROUND


def test_a_fixed_length_is_cut_at_the_first_stop_token_that_counts(drawn, make, batch, tiny_params):
    """(4): the same draws as where a row ends at once; stop tokens before `stop_from` are text."""
    done, _ = make(fixed_length=True)(tiny_params, tiny_params, batch, jax.random.key(3))
    for name in ("completions", "mask"):
        np.testing.assert_array_equal(getattr(done.rows, name), getattr(drawn[1].rows, name))
    np.testing.assert_array_equal(done.ended, drawn[1].ended)
    later, _ = make(fixed_length=True, stop_from=9)(tiny_params, tiny_params, batch, jax.random.key(3))
    lengths, before = (np.asarray(x.rows.mask.sum(axis=2)) for x in (later, done))
    assert (before < 10).any()
    assert lengths.min() >= 10
    np.testing.assert_array_equal(lengths[before >= 10], before[before >= 10])


def test_what_a_missing_end_costs_is_paid_before_anything_is_learned(drawn, make, batch, tiny_params):
    """(7)"""
    run = make(ending=lambda scores, ended, lengths: np.where(ended, scores, -1.0 - lengths))
    done, told = run(tiny_params, tiny_params, batch, jax.random.key(3))
    before, ended = drawn[1], np.asarray(drawn[1].ended) > 0
    lengths = np.asarray(before.rows.mask.sum(axis=2))
    np.testing.assert_array_equal(done.scores, np.where(ended, before.scores, -1.0 - lengths))
    assert told["objective/scores"] == np.float32(np.asarray(done.scores).mean())
    assert told["rewards/length/mean"] == drawn[2]["rewards/length/mean"]


def failing(samples):
    """The third and the last row have no score."""
    found = total(samples)
    valid = np.ones(len(samples), bool)
    valid[[2, 7]] = False
    lost = [rewards.Failure(row, "length", "ValueError: no number", samples[row].prompt) for row in (2, 7)]
    return rewards.Scored(
        np.where(valid, found.scores, 0.0), valid, {"length": np.where(valid, found.scores, np.nan)}, lost
    )


def test_a_reward_that_fails_masks_its_row_and_a_reward_model_that_says_nan_does_too(make, batch, tiny_params):
    def judged(base, rows):
        assert base is tiny_params
        return jnp.zeros(rows.mask.shape[:2]).at[0, 1].set(jnp.nan).at[3, 0].set(2.0)

    run = make(failing, [rollout.Judge("judge", 0.5, judged)])
    done, told = run(tiny_params, tiny_params, batch, jax.random.key(3))
    wanted = np.ones((4, 2), np.float32)
    wanted[1, 0] = wanted[3, 1] = wanted[0, 1] = 0
    np.testing.assert_array_equal(done.valid, wanted)
    assert np.isfinite(done.scores).all()
    lengths = np.asarray(done.rows.mask.sum(axis=2))
    assert float(done.scores[3, 0]) == lengths[3, 0] + 1.0
    assert float(done.scores[1, 0]) == 0.0
    assert told["rewards/failed"] == 3
    assert told["rewards/judge/mean"] == np.float32(2 / 7)
    np.testing.assert_allclose(told["objective/scores"], np.asarray(done.scores)[wanted > 0].mean(), rtol=1e-6)
    assert [(one.row, one.term) for one in run.last.failures] == [(2, "length"), (7, "length"), (1, "judge")]
    assert run.last.failures[2].why == "the reward model says nan"


def test_a_step_in_which_nothing_has_a_score_ends_with_the_reason(make, batch, tiny_params):
    run = make(None, [rollout.Judge("judge", 1.0, lambda _, rows: jnp.full(rows.mask.shape[:2], jnp.nan))])
    with pytest.raises(
        UserError, match=r"no completion of this step has a score: the reward model says nan; .*--resume"
    ):
        run(tiny_params, tiny_params, batch, jax.random.key(3))
