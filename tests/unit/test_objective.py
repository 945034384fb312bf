"""Loss, reference and adapter of a config fit together, or one line says what does not, and the way out."""

import pytest

from ftjax import config as configs
from ftjax import experiment
from ftjax.errors import UserError
from tests import bases


@pytest.fixture
def refused(tiny_base, tiny_pairs):
    """Returns a function: kind of config and changes -> the one line that says what is wrong with them."""

    def message(kind, **changes):
        with pytest.raises(UserError) as caught:
            experiment.build(bases.preferences(kind, tiny_base, tiny_pairs, **changes))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return message


RANGES = [
    ("dpo", "loss.beta", 0.0, "it must be above 0"),
    ("kto", "loss.beta", -0.1, "it must be above 0"),
    ("dpo", "loss.label_smoothing", 0.5, "it must be in [0, 0.5): half of the labels flipped tell nothing"),
    ("dpo", "loss.label_smoothing", -0.1, "it must be in [0, 0.5): half of the labels flipped tell nothing"),
    ("dpo", "loss.names", (1,), "it must be names of losses, (dpo, sft)"),
    ("dpo", "loss.weights", (-1.0,), "it must be numbers above 0"),
    ("dpo", "loss.weights", ("a",), "it must be numbers above 0"),
    ("dpo", "loss.tau", 0.0, "it must be above 0"),
    ("dpo", "loss.gamma", -1.0, "it must be at least 0"),
    ("dpo", "loss.ld_alpha", 1.5, "it must be between 0 and 1"),
    ("kto", "loss.desirable_weight", 0.0, "it must be above 0"),
    ("reward", "loss.centring", -1.0, "it must be at least 0"),
    ("dpo", "reference.sync_every", -1, "it must be at least 0 (0: never)"),
    ("dpo", "reference.sync_alpha", 1.5, "it must be between 0 and 1"),
    ("dpo", "data.row_length", -1, "it must be at least 0 (0: as long as the largest row needs)"),
    ("dpo", "eval.kl_prompts", -1, "it must be at least 0 (0: never)"),
]


@pytest.mark.parametrize(("kind", "key", "value", "rule"), RANGES)
def test_a_number_out_of_its_range_is_refused_with_the_range(refused, kind, key, value, rule):
    assert refused(kind, **{key: value}) == f"config.{key} is {value}; {rule}"


DIFFERENCES = "dpo, sigmoid, sigmoid_norm, hinge, ipo, exo_pair, robust, discopop"
ALGORITHMS = "dpo, grpo, kto, online_dpo, ppo, raft, reward_model, sft"
MISTAKES = [
    ("dpo", {"loss.names": ("dppo",)}, "config.loss.names has 'dppo'. Did you mean 'dpo'? Known: dpo, sigmoid, hinge,"),
    ("dpo", {"loss.names": ("metrics",)}, "config.loss.names has 'metrics'. Known: dpo"),
    ("dpo", {"loss.names": ()}, "config.loss.names is empty; name a loss: --config.loss.names=dpo"),
    ("dpo", {"loss.names": ("dpo", "dpo")}, "config.loss.names ('dpo', 'dpo') has one twice; name it once, with its"),
    (
        "dpo",
        {"loss.names": ("dpo", "sft"), "loss.weights": (1.0,)},
        "config.loss.weights (1.0,) must be 2 as config.loss.names ('dpo', 'sft'), or empty (1 each)",
    ),
    ("dpo", {"loss.names": ("exo_pair",)}, "config.loss.label_smoothing is 0, but exo_pair is not finite without; the"),
    ("kto", {"loss.name": "ktoo"}, "config.loss.name is 'ktoo'. Did you mean 'kto'? Known: kto, apo_zero_unpaired"),
    ("reward", {"loss.name": "bradly_terry"}, "config.loss.name is 'bradly_terry'. Did you mean 'bradley_terry'?"),
    (
        "reward",
        {"loss.name": "pointwise"},
        "config.loss: margin_scale and centring are of pairs; set both to 0 for pointwise",
    ),
    (
        "dpo",
        {"loss.divergence": "forwardkl"},
        "config.loss.divergence is 'forwardkl'. Did you mean 'forward_kl'? Known: reverse_kl",
    ),
    (
        "dpo",
        {"loss.divergence": "forward_kl", "loss.names": ("dpo", "bco_pair")},
        f"config.loss.divergence forward_kl goes with losses of a difference of log-ratios ({DIFFERENCES}), not with "
        "bco_pair; set config.loss.divergence=reverse_kl",
    ),
    ("dpo", {"algorithm": "kdo"}, f"config.algorithm is 'kdo'. Did you mean 'kto'? Known: {ALGORITHMS}"),
    ("dpo", {"algorithm": "completions"}, f"config.algorithm is 'completions'. Known: {ALGORITHMS}"),
    (
        "dpo",
        {"algorithm": "kto"},
        "config.algorithm is kto, but the config has no loss.desirable_weight, so it is one of another algorithm; take "
        "a config file that calls defaults.kto(), as those in configs/smoke/",
    ),
    ("kto", {"algorithm": "dpo"}, "the config has no loss.names, so it is one of another algorithm; take a config"),
    ("dpo", {"algorithm": "reward_model"}, "the config has no loss.margin_scale, so it is one of another algorithm"),
    ("reward", {"algorithm": "dpo"}, "the config has no loss.names, so it is one of another algorithm"),
    ("dpo", {"algorithm": "sft"}, "the config has no neftune_alpha, so it is one of another algorithm"),
    (
        "dpo",
        {"adapter.dropout": 0.1},
        "config.adapter.dropout is 0.1, but dpo compares two models, which dropout would make noise of; set 0",
    ),
    ("kto", {"adapter.dropout": 0.1}, "kto compares two models, which dropout would make noise of; set 0"),
    (
        "dpo",
        {"loss.names": ("aot",), "microbatches": 2, "data.batch_size": 16},
        "config.microbatches is 2, but aot is of a whole batch: parts would give another loss; set 1, with a smaller",
    ),
    ("kto", {"microbatches": 2, "data.batch_size": 16}, "config.microbatches is 2, but kto is of a whole batch"),
    ("dpo", {"loss.bata": 0.1}, "the config has no 'loss.bata'. Did you mean 'loss.beta'?"),
    ("reward", {"loss.nam": "x"}, "the config has no 'loss.nam'. Did you mean 'loss.name'?"),
    ("dpo", {"loss.name": "ipo"}, "the config has no 'loss.name'. Did you mean 'loss.names'?"),
]


@pytest.mark.parametrize(("kind", "changes", "says"), MISTAKES)
def test_a_wrong_name_or_a_contradiction_is_refused_with_the_way_out(refused, kind, changes, says):
    assert says in refused(kind, **changes)


REFERENCES = [
    ({"reference.kind": "bas"}, "config.reference.kind is 'bas'. Did you mean 'base'? Known: base, start, none"),
    (
        {"reference.kind": "none"},
        "config.reference.kind is none, but dpo is held against a reference; set config.reference.kind=base, or start",
    ),
    (
        {"loss.names": ("simpo", "sft")},
        "config.reference.kind is base, but simpo, sft needs no reference; set config.reference.kind=none",
    ),
    (
        {"loss.names": ("simpo",), "reference.kind": "none", "reference.cache": True},
        "config.reference.cache is True, but simpo needs no reference; set config.reference.cache=false",
    ),
    (
        {"loss.names": ("simpo",), "reference.kind": "none", "reference.sync_every": 2},
        "config.reference.sync_every is 2, but simpo needs no reference; set config.reference.sync_every=0",
    ),
    (
        {"adapter.name": "none"},
        "config.reference.kind base with config.adapter.name none: full fine-tuning changes the base; set "
        "config.reference.cache=true (no second copy of the weights), or config.reference.kind=start (a copy)",
    ),
    (
        {"reference.sync_every": 2},
        "config.reference.sync_every is 2, and what it moves is a copy; set config.reference.kind=start and",
    ),
    (
        {"reference.sync_every": 2, "reference.kind": "start", "reference.cache": True},
        "config.reference.sync_every is 2, and what it moves is a copy",
    ),
    (
        {"reference.model": "nowhere", "reference.cache": True},
        "there is no model folder 'nowhere'; give a Hugging Face folder, a .gguf file, or: base",
    ),
    ({"reference.model": "base", "reference.cache": True}, "config.reference.model base has another tokenizer than "),
    (
        {"adapter.path": "there"},
        "config.reference.kind base with config.adapter.path: training would begin away from its reference; set "
        "config.reference.kind=start, which is the base with that adapter",
    ),
    ({"adapter.path": "there", "reference.cache": True}, "config.reference.kind base with config.adapter.path"),
]


@pytest.mark.parametrize(("changes", "says"), REFERENCES)
def test_a_reference_that_cannot_be_is_refused_with_the_way_out(refused, changes, says):
    assert says in refused("dpo", **changes)


def test_another_model_as_the_reference_wants_the_cache(refused, tiny_base):
    assert refused("dpo", reference__model=str(tiny_base)) == (
        f"config.reference.model is {tiny_base}, whose log-probabilities are computed before training; set "
        "config.reference.cache=true"
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"adapter.path": "nowhere"}, "nowhere"),
        ({"adapter.rank": 4}, "scale=2.0, tied=False) there and LoRA(a=(2, 64, 4)"),
        (
            {"adapter.alpha": 8.0},
            "scale=2.0, tied=False) there and LoRA(a=(2, 64, 8), b=(2, 8, 32), scale=1.0, tied=False) by",
        ),
        ({"adapter.rslora": True}, "scale=2.0, tied=False) there and LoRA("),
        (
            {"adapter.targets": "q_proj,v_proj"},
            "and none by config.adapter; set name, targets, rank, alpha and the like to those",
        ),
        ({"adapter.name": "ia3", "adapter.targets": "k_proj,v_proj,down_proj"}, "there and IA3("),
        ({"adapter.name": "none"}, "config.adapter.path is an adapter, but config.adapter.name none trains the base"),
    ],
)
def test_an_adapter_to_go_on_from_must_be_the_one_that_the_config_describes(refused, finished, changes, says):
    changes = {"adapter.path": str(finished.folder / "adapter"), "reference.kind": "start"} | changes
    assert says in refused("dpo", **changes)


def test_what_an_algorithm_is_fed_follows_from_its_loss(tiny_base, tiny_pairs):
    build = lambda kind, **changes: experiment.build(bases.preferences(kind, tiny_base, tiny_pairs, **changes))
    dpo = build("dpo").objective
    assert (dpo.data, dpo.mismatched, dpo.reward) == ("pairs", False, False)
    assert dpo.algorithm.reference is not None
    kto = build("kto").objective
    assert (kto.data, kto.mismatched) == ("labels", True)
    assert not build("kto", loss__name="apo_zero_unpaired", microbatches=1).objective.mismatched
    reward = build("reward", adapter__dropout=0.1).objective
    assert (reward.data, reward.reward, reward.algorithm.reference) == ("pairs", True, None)
    pointwise = build("reward", loss__name="pointwise", loss__centring=0.0).objective
    assert pointwise.data == "labels"
    cached = build("dpo", reference__cache=True).objective.algorithm
    assert cached.reference("base") == "base", "measured against the base, which is there"
    assert cached.extra is None
    assert build("dpo", loss__names=("simpo",), reference__kind="none").objective.algorithm.reference is not None
    whole = build("dpo", adapter__name="none", reference__kind="start").objective.algorithm
    assert whole.extra is not None


@pytest.mark.parametrize("name", ["simpo", "cpo", "orpo", "sft", "exo_pair", "aot", "discopop", "sigmoid_norm"])
def test_the_smoke_config_knows_what_each_loss_needs(name, tiny_base, tiny_pairs):
    config = configs.load(f"{bases.ROOT}/configs/smoke/dpo.py:model={tiny_base},loss={name}")
    small = bases.SMALL | {"data.paths": (str(tiny_pairs),), "eval.path": "", "eval.check": "", "data.batch_size": 8}
    built = experiment.build(configs.override(config, small))
    assert built.objective.data == "pairs"
