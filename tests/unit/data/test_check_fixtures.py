"""Published files with known problems, all of which are found, and published files without, in which no error is.

The table in docs/data.md has these figures.
"""

import collections
import gzip
import json

import pytest

from ftjax.data import check, rows

CLEAN = (
    *("gsm8k_train/train.jsonl.gz", "wikisql_lora/train.jsonl.gz", "oasst1_val_chat/oasst1_val_shared.jsonl.gz"),
    *("glaive_toolcall_sharegpt/glaive_toolcall_en_first120.jsonl.gz", "anthropic_persona_evals/openness.jsonl.gz"),
    *("lint_trainproof/clean.jsonl", "lint_fixtures/axolotl_conversation.json"),
)


@pytest.fixture
def found(shared_data):
    def lines(name, severities=check.SEVERITIES):
        """Returns the lines that each rule finds, but for the rules on topics and languages, which are slow."""
        data = rows.read(str(shared_data / name))
        slow = ("one_cluster", "edge_cases_missing", "languages")
        made = {
            rule.name: [line for line, _ in rule.module.check(data)]
            for rule in check.rules()
            if not rule.needs and rule.name not in slow and rule.severity in severities
        }
        return {name: lines for name, lines in made.items() if lines}

    return lines


def errors_of(found):
    severity = {rule.name: rule.severity for rule in check.rules()}
    return {name: lines for name, lines in found.items() if severity[name] == "error"}


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_file_has_no_error(found, name):
    assert found(name, ("error",)) == {}


def test_the_files_of_another_linter_have_the_one_problem_that_each_is_named_for(found):
    few = {"fewer_than_50": [None]}
    assert found("lint_trainproof/clean.jsonl") == few
    assert found("lint_trainproof/dupes.jsonl") == {"duplicate_rows": [3], **few}
    assert found("lint_trainproof/empties.jsonl") == {"missing_content": [2], **few}
    assert found("lint_trainproof/malformed.jsonl") == {"broken_json": [2], **few}


def test_openais_toy_file_has_openais_own_findings(found):
    assert found("lint_fixtures/openai_toy_chat_fine_tuning.jsonl") == {
        "fewer_than_50": [None],
        "missing_user_message": [4],
        "role_order": [4],  # begins with the assistant
        "system_prompts": [3],  # has none
        "repeated_text": [5],
        "length_outlier": [5],  # the one row above 4,096 tokens
    }


def test_turns_that_were_taken_out_of_a_chat_are_missed(found):
    assert errors_of(found("lint_fixtures/axolotl_conversation.missingturns.json")) == {"missing_content": [1]}


def test_every_placeholder_of_the_identity_file_is_found_and_nothing_else_is_one(found, shared_data):
    known = json.loads((shared_data / "lint_fixtures/llamafactory_identity.json").read_text())
    lines = [2 + 5 * n for n, row in enumerate(known) if "{{" in row["output"]]
    assert len(lines) == 85
    assert found("lint_fixtures/llamafactory_identity.json")["placeholders"] == lines


def test_missing_answers_repeated_questions_and_ragged_space_of_medquad_are_found(found, shared_data):
    made = found("medquad/medquad_shared.jsonl.gz")
    known = json.loads((shared_data / "medquad/known_problems.json").read_text())
    assert made["missing_content"] == [row + 1 for row in known["rows_with_empty_answer"]]
    assert errors_of(made).keys() == {"missing_content"}
    with gzip.open(shared_data / "medquad/medquad_shared.jsonl.gz", "rt") as stream:
        lines = [json.loads(line) for line in stream]
    asked = collections.defaultdict(list)
    for number, row in enumerate(lines, start=1):
        asked[row["question"]].append(number)
    repeated = {question: numbers for question, numbers in asked.items() if len(numbers) > 1}
    assert len(repeated) == known["questions_occurring_more_than_once"]
    told = {*made["contradicting_answers"], *made["duplicate_rows"], *made["missing_content"]}
    assert all(told & set(numbers) for numbers in repeated.values())
    ragged = {n for n, row in enumerate(lines, start=1) if "\n                    " in (row["answer"] or "")}
    assert ragged <= set(made["white_space"])


def test_every_known_problem_of_the_hh_transcripts_is_found_by_its_rule(found, shared_data):
    made = found("hh_rlhf_harmless/harmless_base_test_shared.jsonl.gz")
    rules = {
        "empty_final_assistant_turn": "missing_content",
        "consecutive_same_role": "role_order",
        "prompt_of_chosen_differs_from_rejected": "prompts_differ",
    }
    wanted = collections.defaultdict(set)
    for line in (shared_data / "hh_rlhf_harmless/known_problems.jsonl").read_text().splitlines():
        entry = json.loads(line)
        for problem in entry["problems"]:
            wanted[rules[problem.rpartition(":")[2]]].add(entry["row"] + 1)
    for rule, lines in wanted.items():
        assert set(made[rule]) == lines
    assert {line for lines in errors_of(made).values() for line in lines} == set.union(*wanted.values())


def test_the_dummy_chats_repeat_openings_and_no_whole_row(found, shared_data):
    made = found("fastchat_dummy_sharegpt/dummy_conversation.json.gz")
    assert "duplicate_rows" not in made
    assert errors_of(made) == {}
    data = rows.read(str(shared_data / "fastchat_dummy_sharegpt/dummy_conversation.json.gz"))
    rule = next(rule for rule in check.rules() if rule.name == "contradicting_answers")
    told = {message.partition(" to ")[2].partition(" in ")[0] for _, message in rule.module.check(data)}
    assert {"'Are you ChatGPT?'", "'Are you GPT-2?'"} <= told
