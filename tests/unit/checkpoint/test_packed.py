"""A folder in few bits loads as what was written, from the file itself; one that does not hold together is refused."""

import json
from pathlib import Path
import shutil

from golden import cases
import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from ftjax import mesh as meshes
from ftjax import tree
from ftjax.checkpoint import hf_export, hf_import
from ftjax.errors import UserError
from ftjax.models import params
from ftjax.quant import convert
from tests import bases

MAPS = Path("/proc/self/maps")
MIXED = {
    "blocks.q_proj": convert.Few("nf4", 32, search=True),
    "blocks.down_proj": convert.Few("int4", 32, rank=4, iterations=1),
    "blocks.up_proj": convert.Few("int8", 0),
    "embed_tokens": convert.Few("int8", 0),
}


def written(source, out, plan, limit=5_000_000_000):
    config, base = hf_import.load(source, plan)
    hf_export.save_packed(out, base, plan, source, max_shard_bytes=limit, texts={"README.md": "card"})
    return config, base


@pytest.fixture(scope="module")
def few(tiny_base, tmp_path_factory):
    """A folder in NF4 with a search, INT4 with LoftQ's part, INT8 and dense leaves; not to be written to."""
    folder = tmp_path_factory.mktemp("few") / "base"
    return folder, *written(tiny_base, folder, MIXED)


@pytest.fixture
def folder(few, tmp_path):
    return Path(shutil.copytree(few[0], tmp_path / "few"))


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def refused(folder, match, **asked):
    with pytest.raises(UserError, match=match) as error:
        hf_import.load(folder, **asked)
    assert "\n" not in str(error.value)


def rewrite(folder, change):
    """Changes the tensors of a folder, a dict by name."""
    found = safetensors_numpy.load_file(folder / "model.safetensors")
    change(found)
    safetensors_numpy.save_file(found, folder / "model.safetensors")


def section(folder, change):
    """Changes quantization_config."""
    facts = json.loads((folder / "config.json").read_text())
    change(facts["quantization_config"])
    (folder / "config.json").write_text(json.dumps(facts))


@pytest.mark.parametrize("name", convert.formats())
def test_it_loads_to_the_bit_in_every_format(name, tiny_base, tmp_path):
    group = 32 if convert.module(name).GROUP else 0
    shapes = {path: leaf.shape for path, leaf in tree.paths(hf_import.load(tiny_base)[1]).items()}
    config, base = written(tiny_base, tmp_path / "out", convert.plan(name, shapes, hf_import.QUANTISED, group))
    again_config, again = hf_import.load(tmp_path / "out")
    assert again_config == config
    same(again, base)
    same(again, hf_import.load(tiny_base, name, group=group)[1])


def test_a_mixture_loads_to_the_bit_and_as_shards_too(few, tiny_base, tmp_path):
    _, config, base = few
    written(tiny_base, tmp_path / "shards", MIXED, limit=20_000)
    assert len(list(tmp_path.glob("shards/model-*.safetensors"))) > 2
    for folder in (few[0], tmp_path / "shards"):
        again_config, again = hf_import.load(folder)
        assert again_config == config
        same(again, base)
    assert (few[0] / "tokenizer.json").read_bytes() == (tiny_base / "tokenizer.json").read_bytes()
    assert (few[0] / "README.md").read_text() == "card"


@pytest.mark.skipif(not MAPS.exists(), reason="needs Linux's list of mapped files")
def test_the_arrays_of_a_loaded_folder_are_its_file(few):
    _, base = hf_import.load(few[0])
    mapped = [line.split()[0].split("-") for line in MAPS.read_text().splitlines() if str(few[0]) in line]
    spans = [(int(first, 16), int(last, 16)) for first, last in mapped]
    inside = lambda leaf: any(first <= leaf.unsafe_buffer_pointer() < last for first, last in spans)
    assert all(inside(leaf) for leaf in jax.tree.leaves(base) if leaf.nbytes % 64 == 0)
    assert inside(base.blocks.up_proj.codes)


def test_a_dense_leaf_is_cast_to_the_dtype_that_is_asked_for_and_codes_are_not(few):
    config, base = hf_import.load(few[0], dtype="bfloat16")
    assert config.dtype == base.norm.dtype == base.blocks.k_proj.dtype == "bfloat16"
    same(base.blocks.up_proj, few[2].blocks.up_proj)


def test_a_mesh_lays_every_array_out(few):
    mesh = meshes.make(data=1, fsdp=2, tensor=4)
    config, base = hf_import.load(few[0], mesh=mesh)
    wanted = meshes.base_shardings(mesh, base, params.axes(config))
    jax.tree.map(lambda leaf, sharding: leaf.sharding == sharding or pytest.fail(f"{leaf.sharding}"), base, wanted)
    assert not base.blocks.up_proj.codes.sharding.is_fully_replicated
    same(base, few[2])


def test_the_dense_export_of_it_has_the_weights_that_its_bits_mean(few, tmp_path):
    folder, config, base = few
    hf_export.save(tmp_path / "dense", base, config, folder)
    again_config, dense = hf_import.load(tmp_path / "dense")
    assert again_config == config
    assert "quantization_config" not in json.loads((tmp_path / "dense" / "config.json").read_text())
    for path, leaf in tree.paths(base, tree.stands_for_weight).items():
        meant = leaf.dequantize("float32") if path in MIXED else leaf
        np.testing.assert_allclose(tree.paths(dense)[path], meant, rtol=0, atol=1e-7)


def test_an_int8_head_of_its_own_works(tmp_path):
    source = cases.unpack("llama_plain", tmp_path / "source")
    config, base = written(source, tmp_path / "out", {"lm_head": convert.Few("int8", 0)})
    again = hf_import.load(tmp_path / "out")[1]
    same(again, base)
    dense = bases.logits_of(config, hf_import.load(source)[1], None)
    off = np.abs(bases.logits_of(config, again, None) - dense).max()
    assert 0 < off < 0.02 * np.abs(dense).max()


def test_its_content_hash_tells_formats_apart(few, tiny_base, tmp_path):
    written(tiny_base, tmp_path / "same", MIXED)
    written(tiny_base, tmp_path / "other", MIXED | {"blocks.q_proj": convert.Few("nf4", 16)})
    hashes = [hf_import.content_hash(folder) for folder in (few[0], tmp_path / "same", tmp_path / "other", tiny_base)]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_a_tensor_that_is_missing_left_over_or_misshapen_is_named(folder):
    rewrite(folder, lambda found: found.pop("blocks.q_proj.scales"))
    refused(folder, r"few: tensors are missing: blocks\.q_proj\.scales; config\.json and the safetensors files do not")
    rewrite(folder, lambda found: found.update({"blocks.q_proj.scales": np.ones((2, 1, 32), np.float16)}))
    refused(folder, r"blocks\.q_proj\.scales is F16 \(2, 1, 32\), but config\.json asks for float32 \(2, 1, 32\)")
    rewrite(folder, lambda found: found.update({"blocks.q_proj.scales": np.ones((2, 2, 32), np.float32)}))
    refused(folder, r"blocks\.q_proj\.scales is F32 \(2, 2, 32\), but config\.json asks for float32 \(2, 1, 32\)")
    good = np.ones((2, 1, 32), np.float32)
    rewrite(folder, lambda found: found.update({"blocks.q_proj.scales": good, "blocks.q_proj.zeros": good}))
    refused(folder, r"few: has no place for blocks\.q_proj\.zeros; config\.json and")


def test_a_file_that_is_cut_short_is_refused(folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    refused(folder, "not a whole safetensors file")


SECTIONS = {
    "newer": (
        lambda found: found.update(version=2),
        r"is of version 2, and this ftjax reads version 1; update ftjax, or quantise the dense checkpoint anew",
    ),
    "unknown leaf": (
        lambda found: found["leaves"].update({"blocks.q_prj": found["leaves"].pop("blocks.q_proj")}),
        r"the model has no 'blocks\.q_prj'\. Did you mean 'blocks\.q_proj'",
    ),
    "unknown word": (lambda found: found["leaves"]["blocks.q_proj"].update(zero=1), r"blocks\.q_proj: .*'zero'"),
    "unknown format": (
        lambda found: found["leaves"]["blocks.q_proj"].update(format="nf3"),
        r"format 'nf3' is unknown\. Did you mean 'nf4'",
    ),
    "wrong group": (lambda found: found["leaves"]["blocks.q_proj"].update(group=24), r"32 input rows do not split"),
    "nothing": (lambda found: found.update(leaves={}), r"no leaf is in few bits"),
}


@pytest.mark.parametrize("case", SECTIONS)
def test_a_config_that_cannot_be_read_is_one_line(case, folder):
    change, says = SECTIONS[case]
    section(folder, change)
    refused(folder, says)


def test_other_bits_than_the_folder_has_are_refused_and_its_own_are_not(few):
    folder, _, base = few
    line = r"base holds blocks\.q_proj in nf4 in groups of 32, but {} was asked for; take the folder as it is"
    refused(folder, line.format("int4"), quant="int4", leaves=r"blocks\.q_proj")
    refused(folder, line.format("nf4 in groups of 64"), quant="nf4", group=64, leaves=r"blocks\.q_proj")
    refused(folder, r"holds blocks\.k_proj dense, but nf4 was asked for", quant="nf4", leaves=r"blocks\.(k|q)_proj")
    same(hf_import.load(folder, quant="nf4", leaves=r"blocks\.q_proj")[1], base)
    same(hf_import.load(folder, quant="nf4", group=32, leaves=r"blocks\.q_proj")[1], base)
