"""Bases in few bits as a user makes them: the command, what it prints and leaves, and a run on its folder."""

import json
import signal

import numpy as np
import pytest

from ftjax.checkpoint import hf_import, peft
from tests import bases

pytestmark = pytest.mark.e2e


def test_a_base_is_quantised_trained_on_merged_and_answers(start, words, tiny_base, tiny_rows, tmp_path):
    few, run = tmp_path / "few", tmp_path / "run"
    flags = ["--format", "nf4-dq", "--group", 32, "--loftq", 4, "--iterations", 2, "--text", tiny_rows]
    process = start("quantize", "--model", tiny_base, *flags, "--out", few)
    assert process.ends() == 0, process.said()
    out, err = process.said()
    assert err == ""
    assert "blocks.down_proj" in out
    assert "perplexity a token" in out
    assert json.loads((few / "quantization.json").read_text())["after"]["eval_perplexity"] > 1
    argument = f"data={tiny_rows},model={few},steps=4"
    process = start("train", *words(run, argument=argument, adapter__name="loftq", adapter__rank=4))
    assert process.ends() == 0, process.said()
    process = start("train", "--workdir", run, "--resume", "--config.quant.format=int4")
    assert process.ends() == 2
    assert "but int4 was asked for" in process.said()[1]
    process = start("export", "--run", run, "--format", "merged", "--out", tmp_path / "merged")
    assert process.ends() == 0, process.said()
    process = start("export", "--run", run, "--format", "peft", "--out", tmp_path / "peft")
    assert process.ends() == 0, process.said()
    config, base = hf_import.load(few)
    trained = bases.logits_of(config, base, peft.load(tmp_path / "peft", base, config))
    merged = bases.logits_of(config, hf_import.load(tmp_path / "merged")[1], None)
    np.testing.assert_allclose(trained, merged, rtol=0, atol=2e-5)
    process = start("generate", "--run", run, "--prompt", "Say red.", "--max-new-tokens", 4)
    assert process.ends() == 0, process.said()


def test_a_run_is_not_resumed_in_other_bits(start, whole):
    flags = ["--config.quant.format=int4", "--config.quant.group=32"]
    process = start("train", "--workdir", whole, "--resume", *flags)
    assert process.ends() == 2
    assert "quant.format" in process.said()[1]
    assert "int4" in process.said()[1]
    assert process.said()[1].count("\n") == 1


def test_ctrl_c_leaves_nothing_and_a_folder_with_content_is_refused(start, tmp_path):
    out = tmp_path / "few"
    process = start("quantize", "--model", "base", "--budget", 5, "--out", out, PYTHONUNBUFFERED="1")
    assert process.until(lambda: "nats a token" in process.said()[0])
    process.send(signal.SIGINT)
    assert process.ends() == 130
    assert process.said()[1] == "interrupted\n"
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    (out / "mine").touch()
    process = start("quantize", "--model", "base", "--format", "nf4", "--out", out)
    assert process.ends() == 2
    assert process.said()[1] == f"error: {out}: is not empty; give a new folder, nothing is written over\n"
