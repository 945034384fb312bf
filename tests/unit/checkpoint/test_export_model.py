"""Merged exports: what is merged while it is written, what a server needs beside weights, and disks that fail."""

import errno
import json
import subprocess
import sys
import textwrap
from typing import Any

from golden import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy
import transformers

from ftjax import disk
from ftjax.adapters import attach, init, lora, merge
from ftjax.checkpoint import hf_export, hf_import, shards
from ftjax.errors import UserError
from ftjax.models import decoder
from ftjax.quant import format as quant_format
from tests import bases

Q0 = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def source(tmp_path):
    return cases.unpack("qwen2_plain", tmp_path / "source")


@pytest.fixture
def loaded(source):
    return hf_import.load(source)


def adapters_on(base, targets):
    make = lambda key, weight, rank, alpha: lora.init_one(
        key, weight, rank=rank, alpha=alpha, dropout=0.0, rslora=False
    )
    fresh = init.init(
        jax.random.key(0), base, make=make, targets=targets, rank=2, alpha=4, rank_pattern={}, alpha_pattern={}
    )
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), fresh)


def tensors(folder):
    return safetensors_numpy.load_file(folder / "model.safetensors")


class Halves(quant_format.Quantized):
    """A weight in few bits as a test sees one: integers and one scale a column."""


@jax.tree_util.register_pytree_node_class
class Rounded(Halves):
    def __init__(self, codes: Any, scales: Any) -> None:
        self.codes, self.scales = codes, scales

    @property
    def shape(self):
        return self.codes.shape

    def dequantize(self, dtype):
        return (self.codes.astype(jnp.float32) * self.scales).astype(dtype)

    def tree_flatten(self):
        return (self.codes, self.scales), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(*leaves)


def rounded(weight):
    scales = jnp.max(jnp.abs(weight), axis=-2, keepdims=True) / 7
    return Rounded(jnp.round(weight / scales).astype(jnp.int8), scales)


def test_an_adapter_of_a_quantised_base_is_merged_into_what_it_was_trained_on(source, loaded, tmp_path):
    config, base = loaded
    few = base.replace(blocks=base.blocks.replace(q_proj=rounded(base.blocks.q_proj)))
    adapters = adapters_on(base, ("q_proj", "up_proj"))
    hf_export.save(tmp_path / "out", attach.attach(few, adapters), config, source)
    wanted = merge.merge(few, adapters)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-6), wanted, hf_import.load(tmp_path / "out")[1]
    )
    stored = tensors(tmp_path / "out")[Q0]
    assert stored.dtype == np.float32
    assert np.abs(stored.T - merge.merge(base, adapters).blocks.q_proj[0]).max() > 1e-3, "that is the original base"


def test_a_merge_is_rounded_once_whatever_the_base_is_held_in(source, tmp_path):
    """The sum is made in float32, not in the bfloat16 that the base is held in."""
    config, base = hf_import.load(source, dtype="bfloat16")
    exact = jax.tree.map(lambda x: x.astype(jnp.float32), base)
    adapters = adapters_on(exact, ("q_proj", "k_proj"))
    hf_export.save(tmp_path / "out", attach.attach(base, adapters), config, source, dtype="float32")
    jax.tree.map(np.testing.assert_array_equal, merge.merge(exact, adapters), hf_import.load(tmp_path / "out")[1])


def test_an_embedding_that_is_adapted_apart_from_the_head_gets_a_head_of_its_own(source, loaded, tmp_path):
    config, base = loaded
    assert config.tie_embeddings
    keys = jax.random.split(jax.random.key(0))
    low = lora.LoRA(
        a=0.1 * jax.random.normal(keys[0], (config.vocab_size, 2)),
        b=jax.random.normal(keys[1], (2, config.d_model)),
        scale=1.0,
        dropout=0.0,
    )
    adapted = attach.attach(base, jax.tree.map(lambda _: None, base).replace(embed_tokens=low))
    hf_export.save(tmp_path / "out", adapted, config, source)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    again, dense = hf_import.load(tmp_path / "out")
    tokens = np.arange(20).reshape(1, 20)
    before = decoder.logits(adapted, tokens, config)
    np.testing.assert_allclose(decoder.logits(dense, tokens, again), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("own", "given", "written"),
    [
        ({"eos_token_id": 2, "top_p": 0.9}, (2, 5), {"eos_token_id": [2, 5], "top_p": 0.9}),
        ({"eos_token_id": [7, 2]}, (5, 2), {"eos_token_id": [7, 2, 5]}),
        ({"eos_token_id": 2}, (2,), {"eos_token_id": 2}),
        ({"eos_token_id": 2}, (), {"eos_token_id": 2}),
        ({}, (5,), {"eos_token_id": 5}),
        (None, (5,), {"bos_token_id": 1, "eos_token_id": [2, 5]}),
        (None, (), None),
    ],
)
def test_generation_stops_where_training_did(source, loaded, tmp_path, own, given, written):
    config, base = loaded
    if own is not None:
        (source / "generation_config.json").write_text(json.dumps(own))
    hf_export.save(tmp_path / "out", base, config, source, stop_ids=given)
    file = tmp_path / "out" / "generation_config.json"
    assert (json.loads(file.read_text()) if file.exists() else None) == written


def test_the_template_of_the_run_is_the_one_that_transformers_finds(tmp_path, tiny_base):
    """Also where the base keeps its own in tokenizer_config.json, which readers before 4.43 look at."""
    base_dir = bases.write_base(tmp_path / "base", template=None)
    about = json.loads((base_dir / "tokenizer_config.json").read_text()) | {"chat_template": "old"}
    (base_dir / "tokenizer_config.json").write_text(json.dumps(about))
    config, base = hf_import.load(base_dir)
    hf_export.save(tmp_path / "out", base, config, base_dir, template=bases.TEMPLATE, card="# Mine\n")
    chat = [{"role": "user", "content": "Hi"}]
    own = transformers.AutoTokenizer.from_pretrained(str(tiny_base))
    made = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "out"))
    assert made.apply_chat_template(chat, tokenize=False) == own.apply_chat_template(chat, tokenize=False)
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["chat_template"] == bases.TEMPLATE
    assert (tmp_path / "out" / "README.md").read_text() == "# Mine\n"


def test_a_checkpoint_that_was_in_four_bits_is_not_said_to_be_so_any_more(source, loaded, tmp_path):
    config, base = loaded
    facts = json.loads((source / "config.json").read_text())
    section = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    (source / "config.json").write_text(json.dumps(facts | {"quantization_config": section}))
    hf_export.save(tmp_path / "out", base, config, source)
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())


def left(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir())


def test_a_disk_without_room_is_refused_with_both_numbers(source, loaded, tmp_path, monkeypatch):
    config, base = loaded
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(base))
    monkeypatch.setattr(disk, "free", lambda _: size)
    with pytest.raises(UserError, match=rf"out: needs [\d,]+ bytes, and {size:,} are free") as raised:
        hf_export.save(tmp_path / "out", base, config, source)
    assert "\n" not in str(raised.value)
    assert left(tmp_path) == ["source"]


def test_a_disk_that_fills_in_the_middle_leaves_nothing(source, loaded, tmp_path, monkeypatch):
    config, base = loaded
    whole, calls = shards.bytes_of, []

    def fills(array):
        calls.append(array)
        if len(calls) == 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(array)

    monkeypatch.setattr(shards, "bytes_of", fills)
    with pytest.raises(UserError, match="out: no space left on the disk; nothing was written"):
        hf_export.save(tmp_path / "out", base, config, source, max_shard_bytes=30_000)
    assert left(tmp_path) == ["source"]


@pytest.mark.parametrize("fault", ["a bit", "a tensor", "the end"])
def test_what_does_not_read_back_as_it_was_written_gets_no_name(source, loaded, tmp_path, monkeypatch, fault):
    config, base = loaded
    write = shards.write

    def badly(file, planned):
        write(file, planned[:-1] if fault == "a tensor" else planned)
        if fault == "a bit":
            file.write_bytes(file.read_bytes()[:-1] + b"\x55")
        if fault == "the end":
            file.write_bytes(file.read_bytes()[:-1])

    monkeypatch.setattr(shards, "write", badly)
    with pytest.raises(UserError, match=r"read back is not what was written|not a whole safetensors file"):
        hf_export.save(tmp_path / "out", base, config, source)
    assert left(tmp_path) == ["source"]


def test_the_peak_of_memory_is_the_model_and_a_few_tensors(tmp_path):
    """35 M parameters in bfloat16 with adapters, 71 MB, become 142 MB of float32; the largest tensor is 8.4 MB there.

    A merge of the whole tree would take the 142 MB besides, and a writer that holds a file's tensors as much again.
    Measured: 45 to 70 MB, by what the allocator kept of the first export.
    """
    script = """
        import dataclasses, json, sys
        import jax, jax.numpy as jnp, numpy as np
        from pathlib import Path
        from golden import cases
        from ftjax.adapters import attach, lora
        from ftjax.checkpoint import hf_export
        from ftjax.models import params
        from ftjax.models.families import llama

        def kilobytes(key):
            return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))

        sizes = dict(hidden_size=1024, intermediate_size=2048, num_hidden_layers=3, vocab_size=1000)
        hf = cases.MODELS["llama_plain"] | sizes
        folder = Path(sys.argv[1])
        (folder / "config.json").write_text(json.dumps(hf))
        config = llama.config_from_hf(hf)
        def model(layers):
            c = dataclasses.replace(config, n_layers=layers, windows=(0,) * layers)
            base = jax.tree.map(lambda s: jnp.asarray(np.ones(s.shape, s.dtype)), params.abstract(c, "bfloat16"))
            low = lambda w: lora.LoRA(a=np.ones((*w.shape[:-1], 8), np.float32), scale=1.0, dropout=0.0,
                                      b=np.ones((*w.shape[:-2], 8, w.shape[-1]), np.float32))
            pick = lambda path, w: low(w) if path[-1].name.endswith("_proj") else None
            return c, attach.attach(base, jax.tree_util.tree_map_with_path(pick, base))
        small = folder / "small"
        small.mkdir()
        (small / "config.json").write_text(json.dumps(hf | {"num_hidden_layers": 1}))
        c, one = model(1)
        hf_export.save(folder / "warm", one, c, small, "float32")  # what is compiled once is compiled now
        del one
        c, whole = model(3)
        jax.block_until_ready(whole)
        before = kilobytes("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
        hf_export.save(folder / "out", whole, c, folder, "float32")
        print(json.dumps({"extra": kilobytes("VmHWM") - before}))
    """
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        env={"PATH": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(cases.FOLDER.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.returncode == 0, out.stderr
    assert json.loads(out.stdout)["extra"] < 12 * 8_400, out.stdout
