"""Live against transformers and PEFT: reward models as adapters of task SEQ_CLS, both ways, and merged."""

import json
import pkgutil
import warnings

from golden import cases
import jax
import numpy as np
from parity import peers
import peft as their_peft
import pytest
from safetensors import numpy as safetensors_numpy
import torch
import transformers
from transformers.models.auto import modeling_auto

from ftjax import export, inference, scoring
from ftjax.adapters import attach
from ftjax.checkpoint import hf_export, hf_import, peft, reward_folder
from ftjax.models import decoder, families
from tests import bases

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
hidden = jax.jit(decoder.hidden, static_argnums=2)
LENGTHS = (20, 13, 1)
FEW = {"r": 2, "lora_alpha": 4}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
# base -> adapter; every family, with and without a tied embedding
FAMILIES = dict.fromkeys(
    (
        *("llama_plain", "llama_linear_biases", "mistral_window", "qwen2_plain", "qwen3_plain", "gemma2_capped"),
        *("gemma3_old_keys", "smollm3_windows_biases", "olmo2_biases"),
    ),
    FEW | {"target_modules": "all-linear"},
)
FAMILIES |= {"phi3_window": FEW | {"target_modules": ["qkv_proj", "gate_up_proj", "down_proj"]}}
FAMILIES |= dict.fromkeys(("mixtral_window", "qwen3_moe_normalized"), FEW | {"target_modules": ATTENTION})
KINDS = {
    "copy of a tied embedding": (
        "qwen2_plain",
        FEW | {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    ),
    "copy of an embedding": ("llama_plain", FEW | {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}),
    "LoRA on a tied embedding": ("qwen2_plain", FEW | {"target_modules": ["q_proj", "embed_tokens"]}),
    "rows of tokens": ("qwen2_plain", FEW | {"target_modules": ["v_proj"], "trainable_token_indices": [40, 3, 7]}),
    "the head named": ("llama_plain", FEW | {"target_modules": ["q_proj"], "modules_to_save": ["score"]}),
    "DoRA": ("llama_plain", FEW | {"target_modules": ["q_proj", "up_proj"], "use_dora": True}),
    "rsLoRA, some layers": (
        "llama_plain",
        {"r": 3, "lora_alpha": 5, "target_modules": ["o_proj"], "use_rslora": True, "layers_to_transform": [0, 2]},
    ),
    "IA3": (
        "llama_plain",
        {"peft_type": "IA3", "target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    ),
    "VeRA": ("llama_plain", {"peft_type": "VERA", "r": 4, "target_modules": ["q_proj", "down_proj"]}),
}
ALL = {base: (base, arguments) for base, arguments in FAMILIES.items()} | KINDS


def given():
    """Rows of several lengths, with zeros behind; no token of a row is 0."""
    tokens = np.random.default_rng(3).integers(3, cases.V, (len(LENGTHS), max(LENGTHS))).astype(np.int32)
    return tokens * (np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None])


def ours(model, config):
    tokens = given()
    last_BD = hidden(model, tokens, config, None, (tokens != 0).astype(np.int32))[
        np.arange(len(tokens)), np.array(LENGTHS) - 1
    ]
    return np.asarray(last_BD @ model.score)[:, 0]


@pytest.fixture
def trained(tmp_path):
    """Returns (base folder, config, base, PEFT's reward model), of which the adapter lies in tmp_path / "theirs"."""

    def make(case):
        name, arguments = ALL[case]
        peers.model(cases.MODELS[name], seed=5).save_pretrained(tmp_path / "base")
        wrapped = peers.adapted(peers.scorer(tmp_path / "base"), {"task_type": "SEQ_CLS"} | arguments, seed=6)
        wrapped.save_pretrained(tmp_path / "theirs")
        return tmp_path / "base", *hf_import.load(tmp_path / "base"), wrapped

    return make


@pytest.mark.parametrize("case", ALL)
def test_a_reward_model_of_peft_scores_the_same_here_and_a_saved_one_the_same_there(case, trained, tmp_path):
    folder, config, base, wrapped = trained(case)
    wanted = peers.scores(wrapped, given())
    adapters = peft.load(tmp_path / "theirs", base, config)
    assert adapters.score.shape == (config.d_model, 1)
    np.testing.assert_allclose(ours(attach.attach(base, adapters), config), wanted, rtol=0, atol=2e-5)
    unadapted = ours(base.replace(score=adapters.score), config)
    assert np.abs(unadapted - wanted).max() > 1e-2  # the adapter matters, not the head alone

    rslora = ALL[case][1].get("use_rslora", False)
    peft.save(tmp_path / "ours", adapters, config, str(folder), rslora=rslora)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = their_peft.PeftModel.from_pretrained(peers.scorer(folder), tmp_path / "ours").eval()
    assert not [str(w.message) for w in caught if "adapter" in str(w.message) or "missing" in str(w.message).lower()]
    assert isinstance(loaded, their_peft.PeftModelForSequenceClassification)
    np.testing.assert_allclose(peers.scores(loaded, given()), wanted, rtol=0, atol=2e-5)
    written = safetensors_numpy.load_file(tmp_path / "ours" / "adapter_model.safetensors")
    state = their_peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    assert {n: v.shape for n, v in written.items()} == {n: tuple(v.shape) for n, v in state.items()}
    for name, value in state.items():
        np.testing.assert_array_equal(written[name], value.detach().numpy())
    facts, theirs = (json.loads((tmp_path / at / "adapter_config.json").read_text()) for at in ("ours", "theirs"))
    assert (facts["task_type"], theirs["task_type"]) == ("SEQ_CLS", "SEQ_CLS")
    assert {*facts["modules_to_save"], "classifier"} == set(theirs["modules_to_save"])


@pytest.mark.parametrize("case", [*FAMILIES, "copy of a tied embedding", "LoRA on a tied embedding", "DoRA"])
def test_a_merged_reward_model_loads_whole_in_transformers_and_scores_the_same(case, trained, tmp_path):
    folder, config, base, wrapped = trained(case)
    adapters = peft.load(tmp_path / "theirs", base, config)
    facts = reward_folder.Facts(0, "<pad>", None)
    hf_export.save(tmp_path / "out", attach.attach(base, adapters), config, folder, reward=facts)
    loaded, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "out", attn_implementation="eager", output_loading_info=True
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert (loaded.config.num_labels, loaded.config.pad_token_id) == (1, 0)
    assert loaded.config.architectures == [type(loaded).__name__]
    np.testing.assert_allclose(peers.scores(loaded.eval(), given()), peers.scores(wrapped, given()), rtol=0, atol=2e-5)


def test_every_family_names_the_class_that_transformers_has_for_it():
    known = modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    named = [found.name for found in pkgutil.iter_modules(families.__path__) if not found.name.startswith("_")]
    assert {name: reward_folder.architecture(name) for name in named} == {name: known[name] for name in named}


def test_text_is_scored_there_as_here_also_where_the_tokenizer_padded_with_the_end_of_a_text(tmp_path):
    base = bases.write_base(tmp_path / "base")
    about = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps(about | {"pad_token": "<|im_end|>"}))
    wrapped = peers.adapted(peers.scorer(base), {"task_type": "SEQ_CLS"} | FAMILIES["llama_plain"], seed=6)
    wrapped.save_pretrained(tmp_path / "adapter")
    (tmp_path / "adapter" / "score.json").write_text('{"mean": 0.5, "std": 2.0}')
    chats = [[*row["messages"]] for row in bases.rows(3)]
    chats[1][-1]["content"] += " and much more to say"
    settings = {"template_name": None, "quant": inference.DENSE, "weights": None, "dtype": "float32"}
    scorer = scoring.load_adapters(str(base), [tmp_path / "adapter"], **settings)
    here = scorer.score([chat[:-1] for chat in chats], [chat[-1:] for chat in chats])

    asked = export.of_model(str(base), adapter=str(tmp_path / "adapter"), template_name=None, rank=None)
    words = {"dtype": None, "base": None, "max_shard_bytes": 10**9, "command": "c", "say": print}
    export.merged(asked, tmp_path / "out", **words)
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    tok = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    texts = [tok.apply_chat_template(chat, tokenize=False).rstrip("\n") for chat in chats]
    batch = tok(texts, padding=True, return_tensors="pt", add_special_tokens=False)
    assert (tok.pad_token, loaded.config.pad_token_id) == ("<|pad|>", 0)
    normal = json.loads((tmp_path / "out" / "score.json").read_text())
    with torch.no_grad():
        found = loaded(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0].numpy()
    np.testing.assert_allclose((found - normal["mean"]) / normal["std"], here, rtol=0, atol=1e-5)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "AutoModelForSequenceClassification.from_pretrained" in card
