"""Live against transformers and PEFT: reward models as adapters of task SEQ_CLS, both ways, and merged."""

import json
import warnings

from golden import cases
import jax
import numpy as np
from parity import peers
import peft as their_peft
import pytest
from safetensors import numpy as safetensors_numpy

from ftjax.adapters import attach
from ftjax.checkpoint import hf_import, peft
from ftjax.models import decoder

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
