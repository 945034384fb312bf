"""What talks: a model with its tokenizer, asked with every rule of sampling; and what a run has made that can talk."""

import json
import shutil

import pytest

from ftjax import export, inference
from ftjax.checkpoint import hf_import
from ftjax.data.records import Message
from ftjax.errors import UserError

RULES = {"max_new_tokens": 8, "top_k": 0, "top_p": 1.0, "seed": 0}


@pytest.fixture(scope="module")
def model():
    return inference.load("base", adapter=None, template_name=None, dtype="float32")


@pytest.fixture(scope="module")
def asked(model):
    return [model.prompt_ids([Message(role="user", content="What does the shop in Ulmora sell?")])]


@pytest.fixture(scope="module")
def greedy(model, asked):
    (text,) = model.complete(asked, temperature=0.0, **RULES)
    assert len(text.split()) > 2
    return text


def test_an_answer_ends_before_the_first_stop_string(model, asked, greedy):
    words = greedy.split()
    (text,) = model.complete(asked, temperature=0.0, stop_strings=(words[2], words[1]), **RULES)
    assert text == greedy.split(words[1])[0].strip()


def test_the_likeliest_token_is_all_that_a_min_p_of_one_leaves(model, asked, greedy):
    assert model.complete(asked, temperature=1.0, min_p=1.0, **RULES) == [greedy]


def test_an_empty_stop_string_is_refused(model, asked):
    with pytest.raises(UserError, match="not empty"):
        model.complete(asked, temperature=0.0, stop_strings=("",), **RULES)


@pytest.fixture
def ended(finished, tiny_base, tmp_path):
    """A finished run of its own, in a folder with a space, on a base of its own."""
    base = shutil.copytree(tiny_base, tmp_path / "base")
    run = shutil.copytree(finished.folder, tmp_path / "my run", ignore=shutil.ignore_patterns("checkpoints", ".lock"))
    config = json.loads((run / "config.json").read_text())
    config["model"]["path"] = str(base)
    (run / "config.json").write_text(json.dumps(config))
    return run


def test_a_finished_run_that_was_resumed_and_stopped_gives_nothing_of_its_earlier_end(ended):
    assert inference.made_by(ended).adapter == str(ended / "adapter")
    (ended / "DONE").rename(ended / "DONE.1")
    for given in (lambda: inference.made_by(ended), lambda: export.of_run(ended, rank=None)):
        with pytest.raises(UserError, match=r"has not come to its end \(its adapter/ is of an earlier end\)") as error:
            given()
        assert str(error.value).endswith(f"python scripts/train.py --workdir '{ended}' --resume")
    (ended / "adapter").rename(ended / "model")  # as after full fine-tuning
    with pytest.raises(UserError, match=r"its model/ is of an earlier end"):
        inference.made_by(ended)


def test_a_base_that_was_changed_under_a_run_is_refused_with_both_hashes(ended, tmp_path):
    base = tmp_path / "base"
    kept = shutil.copytree(base, tmp_path / "kept")
    began = hf_import.content_hash(base)
    weights = bytearray((base / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (base / "model.safetensors").write_bytes(weights)
    says = f"{base} has content hash {hf_import.content_hash(base)[:12]}, but {ended} was trained on {began[:12]}; put"
    with pytest.raises(UserError) as error:
        export.of_run(ended, rank=None)
    assert str(error.value).startswith(says)
    combined = {"template_name": None, "rank": None, "combination": "sum"}
    with pytest.raises(UserError, match="has content hash"):
        export.combined(f"{ended}=1", model=None, **combined)
    assert export.combined(f"{ended}=1", model=str(kept), **combined).parts[0].folder == ended / "adapter"
    shutil.rmtree(base)
    with pytest.raises(UserError, match="there is no model folder"):
        export.of_run(ended, rank=None)
