"""What the end of a run leaves: all of it new, or all of it old, and what a person has put beside it."""

import json
import shutil
import types

import pytest

from ftjax import config as configs
from ftjax import experiment, results, run
from ftjax.checkpoint import store
from ftjax.errors import UserError
from ftjax.runs import card
from ftjax.runs import folder as folders


@pytest.fixture
def going_on(finished, tmp_path):
    """Returns a function: more steps -> what a copy of a finished run, resumed without jsonl, says; and the copy."""
    copy = shutil.copytree(finished.folder, tmp_path / "run", ignore=shutil.ignore_patterns(".lock"))

    def resume(steps):
        config = configs.from_run(copy)
        configs.override(config, {"steps": steps, "log.writers": ("null",), "eval.every": 0})
        built, said = experiment.build(config), []
        run.check_same(built, copy)
        folder = folders.create(
            copy, name="", config=built.config, command=["x"], resume=True, may_change=experiment.MAY_CHANGE
        )
        with folder.owned():
            run.train(built, folder, said.append)
        return said

    return resume, copy


def test_a_run_that_goes_on_without_jsonl_comes_to_its_end_and_keeps_what_is_not_its_own(going_on, monkeypatch):
    resume, copy = going_on
    (copy / "metrics.jsonl").unlink()
    (copy / "adapter" / "notes.txt").write_text("mine")
    old = (copy / "adapter" / "adapter_model.safetensors").read_bytes()
    step = lambda: json.loads((copy / "summary.json").read_text())["step"]

    def full(*_, **__):
        raise UserError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(results.peft, "save", full)
        with pytest.raises(UserError, match="no space left"):
            resume(5)
    assert (copy / "adapter" / "adapter_model.safetensors").read_bytes() == old
    assert step() == 4, "the summary is of the weights that are there"
    assert not (copy / "DONE").exists()

    said = resume(5)
    assert (copy / "DONE").exists()
    assert (copy / "adapter" / "notes.txt").read_text() == "mine"
    assert (copy / "adapter" / "adapter_model.safetensors").read_bytes() != old
    assert step() == 5
    assert any("there are no plots" in line for line in said)
    assert store.Store(copy / "checkpoints", 1).facts(5)["metrics"] is None
    assert not list(copy.glob("*tmp*"))


def test_a_model_is_replaced_when_the_new_one_is_whole_and_what_lies_beside_it_stays(tmp_path, monkeypatch):
    x = types.SimpleNamespace(
        config={"adapter": {"name": "none"}, "data": {"template": ""}},
        template=None, model_config=None, model_dir=None, stop_ids=(),
    )  # fmt: skip
    folder, state = types.SimpleNamespace(path=tmp_path), types.SimpleNamespace(trainable={})
    monkeypatch.setattr(card, "of_run", lambda *_, **__: "")
    model = tmp_path / "model"
    (model / "mine").mkdir(parents=True)
    (model / "mine" / "notes.txt").write_text("mine")
    (model / "config.json").write_text("old")

    def written(new, *_, fails=False, **__):
        new.mkdir()
        (new / "config.json").write_text("new")
        if fails:
            raise UserError("no space left")

    monkeypatch.setattr(results.hf_export, "save", lambda *a, **k: written(*a, fails=True, **k))
    with pytest.raises(UserError, match="no space left"):
        results.save(x, folder, state, {})
    assert (model / "config.json").read_text() == "old"
    monkeypatch.setattr(results.hf_export, "save", written)
    results.save(x, folder, state, {})
    assert (model / "config.json").read_text() == "new"
    assert (model / "mine" / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
