import contextlib
import dataclasses
import json
import resource

from golden import cases
import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from ftjax.adapters import attach, init, lora, merge
from ftjax.checkpoint import hf_export, hf_import
from ftjax.errors import UserError


@contextlib.contextmanager
def full_disk(after):
    """Lets no file grow beyond `after` bytes, which fails a write as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def source(tmp_path):
    folder = cases.unpack("qwen2_plain", tmp_path / "source")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "generation_config.json").write_text('{"eos_token_id": 2}')
    (folder / "optimizer.pt").write_text("not ours")
    return folder


@pytest.mark.parametrize("case", cases.MODELS)
def test_what_is_written_loads_as_what_was_given(case, tmp_path):
    source = cases.unpack(case, tmp_path / "source")
    config, base = hf_import.load(source)
    hf_export.save(tmp_path / "out", base, config, source)
    again, read = hf_import.load(tmp_path / "out")
    assert again == config
    jax.tree.map(np.testing.assert_array_equal, base, read)
    written = safetensors_numpy.load_file(tmp_path / "out" / "model.safetensors")
    given = safetensors_numpy.load_file(source / "model.safetensors")
    assert written.keys() == given.keys()
    for name, value in given.items():
        np.testing.assert_array_equal(written[name], value)


def test_tokenizer_template_and_generation_config_go_along_and_nothing_else(source, tmp_path):
    config, base = hf_import.load(source)
    hf_export.save(tmp_path / "out", base, config, source)
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {
        *("config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "generation_config.json")
    }
    assert not list(tmp_path.glob("*.tmp*"))


def test_the_config_is_the_sources_with_the_new_dtype(source, tmp_path):
    config, base = hf_import.load(source)
    hf_export.save(tmp_path / "out", base, config, source, dtype="bfloat16")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    given = json.loads((source / "config.json").read_text())
    assert written == given | {"dtype": "bfloat16", "torch_dtype": "bfloat16"}
    _, read = hf_import.load(tmp_path / "out", dtype="bfloat16")
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.astype("bfloat16"), b), base, read)


def test_shards_stay_below_the_limit_and_the_index_names_every_tensor(source, tmp_path):
    config, base = hf_import.load(source)
    hf_export.save(tmp_path / "out", base, config, source, max_shard_bytes=30_000)
    shards = sorted(tmp_path.glob("out/model-*.safetensors"))
    assert [file.name for file in shards] == [
        f"model-{k + 1:05d}-of-{len(shards):05d}.safetensors" for k in range(len(shards))
    ]
    assert len(shards) > 2
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    sizes = {}
    for file in shards:
        for name, value in safetensors_numpy.load_file(file).items():
            assert index["weight_map"][name] == file.name
            sizes[name] = value.nbytes
        assert sum(v for n, v in sizes.items() if index["weight_map"][n] == file.name) <= 30_000
    assert index["metadata"]["total_size"] == sum(sizes.values())
    jax.tree.map(np.testing.assert_array_equal, base, hf_import.load(tmp_path / "out")[1])


def test_a_folder_with_content_is_refused_and_stays_as_it_was(source, tmp_path):
    config, base = hf_import.load(source)
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"not empty \(notes.txt\)"):
        hf_export.save(out, base, config, source)
    assert [file.name for file in out.iterdir()] == ["notes.txt"]


def test_a_full_disk_is_one_line_and_leaves_nothing(source, tmp_path):
    config, base = hf_import.load(source)
    hf_export.save(tmp_path / "warm", base, config, source)
    with full_disk(20_000), pytest.raises(UserError, match="no space left"):
        hf_export.save(tmp_path / "out", base, config, source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "warm"]


def test_adapters_are_merged_while_the_file_is_written(source, tmp_path):
    config, base = hf_import.load(source)
    one = lambda key, weight, rank, alpha: lora.init_one(key, weight, rank=rank, alpha=alpha, dropout=0.0, rslora=False)
    adapters = init.init(
        jax.random.key(0), base, make=one, targets=("q_proj",), rank=2, alpha=4, rank_pattern={}, alpha_pattern={}
    )
    adapters = jax.tree.map(lambda x: x + 0.1, adapters)
    hf_export.save(tmp_path / "out", attach.attach(base, adapters), config, source)
    jax.tree.map(np.testing.assert_array_equal, merge.merge(base, adapters), hf_import.load(tmp_path / "out")[1])


def test_a_tree_that_is_no_whole_model_is_refused_by_the_names_of_its_leaves(source, tmp_path):
    config, base = hf_import.load(source)
    with pytest.raises(UserError, match=r"not a whole qwen2 model: blocks\.q_proj"):
        hf_export.save(tmp_path / "out", base.replace(blocks=base.blocks.replace(q_proj=None)), config, source)
    assert not (tmp_path / "out").exists()


def test_the_source_must_be_the_model_that_is_written(source, tmp_path):
    config, base = hf_import.load(source)
    with pytest.raises(UserError, match=r"another model.*norm_eps"):
        hf_export.save(tmp_path / "out", base, dataclasses.replace(config, norm_eps=1e-3), source)
    hf_export.save(tmp_path / "out", base, dataclasses.replace(config, remat="full", unroll=3), source)
