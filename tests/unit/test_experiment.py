"""A config becomes an experiment, or one line that names the value, the rule and the way out."""

import json

import jax
import numpy as np
import pytest

from ftjax import config as configs
from ftjax import experiment
from ftjax.errors import UserError
from tests import bases


@pytest.fixture
def build(tiny_base, tiny_rows):
    """Returns a function: changes of a small config of the tiny base -> the experiment."""

    def make(**changes):
        config = configs.load(f"{bases.ROOT}/configs/sft/jsonl.py:data={tiny_rows},model={tiny_base}")
        flat = {name.replace("__", "."): value for name, value in changes.items()}
        return experiment.build(configs.override(config, bases.SMALL | flat))

    return make


@pytest.fixture
def refused(build):
    """Returns a function: changes -> the one line that says what is wrong with them."""

    def message(**changes):
        with pytest.raises(UserError) as caught:
            build(**changes)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return message


RANGES = [
    ("steps", -1, "it must be at least 0 (0: one epoch)"),
    ("seed", -1, "it must be between 0 and 2^32 - 1"),
    ("microbatches", 0, "it must be at least 1"),
    ("optimizer.learning_rate", 0.0, "it must be above 0"),
    ("optimizer.learning_rate", float("nan"), "it must be above 0"),
    ("optimizer.learning_rate", float("inf"), "it must be above 0"),
    ("optimizer.end_ratio", 1.5, "it must be between 0 and 1"),
    ("optimizer.b2", 1.0, "it must be in [0, 1)"),
    ("optimizer.eps", 0.0, "it must be above 0"),
    ("optimizer.weight_decay", -0.1, "it must be at least 0"),
    ("optimizer.clip_norm", -1.0, "it must be at least 0 (0: no clipping)"),
    ("adapter.rank", 0, "it must be at least 1"),
    ("adapter.dropout", 1.0, "it must be in [0, 1)"),
    ("data.batch_size", 0, "it must be at least 1"),
    ("data.max_length", 1, "it must be at least 2"),
    ("data.buckets", (64, 0), "it must be whole numbers above 0"),
    ("data.weights", (1.0, "x"), "it must be numbers above 0, one a path"),
    ("data.paths", (1,), "it must be paths of data files, (a.jsonl, b.jsonl)"),
    ("eval.holdout", 1.0, "it must be between 0 and 1"),
    ("eval.rows", 0, "it must be at least 1"),
    ("eval.every", -1, "it must be at least 0 (0: never)"),
    ("checkpoint.keep_last", 0, "it must be at least 1"),
    ("stop.patience", -1, "it must be at least 0 (0: never)"),
]


@pytest.mark.parametrize(("key", "value", "rule"), RANGES)
def test_a_number_out_of_its_range_is_refused_with_the_range(refused, key, value, rule):
    assert refused(**{key: value}) == f"config.{key} is {value}; {rule}"


NAMES = [
    ("algorithm", "sfr", "config.algorithm is 'sfr'. Did you mean 'sft'?"),
    ("model.dtype", "float23", "config.model.dtype is 'float23'. Did you mean 'float32'?"),
    ("model.remat", "all", "config.model.remat is 'all'. Known: none, dots, full"),
    ("adapter.name", "lorra", "config.adapter.name is 'lorra'. Did you mean 'lora'?"),
    ("optimizer.name", "adam", "there is no optimizer 'adam'. Did you mean 'adamw'?"),
    ("optimizer.schedule", "cosin", "there is no schedule 'cosin'. Did you mean 'cosine'?"),
    ("data.layout", "pakced", "layout='pakced' (did you mean 'packed'?); known: packed, padded"),
    ("data.truncation", "cut", "truncation='cut'; known: drop, truncate, error"),
    ("data.train_on", "asistant", "train_on='asistant' (did you mean 'assistant'?)"),
    ("data.template", "chatlm", "no chat template 'chatlm' (did you mean 'chatml'?)"),
    ("eval.check", "tasks.exact_mtach", "has no 'tasks.exact_mtach'. Did you mean 'tasks.exact_match'?"),
    ("log.writers", ("console", "wandbb"), "config.log.writers is 'wandbb'. Did you mean 'wandb'?"),
    ("log.wandb", "onlin", "config.log.wandb is 'onlin'. Did you mean 'online'?"),
    ("checkpoint.use", "lst", "config.checkpoint.use is 'lst'. Did you mean 'last'?"),
    ("model.path", "bsae", "there is no model folder 'bsae'; give a Hugging Face folder, a .gguf file, or: base"),
]


@pytest.mark.parametrize(("key", "value", "says"), NAMES)
def test_a_wrong_name_is_refused_with_the_nearest_one(refused, key, value, says):
    assert says in refused(**{key: value})


def test_targets_that_match_nothing_list_what_could_be_adapted(refused):
    for targets in ("q_porj", "blocks.q_projj,v_proj"):
        message = refused(adapter__targets=targets)
        assert "match no weight; those that can be adapted: blocks.q_proj, blocks.k_proj, blocks.v_proj" in message


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("q_proj:16", "config.adapter.rank_pattern: 'q_proj:16' must be NAME=int, for example q_proj=16"),
        ("q_proj=many", "config.adapter.rank_pattern: 'q_proj=many' must be NAME=int, for example q_proj=16"),
        ("x_proj=4", "adapter pattern 'x_proj' matches none of the targets"),
        ("q_proj=33", "adapter rank 33 is above the smaller side of blocks.q_proj (32, 32)"),
    ],
)
def test_a_bad_pattern_of_ranks_is_refused(refused, pattern, says):
    assert says in refused(adapter__rank_pattern=pattern)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"microbatches": 3}, "config.microbatches 3 must divide config.data.batch_size 8"),
        ({"microbatches": 2}, "a microbatch of 4 rows (data.batch_size / microbatches) does not divide over 8 devices"),
        ({"data.batch_size": 12}, "pick a multiple of 8 as data.batch_size"),
        ({"mesh.data": 3}, "mesh data 3 x fsdp 1 x tensor 1 does not fill 8 devices; use -1 for one of the axes"),
        (
            {"quant.format": "int4", "quant.group": 8, "mesh.data": 1, "mesh.fsdp": 8},
            "blocks.q_proj: mesh.fsdp 8 cuts its 32 inputs every 4, inside the groups of 8 that share a scale; "
            "set mesh.fsdp to a divisor of 4",
        ),
        ({"optimizer.warmup_steps": 200}, "optimizer.warmup_steps 200 must be at least 0 and below the 200 steps"),
    ],
)
def test_what_does_not_divide_or_fit_is_refused(refused, changes, says):
    assert says in refused(**changes)


def test_a_row_longer_than_the_context_of_the_model_is_refused_with_its_line(refused, tmp_path):
    long = bases.rows(3)
    long[1]["messages"][1]["content"] = "red " * 200
    path = bases.write_rows(tmp_path / "long.jsonl", long)
    message = refused(**{"data.paths": (str(path),), "data.max_length": 500, "eval.path": str(path)})
    assert message.startswith(f"{path}:2: a row of ")
    assert message.endswith("but the context of the model is 128; set config.data.max_length to that at most")


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_rows_are_not_packed_to_more_than_the_context_of_the_model(build, refused, layout):
    says = "config.data.max_length is 129, to which rows are packed, but the context of the model is 128; set that"
    assert says in refused(**{"data.max_length": 129, "data.layout": layout})
    assert build(**{"data.max_length": 128, "data.layout": layout}).data.length == 128


def test_an_answer_that_would_leave_the_context_is_refused_before_the_run(refused):
    assert "config.eval.max_new_tokens 120 exceed the context of the model, 128" in refused(
        **{"eval.max_new_tokens": 120}
    )


def test_chats_without_a_template_name_those_that_could_be_used(refused, tmp_path):
    bare = bases.write_base(tmp_path / "bare", template=None)
    message = refused(model__path=str(bare))
    assert message.endswith(
        ":1: a chat needs a template, and the tokenizer has none; name one: chatml, instruct, plain"
    )


def test_a_shipped_template_serves_a_tokenizer_without_one(build, tmp_path):
    bare = bases.write_base(tmp_path / "bare", template=None)
    assert build(model__path=str(bare), data__template="chatml").template.name == "chatml"


def test_a_tokenizer_of_another_model_is_refused(refused, tmp_path):
    grown = bases.write_base(tmp_path / "grown", extra_tokens=3)
    message = refused(model__path=str(grown))
    assert "<more2>" in message
    assert "use the tokenizer of this model" in message


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 2.0, 3.0)])
def test_a_mixture_needs_one_weight_a_path(refused, tiny_rows, weights):
    paths = (str(tiny_rows), str(tiny_rows))
    assert "must be 2 positive numbers, one a data set" in refused(**{"data.paths": paths, "data.weights": weights})


def test_a_file_too_small_to_hold_rows_out_is_refused(refused, tmp_path):
    one = bases.write_rows(tmp_path / "one.jsonl", bases.rows(1))
    assert refused(data__paths=(str(one),)) == f"{one} has 1 rows, too few to hold some out; give config.eval.path"


def test_without_a_data_file_the_flag_is_named(refused):
    assert refused(data__paths=()) == "config.data.paths is empty; name a file: --config.data.paths=train.jsonl"


def test_held_out_rows_are_never_trained_on_and_depend_on_the_seed_alone(build, tiny_rows):
    one, same, other = build(seed=1), build(seed=1, steps=30), build(seed=2)
    asked = lambda x: [item.prompt for item in x.held_out.items]
    assert one.held_out.rows == 3  # 5 % of 60
    assert asked(one) == asked(same) != asked(other)
    trained = {str(ids) for dataset in one.loader._sets for ids in (e.ids.tolist() for e in dataset.examples)}
    held = {str(row) for row in np.concatenate([b.tokens for b in one.held_out.batches]).tolist()}
    assert len(trained) == 57
    assert not trained & held
    texts = [row["messages"][0]["content"] for row in map(json.loads, tiny_rows.read_text().splitlines())]
    assert set(asked(one)) < set(texts)


def test_the_data_hash_changes_with_one_token_and_with_the_mask(build, tmp_path):
    hashes = set()
    for number, word in enumerate(("red", "blue")):
        found = bases.rows(20)
        found[7]["messages"][1]["content"] = word
        path = bases.write_rows(tmp_path / f"{number}.jsonl", found)
        hashes |= {build(data__paths=(str(path),), data__train_on=on).data.hash for on in ("assistant", "all")}
    assert len(hashes) == 4


def test_derived_numbers_are_right(build):
    facts = build(**{"adapter.rank": 4, "data.batch_size": 16, "microbatches": 2, "steps": 20}).derived
    vocabulary, width, wide, keys = 291, 32, 64, 16
    layer = 2 * width * width + 2 * width * keys + 3 * width * wide + 2 * width
    total = vocabulary * width + width + 2 * layer
    low = 2 * 4 * (2 * (width + width) + 2 * (width + keys) + 3 * (width + wide))
    assert facts["model"] == f"llama, {total:,} parameters, {total * 4 / 1024:,.1f} KiB"
    assert facts["trainable"] == f"{low:,} ({low / total:.2%}), {low * 4 / 1024:,.1f} KiB"
    assert facts["optimizer"] == f"adamw, {(low * 8 + 8) / 1024:,.1f} KiB"  # two moments, and two counts
    assert facts["batch"] == "16 rows in 2 part(s), up to 1,024 tokens a step"
    assert facts["epoch"] == "1.8 steps; 20 steps are 11.03 epochs"  # 57 rows of 30 tokens, two in a row of 64
    assert facts["held out"].startswith("3 rows of ")
    assert facts["devices"] == "8 x cpu, mesh {'data': 8, 'fsdp': 1, 'tensor': 1}"


def test_what_is_printed_says_that_copies_of_held_out_rows_are_not_trained_on(build, tmp_path):
    path = bases.write_rows(tmp_path / "twice.jsonl", bases.rows(40) * 2)
    built = build(**{"data.paths": (str(path),)})
    facts = built.derived["held out"]
    assert facts == f"4 rows of {path}, not trained on, nor are 4 equal to them"
    assert len(built.data.train[0]) == 72


def test_the_optimizers_state_can_lie_on_the_host_in_8_bits(build):
    built = build(**{"optimizer.offload": "host", "optimizer.name": "adamw8bit", "adapter.name": "none"})
    laid, shapes = jax.tree.leaves(built.state_shardings.opt_state), jax.tree.leaves(built.abstract_state.opt_state)
    assert {s.memory_kind for s, x in zip(laid, shapes, strict=True) if x.ndim} == {"pinned_host"}
    assert {s.memory_kind for s in jax.tree.leaves(built.state_shardings.trainable)} == {"device"}
    assert built.derived["optimizer"].endswith(" KiB, in host memory")
    assert "uint8" in {str(x.dtype) for x in shapes}


def test_a_run_that_sees_few_rows_very_often_is_told_so(build):
    assert "lower config.steps" in build(steps=100).derived["epoch"]
    assert "lower config.steps" not in build(steps=20).derived["epoch"]


def test_full_fine_tuning_trains_every_parameter_in_float32(build):
    built = build(adapter__name="none", model__weights="bfloat16")
    base, trainable = built.abstract_base, built.abstract_state.trainable
    assert {str(leaf.dtype) for leaf in (base.embed_tokens, base.norm)} == {"bfloat16"}
    assert trainable.embed_tokens.shape == base.embed_tokens.shape
    assert str(trainable.blocks.q_proj.dtype) == "float32"
