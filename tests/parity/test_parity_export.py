"""Live against PEFT and transformers: combined adapters, and what a merged folder needs beside weights."""

from golden import cases
import jax
import numpy as np
from parity import peers
import peft as their_peft
import pytest
import torch
import transformers

from ftjax.adapters import arithmetic, attach, lora
from ftjax.checkpoint import hf_export, hf_import, peft
from ftjax.models import decoder

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
logits = jax.jit(decoder.logits, static_argnums=2)
BASE = "llama_plain"


def ours(model, config):
    given = cases.inputs()
    return np.asarray(logits(model, given["packed"], config, None, given["packed_segments"]))


def theirs(model):
    return peers.logits(model, cases.inputs())["packed_logits"]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A model with two PEFT adapters on it, and its folder and theirs."""
    root = tmp_path_factory.mktemp("two")
    made = peers.model(cases.MODELS[BASE], seed=5)
    made.save_pretrained(root / "base")
    wrapped = None
    for seed, (name, alpha) in enumerate((("a", 8), ("b", 4))):
        settings = {"r": 3, "lora_alpha": alpha, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
        config = their_peft.LoraConfig(**settings)
        if wrapped is None:
            wrapped = their_peft.get_peft_model(made, config, adapter_name=name)
        else:
            wrapped.add_adapter(name, config)
        rng = np.random.default_rng(seed)
        with torch.no_grad():
            for key, parameter in sorted(wrapped.named_parameters()):
                if f".{name}." in key:
                    value = 0.15 * rng.standard_normal(tuple(parameter.shape))
                    parameter.copy_(torch.from_numpy(value.astype(np.float32)))
    wrapped.save_pretrained(root)
    return wrapped.eval(), root


@pytest.mark.parametrize(("kind", "combine"), [("cat", arithmetic.weighted_sum), ("linear", arithmetic.linear)])
@pytest.mark.parametrize("weights", [(0.7, 0.3), (1.5, -0.5)])
def test_a_combination_is_that_of_peft_here_and_back_there(two, kind, combine, weights, tmp_path):
    wrapped, root = two
    name = f"{kind}{weights[0]}"
    wrapped.add_weighted_adapter(["a", "b"], list(weights), name.replace(".", "_"), combination_type=kind)
    wrapped.set_adapter(name.replace(".", "_"))
    wanted = theirs(wrapped)
    config, base = hf_import.load(root / "base")
    made = combine([peft.load(root / one, base, config) for one in "ab"], weights)
    np.testing.assert_allclose(ours(attach.attach(base, made), config), wanted, rtol=0, atol=2e-5)
    peft.save(tmp_path / "out", made, config, base_name=str(root / "base"))
    fresh = transformers.AutoModelForCausalLM.from_pretrained(root / "base", attn_implementation="eager")
    again = their_peft.PeftModel.from_pretrained(fresh, tmp_path / "out").eval()
    np.testing.assert_allclose(theirs(again), wanted, rtol=0, atol=2e-5)


def test_transformers_stops_where_the_training_did(tmp_path):
    made = peers.model(cases.MODELS[BASE], seed=5)
    made.save_pretrained(tmp_path / "source")
    config, base = hf_import.load(tmp_path / "source")
    given = cases.inputs()["plain"][:1]
    first = int(np.argmax(np.asarray(logits(base, given, config, None, None))[0, -1]))
    hf_export.save(tmp_path / "out", base, config, tmp_path / "source", stop_ids=(first,))
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    assert set(loaded.generation_config.eos_token_id) == {cases.EOS, first}
    out = loaded.generate(torch.from_numpy(given).long(), do_sample=False, max_new_tokens=8, pad_token_id=0)
    assert out[0, given.shape[1] :].tolist() == [first]


def test_an_embedding_that_was_adapted_apart_from_its_head_loads_as_two_weights(tmp_path):
    made = peers.model(cases.MODELS["qwen3_plain"], seed=5)
    made.save_pretrained(tmp_path / "source")
    config, base = hf_import.load(tmp_path / "source")
    rng = np.random.default_rng(0)
    draw = lambda *shape: (0.3 * rng.standard_normal(shape)).astype(np.float32)
    low = lora.LoRA(a=draw(config.vocab_size, 2), b=draw(2, config.d_model), scale=1.0, dropout=0.0)
    adapted = attach.attach(base, jax.tree.map(lambda _: None, base).replace(embed_tokens=low))
    hf_export.save(tmp_path / "out", adapted, config, tmp_path / "source")
    loaded, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    np.testing.assert_allclose(ours(adapted, config), theirs(loaded.eval()), rtol=0, atol=2e-5)
