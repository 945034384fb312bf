import json

from golden import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from ftjax import tree
from ftjax.adapters import attach, lora, merge
from ftjax.checkpoint import hf_import, peft
from ftjax.errors import UserError
from ftjax.models import decoder

logits = jax.jit(decoder.logits, static_argnums=2)
Q0 = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folders = {base: cases.unpack(base, tmp_path_factory.mktemp(base)) for base, _ in cases.ADAPTERS.values()}
    return {base: hf_import.load(folder) for base, folder in folders.items()}


@pytest.fixture
def qv(tmp_path, bases):
    """(folder, base, config) of an adapter on q_proj and v_proj."""
    config, base = bases["llama_plain"]
    return cases.unpack("lora_qv", tmp_path / "adapter"), base, config


def edit(folder, **keys):
    """Changes keys of adapter_config.json; None removes a key."""
    file = folder / "adapter_config.json"
    facts = json.loads(file.read_text()) | keys
    file.write_text(json.dumps({key: value for key, value in facts.items() if value is not None}))


def edit_tensors(folder, **changes):
    """Changes tensors of the adapter; None removes one."""
    file = folder / "adapter_model.safetensors"
    found = safetensors_numpy.load_file(file) | changes
    safetensors_numpy.save_file({name: value for name, value in found.items() if value is not None}, file)


def refused(qv, match):
    with pytest.raises(UserError, match=match) as error:
        peft.load(*qv)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("case", cases.ADAPTERS)
def test_attached_and_merged_logits_equal_those_of_peft(case, bases, tmp_path):
    config, base = bases[cases.ADAPTERS[case][0]]
    golden, given = cases.read(case), cases.inputs()
    adapters = peft.load(cases.unpack(case, tmp_path / "adapter"), base, config)
    for kind, model in (("attached", attach.attach(base, adapters)), ("merged", merge.merge(base, adapters))):
        found = logits(model, given["packed"], config, None, given["packed_segments"])
        np.testing.assert_allclose(found, golden[f"{kind}_packed_logits"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("case", cases.ADAPTERS)
def test_what_is_written_has_pefts_names_shapes_and_numbers(case, bases, tmp_path):
    config, base = bases[cases.ADAPTERS[case][0]]
    adapters = peft.load(cases.unpack(case, tmp_path / "adapter"), base, config)
    rslora = cases.read(case)["config"].get("use_rslora", False)
    peft.save(tmp_path / "out", adapters, config, "some/base", rslora=rslora)
    written = safetensors_numpy.load_file(tmp_path / "out" / "adapter_model.safetensors")
    theirs = {name: value for name, value in cases.read(case)["tensors"].items() if "base_layer" not in name}
    assert {name: value.shape for name, value in written.items()} == {n: v.shape for n, v in theirs.items()}
    assert {value.dtype.name for value in written.values()} == {"float32"}
    again = peft.load(tmp_path / "out", base, config)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), adapters, again)
    facts = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert facts["base_model_name_or_path"] == "some/base"
    assert facts.keys() <= cases.read(case)["config"].keys()
    same = {"peft_type", "task_type", "bias", "use_rslora", "use_dora", "lora_bias", "fan_in_fan_out", "lora_dropout"}
    same = (same | {"trainable_token_indices", "ensure_weight_tying", "feedforward_modules"}) & facts.keys()
    assert {k: facts[k] for k in same} == {k: cases.read(case)["config"][k] for k in same}
    assert set(facts["modules_to_save"] or []) == set(cases.read(case)["config"]["modules_to_save"] or [])


def test_equal_layers_are_written_as_the_plain_config_that_peft_writes(qv, tmp_path):
    folder, base, config = qv
    peft.save(tmp_path / "out", peft.load(*qv), config, None)
    ours = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    theirs = json.loads((folder / "adapter_config.json").read_text())
    assert {**ours, "target_modules": set(ours["target_modules"])} == {
        **{key: theirs[key] for key in ours},
        "target_modules": set(theirs["target_modules"]),
    }
    del base


@pytest.mark.parametrize(("rslora", "rank", "alpha"), [(False, 3, 16), (True, 7, 32), (False, 16, 7.5), (True, 5, 1)])
def test_alpha_and_rank_survive_the_round_trip(rslora, rank, alpha, bases, tmp_path):
    config, base = bases["qwen3_plain"]
    rng = np.random.default_rng(0)

    def adapter(path, weight):
        r = 2 if path == "blocks.up_proj" else rank
        draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
        a, b = draw(*weight.shape[:2], r), draw(weight.shape[0], r, weight.shape[2])
        return lora.LoRA(a=a, b=b, scale=alpha / r**0.5 if rslora else alpha / r, dropout=0.1)

    chosen = {p: adapter(p, w) for p, w in tree.paths(base).items() if p.endswith("_proj")}
    adapters = jax.tree_util.tree_map_with_path(lambda path, _: chosen.get(tree.name(path)), base)
    peft.save(tmp_path / "out", adapters, config, None, rslora=rslora)
    facts = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (facts["r"], facts["lora_alpha"], facts["use_rslora"]) == (rank, alpha, rslora)
    assert (facts["rank_pattern"], facts["alpha_pattern"], facts["lora_dropout"]) == ({"up_proj": 2}, {}, 0.1)
    again = peft.load(tmp_path / "out", base, config)
    assert jax.tree.structure(again) == jax.tree.structure(adapters)  # scales and dropout are part of the structure
    jax.tree.map(np.testing.assert_array_equal, again, adapters)


def test_layers_without_an_adapter_are_zeros_that_stay_zero(bases, tmp_path):
    config, base = bases["llama_linear_biases"]
    adapters = peft.load(cases.unpack("lora_some_layers", tmp_path / "adapter"), base, config)
    given = cases.inputs()
    loss = lambda a: logits(attach.attach(base, a), given["plain"], config, None, given["plain_segments"]).var()
    for path, gradient in tree.paths(jax.grad(loss)(adapters)).items():
        assert np.abs(gradient[0]).max() > 0, path
        np.testing.assert_array_equal(gradient[1], 0)


def test_a_folder_with_content_is_refused_and_an_earlier_adapter_replaced_only_when_asked(qv, tmp_path):
    _, base, config = qv
    adapters = peft.load(*qv)
    peft.save(tmp_path / "out", adapters, config, "first")
    with pytest.raises(UserError, match="not empty"):
        peft.save(tmp_path / "out", adapters, config, "second")
    peft.save(tmp_path / "out", adapters, config, "second", replace=True)
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"] == "second"
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt"):
        peft.save(tmp_path / "out", adapters, config, "third", replace=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "out"]
    del base


def test_a_fully_fine_tuned_model_has_no_peft_form(qv, tmp_path):
    _, base, config = qv
    with pytest.raises(UserError, match="weights, not one type of adapter"):
        peft.save(tmp_path / "out", base, config, None)
    with pytest.raises(UserError, match="no adapters"):
        peft.save(tmp_path / "out", jax.tree.map(lambda _: None, base), config, None)


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"peft_type": "ADALORA"}, "peft_type='ADALORA' is not implemented"),
        ({"r": None}, "'r' is missing"),
        ({"lora_alpha": None}, "'lora_alpha' is missing"),
        ({"target_modules": None}, "'target_modules' is missing"),
        ({"r": 0}, "r=0 is not a whole number"),
        ({"lora_alpha": "big"}, "lora_alpha='big' is not a number"),
        ({"target_modules": ["c_attn"]}, r"\['c_attn'\] match nothing; known: down_proj, embed_tokens, gate_proj"),
        ({"target_modules": ["q_proj", "v_proj", "c_attn"]}, "c_attn adapt nothing"),
        ({"target_modules": ["q_proj", "v_proj", "embed_tokens"]}, "embed_tokens.lora_embedding_A is missing"),
        ({"use_dora": True}, "q_proj.lora_magnitude_vector is missing"),
        ({"lora_bias": True}, "lora_bias=True"),
        ({"bias": "all"}, "bias='all'"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out=True"),
        ({"modules_to_save": ["lm_head"]}, "lm_head.weight is missing, though .* has it in modules_to_save"),
        ({"modules_to_save": ["score"]}, "modules_to_save score are not modules of this base"),
        ({"task_type": "SEQ_CLS"}, "score.weight is missing, though .* says task_type SEQ_CLS"),
        ({"task_type": "SEQ_2_SEQ_LM"}, "task_type='SEQ_2_SEQ_LM' is not implemented; known: 'CAUSAL_LM', 'SEQ_CLS'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa' also changes the base"),
        ({"target_parameters": ["experts.gate_up_proj"]}, "target_parameters"),
        ({"trainable_token_indices": [3]}, "embed_tokens.token_adapter.trainable_tokens_delta is missing"),
        ({"trainable_token_indices": [61]}, "trainable token 61 is not in the vocabulary of 61"),
        ({"trainable_token_indices": [3, 3]}, "name a token twice"),
        ({"trainable_token_indices": {"score": [3]}}, "trainable_token_indices name score"),
        ({"trainable_token_indices": 3}, "trainable_token_indices=3 is neither a list"),
        ({"peft_type": "IA3"}, "'feedforward_modules' is missing; an adapter of type IA3"),
        ({"peft_type": "IA3", "feedforward_modules": []}, "is not implemented; refused, not ignored"),
        ({"peft_type": "VERA"}, "is not implemented; refused, not ignored"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication"),
        ({"of_the_future": 0.5}, "of_the_future=0.5 is not implemented; refused, not ignored"),
        ({"r": 8}, "its rank is 4, adapter_config.json says 8"),
        ({"target_modules": ["q_proj", "v_proj", "o_proj"]}, "o_proj.lora_A.weight is missing"),
        ({"target_modules": ["q_proj"]}, "does not explain: .*v_proj"),
        ({"layers_to_transform": [0]}, r"does not explain: .*layers\.1"),
    ],
)
def test_what_is_not_supported_missing_or_left_over_is_an_error_that_names_it(qv, keys, match):
    edit(qv[0], **keys)
    refused(qv, match)


def test_a_missing_a_spare_and_a_misshapen_tensor_are_errors_that_name_it(qv):
    folder = qv[0]
    edit_tensors(folder, **{"base_model.model.lm_head.weight": np.ones((61, 32), np.float32)})
    refused(qv, "does not explain: base_model.model.lm_head.weight")
    edit_tensors(folder, **{"base_model.model.lm_head.weight": None, Q0: None})
    refused(qv, f"{Q0} is missing")
    edit_tensors(folder, **{Q0: np.ones((4, 96), np.float32)})
    refused(qv, r"is \(4, 96\), not \(4, 32\).*another base.*reads 96 numbers; in this one it reads 32")


def test_an_adapter_file_that_is_cut_short_or_pickled_is_an_error(qv):
    file = qv[0] / "adapter_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-8])
    refused(qv, "not a whole safetensors file")
    file.rename(qv[0] / "adapter_model.bin")
    refused(qv, "adapter_model.bin; convert that to safetensors")


def test_a_copy_of_the_head_must_be_the_bases_own(bases, tmp_path):
    config, base = bases["llama_plain"]
    folder = cases.unpack("lora_head", tmp_path / "adapter")
    name = "base_model.model.lm_head.base_layer.weight"
    copied = safetensors_numpy.load_file(folder / "adapter_model.safetensors")[name]
    edit_tensors(folder, **{name: copied + 1})
    refused((folder, base, config), "does not explain: base_model.model.lm_head.base_layer.weight")


def test_exclude_modules_and_layers_pattern_follow_peft(qv):
    folder, base, config = qv
    edit(folder, target_modules=["q_proj", "v_proj", "k_proj"], exclude_modules=["k_proj"])
    refused(qv, "k_proj adapt nothing")
    edit(folder, target_modules="all-linear", exclude_modules=r".*\.(k_proj|o_proj|\w+_proj\b(?<!q_proj)(?<!v_proj))")
    assert peft.load(*qv).blocks.q_proj is not None
    edit(folder, target_modules=["q_proj", "v_proj"], layers_to_transform=[0, 1, 2], layers_pattern="layers")
    assert peft.load(*qv).blocks.v_proj.a.shape == (3, 32, 4)
    del base, config


def test_the_stories_adapter_gives_the_logits_that_peft_gave(shared_data):
    config, base = hf_import.load(shared_data / "stories260k_hf")
    folder = shared_data / "stories260k_peft_lora"
    adapters = peft.load(folder, base, config)
    texts = json.loads((folder / "golden.json").read_text())["texts"]
    longest = max(len(text["ids"]) for text in texts)
    ids = np.array([text["ids"] + [0] * (longest - len(text["ids"])) for text in texts])
    segments = np.array([[1] * len(text["ids"]) + [0] * (longest - len(text["ids"])) for text in texts])
    for model in (attach.attach(base, adapters), merge.merge(base, adapters)):
        found = logits(model, ids, config, None, segments)
        for row, text in enumerate(texts):
            np.testing.assert_allclose(found[row, len(text["ids"]) - 1], text["last_logits"], rtol=0, atol=5e-5)


def test_an_adapter_of_another_architecture_is_refused(shared_data):
    config, base = hf_import.load(shared_data / "stories260k_hf")
    refused((shared_data / "peft_adapter_gpt2", base, config), "fan_in_fan_out=True is not implemented")
