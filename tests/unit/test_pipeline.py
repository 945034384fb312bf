"""Stages: what is wrong shows before the first one runs, and what is unchanged is not run again."""

import json

import ml_collections
import pytest

from configs import defaults
from configs.ppo import pipeline as file
from ftjax import config as configs
from ftjax import pipeline
from ftjax.data import used
from ftjax.errors import UserError
from tests import bases


def config_of(stages, order=None):
    made = ml_collections.ConfigDict()
    made.order = tuple(stages) if order is None else order
    made.stages = stages
    return made.lock()


@pytest.fixture
def ran(monkeypatch):
    """Stages that write a summary and are done: what each was given, in the order in which they ran."""
    seen = []

    def make(config, folder, _):
        seen.append(dict(config["pairs"]))
        folder.summary({"number": len(seen)})
        folder.done()
        return {"number": len(seen)}

    monkeypatch.setitem(pipeline.KINDS, "pairs", make)
    return seen


def stage(**values):
    return ml_collections.ConfigDict({"pairs": {"run": "", "seed": 0, **values}})


def run(stages, folder):
    return pipeline.train(config_of(stages), folder, ["train"], lambda _: None)


def test_a_stage_reads_the_folder_of_an_earlier_one(ran, tmp_path):
    found = run({"first": stage(), "second": stage(run="@first/adapter", also=("@first",))}, tmp_path)
    (folder,) = tmp_path.glob("first-*")
    assert ran[1]["run"] == f"{folder}/adapter"
    assert ran[1]["also"] == (str(folder),)
    assert found == {"first": {"number": 1}, "second": {"number": 2}}


def test_what_is_unchanged_is_used_again(ran, tmp_path):
    stages = {"first": stage(), "second": stage(run="@first")}
    again = run(stages, tmp_path), run(stages, tmp_path)
    assert len(ran) == 2
    assert again[0] == again[1]


def test_a_stage_is_not_used_again_after_a_file_that_it_read_has_changed(ran, tmp_path):
    stages = {"first": stage(), "second": stage(run="@first")}
    run(stages, tmp_path / "runs")
    data = bases.write_rows(tmp_path / "mine.jsonl", bases.rows(4))
    (folder,) = (tmp_path / "runs").glob("first-*")
    files, _ = used.seen([used.Source(str(data), {}, used.TRAINED)])
    (folder / used.FACTS).write_text(json.dumps({"files": files}))
    run(stages, tmp_path / "runs")
    bases.write_rows(data, bases.rows(5))
    with pytest.raises(UserError, match=rf"{data} has changed since {folder} read it .* or move {folder} away with"):
        run(stages, tmp_path / "runs")
    assert len(ran) == 2


def test_a_change_makes_a_stage_and_what_builds_on_it_anew_beside_the_old_ones(ran, tmp_path):
    run({"first": stage(), "other": stage(), "second": stage(run="@first")}, tmp_path)
    run({"first": stage(seed=1), "other": stage(), "second": stage(run="@first")}, tmp_path)
    assert [len(list(tmp_path.glob(f"{name}-*"))) for name in ("first", "other", "second")] == [2, 1, 2]
    assert len(ran) == 5


def test_how_it_is_logged_makes_no_new_stage(ran, tmp_path):
    made = {"pairs": {"seed": 0}, "log": {"project": "one"}}
    run({"first": ml_collections.ConfigDict(made)}, tmp_path)
    run({"first": ml_collections.ConfigDict(made | {"log": {"project": "two"}})}, tmp_path)
    assert len(ran) == 1


@pytest.mark.usefixtures("ran")
def test_a_stage_that_fails_says_so_in_its_folder_and_is_run_again(tmp_path, monkeypatch):
    good = pipeline.KINDS["pairs"]
    monkeypatch.setitem(pipeline.KINDS, "pairs", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run({"first": stage()}, tmp_path)
    (folder,) = tmp_path.glob("first-*")
    assert "ZeroDivisionError" in (folder / "FAILED").read_text()
    monkeypatch.setitem(pipeline.KINDS, "pairs", good)
    run({"first": stage()}, tmp_path)
    assert (folder / "DONE").exists()
    assert not (folder / "FAILED").exists()


@pytest.mark.usefixtures("ran")
@pytest.mark.parametrize(
    ("stages", "order", "said"),
    [
        ({"one": stage(run="@two")}, None, "config.stages.one: '@two' names no stage before one; there are none"),
        ({"one": stage(), "two": stage()}, ("one",), "must name each of config.stages once: one, two"),
        (
            {"one": ml_collections.ConfigDict(defaults.sft().to_dict() | {"microbatches": 0})},
            None,
            "config.stages.one: config.microbatches is 0; it must be at least 1",
        ),
    ],
)
def test_what_is_wrong_shows_before_the_first_stage(stages, order, said, tmp_path):
    with pytest.raises(UserError) as raised:
        pipeline.train(config_of(stages, order), tmp_path / "new", ["train"], lambda _: None)
    assert said in str(raised.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("argument", ["", "seeds=2,debug"])
def test_the_pipeline_of_the_made_world_is_in_order(argument):
    config = configs.load(f"configs/ppo/pipeline.py:{argument}")
    names = pipeline.check(config)
    assert names[:3] == ("sft", "pairs", "reward")
    assert names[-1] == "compare"
    assert config.is_locked
    policies = [name.partition("_")[0] for name in names[3:-1]]
    assert tuple(policies) == config.stages.compare.compare.names
    assert json.dumps(config.stages.sft.to_dict(), default=str) != json.dumps(file.dpo().to_dict(), default=str)
