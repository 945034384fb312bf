"""Exports as a user starts them: whole commands, their exit status, and what they leave."""

import json
import shlex
import subprocess
import sys

import numpy as np
import pytest

from ftjax.adapters import arithmetic, merge
from ftjax.checkpoint import hf_import, peft
from tests import bases, processes

pytestmark = pytest.mark.e2e


def test_two_runs_become_one_model(start, words, whole, tiny_base, tmp_path):
    other = tmp_path / "other"
    process = start("train", *words(other, seed=1))
    assert process.ends() == 0, process.said()
    spec = f"{whole}=0.7,{other}=0.3"
    process = start("export", "--combine", spec, "--format", "merged", "--out", tmp_path / "merged")
    assert process.ends() == 0, process.said()
    process = start("export", "--combine", spec, "--rank", 4, "--format", "peft", "--out", tmp_path / "peft")
    assert process.ends() == 0, process.said()
    assert "relative error" in process.said()[0]
    config, base = hf_import.load(tiny_base)
    trees = [peft.load(folder / "adapter", base, config) for folder in (whole, other)]
    summed = merge.merge(base, arithmetic.weighted_sum(trees, [0.7, 0.3]))
    made = bases.logits_of(config, hf_import.load(tmp_path / "merged")[1], None)
    np.testing.assert_allclose(made, bases.logits_of(config, summed, None), rtol=0, atol=1e-5)
    cut = peft.load(tmp_path / "peft", base, config)
    np.testing.assert_allclose(
        bases.logits_of(config, base, cut),
        bases.logits_of(config, base, arithmetic.truncate(arithmetic.weighted_sum(trees, [0.7, 0.3]), 4)[0]),
        rtol=0,
        atol=1e-5,
    )
    process = start("generate", "--model", tmp_path / "merged", "--prompt", "Say red.", "--max-new-tokens", 4)
    assert process.ends() == 0, process.said()


def test_an_export_is_in_the_dtype_and_the_shards_that_were_asked_for(start, whole, tiny_base, tmp_path):
    out = tmp_path / "out"
    sizes = ["--dtype", "bfloat16", "--max-shard-size", "20KB"]
    process = start("export", "--run", whole, "--format", "merged", *sizes, "--out", out)
    assert process.ends() == 0, process.said()
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    shards = sorted(out.glob("model-*-of-*.safetensors"))
    assert len(shards) > 2
    assert all(file.stat().st_size < 30_000 for file in shards)
    config, base = hf_import.load(tiny_base)
    adapted = merge.merge(base, peft.load(whole / "adapter", base, config))
    rounded = hf_import.load(out)[1]
    np.testing.assert_array_equal(rounded.blocks.q_proj, adapted.blocks.q_proj.astype("bfloat16").astype("float32"))


def test_a_disk_that_fills_is_one_line_and_leaves_nothing(whole, tmp_path):
    """A limit on the size of files stops a write as a full disk does."""
    words = [sys.executable, "scripts/export.py", "--run", whole, "--format", "merged", "--out", tmp_path / "out"]
    command = f"ulimit -f 20; exec {shlex.join(map(str, words))}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=bases.ROOT,
        env=processes.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'out'}: no space left on the disk")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_content_and_a_wrong_flag_are_refused(start, whole, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    process = start("export", "--run", whole, "--format", "merged", "--out", tmp_path)
    assert process.ends() == 2
    assert "is not empty" in process.said()[1]
    process = start("export", "--run", whole, "--format", "peft", "--dtype", "bfloat16", "--out", tmp_path / "out")
    assert process.ends() == 2
    assert process.said()[1] == "error: --dtype goes with --format merged; an adapter has no base in it\n"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
