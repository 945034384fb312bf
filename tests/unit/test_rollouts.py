"""The config of a run on own samples -> its algorithm: what does not fit together is named, and runs leave a value."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax import config as configs
from ftjax import experiment, rollouts, run, scoring
from ftjax.checkpoint import peft
from ftjax.errors import UserError
from ftjax.rl import layout
from ftjax.runs import folder as folders
from tests import bases, processes, rl_cases


@pytest.fixture(scope="module")
def config_of(tiny_base, tiny_pairs, tiny_rows):
    """Returns a function: algorithm and changes -> the config of a small run on the prompts of pairs."""

    def make(kind, **changes):
        name = f"{bases.ROOT}/configs/smoke/ppo.py:model={tiny_base}"
        if kind != "ppo":
            name = f"{bases.ROOT}/configs/smoke/grpo.py:algorithm={kind},model={tiny_base}"
        small = {
            "data.paths": (str(tiny_pairs),), "eval.path": "", "eval.check": "", "eval.kl_prompts": 0,
            "data.batch_size": 8, "rewards.check": "", "rewards.names": ("length",), "rewards.length_cap": 12,
            "optimizer.learning_rate": 1e-2,
            "log.writers": ("jsonl",), "retention.path": str(tiny_rows), "retention.rows": 8,
        }  # fmt: skip
        flat = {key.replace("__", "."): value for key, value in changes.items()}
        return configs.override(configs.load(name), small | flat)

    return make


WRONG = [
    ("ppo", {"updates__minibatches": 3}, r"config.updates.minibatches 3 times config.microbatches 1 must divide"),
    (
        "ppo",
        {"rollout__max_new_tokens": 127},
        r"pairs.jsonl:\d+: a prompt of \d+ tokens and config.rollout.max_new_tokens",
    ),
    ("ppo", {"adapter__dropout": 0.1}, "config.adapter.dropout is 0.1, but ppo compares two forward passes"),
    ("grpo", {"rollout__samples": 1}, "config.rollout.samples is 1, but grpo compares completions of one prompt"),
    ("ppo", {"rewards__names": ()}, "config.rewards is empty; name functions"),
    ("ppo", {"rollout__temperature": 0.0}, "config.rollout.temperature is 0.0; it must be above 0"),
    ("ppo", {"rollout__stop": ("\n",), "rollout__fixed_length": True}, "are not read for texts; leave out one"),
    ("ppo", {"rollout__stop_from": 16}, "config.rollout.stop_from is 16, but a completion ends at its first stop"),
    ("ppo", {"rewards__overlong": 8}, "config.rewards.overlong_buffer 16 is more than config.rewards.overlong 8"),
    ("ppo", {"rewards__missing_end": "cut"}, "config.rewards.missing_end is 'cut'"),
    ("ppo", {"rewards__names": ("lenght",)}, r"no reward 'lenght'\. Did you mean 'length'"),
    ("ppo", {"rewards__names": ("numeric",)}, "the reward 'numeric' needs a column"),
    ("ppo", {"rewards__models": ("nowhere",)}, "nowhere"),
    ("ppo", {"reference__kind": "nobody"}, "config.reference.kind is 'nobody'"),
    ("grpo", {"loss__kl_coefficient": 0.1}, "config.reference.kind is none, but config.loss.kl_coefficient is 0.1"),
    ("ppo", {"reference__kind": "none", "loss__kl_coefficient": 0.0}, "config.algorithm ppo has a KL penalty"),
    ("grpo", {"reference__kind": "base", "adapter__name": "none"}, "full fine-tuning changes the base"),
    ("ppo", {"adapter__name": "none", "reference__kind": "start"}, "and an adapter"),
    ("ppo", {"loss__kl_controller": "codes"}, "config.loss.kl_controller is 'codes'"),
    ("ppo", {"loss__gamma": 1.5}, "config.loss.gamma is 1.5; the discount of PPO must be between 0 and 1"),
    (
        "ppo",
        {"loss__text_coefficient": 1.0},
        "config.data.text is '' and config.loss.text_coefficient 1: .* needs both",
    ),
    ("ppo", {"value__path": "x", "value__shared": True}, "config.value.path x with config.value.shared"),
    ("grpo", {"loss__advantage": "grop"}, r"config.loss.advantage is 'grop'\. Did you mean 'grpo'"),
    ("grpo", {"loss__loss": "clip"}, "config.loss.loss is 'clip'"),
    ("grpo", {"loss__normaliser": "per_row"}, "config.loss.normaliser is 'per_row'"),
    ("online_dpo", {"loss__name": "dppo"}, r"config.loss.name is 'dppo'\. Did you mean 'dpo'"),
    ("online_dpo", {"reference__kind": "none"}, "online DPO is held against a reference"),
    ("raft", {"stop__kl": -1.0}, "config.stop.kl is -1.0; it must be at least 0"),
]


@pytest.mark.parametrize(("kind", "changes", "says"), WRONG, ids=[f"{kind}-{'-'.join(x)}" for kind, x, _ in WRONG])
def test_what_does_not_fit_together_is_named_before_weights_are_read(config_of, kind, changes, says):
    with pytest.raises(UserError, match=says):
        experiment.build(config_of(kind, **changes))


def test_text_that_the_loss_does_not_count_is_named(config_of, tiny_rows):
    with pytest.raises(
        UserError, match=r"rows.jsonl' and config.loss.text_coefficient 0: .* needs both; set the other"
    ):
        experiment.build(config_of("ppo", data__text=str(tiny_rows)))
    built = experiment.build(config_of("ppo", data__text=str(tiny_rows), loss__text_coefficient=0.5))
    batch = built.loader.batch(0)
    assert len(batch.text.tokens) == len(batch.tokens) == 8
    assert built.algorithm.terms == 3


def test_a_stop_text_that_the_tokenizer_cannot_write_is_named(config_of, monkeypatch):
    from ftjax.data import tokenizer

    plain = tokenizer.Tokenizer.decode
    monkeypatch.setattr(
        tokenizer.Tokenizer, "decode", lambda self, ids, **how: plain(self, ids, **how).replace("~", "?")
    )
    with pytest.raises(
        UserError, match=r"stop string '~~': this tokenizer cannot write it \(it comes back as '\?\?'\)"
    ):
        experiment.build(config_of("ppo", rollout__stop=("~~",)))


def train(built, folder, *, resume=False):
    """Trains an experiment in a folder, from its start or from its last checkpoint."""
    made = folders.create(
        folder, name="run", config=built.config, command=["python"], resume=resume, may_change=()
    )  # fmt: skip
    try:
        run.train(built, made, lambda _: None)
    finally:
        made.release()


@pytest.fixture(scope="module")
def of_ppo(config_of, tmp_path_factory):
    """The folder of a finished PPO run, its config, the keys that were asked for."""
    folder, asked = tmp_path_factory.mktemp("ppo") / "run", set()
    config = config_of("ppo", steps=2, eval__every=0, rewards__missing_end="penalty", log__samples=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "plain", lambda config: bases.Recorder(config.to_dict(), asked))
        built = experiment.build(config)
        train(built, folder)
    return folder, config, asked, built


def test_a_finished_run_leaves_its_value_and_another_run_begins_with_it(of_ppo, config_of):
    """(20)"""
    folder, _, _, built = of_ppo
    facts = json.loads((folder / "value" / "adapter_config.json").read_text())
    assert facts["task_type"] == "SEQ_CLS"
    saved = peft.load(folder / "value", built.abstract_base, built.model_config)
    assert np.asarray(saved.score).any(), "two steps have moved the head"
    again = experiment.build(config_of("ppo", value__path=str(folder)))
    rl_cases.assert_same(again.start.value, saved, rtol=0)
    begun = rollouts.going_on(again.algorithm, again.start)
    made = jax.eval_shape(functools.partial(begun.init, jax.random.key(0)), again.abstract_base)
    assert jax.tree.structure(made.value) == jax.tree.structure(saved)
    assert peft.load(folder / "adapter", built.abstract_base, built.model_config).score is None


@pytest.mark.e2e
def test_a_run_that_stopped_between_rollout_and_update_goes_on_to_the_bit(of_ppo, tmp_path):
    """What the second step drew is lost; the run that goes on draws it again."""
    whole, config = of_ppo[:2]
    built = experiment.build(config)
    drawn = built.objective.rollout
    score, calls = drawn.score, []

    def fails_once(samples):
        calls.append([one.completion for one in samples])
        if len(calls) == 2:
            raise UserError("the judge is not at home")
        return score(samples)

    drawn.score = fails_once
    with pytest.raises(UserError, match="not at home"):
        train(built, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("[0-9]")] == ["1"]
    train(experiment.build(config), tmp_path / "run", resume=True)
    for result in ("adapter", "value"):
        weights = f"{result}/adapter_model.safetensors"
        assert (tmp_path / "run" / weights).read_bytes() == (whole / weights).read_bytes()
    assert processes.metrics(tmp_path / "run") == processes.metrics(whole)
    assert processes.files(tmp_path / "run" / "samples") == processes.files(whole / "samples")
    assert calls[0] != calls[1]


def test_every_default_of_a_ppo_run_is_read(of_ppo):
    """But for those of what this run has not: a controller, a length limit, reward models, a check, text."""
    _, config, asked, _ = of_ppo
    elsewhere = {"loss.kl_target", "loss.kl_gain", "loss.kl_horizon", "rewards.overlong_buffer"}
    elsewhere |= {"rewards.model_weights", "rewards.check_weight"}
    assert set(configs.flatten(config)) - asked == elsewhere


def test_a_run_on_own_samples_keeps_the_rows_of_its_retention_set_and_of_its_prompts(of_ppo):
    """Without a check no prompt has a score, and those that are shown an answer."""
    rows = {name: processes.rows(of_ppo[0] / f"{name}.jsonl") for name in ("held_out", "retention")}
    summary = json.loads((of_ppo[0] / "summary.json").read_text())
    assert [row["after"].keys() for row in rows["held_out"]] == [{"answer", "answer_tokens"}] * 2
    assert len(rows["retention"]) == 8
    change = summary["change"]["retention"]["loss"]
    assert change["value"] != 0
    assert change["after"] == pytest.approx(summary["after"]["eval_retention_loss"], rel=1e-5)
    assert summary["change"]["held_out"] == {}


def test_tables_of_completions_are_of_every_step_with_their_scores(of_ppo):
    folder = of_ppo[0]
    tables = sorted((folder / "samples").glob("completions*"))
    assert len(tables) == 2
    rows = [json.loads(line) for line in tables[0].read_text().splitlines()]
    assert {"prompt", "completion", "score", "length"} <= rows[0].keys()


@pytest.fixture(scope="module")
def of_reward(of_ppo, tmp_path_factory):
    """Returns a function: mean and standard deviation of scores, or None -> a run of a reward model, made by hand."""
    folder = of_ppo[0]

    def make(mean_std):
        other = tmp_path_factory.mktemp("reward")
        (other / "adapter").mkdir()
        for name in ("config.json", "DONE"):
            (other / name).write_text((folder / name).read_text())
        for file in (folder / "value").iterdir():
            (other / "adapter" / file.name).write_bytes(file.read_bytes())
        if mean_std:
            facts = dict(zip(("mean", "std"), mean_std, strict=True))
            (other / "adapter" / peft.SCORE).write_text(json.dumps(facts))
        return other

    return make


@pytest.mark.parametrize("mean_std", [None, (0.4, 2.5)])
def test_a_value_begins_as_a_reward_model_says_what_its_normalised_scores_are_but_for_their_mean(
    of_ppo, of_reward, config_of, mean_std
):
    """(20)"""
    folder, _, _, built = of_ppo
    head = peft.load(folder / "value", built.abstract_base, built.model_config).score
    c = config_of("ppo", value__path=str(of_reward(mean_std))).to_dict()
    begun = rollouts.value_start(c, built.abstract_base, built.model_config)
    np.testing.assert_allclose(begun.score, head / (mean_std[1] if mean_std else 1.0), rtol=1e-6)


def test_a_reward_model_scores_completions_as_its_own_page_does(of_reward, config_of):
    """(6), (21): at the last token, normalised, on the base of the run."""
    other = of_reward((0.4, 2.5))
    (judge,) = experiment.build(config_of("ppo", rewards__models=(str(other),))).objective.rollout.judges
    scorer = scoring.load([other])
    asked, valid, completions, mask = rl_cases.texts()
    found = judge.score(scorer.base, layout.arrange(asked, valid, completions, mask))
    texts = [
        np.concatenate([asked[p][valid[p] > 0], completions[p, g][mask[p, g] > 0]])
        for p in range(rl_cases.PROMPTS)
        for g in range(rl_cases.SAMPLES)
    ]
    wanted = (scorer.of(scorer.models[0], texts) - 0.4) / 2.5
    np.testing.assert_allclose(np.asarray(found).reshape(-1), wanted, atol=1e-5)
    assert np.ptp(wanted) > 1e-3


def test_all_updates_of_a_step_have_one_rate_and_the_value_its_multiple(config_of):
    """(18): a linear schedule over 4 steps of 4 updates."""
    changes = {"optimizer__schedule": "linear", "optimizer__end_ratio": 0.0, "optimizer__name": "sgd"}
    changes |= {"optimizer__momentum": 0.0, "optimizer__clip_norm": 0.0, "value__rate_ratio": 3.0, "steps": 4}
    built = experiment.build(config_of("ppo", **changes))
    params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), built.abstract_state.trainable)
    state, seen = built.optimizer.init(params), []
    for _ in range(6):
        moved, state = built.optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
        seen.append([-float(part.blocks.q_proj.b.ravel()[0]) for part in (moved.policy, moved.value)])
    rates = np.array([0.01] * 4 + [0.0075] * 2)
    np.testing.assert_allclose(seen, np.stack([rates, 3 * rates], axis=1), rtol=1e-5)


def test_a_run_without_a_head_is_no_value(of_ppo, config_of, tmp_path):
    folder = of_ppo[0]
    (tmp_path / "run").mkdir()
    for name in ("config.json", "DONE"):
        (tmp_path / "run" / name).write_text((folder / name).read_text())
    (tmp_path / "run" / "adapter").symlink_to(folder / "adapter")
    with pytest.raises(UserError, match="is the run of no reward model and of no PPO: it has no head"):
        experiment.build(config_of("ppo", value__path=str(tmp_path / "run")))


def test_a_value_or_reward_model_of_another_base_is_refused(of_ppo, config_of, tmp_path):
    folder = of_ppo[0]
    other = bases.write_base(tmp_path / "other", seed=1)
    for changes in ({"value__path": str(folder)}, {"rewards__models": (str(folder),)}):
        with pytest.raises(UserError, match=r"was trained on .*, this run on "):
            experiment.build(config_of("ppo", model__path=str(other), **changes))
    with pytest.raises(UserError, match=r"was trained on a base in none, this run has config.quant.format nf4"):
        experiment.build(config_of("ppo", quant__format="nf4", quant__group=16, value__path=str(folder)))
