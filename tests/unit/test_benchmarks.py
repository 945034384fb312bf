"""A config of benchmarks: local tasks of small sets, run on a tiny base as a user runs them."""

import gzip
import json
from pathlib import Path
import runpy

import numpy as np
import pytest

from ftjax import benchmarks, experiment
from ftjax import config as configs
from ftjax.errors import UserError
from ftjax.evals import local_tasks, statistics
from tests import bases

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the harness and of what it imports
WAYS = ("strict-match", "flexible-extract")
FILE = f"{bases.ROOT}/configs/eval/harness.py"
FOLLOWED = [
    {
        "prompt": "Say red, twice, without a comma.",
        "instruction_id_list": ["punctuation:no_comma", "keywords:frequency"],
        "kwargs": [{}, {"keyword": "red", "frequency": 2, "relation": "at least"}],
    },
    {"prompt": "Say tree in quotation marks.", "instruction_id_list": ["startend:quotation"], "kwargs": [{}]},
]


def write(file, text):
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(gzip.compress(text.encode()))


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A folder with small sets in the form of the real ones."""
    folder = tmp_path_factory.mktemp("sets")
    docs = [
        {"id": f"q{n}", "query": f"Say {word}.", "choices": ["red", "lamp", "boat"], "gold": n % 3}
        for n, word in enumerate(bases.WORDS)
    ]
    requests = [{"doc": doc, "idx": n} for doc in docs for n in range(3)]
    write(folder / "arc_easy_requests" / "requests.jsonl.gz", lines(requests))
    subject = [{"question": " 1 + 1? ", "subject": "basic_sums", "choices": ["1", "2", "3", "4"], "answer": 1}]
    write(folder / "mmlu_subset" / "basic_sums_test.jsonl.gz", lines(subject))
    say = {"question": "Is it?", "answer_matching_behavior": " Yes", "answer_not_matching_behavior": " No"}
    write(folder / "anthropic_persona_evals" / "openness.jsonl.gz", lines([say, say]))
    write(
        folder / "wikitext2_valid" / "valid.txt.gz",
        "\n = One = \n\n red lamp \n = = Part = = \n boat \n = Two = \n\n tree \n",
    )
    sums = [{"question": f"{n} + 1?", "answer": f"It is {n + 1}.\n#### {n + 1:,}"} for n in (*range(6), 4998)]
    write(folder / "gsm8k_train" / "train.jsonl.gz", lines(sums))
    write(folder / "ifeval" / "input_data_shared.jsonl.gz", lines(FOLLOWED))
    return folder


@pytest.fixture
def spec(sets, tiny_base):
    return f"{FILE}:model={tiny_base},data={sets}"


def test_local_tasks_are_what_the_sets_hold(sets):
    tasks = local_tasks.found(sets)
    assert list(tasks) == [
        *("arc_easy_local", "mmlu_basic_sums_local", "persona_openness_local", "wikitext_local"),
        *("gsm8k_local", "ifeval_local"),
    ]
    rows = {name: task["custom_dataset"]()["test"] for name, task in tasks.items()}
    assert len(rows["arc_easy_local"]) == len(bases.WORDS)  # a question once, not once a choice
    assert rows["persona_openness_local"][0]["choices"] == ["Yes", "No"]
    assert [row["page"].split()[1] for row in rows["wikitext_local"]] == ["One", "Two"]
    assert "boat" in rows["wikitext_local"][0]["page"]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (
            '{"question": "1 + 1?", "answer": "#### 2"}\n{"question": "1?"}\n',
            r"train.jsonl.gz:2: the row has no answer",
        ),
        ('{"question": "1 + 1?", "answer": "#### 2"}\n{"question"\n', "train.jsonl.gz:2: broken JSON"),
    ],
)
def test_a_set_of_another_shape_is_refused_with_its_line_before_weights_are_read(rows, complaint, tiny_base, tmp_path):
    write(tmp_path / "gsm8k_train" / "train.jsonl.gz", rows)
    config = configs.load(f"{FILE}:model={tiny_base},data={tmp_path}")
    with pytest.raises(UserError, match=complaint):
        benchmarks.build(configs.override(config, {"harness.tasks": ("gsm8k_local",)}))


def marked(task, answers):
    """What the harness makes of fixed answers, each to the question that holds its key."""
    import lm_eval
    from lm_eval.api import model

    class Fixed(model.LM):
        def generate_until(self, requests, **_):
            return [next(text for key, text in answers.items() if one.args[0].endswith(key)) for one in requests]

        loglikelihood = loglikelihood_rolling = None

    known = benchmarks._known(None, everything=False)[0]
    return lm_eval.simple_evaluate(Fixed(), tasks=[task], task_manager=known, bootstrap_iters=0)


def test_gsm8k_is_the_harness_own_task_on_other_questions(sets):
    import lm_eval
    import yaml

    file = Path(lm_eval.__file__).parent / "tasks" / "gsm8k" / "gsm8k.yaml"
    theirs = yaml.safe_load(file.read_text())
    ours = local_tasks.found(sets)["gsm8k_local"]
    assert set(theirs) - set(ours) == {"tag", "dataset_path", "dataset_name", "training_split", "repeats", "metadata"}
    assert {key for key in theirs if key in ours and ours[key] != theirs[key]} == {"task", "fewshot_split"}


def test_numbers_of_gsm8k_are_found_strictly_behind_the_mark_and_flexibly_at_the_end(sets):
    answers = {
        "Question: 0 + 1?\nAnswer:": "#### 1",
        "Question: 1 + 1?\nAnswer:": " So 2.\n#### 2 apples",
        "Question: 2 + 1?\nAnswer:": "The answer is $3.",  # flexible alone
        "Question: 3 + 1?\nAnswer:": "#### 4 and not 5",  # strict alone
        "Question: 4 + 1?\nAnswer:": "",
        "Question: 5 + 1?\nAnswer:": "six",
        "Question: 4998 + 1?\nAnswer:": "#### 4999.",
    }
    found = marked(local_tasks.found(sets)["gsm8k_local"], answers)
    rows = {way: [one for one in found["samples"]["gsm8k_local"] if one["filter"] == way] for way in WAYS}
    assert [[row["exact_match"] for row in rows[way]] for way in WAYS] == [
        [1, 1, 0, 1, 0, 0, 1],
        [1, 1, 1, 0, 0, 0, 1],
    ]
    prompt = rows["strict-match"][0]["arguments"][0][0]
    assert prompt.count("Question:") == 6  # five others, and the question once
    assert prompt.count("Question: 0 + 1?") == 1


def test_instructions_of_ifeval_are_counted_by_prompt_and_by_instruction(sets):
    found = marked(
        local_tasks.found(sets)["ifeval_local"],
        {"comma.": "red red", "marks.": 'Here you are:\n"tree"'},  # loosely, the first line is not part of it
    )
    numbers = benchmarks._numbers(
        found["results"]["ifeval_local"], benchmarks._rows("", found["samples"]["ifeval_local"]), 0.95
    )
    assert {key.removesuffix("_acc,none"): one["value"] for key, one in numbers.items()} == {
        "prompt_level_strict": 0.5,
        "inst_level_strict": pytest.approx(2 / 3),
        "prompt_level_loose": 1.0,
        "inst_level_loose": 1.0,
    }
    assert {one["of"] for one in numbers.values()} == {2, 3}
    apart = statistics.share(np.array([1.0, 1.0, 0.0]), None, level=0.95)
    strict = numbers["inst_level_strict_acc,none"]
    assert strict["low"] < apart.low  # two of the three stand in one prompt
    assert strict["high"] > apart.high


def test_benchmarks_have_intervals_and_a_line_for_each_question(spec, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(experiment, "use_compilation_cache", lambda: None)  # the tests have their own
    main = runpy.run_path(f"{bases.ROOT}/scripts/evaluate.py")["main"]
    words = [
        "--config.harness.tasks=(arc_easy_local,wikitext_local)",
        "--config.harness.length=64",
    ]
    assert main(["--config", spec, *words, "--workdir", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "benchmarks.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    right = np.array([row["acc"] for row in rows if row["task"] == "arc_easy_local"])
    assert len(right) == len(bases.WORDS)
    wanted = statistics.share(right, None, level=0.95)
    assert found["tasks"]["arc_easy_local"]["acc,none"] == pytest.approx(wanted._asdict())
    assert found["tasks"]["wikitext_local"]["byte_perplexity,none"]["value"] > 1
    assert "arc_easy_local" in capsys.readouterr().out
    assert (tmp_path / "out" / "DONE").exists()


def test_a_chat_model_is_asked_in_its_template(spec):
    changes = {"harness.tasks": ("arc_easy_local",), "harness.length": 64, "harness.limit": 1}
    measure = lambda **more: benchmarks.measure(benchmarks.build(configs.override(configs.load(spec), changes | more)))
    plain, chat = (measure(**{"harness.chat": chat})[1] for chat in (False, True))
    assert len(plain) == len(chat) == 1
    assert plain[0]["answers"] != chat[0]["answers"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"harness.tasks": ()}, "tasks is empty; .* has arc_easy_local, mmlu_basic_sums_local"),
        ({"harness.tasks": ("arc_esy",)}, "no task 'arc_esy'.*did you mean 'arc_easy_local'"),
        ({"harness.data": "/none/sets"}, "there is no folder"),
        ({"model.path": "no/such"}, "there is no model folder 'no/such'"),
        ({"harness.limit": -1}, "limit is -1; it must be at least 0"),
    ],
)
def test_what_is_wrong_is_said_before_weights_are_read(spec, changes, complaint, monkeypatch):
    known = benchmarks._known
    monkeypatch.setattr(benchmarks, "_known", lambda include, **_: known(include, everything=False))  # all take seconds
    with pytest.raises(UserError, match=complaint):
        benchmarks.build(configs.override(configs.load(spec), {"harness.tasks": ("arc_easy_local",)} | changes))


def test_every_default_of_a_benchmark_is_read(spec, monkeypatch):
    asked = set()
    monkeypatch.setattr(experiment, "plain", lambda config: bases.Recorder(config.to_dict(), asked))
    changes = {"harness.tasks": ("arc_easy_local",), "harness.length": 64, "harness.limit": 1}
    config = configs.override(configs.load(spec), changes)
    benchmarks.measure(benchmarks.build(config))
    assert set(configs.flatten(config)) - asked == set()
