"""A sweep over bases of two sizes, two runs at once, from the command to the comparison, and again without work."""

import json

import pytest

from tests import bases

pytestmark = pytest.mark.e2e


def test_bases_of_two_sizes_are_trained_compared_and_the_smallest_is_named(start, tiny_base, tiny_rows, tmp_path):
    wide = bases.write_base(tmp_path / "wide", seed=1, shape={"intermediate_size": 128})
    spec = f"configs/sweeps/sizes.py:bases={tiny_base};{wide},data={tiny_rows},eval={tiny_rows},exact=true,steps=4"
    small = {name: value for name, value in bases.SMALL.items() if name != "log.writers"}
    changes = [f"--config.{name}={value}" for name, value in small.items()]
    words = ["--config", spec, *changes, "--config.log.writers=jsonl", "--workdir", tmp_path / "sizes"]
    listed = start("sweep", *words)
    assert listed.ends() == 0, listed.said()
    assert listed.said()[0].count("python scripts/train.py --config") == 2
    assert not (tmp_path / "sizes").exists()
    process = start("sweep", *words, "--run", "2", "--bar", "0")
    assert process.ends() == 0, process.said()
    found = json.loads((tmp_path / "sizes" / "comparison" / "comparison.json").read_text())
    assert [one["kind"] for one in found["systems"]] == ["run", "run"]
    by_size = next(one for one in found["frontier"] if one["price"] == "parameters")
    assert by_size["smallest"] == found["systems"][0]["name"]
    assert by_size["points"][0]["price"] < by_size["points"][1]["price"]
    again = start("sweep", *words, "--run", "2")
    assert again.ends() == 0, again.said()
    assert again.said()[0].count(" is done") == 2
