"""Scores of completions: those that training saw, of one reward model and of several on one base, in files."""

import dataclasses
import json
import runpy
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax import experiment, scoring
from ftjax import tree as trees
from ftjax.adapters import attach, lora
from ftjax.algorithms import reward_model
from ftjax.checkpoint import hf_import, peft
from ftjax.data import candidates, completions, preference_batch, preferences, template, tokenizer
from ftjax.errors import UserError
from tests import bases

PAIRS = [
    {
        "prompt": [{"role": "user", "content": f"Say {word}."}],
        "chosen": [{"role": "assistant", "content": f"{word}!"}],
        "rejected": [{"role": "assistant", "content": "no " * (2 + 3 * number) + word}],
    }
    for number, word in enumerate(bases.WORDS[:4])
]
ANSWERS = [{"messages": [*row["prompt"], *row["chosen"]], "id": n} for n, row in enumerate(PAIRS)]
TRUTH = (0.25, 2.0)  # mean and standard deviation in score.json


def adapters_of(base, seed, *, score=True):
    """LoRA on two projections, of which B is not zero, with a head."""
    rng = np.random.default_rng(seed)

    def one(path, weight):
        name = trees.name(path)
        if name not in ("blocks.q_proj", "blocks.down_proj"):
            return None
        draw = lambda *shape: jnp.asarray(rng.normal(0, 0.3, shape), jnp.float32)
        layers, rows, columns = weight.shape
        return lora.LoRA(a=draw(layers, rows, 2), b=draw(layers, 2, columns), scale=1.0, dropout=0.0)

    made = jax.tree_util.tree_map_with_path(one, base)
    head = jnp.asarray(rng.normal(0, 0.3, (base.norm.shape[0], 1)), jnp.float32)
    return made.replace(score=head) if score else made


def make_run(folder, base_folder, seed, *, score=True, normal=TRUTH, **config):
    """A finished run of a reward model, as far as scoring looks at it."""
    shape, base = hf_import.load(base_folder)
    peft.save(folder / "adapter", adapters_of(base, seed, score=score), shape, str(base_folder))
    if normal is not None:
        facts = {"mean": normal[0], "std": normal[1], "completions": 40}
        (folder / "adapter" / "score.json").write_text(json.dumps(facts))
    config = {"algorithm": "reward_model", "model": {"path": str(base_folder)}, "data": {"template": ""}} | config
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "DONE").touch()
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_base):
    """A run of a reward model on the tiny base; not to be written to."""
    return make_run(tmp_path_factory.mktemp("runs") / "helpful", tiny_base, 1)


@pytest.fixture(scope="module")
def second(tmp_path_factory, tiny_base):
    """Another on the same base."""
    return make_run(tmp_path_factory.mktemp("runs") / "harmless", tiny_base, 2, normal=(-1.0, 0.5))


@pytest.fixture(scope="module")
def scorer(run):
    return scoring.load([run])


def trained_scores(run, base_folder, rows):
    """What the algorithm of reward models makes of the same rows in training: [row][completion]."""
    config, base = hf_import.load(base_folder)
    tok = tokenizer.load(base_folder)
    found, _ = candidates.encode_preferences(
        [preferences.from_row(row, f"p:{n}") for n, row in enumerate(rows)],
        tok, made=template.load(None, tok), max_length=None, truncation="error", equal="error", mismatched=False,
    )  # fmt: skip
    batch = preference_batch.pack_candidates(
        [found[:2], found[2:]], length=192, completions=4, pairs=2, prefix="shared"
    )
    params = attach.attach(base, peft.load(run / "adapter", base, config))
    return np.asarray(jax.jit(reward_model.scores, static_argnums=2)(params, batch, config)).reshape(-1, 2)


@pytest.fixture(scope="module")
def expected(run, tiny_base):
    return trained_scores(run, tiny_base, PAIRS)


def test_scores_are_those_that_training_sees_normalised(scorer, expected):
    prompts = [row["prompt"] for row in PAIRS for _ in range(2)]
    answers = [row[side] for row in PAIRS for side in ("chosen", "rejected")]
    found = scorer.score(prompts, answers)
    assert (found.shape, found.dtype) == ((8,), np.float32)
    np.testing.assert_allclose(found.reshape(-1, 2), (expected - TRUTH[0]) / TRUTH[1], atol=2e-6)
    assert np.ptp(found) > 0.1
    one_by_one = [
        scorer.score([prompt], [answer[0]["content"]])[0] for prompt, answer in zip(prompts, answers, strict=True)
    ]
    np.testing.assert_allclose(one_by_one, found, atol=2e-6)


def test_text_is_scored_without_a_template_and_nothing_is_an_empty_list(scorer):
    assert scorer.score([], []).shape == (0,)
    plain = scorer.score(["Say red."], [" red!"])
    chat = scorer.score([[{"role": "user", "content": "Say red."}]], ["red!"])
    assert abs(plain[0] - chat[0]) > 1e-3
    with pytest.raises(ValueError, match="2 prompts and 1 completions"):
        scorer.score(["a", "b"], ["c"])
    with pytest.raises(UserError, match="row 2: empty completion"):
        scorer.score(["a", "b"], ["c", " "])


def test_several_models_are_their_weighted_sum_and_the_base_is_there_once(run, second, expected, tiny_base):
    both = scoring.load([run, second], weights=[2.0, -0.5])
    rows = [one for row in PAIRS for one in completions.from_row(row, "p:1").completions]
    found = both.score_rows(rows, raw=False, truncate=False)
    theirs = (trained_scores(second, tiny_base, PAIRS).ravel() + 1) / 0.5
    ours = (expected.ravel() - TRUTH[0]) / TRUTH[1]
    np.testing.assert_allclose(found.each, np.stack([ours, theirs]), atol=4e-6)
    np.testing.assert_allclose(found.total, 2 * ours - 0.5 * theirs, atol=8e-6)
    raw = both.score_rows(rows, raw=True, truncate=False)
    np.testing.assert_allclose(raw.each[0], expected.ravel(), atol=2e-6)
    assert both.base.blocks.q_proj is attach.attach(both.base, both.models[0].adapters).blocks.q_proj.frozen


def test_a_prompt_beyond_the_context_is_an_error_or_cut_from_the_left(scorer):
    def rows(*texts):
        given = [{"prompt": prompt, "completion": "red!"} for prompt in texts]
        return [completions.from_row(row, f"f:{n}").completions[0] for n, row in enumerate(given, start=1)]

    long = "blue " * 150 + "Say red."
    with pytest.raises(UserError, match=r"f:2: prompt and completion have \d+ tokens.* has 128; .*--truncate"):
        scorer.score_rows(rows("Say red.", long), raw=True, truncate=False)
    said = []
    found = scorer.score_rows(rows("Say red.", long), raw=True, truncate=True, say=said.append).total
    assert said == ["1 of 2 prompts cut from the left to the context of 128 tokens"]
    ids = scorer.tokenizer.encode(long).ids
    answer = [*scorer.tokenizer.encode("red!").ids, 2]
    kept = np.array([ids[len(ids) - (128 - len(answer)) :] + answer], np.int32)
    last = scoring._heads(attach.attach(scorer.base, scorer.models[0].adapters), kept, np.array([127]), scorer.config)
    np.testing.assert_allclose(found[1], last[0], atol=1e-6)
    endless = completions.from_row({"prompt": "a", "completion": long}, "f:9").completions
    with pytest.raises(UserError, match=r"f:9: the completion has .* no prompt fits into the context of 128"):
        scorer.score_rows(endless, raw=True, truncate=True)


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Returns a function: words of score.py -> exit status, what it printed and its error."""
    monkeypatch.setattr(experiment, "use_compilation_cache", lambda: None)
    monkeypatch.chdir(tmp_path)

    def run(*words):
        path = str(bases.ROOT / "scripts" / "score.py")
        monkeypatch.setattr(sys, "argv", [path, *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(path, run_name="__main__")
        return ended.value.code, *capsys.readouterr()

    return run


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_command_writes_every_row_with_its_score_in_order(command, run, second, expected, tmp_path):
    pairs, answers = (
        bases.write_rows(tmp_path / f"{name}.jsonl", rows) for name, rows in (("p", PAIRS), ("a", ANSWERS))
    )
    out = tmp_path / "out.jsonl"
    status, said, err = command("--run", run, "--input", pairs, "--output", out)
    assert (status, err) == (0, "")
    assert "8 completions of 4 rows scored" in said
    found = lines(out)
    assert [{k: v for k, v in row.items() if k != "scores"} for row in found] == PAIRS
    np.testing.assert_allclose([row["scores"] for row in found], (expected - TRUTH[0]) / TRUTH[1], atol=2e-6)

    words = ("--run", run, "--run", second, "--weights", "1", "-0.5", "--column", "reward")
    assert command(*words, "--input", answers, "--output", out, "--force")[0] == 0
    for number, row in enumerate(lines(out)):
        assert {"messages": row["messages"], "id": row["id"]} == ANSWERS[number]
        by_model = row["reward_by_model"]
        np.testing.assert_allclose(by_model[str(run)], (expected[number, 0] - TRUTH[0]) / TRUTH[1], atol=2e-6)
        np.testing.assert_allclose(row["reward"], by_model[str(run)] - 0.5 * by_model[str(second)], atol=1e-6)

    config = json.loads((run / "config.json").read_text())
    words = ("--model", config["model"]["path"], "--adapter", run / "adapter", "--raw")
    assert command(*words, "--input", answers, "--output", tmp_path / "raw.jsonl")[0] == 0
    np.testing.assert_allclose([row["score"] for row in lines(tmp_path / "raw.jsonl")], expected[:, 0], atol=2e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "out.jsonl", "p.jsonl", "raw.jsonl"]


def test_mistakes_at_the_command_line_are_one_line_and_leave_nothing(command, run, tmp_path):
    rows = bases.write_rows(tmp_path / "rows.jsonl", ANSWERS)
    scored = bases.write_rows(tmp_path / "scored.jsonl", [{**ANSWERS[0], "score": 1}])
    kept = tmp_path / "kept.jsonl"
    kept.write_text("mine\n")
    base = json.loads((run / "config.json").read_text())["model"]["path"]
    new = tmp_path / "new.jsonl"
    mistakes = [
        (("--input", rows, "--output", new), "give --run DIR, or --model DIR with --adapter DIR"),
        (("--run", run, "--model", base, "--input", rows, "--output", new), "give --run DIR, or --model"),
        (("--model", base, "--input", rows, "--output", new), "--model needs --adapter DIR"),
        (("--run", run, "--quant", "nf4", "--input", rows, "--output", new), "--quant goes with --model"),
        (("--run", run, "--input", rows, "--output", kept), "exists; give a file that does not, or --force"),
        (("--run", run, "--input", rows, "--output", rows, "--force"), "is the --input"),
        (("--run", run, "--input", rows, "--output", tmp_path / "no" / "out"), "there is no folder for --output"),
        (("--run", run, "--input", tmp_path / "rowz.jsonl", "--output", new), "rowz.jsonl"),
        (("--run", run, "--input", scored, "--output", new), "has a column 'score' already; name another one"),
        (("--run", run, "--weights", "1", "2", "--input", rows, "--output", new), "1 reward models need one finite"),
        (("--run", tmp_path, "--input", rows, "--output", new), "config.json is missing"),
    ]
    for words, match in mistakes:
        status, _, err = command(*words)
        assert (status, err.count("\n")) == (2, 1), (words, err)
        assert match in err
        assert kept.read_text() == "mine\n"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.jsonl", "rows.jsonl", "scored.jsonl"]


def test_runs_that_share_no_base_or_have_no_head_are_named(run, tiny_base, tmp_path):
    other = bases.write_base(tmp_path / "other", seed=3)
    with pytest.raises(UserError, match=f"helpful was trained on {tiny_base}, .*apart on {other};"):
        scoring.load([run, make_run(tmp_path / "apart", other, 4)])
    copied = bases.write_base(tmp_path / "copied")
    assert len(scoring.load([run, make_run(tmp_path / "same", copied, 4)]).models) == 2
    quant = {"format": "nf4", "leaves": r"blocks\.\w+_proj", "group": 64}
    with pytest.raises(UserError, match=r"with quant none, .*bits with nf4; score with one at a time"):
        scoring.load([run, make_run(tmp_path / "bits", tiny_base, 4, quant=quant)])
    with pytest.raises(UserError, match=r"with template the base's own, .*chatml with chatml"):
        scoring.load([run, make_run(tmp_path / "chatml", tiny_base, 4, data={"template": "chatml"})])
    with pytest.raises(UserError, match=r"sft is the adapter of a language model: it has no reward head"):
        scoring.load([make_run(tmp_path / "sft", tiny_base, 4, score=False)])
    with pytest.raises(UserError, match="helpful is given twice"):
        scoring.load([run, run])
    with pytest.raises(UserError, match="there is no reward model"):
        scoring.load([])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"mean": 0.5}', "score.json: std is None, which is no finite number"),
        ('{"mean": NaN, "std": 1}', "score.json: mean is nan, which is no finite number"),
        ('{"mean": true, "std": 1}', "score.json: mean is True"),
        ('{"mean": 0, "std": 0}', "score.json: std 0 must be above 0"),
        ('{"mean": 0', "score.json"),
    ],
)
def test_a_normalisation_that_is_none_is_refused(tmp_path, text, match):
    assert scoring.normalisation(tmp_path) == (0.0, 1.0)
    (tmp_path / "score.json").write_text(text)
    with pytest.raises(UserError, match=match):
        scoring.normalisation(tmp_path)


def test_an_adapter_is_written_again_over_its_normalisation(tiny_base, tmp_path):
    folder = make_run(tmp_path / "run", tiny_base, 5) / "adapter"
    config, base = hf_import.load(tiny_base)
    peft.save(folder, adapters_of(base, 6), config, None, replace=True)
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


def test_a_head_that_has_diverged_is_named(scorer):
    model = scorer.models[0]
    broken = model._replace(adapters=model.adapters.replace(score=model.adapters.score * jnp.nan))
    with pytest.raises(UserError, match="helpful: 1 of 1 scores are not finite; it has diverged"):
        dataclasses.replace(scorer, models=(broken,)).score(["a"], [" b"])
