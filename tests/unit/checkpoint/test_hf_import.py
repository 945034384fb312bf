import json
import shutil
import subprocess
import sys
import textwrap

from golden import cases
import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from ftjax import mesh as meshes
from ftjax import tree
from ftjax.checkpoint import hf_import
from ftjax.errors import UserError
from ftjax.models import decoder, params

CASE = "llama_plain"
Q0 = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def folder(tmp_path):
    return cases.unpack(CASE, tmp_path / "model")


def tensors(folder):
    return safetensors_numpy.load_file(folder / "model.safetensors")


def write(folder, **arrays):
    safetensors_numpy.save_file(arrays, folder / "model.safetensors")


def shard(folder, parts=3):
    """Splits the one file of a folder into shards with an index."""
    found = tensors(folder)
    (folder / "model.safetensors").unlink()
    names = sorted(found)
    files = {name: f"model-{k % parts + 1:05d}-of-{parts:05d}.safetensors" for k, name in enumerate(names)}
    for file in set(files.values()):
        safetensors_numpy.save_file({n: found[n] for n in names if files[n] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return files


def refused(folder, match):
    with pytest.raises(UserError, match=match) as error:
        hf_import.load(folder)
    assert "\n" not in str(error.value)


def test_projections_are_the_transposed_tensors_of_the_file(folder):
    _, base = hf_import.load(folder)
    stored = tensors(folder)
    for layer in range(cases.LAYERS):
        name = f"model.layers.{layer}.mlp.down_proj.weight"
        np.testing.assert_array_equal(base.blocks.down_proj[layer], stored[name].T)
    np.testing.assert_array_equal(base.embed_tokens, stored["model.embed_tokens.weight"])
    np.testing.assert_array_equal(base.lm_head, stored["lm_head.weight"].T)


def test_a_sharded_folder_loads_like_a_single_file(folder):
    _, single = hf_import.load(folder)
    shard(folder)
    _, sharded = hf_import.load(folder)
    jax.tree.map(np.testing.assert_array_equal, single, sharded)


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_stored_dtype_loads_into_every_dtype(tmp_path, stored, dtype):
    exact = cases.read(CASE)["tensors"][Q0].astype(np.float32)
    config, base = hf_import.load(cases.unpack(CASE, tmp_path / "model", dtype=stored), dtype=dtype)
    assert config.dtype == dtype
    assert {leaf.dtype.name for leaf in jax.tree.leaves(base)} == {dtype}
    tolerance = 0.0 if stored != "bfloat16" and dtype == "float32" else 2.0**-8
    np.testing.assert_allclose(np.asarray(base.blocks.q_proj[0], np.float32), exact.T, rtol=tolerance, atol=0)


def test_the_tree_is_the_one_that_params_describes(folder):
    config, base = hf_import.load(folder)
    assert tree.paths(jax.tree.map(lambda x: x.shape, params.abstract(config, "float32"))) == tree.paths(
        jax.tree.map(lambda x: x.shape, base)
    )


def test_a_mesh_lays_every_leaf_out(folder):
    mesh = meshes.make(data=1, fsdp=4, tensor=2)
    config, base = hf_import.load(folder, mesh=mesh)
    wanted = meshes.base_shardings(mesh, base, params.axes(config))
    jax.tree.map(lambda leaf, sharding: leaf.sharding == sharding or pytest.fail(f"{leaf.sharding}"), base, wanted)
    jax.tree.map(np.testing.assert_array_equal, base, hf_import.load(folder)[1])


def test_a_tied_head_is_one_leaf_also_where_the_file_holds_it_twice(tmp_path):
    folder = cases.unpack("qwen3_plain", tmp_path / "model")
    stored = tensors(folder)
    write(folder, **stored, **{"lm_head.weight": stored["model.embed_tokens.weight"]})
    assert hf_import.load(folder)[1].lm_head is None
    write(folder, **stored, **{"lm_head.weight": stored["model.embed_tokens.weight"] + 1})
    refused(folder, "lm_head.weight differs from the embedding")


def test_rotary_tables_of_old_checkpoints_are_left_alone(folder):
    write(folder, **tensors(folder), **{"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32)})
    hf_import.load(folder)


def test_a_missing_tensor_is_an_error_that_names_it(folder):
    found = tensors(folder)
    del found[Q0]
    write(folder, **found)
    refused(folder, f"missing: {Q0}")


def test_a_tensor_too_many_is_an_error_that_names_it(folder):
    write(folder, **tensors(folder), **{"model.layers.0.self_attn.q_proj.bias": np.ones(32, np.float32)})
    refused(folder, "no place for model.layers.0.self_attn.q_proj.bias")


def test_a_tensor_of_another_shape_is_an_error_with_both_shapes(folder):
    write(folder, **tensors(folder) | {Q0: np.ones((32, 16), np.float32)})
    refused(folder, rf"{Q0} is \(32, 16\), but config.json asks for \(32, 32\)")


def test_a_tensor_in_whole_numbers_is_an_error(folder):
    write(folder, **tensors(folder) | {Q0: np.ones((32, 32), np.int8)})
    refused(folder, f"{Q0} is stored as I8")


def test_a_shard_that_the_index_names_must_be_there(folder):
    files = shard(folder)
    (folder / files[Q0]).unlink()
    refused(folder, files[Q0])


def test_a_tensor_that_is_not_where_the_index_says_is_an_error(folder):
    files = shard(folder)
    index = folder / "model.safetensors.index.json"
    other = next(file for file in files.values() if file != files[Q0])
    index.write_text(json.dumps({"weight_map": files | {Q0: other}}))
    refused(folder, f"says that {Q0} is in {other}")


@pytest.mark.parametrize("keep", [4, 200, -10])
def test_a_file_that_is_cut_short_is_an_error_that_names_it(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refused(folder, r"model\.safetensors: not a whole safetensors file")


def test_a_folder_without_weights_says_what_it_has(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, r"pytorch_model\.bin; convert that to safetensors")


def test_a_folder_that_is_not_there_or_not_a_model_is_an_error(tmp_path):
    refused(tmp_path / "nowhere", "no such folder")
    refused(tmp_path, r"config\.json: no such file")
    (tmp_path / "config.json").write_text("{")
    refused(tmp_path, r"config\.json: not JSON")


def test_an_unknown_format_or_dtype_is_an_error_that_lists_the_known(folder):
    with pytest.raises(UserError, match=r"quant='int3'.*none"):
        hf_import.load(folder, quant="int3")
    with pytest.raises(UserError, match=r"dtype='float8'.*bfloat16"):
        hf_import.load(folder, dtype="float8")


def test_the_content_hash_follows_weights_and_config_and_nothing_else(folder, tmp_path):
    first = hf_import.content_hash(folder)
    (folder / "README.md").write_text("new")
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert hf_import.content_hash(folder) == hf_import.content_hash(copy) == first
    found = tensors(folder)
    found[Q0][0, 0] += 1
    write(folder, **found)
    second = hf_import.content_hash(folder)
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    assert len({first, second, hf_import.content_hash(copy)}) == 3


def test_the_peak_of_memory_is_the_result_and_one_tensor(tmp_path):
    """A bf16 checkpoint of 150 MB in 4 shards becomes 300 MB of float32; the largest tensor is 16 MB."""
    script = """
        import dataclasses, json, resource, sys
        import jax, ml_dtypes, numpy as np
        from pathlib import Path
        from safetensors.numpy import save_file
        from golden import cases
        from ftjax.checkpoint import hf_import
        from ftjax.models.families import llama

        def kilobytes(key):
            return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))

        folder = Path(sys.argv[1])
        hf_import.load(cases.unpack("llama_plain", folder / "small"))  # what is loaded once is loaded now
        sizes = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=4, vocab_size=8000)
        hf = cases.MODELS["llama_plain"] | sizes
        config = llama.config_from_hf(hf)
        places = llama.names_from_hf(config)
        d, f, v = 1024, 4096, 8000
        shape = lambda n: (v, d) if "embed" in n or "lm_head" in n else (d,) if "norm" in n else (
            (d, f) if "down" in n else (f, d) if "gate" in n or "up_proj" in n else (d, d))
        files = {name: f"model-{k % 4}.safetensors" for k, name in enumerate(places)}
        for file in set(files.values()):
            save_file({n: np.ones(shape(n), ml_dtypes.bfloat16) for n in places if files[n] == file}, folder / file)
        (folder / "config.json").write_text(json.dumps(hf))
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
        before = kilobytes("VmRSS")
        _, base = hf_import.load(folder)
        result = sum(leaf.nbytes for leaf in jax.tree.leaves(base)) // 1024
        print(json.dumps({"extra": kilobytes("VmHWM") - before - result, "result": result}))
    """
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        env={"PATH": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(cases.FOLDER.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(out.stdout)
    assert found["result"] > 290_000
    assert found["extra"] < 16_000 + 12_000, found


def test_the_stories_model_gives_the_published_logits(shared_data):
    """Token log-probabilities and last logits of five texts, computed by transformers on this checkpoint."""
    config, base = hf_import.load(shared_data / "stories260k_hf")
    texts = json.loads((shared_data / "stories260k_hf" / "golden.json").read_text())["texts"]
    longest = max(len(text["ids"]) for text in texts)
    ids = np.array([text["ids"] + [0] * (longest - len(text["ids"])) for text in texts])
    segments = np.array([[1] * len(text["ids"]) + [0] * (longest - len(text["ids"])) for text in texts])
    found = jax.jit(decoder.logits, static_argnums=2)(base, ids, config, None, segments)
    logps = np.asarray(jax.nn.log_softmax(found))
    for row, text in enumerate(texts):
        n = len(text["ids"])
        np.testing.assert_allclose(found[row, n - 1], text["last_logits"], rtol=0, atol=5e-5)
        picked = logps[row, np.arange(n - 1), ids[row, 1:n]]
        np.testing.assert_allclose(picked, text["token_logprobs"], rtol=0, atol=2e-5)
