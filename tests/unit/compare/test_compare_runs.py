"""A comparison of folders as real runs and evaluations leave them."""

import json
import runpy

import pytest

from tests import bases
from tests.run_folders import told


def main(script):
    """The function of a script that takes its words."""
    return runpy.run_path(str(bases.ROOT / "scripts" / f"{script}.py"))["main"]


@pytest.fixture(scope="module")
def evaluated(finished, tmp_path_factory):
    """The folder of an evaluation of the finished run on its own held-out rows."""
    folder = tmp_path_factory.mktemp("evaluated") / "again"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(bases.ROOT)
        assert (
            main("evaluate")(["--config", f"configs/eval/held_out.py:run={finished.folder}", "--workdir", str(folder)])
            == 0
        )
    return folder


def test_an_evaluation_of_a_run_on_its_own_rows_is_the_run_again(finished, evaluated):
    found = told([finished.folder, evaluated])
    names = [one["name"] for one in found["systems"]]
    assert names == [f"{finished.folder.parent.name}/finished", "finished in again"]
    own = [one for one in found["metrics"] if one["set"] == "held-out"]
    assert {one["field"] for one in own} == {"score", "nats"}
    for one in own:
        assert one["against"][names[1]]["value"] == 0
        assert not one["against"][names[1]]["decided"]
    assert found["cost"][names[1]]["answer_seconds"] > 0
    assert found["notes"] == [f"{names[1]}: not measured on retention"]


def test_the_means_over_rows_are_those_of_the_summary(finished, evaluated):
    found = told([f"base:{finished.folder}", finished.folder])
    values = {(one["set"], one["field"]): one["values"] for one in found["metrics"]}
    after, before = finished.summary["after"], finished.summary["before"]
    assert values["held-out", "nats"]["finished"]["value"] == pytest.approx(after["eval_loss"], rel=1e-5)
    assert values["held-out", "nats"]["base"]["value"] == pytest.approx(before["eval_loss"], rel=1e-5)
    assert values["held-out", "score"]["finished"]["value"] == pytest.approx(after["eval_score"])
    assert values["retention", "nats"]["finished"]["value"] == pytest.approx(after["eval_retention_loss"], rel=1e-5)
    metrics = json.loads((evaluated / "evaluation.json").read_text())["metrics"]
    assert metrics["eval_loss"] == pytest.approx(after["eval_loss"], rel=1e-5)


def test_the_script_writes_the_comparison_of_a_run_with_its_base(finished, tmp_path, capsys):
    words = [
        "--runs",
        "base",
        str(finished.folder),
        "--baseline",
        "base",
        "--out",
        str(tmp_path / "out"),
        "--bar",
        "0.5",
    ]
    assert main("compare")(words) == 0
    said = capsys.readouterr().out
    assert "- finished " in said
    told_again = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert {one["kind"] for one in told_again["systems"]} == {"base", "run"}
    assert told_again["curves"]["loss"]["finished"]
    assert told_again["cost"]["finished"]["trainable_parameters"] == finished.summary["trainable_parameters"]
