"""Tasks of the harness made of files beside us, so that they run without a hub.

`found(folder)` looks for the sets by the names of their folders. To add one: a function from a folder to the
harness's own description of a task, and its name in `SETS`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import functools
from pathlib import Path
import re
from typing import Any

from ftjax.data import files
from ftjax.data.sources import jsonl
from ftjax.errors import UserError
from ftjax.verify import instructions

Rows = list[dict[str, Any]]
LETTERS = "ABCD"


def found(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the tasks of the sets that the folder holds, by name."""
    made = (SETS[name](folder / name) for name in SETS if (folder / name).is_dir())
    return {task["task"]: task for tasks in made for task in tasks}


def arc_easy(folder: Path) -> list[dict[str, Any]]:
    """Returns ARC easy, 0-shot, from requests as OLMo's harness writes them (570 questions, each choice a text)."""

    def rows() -> Rows:
        docs = {row["doc"]["id"]: row["doc"] for row in _rows(folder / "requests.jsonl.gz", "doc")}
        return list(docs.values())

    metrics = ("acc", "acc_norm")
    return [_choices("arc_easy_local", rows, "{{query}}", "{{choices}}", "gold", metrics)]


def mmlu(folder: Path) -> list[dict[str, Any]]:
    """Returns the subjects of MMLU, 0-shot in the words of its authors, by the letters of the choices."""
    lines = "".join(f"{letter}. {{{{choices[{n}]}}}}\n" for n, letter in enumerate(LETTERS))
    ask = "The following are multiple choice questions (with answers) about {{subject.replace('_', ' ')}}.\n\n"
    return [
        _choices(
            f"mmlu_{file.name.removesuffix('_test.jsonl.gz')}_local",
            functools.partial(_rows, file, "question", "subject", "choices", "answer"),
            f"{ask}{{{{question.strip()}}}}\n{lines}Answer:",
            list(LETTERS),
            "answer",
            ("acc",),
        )
        for file in sorted(folder.glob("*_test.jsonl.gz"))
    ]


def persona(folder: Path) -> list[dict[str, Any]]:
    """Returns Anthropic's persona sets: how often the model prefers the answer that shows the trait."""

    def rows(file: Path) -> Rows:
        sides = ("answer_matching_behavior", "answer_not_matching_behavior")
        return [
            {"question": row["question"], "choices": [row[side].strip() for side in sides], "gold": 0}
            for row in _rows(file, "question", *sides)
        ]

    return [
        _choices(
            f"persona_{file.name.removesuffix('.jsonl.gz')}_local",
            functools.partial(rows, file),
            "{{question}}\nAnswer:",
            "{{choices}}",
            "gold",
            ("acc",),
        )
        for file in sorted(folder.glob("*.jsonl.gz"))
    ]


def wikitext(folder: Path) -> list[dict[str, Any]]:
    """Returns the articles of WikiText-2's validation text, rolled through whole, by word and byte as they stand."""

    def rows() -> Rows:
        text = files.text(folder / "valid.txt.gz")
        starts = [match.start() for match in re.finditer(r"^ = [^=].*[^=] = $", text, re.MULTILINE)]
        return [{"page": text[a:b]} for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]

    metrics = ("word_perplexity", "byte_perplexity", "bits_per_byte")
    return [
        {
            "task": "wikitext_local",
            "custom_dataset": _data(rows),
            "test_split": "test",
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{page}}",
            "metric_list": [{"metric": name} for name in metrics],
        }
    ]


def gsm8k(folder: Path) -> list[dict[str, Any]]:
    """Returns GSM8K's training questions asked and marked as the harness does it, 5-shot by others of them.

    strict-match wants "#### number", flexible-extract takes the last number of the answer. Published scores are of the
    test split, which the set does not have.
    """
    marked = {"function": "regex", "regex_pattern": r"#### (\-?[0-9\.\,]+)"}
    last = {"function": "regex", "group_select": -1, "regex_pattern": r"(-?[$0-9.,]{2,})|(-?[0-9]+)"}
    exact = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "ignore_case": True}
    return [
        {
            "task": "gsm8k_local",
            "custom_dataset": _data(functools.partial(_rows, folder / "train.jsonl.gz", "question", "answer")),
            "test_split": "test",
            "fewshot_split": "test",  # the harness leaves out the question itself
            "output_type": "generate_until",
            "doc_to_text": "Question: {{question}}\nAnswer:",
            "doc_to_target": "{{answer}}",
            "generation_kwargs": {"until": ["Question:", "</s>", "<|im_end|>"], "do_sample": False, "temperature": 0.0},
            "num_fewshot": 5,
            "filter_list": [
                {"name": "strict-match", "filter": [marked, {"function": "take_first"}]},
                {"name": "flexible-extract", "filter": [last, {"function": "take_first"}]},
            ],
            "metric_list": [
                exact | {"ignore_punctuation": False, "regexes_to_ignore": [",", r"\$", "(?s).*#### ", r"\.$"]}
            ],
        }
    ]


def ifeval(folder: Path) -> list[dict[str, Any]]:
    """Returns IFEval: how many prompts and how many instructions are followed, read strictly and loosely.

    The harness's own metrics download Punkt's model when they are imported, so these are those of `verify.instructions`
    (docs/rewards.md says where they differ).
    """
    file = folder / "input_data_shared.jsonl.gz"
    each = {"prompt_level": "mean", "inst_level": _share}
    return [
        {
            "task": "ifeval_local",
            "custom_dataset": _data(functools.partial(_rows, file, "prompt", "instruction_id_list", "kwargs")),
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_text": "prompt",
            "doc_to_target": 0,
            "generation_kwargs": {"until": [], "do_sample": False, "temperature": 0.0, "max_gen_toks": 1280},
            "num_fewshot": 0,
            "process_results": ifeval_kept,
            "metric_list": [
                {"metric": f"{level}_{reading}_acc", "aggregation": aggregation, "higher_is_better": True}
                for reading in instructions.READINGS
                for level, aggregation in each.items()
            ],
        }
    ]


SETS: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    "arc_easy_requests": arc_easy,
    "mmlu_subset": mmlu,
    "anthropic_persona_evals": persona,
    "wikitext2_valid": wikitext,
    "gsm8k_train": gsm8k,
    "ifeval": ifeval,
}


def ifeval_kept(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, bool | list[bool]]:
    """Returns whether a response keeps all and each of its prompt's instructions, by the harness's names."""
    found: dict[str, bool | list[bool]] = {}
    for reading, read in instructions.READINGS.items():
        kept = read(results[0], doc["instruction_id_list"], doc["kwargs"])
        found |= {f"prompt_level_{reading}_acc": all(kept), f"inst_level_{reading}_acc": kept}
    return found


def _choices(
    name: str, rows: Callable[[], Rows], text: str, choices: str | list[str], target: str, metrics: Iterable[str]
) -> dict[str, Any]:
    return {
        "task": name,
        "custom_dataset": _data(rows),
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": text,
        "doc_to_choice": choices,
        "doc_to_target": target,
        "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in metrics],
    }


def _share(rows: Sequence[Sequence[bool]]) -> float:
    return instructions.accuracy(rows)["instruction"]


def _data(rows: Callable[[], Rows]) -> Callable[..., dict[str, Any]]:
    made = functools.cache(rows)

    def load(**_: Any) -> dict[str, Any]:
        import datasets

        return {"test": datasets.Dataset.from_list(made())}

    return load


def _rows(file: Path, *columns: str) -> Rows:
    found = []
    for where, row in jsonl.read(str(file)):
        missing = [name for name in columns if name not in row]
        if missing:
            raise UserError(f"{where}: the row has no {', '.join(missing)}; a row of this set has {', '.join(columns)}")
        found.append(row)
    return found
