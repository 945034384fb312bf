"""Pre-training in small: the same files again, and a stopped run goes on as if it had never stopped."""

import hashlib
import json
import shutil

import jax
import pytest

from ftjax import errors
from ftjax.assets import pretrain
from ftjax.checkpoint import hf_import, store

SHAPE = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 1024,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
    "dtype": "bfloat16",
    "torch_dtype": "bfloat16",
}
SCHEDULE = {"schedule": "wsd", "learning_rate": 3e-3, "end_ratio": 0.0, "decay_share": 0.4}
OPTIMIZER = {
    "name": "adamw",
    "b1": 0.9,
    "b2": 0.95,
    "eps": 1e-8,
    "momentum": 0.0,
    "weight_decay": 0.1,
    "decay": r"blocks\..*_proj",
    "clip_norm": 1.0,
    "lora_plus_ratio": 1.0,
}
STEPS = 6


def train(folder, **changes):
    settings = {"minutes": 1, "seed": 0, "batch_size": 2, "length": 1024, "warmup_share": 0.2, "save_seconds": 0.0}
    return pretrain.train(folder, **(settings | changes), schedule=SCHEDULE, optimizer_settings=OPTIMIZER)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrain")
    pretrain.write_corpus(folder, seed=0, rows=200)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "TOKENIZER_ROWS", 200)
        pretrain.write_model_folder(folder, seed=0, shape=SHAPE)
    (folder / "plan.json").write_text(json.dumps({"steps": STEPS, "seconds_a_step": 1.0}))
    return folder


def test_the_corpus_file_says_its_own_hash_and_is_the_same_again(prepared, tmp_path):
    facts = json.loads((prepared / "corpus.json").read_text())
    assert facts == pretrain.write_corpus(tmp_path, seed=0, rows=200)
    data = (prepared / "corpus.jsonl").read_bytes()
    assert facts == {"seed": 0, "rows": 200, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert data.count(b"\n") == 200


def test_a_folder_with_another_corpus_is_refused(tmp_path):
    pretrain.write_corpus(tmp_path, seed=0, rows=5)
    with pytest.raises(errors.UserError, match="another corpus"):
        pretrain.write_corpus(tmp_path, seed=1, rows=5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.json", "corpus.jsonl"]


@pytest.mark.e2e
def test_a_killed_run_goes_on_to_the_same_weights(prepared, tmp_path, tmp_cache, monkeypatch):
    del tmp_cache  # keeps the encoded corpus out of the user's cache
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        shutil.copytree(prepared, folder)
    facts = train(whole)
    save, saves = store.Store.save, []

    def dying_save(self, step, tree, told):
        save(self, step, tree, told)
        saves.append(step)
        if len(saves) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.Store, "save", dying_save)
        with pytest.raises(KeyboardInterrupt):
            train(stopped)
    assert saves == [1, 2]
    again = train(stopped)
    assert (again["steps"], again["tokens"]) == (facts["steps"], facts["tokens"]) == (STEPS, again["tokens"])
    weights = [(folder / "base" / "model.safetensors").read_bytes() for folder in (whole, stopped)]
    assert weights[0] == weights[1]
    config, loaded = hf_import.load(whole / "base", quant="none", dtype="float32")
    assert facts["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(loaded))
    assert config.tie_embeddings
    assert len((whole / "log.jsonl").read_text().splitlines()) == 1
