"""Safetensors files as we write them, and folders of shards that do not hold together."""

import json
import weakref

import ml_dtypes
import numpy as np
import pytest
import safetensors
from safetensors import numpy as safetensors_numpy

from ftjax.checkpoint import shards
from ftjax.errors import UserError

ARRAYS = {
    "wide": np.arange(12, dtype=np.float32).reshape(3, 4),
    "half": np.arange(5, dtype=np.float16),
    "brain": np.arange(6, dtype=ml_dtypes.bfloat16).reshape(2, 3),
    "scalar": np.float64(7.5).reshape(()),
    "none": np.zeros((0, 3), np.float32),
}


def planned(name, array):
    return shards.Planned(name, array.dtype, array.shape, lambda: array)


def test_the_library_reads_what_is_written(tmp_path):
    file = tmp_path / "model.safetensors"
    shards.write(file, [planned(name, array) for name, array in ARRAYS.items()])
    found = safetensors_numpy.load_file(file)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    with safetensors.safe_open(file, framework="numpy") as opened:
        assert opened.metadata() == {"format": "pt"}
    ours = shards.entries(tmp_path)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(shards.read(ours[name]), array)


def test_a_transposed_array_is_written_in_the_order_of_its_axes(tmp_path):
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T
    shards.write(tmp_path / "model.safetensors", [planned("x", array)])
    np.testing.assert_array_equal(safetensors_numpy.load_file(tmp_path / "model.safetensors")["x"], array)


def test_no_more_than_one_tensor_is_alive_while_a_file_is_written(tmp_path):
    alive = []

    def make():
        assert sum(one() is not None for one in alive) <= 1, "the last but one was kept"
        array = np.ones(1000, np.float32)
        alive.append(weakref.ref(array))
        return array

    shards.write(
        tmp_path / "model.safetensors",
        [shards.Planned(f"t{k}", np.dtype("float32"), (1000,), make) for k in range(5)],
    )
    assert len(alive) == 5


@pytest.mark.parametrize("dtypes", [("float32", "float32"), ("bfloat16", "bfloat16"), ("bfloat16", "float32"),
                                    ("float32", "float16"), ("float32", "bfloat16")])  # fmt: skip
@pytest.mark.parametrize("shape", [(300, 130), (128, 1), (7,), (), (0, 5)])
def test_a_copy_holds_the_same_numbers_whichever_way_either_is_stored(dtypes, shape):
    given, wanted = (ml_dtypes.bfloat16 if name == "bfloat16" else np.dtype(name) for name in dtypes)
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32).astype(given)
    for source in (array, np.asfortranarray(array)):
        for out in (np.empty(shape, wanted), np.empty(shape[::-1], wanted).T):
            shards.copy(out, source)
            np.testing.assert_array_equal(out, array.astype(wanted))


@pytest.mark.parametrize("shape", [(300, 130), (128, 1), (7,), (0, 5), (5, 0)])
@pytest.mark.parametrize("first", [0, 2])
def test_a_tensor_read_slab_by_slab_is_the_one_read_whole(shape, first, tmp_path, monkeypatch):
    array = np.random.default_rng(0).standard_normal(shape).astype(ml_dtypes.bfloat16)
    shards.write(tmp_path / "model.safetensors", [planned("t", array)])
    entry = shards.entries(tmp_path)["t"]
    monkeypatch.setattr(shards, "_SLAB", 1000)
    largest = []
    copy = shards.copy
    monkeypatch.setattr(shards, "copy", lambda out, part: (largest.append(part.nbytes), copy(out, part)))
    part = array[first : first + 250]
    for out in (np.empty(part.shape, np.float32), np.empty(part.shape[::-1], np.float32).T):
        shards.fill(out, entry, first)
        np.testing.assert_array_equal(out, part.astype(np.float32))
    assert max(largest, default=0) <= 1000


@pytest.fixture
def sharded(tmp_path):
    """A folder of two shards with an index."""
    files = {"one": "model-00001-of-00002.safetensors", "two": "model-00002-of-00002.safetensors"}
    for name, file in files.items():
        shards.write(tmp_path / file, [planned(name, ARRAYS["wide"])])
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    return tmp_path


def refused(folder, match):
    with pytest.raises(UserError, match=match) as error:
        shards.entries(folder)
    assert "\n" not in str(error.value)


def test_a_shard_that_the_index_does_not_name_is_refused(sharded):
    assert set(shards.entries(sharded)) == {"one", "two"}
    index = sharded / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"one": "model-00001-of-00002.safetensors"}}))
    refused(sharded, r"index\.json: does not name model-00002-of-00002\.safetensors, which .* holds")


def test_other_weights_beside_the_shards_do_no_harm(sharded):
    shards.write(sharded / "consolidated.safetensors", [planned("other", ARRAYS["wide"])])
    assert set(shards.entries(sharded)) == {"one", "two"}


@pytest.mark.parametrize("file", ["../model.safetensors", "", "a/b.safetensors", 3, None])
def test_an_index_that_names_no_file_of_the_folder_is_refused(sharded, file):
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"one": file}}))
    refused(sharded, "is no name of a file")


def test_a_truncated_shard_is_refused_by_its_name(sharded):
    file = sharded / "model-00002-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    refused(sharded, r"model-00002-of-00002\.safetensors: not a whole safetensors file")


@pytest.mark.parametrize(
    ("kinds", "dtype"),
    [
        (["bfloat16", "bfloat16"], "bfloat16"),
        (["float16"], "float16"),
        (["bfloat16", "float32"], "float32"),
        (["bfloat16", "float16"], "float32"),
        (["float64"], "float32"),
        (["bfloat16", "uint8"], "bfloat16"),
    ],
)
def test_the_dtype_of_a_folder_is_the_narrowest_that_holds_all_of_it(tmp_path, kinds, dtype):
    arrays = {f"t{k}": np.ones(3).astype(ml_dtypes.bfloat16 if k_ == "bfloat16" else k_) for k, k_ in enumerate(kinds)}
    safetensors_numpy.save_file(arrays, tmp_path / "model.safetensors")
    assert shards.dtype(tmp_path) == dtype
