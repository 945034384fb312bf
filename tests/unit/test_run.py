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
        config={"data": {"paths": ("x",)}, "adapter": {"path": ""}},
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
