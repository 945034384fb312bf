"""Answers of runs to a file of prompts: each made once, kept for a restart, made anew when what makes it changes."""

import json

import pytest

from ftjax import answers_of_runs, errors, inference
from ftjax.people import rating

SAMPLING = {"max_new_tokens": 4, "temperature": 0.0, "top_k": 0, "top_p": 1.0}


@pytest.fixture
def prompts(tmp_path):
    rows = [{"prompt": "Say red lamp.", "answer": "red lamp!"}, {"prompt": "Say blue boat.", "topic": "boats"}]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def collect(asked, prompts, folder, **changes):
    said = []
    given = {"sampling": SAMPLING, "seed": 0, "batch_size": 2, "say": said.append, **changes}
    return answers_of_runs.collect(asked, prompts, folder, **given), said


def test_base_and_run_answer_once_and_a_restart_asks_nobody(finished, prompts, tmp_path, monkeypatch):
    asked = answers_of_runs.systems(["base", str(finished.folder)])
    assert [one.name for one in asked] == ["base", "finished"]
    assert asked[0].made.adapter is None
    assert asked[1].made.adapter == str(finished.folder / "adapter")
    folder = tmp_path / "answers"
    paths, said = collect(asked, prompts, folder)
    assert said == ["base answers 2 prompts ...", "finished answers 2 prompts ..."]
    found = rating.read(paths)
    assert found.prompts == ["Say red lamp.", "Say blue boat."]
    alone = inference.load_made(inference.made_by(finished.folder), dtype="float32")
    asked_ids = [alone.prompt_ids([answers_of_runs.questions.records.Message("user", text)]) for text in found.prompts]
    assert found.of["finished"] == alone.complete(asked_ids, seed=0, **SAMPLING)
    assert found.of["base"] != found.of["finished"]
    assert json.loads(paths["base"].read_text().splitlines()[1])["topic"] == "boats"

    def load(*_, **__):
        raise AssertionError("nothing is to be asked again")

    monkeypatch.setattr(inference, "load_made", load)
    assert collect(asked, prompts, folder) == (paths, [])
    for changes in ({"seed": 1}, {"sampling": SAMPLING | {"max_new_tokens": 5}}):
        with pytest.raises(AssertionError, match="nothing is to be asked again"):
            collect(asked, prompts, folder, **changes)
    prompts.write_text('{"prompt": "Say tree."}\n')
    with pytest.raises(AssertionError, match="nothing is to be asked again"):
        collect(asked, prompts, folder)


def test_a_base_is_that_of_the_first_run_or_of_the_one_that_is_named(finished):
    run = str(finished.folder)
    first, named = answers_of_runs.systems([f"base:{run}", run])
    assert (first.name, first.made, named.name) == ("base", named.made._replace(adapter=None), "finished")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["base"], "base: of which run"),
        (["{run}", "{run}"], "--runs names .*/finished twice; name each once"),
        (["base", "base:{run}", "{run}"], "--runs names base of finished twice"),
        (["{run}", "no/such/run"], "no/such/run"),
    ],
)
def test_runs_that_cannot_answer_are_named(finished, arguments, said):
    with pytest.raises(errors.UserError, match=said):
        answers_of_runs.systems([text.format(run=finished.folder) for text in arguments])
