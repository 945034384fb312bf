"""The section `adapter` of a config becomes the adapters that it describes."""

import pytest

from ftjax import config as configs
from ftjax import experiment, tree
from ftjax.adapters import dora, ia3, lora, shifted, tables, vera
from ftjax.errors import UserError
from tests import bases

V, D, F, KV, LAYERS, R = 291, 32, 64, 16, 2, 8
LOW = R * (2 * (D + D) + 2 * (D + KV) + 3 * (D + F)) * LAYERS  # A and B of all projections
OUTS = (2 * D + 2 * KV + 2 * F + D) * LAYERS


@pytest.fixture(scope="module")
def trainable(tiny_base, tiny_rows):
    """Returns a function: changes of a small config -> (the abstract trainables, the scalars that train of them)."""

    def make(**changes):
        config = configs.load(f"{bases.ROOT}/configs/sft/jsonl.py:data={tiny_rows},model={tiny_base}")
        built = experiment.build(
            configs.override(config, bases.SMALL | {"adapter." + k: v for k, v in changes.items()})
        )
        return built.abstract_state.trainable, int(built.derived["trainable"].split()[0].replace(",", ""))

    return make


@pytest.mark.parametrize(
    ("name", "node", "count"),
    [
        ("lora", lora.LoRA, LOW),
        ("dora", dora.DoRA, LOW + OUTS),
        ("pissa", shifted.Shifted, LOW),
        ("olora", shifted.Shifted, LOW),
        ("vera", vera.VeRA, OUTS + 7 * R * LAYERS),
    ],
)
def test_every_type_is_built_by_its_name_and_its_constants_are_not_counted(name, node, count, trainable):
    made, trains = trainable(name=name)
    assert isinstance(made.blocks.down_proj, node)
    assert trains == count


def test_ia3_scales_the_inputs_of_what_is_feedforward_and_the_outputs_of_the_rest(trainable):
    made, trains = trainable(name="ia3", targets="k_proj,v_proj,down_proj")
    assert isinstance(made.blocks.k_proj, ia3.IA3)
    assert (made.blocks.k_proj.l.shape, made.blocks.down_proj.l.shape) == ((LAYERS, KV), (LAYERS, F))
    assert trains == LAYERS * (2 * KV + F)


def test_rows_copies_and_low_rank_deltas_of_the_embedding_train_beside_the_adapters(trainable):
    made, trains = trainable(trainable_tokens=(5, 9))
    assert (made.embed_tokens.indices, made.embed_tokens.tied) == ((5, 9), True)
    assert trains == LOW + 2 * D
    made, trains = trainable(modules_to_save=("embed_tokens",))
    assert isinstance(made.embed_tokens, tables.Copy)
    assert trains == LOW + V * D
    made, trains = trainable(modules_to_save=("embed_tokens",), ensure_weight_tying=True)
    assert made.embed_tokens.shape == (V, D)
    made, trains = trainable(targets="q_proj,embed_tokens", name="dora")
    assert tree.paths(made)["embed_tokens.m"].shape == (D,)
    assert trains == R * (D + D) * LAYERS + D * LAYERS + R * (V + D) + D


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"name": "lroa"}, "config.adapter.name is 'lroa'.*lora"),
        ({"trainable_tokens": (V,)}, f"trainable token {V} is not in the vocabulary of {V}"),
        ({"modules_to_save": ("lm_haed",)}, "modules_to_save has 'lm_haed'.*lm_head"),
        ({"name": "pissa", "targets": "embed_tokens"}, "does not go on embed_tokens"),
        ({"name": "vera", "rank_pattern": "q_proj=4"}, "shares its matrices between all weights"),
        ({"d_initial": 0.0}, "config.adapter.d_initial is 0.0; it must be above 0"),
    ],
)
def test_what_makes_no_sense_is_one_line_before_a_weight_is_read(changes, match, trainable):
    with pytest.raises(UserError, match=match) as error:
        trainable(**changes)
    assert "\n" not in str(error.value)
