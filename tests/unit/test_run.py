"""What a run asks before it goes on."""

import types

import pytest

from ftjax import inference, run
from ftjax.errors import UserError
from ftjax.runs import atomic


@pytest.fixture
def experiment():
    report = types.SimpleNamespace(as_dict=lambda: {"rows": 3})
    return types.SimpleNamespace(
        model_dir=inference.embedded_base(),
        data=types.SimpleNamespace(hash="a" * 64, report=report),
        config={"data": {"paths": ("x",)}, "adapter": {"path": "", "name": "lora"}, "steps": 30},
        algorithm=types.SimpleNamespace(value=None),
    )


@pytest.mark.parametrize(
    ("name", "label"), [("base.json", "base has content hash"), ("data.json", "the data has content")]
)
def test_a_run_on_another_base_or_other_data_is_refused_before_anything_is_written(name, label, experiment, tmp_path):
    run.check_same(experiment, tmp_path)
    atomic.write_json(tmp_path / name, {"hash": "b" * 64})
    (tmp_path / "DONE").touch()
    with pytest.raises(UserError, match=f"{label}.*but the run began on bbbbbbbbbbbb"):
        run.check_same(experiment, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["DONE", name])


def test_fewer_steps_than_were_taken_are_refused_with_the_way_out(experiment, tmp_path):
    (tmp_path / "checkpoints" / "30").mkdir(parents=True)
    run.check_same(experiment, tmp_path)
    (tmp_path / "checkpoints" / "72").mkdir()
    (tmp_path / "checkpoints" / "99.tmp").mkdir()
    with pytest.raises(UserError, match=r"config.steps is 30, but the run in .* is at step 72;.*--config.steps=72"):
        run.check_same(experiment, tmp_path)


def test_a_place_that_the_end_of_a_run_could_not_write_is_refused_before_it_goes_on(experiment, tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "notes.txt").write_text("mine")
    run.check_same(experiment, tmp_path)
    (tmp_path / "value").write_text("a file that a run of this algorithm does not write")
    run.check_same(experiment, tmp_path)
    experiment.algorithm.value = True
    with pytest.raises(UserError, match=r"value is no folder, and the run writes one of this name at its end"):
        run.check_same(experiment, tmp_path)
