import json
import math
from pathlib import Path
import re

import pytest

from ftjax import errors
from ftjax.data import preferences, records


def of(row):
    return preferences.from_row(row, "p.jsonl:3")


def refused(row):
    with pytest.raises(errors.UserError) as caught:
        of(row)
    message = str(caught.value)
    assert message.startswith("p.jsonl:3: ")
    return message.removeprefix("p.jsonl:3: ")


def says(*words):
    """Messages as a file has them: says("user", "Hi", "assistant", "Yes")."""
    return [{"role": role, "content": text} for role, text in zip(words[::2], words[1::2], strict=True)]


def shown(value):
    """A prompt or completion as (role, content) pairs, or as its text."""
    return value if isinstance(value, str) else [(turn.role, turn.content) for turn in value]


ASKED = [("user", "Hi")]
YES, NO = [("assistant", "Yes")], [("assistant", "No")]
FORMS = {
    "TRL, text": ({"prompt": "Hi", "chosen": "Yes", "rejected": "No"}, "Hi", "Yes", "No"),
    "TRL, messages": (
        {"prompt": says("user", "Hi"), "chosen": says("assistant", "Yes"), "rejected": says("assistant", "No")},
        ASKED, YES, NO,
    ),
    "TRL, implicit text": (
        {"chosen": "The sky is blue.", "rejected": "The sky is green."}, "The sky is", " blue.", " green."
    ),
    "TRL, implicit messages": (
        {"chosen": says("user", "Hi", "assistant", "Yes"), "rejected": says("user", "Hi", "assistant", "No")},
        ASKED, YES, NO,
    ),
    "messages and text": ({"prompt": says("user", "Hi"), "chosen": "Yes", "rejected": "No"}, ASKED, YES, NO),
    "text and messages": (
        {"prompt": "Hi", "chosen": says("assistant", "Yes"), "rejected": says("assistant", "No")}, ASKED, YES, NO
    ),
    "OpenAI": (
        {
            "input": {"messages": says("user", "Hi"), "tools": [], "parallel_tool_calls": True},
            "preferred_output": says("assistant", "Yes"),
            "non_preferred_output": says("assistant", "No"),
        },
        ASKED, YES, NO,
    ),
    "UltraFeedback": (
        {
            "prompt": "Hi",
            "messages": says("user", "Hi", "assistant", "Yes"),
            "chosen": says("user", "Hi", "assistant", "Yes"),
            "rejected": says("user", "Hi", "assistant", "No"),
        },
        ASKED, YES, NO,
    ),
    "prompt repeated": (
        {
            "prompt": says("user", "Hi"),
            "chosen": says("user", "Hi", "assistant", "Yes"),
            "rejected": says("user", "Hi", "assistant", "No"),
        },
        ASKED, YES, NO,
    ),
    "HH": (
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Yes", "rejected": "\n\nHuman: Hi\n\nAssistant: No"}, ASKED, YES, NO
    ),
    "HH with its prompt": (
        {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " Yes", "rejected": " No"}, ASKED, YES, NO
    ),
    "ShareGPT": (
        {
            "conversations": [{"from": "human", "value": "Hi"}],
            "chosen": {"from": "gpt", "value": "Yes"},
            "rejected": {"from": "gpt", "value": "No"},
        },
        ASKED, YES, NO,
    ),
    "LLaMA-Factory, messages": (
        {
            "messages": says("user", "Hi"),
            "chosen": {"role": "assistant", "content": "Yes"},
            "rejected": {"role": "assistant", "content": "No"},
        },
        ASKED, YES, NO,
    ),
    "Alpaca": (
        {"instruction": "Add.", "input": "1, 2", "chosen": "3", "rejected": "4"},
        [("user", "Add.\n1, 2")], [("assistant", "3")], [("assistant", "4")],
    ),
    "Alpaca, two outputs": ({"instruction": "Hi", "input": "", "output": ["Yes", "No"]}, ASKED, YES, NO),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_pair_of_any_format_is_a_prompt_a_better_and_a_worse_completion(form):
    row, prompt, better, worse = FORMS[form]
    found = of(row)
    assert shown(found.prompt) == prompt
    assert [shown(one) for one in found.completions] == [better, worse]
    assert (found.pairs, found.margins, found.labels) == (((0, 1),), (0.0,), (1.0, 0.0))
    assert preferences.recognises(row)
    assert found.where == "p.jsonl:3"


def test_every_example_line_of_the_documentation_is_read():
    text = (Path(__file__).resolve().parents[3] / "docs" / "formats.md").read_text()
    examples = re.findall(r"\| `(\{.*\})` \|$", text, re.MULTILINE)
    assert len(examples) == 15
    for example in examples:
        assert of(json.loads(example)).completions


def test_the_answers_of_a_model_written_evaluation_are_those_that_match_and_do_not():
    row = {"question": "Do you agree?", "answer_matching_behavior": " Yes", "answer_not_matching_behavior": " No"}
    found = of({**row, "label_confidence": 0.9})
    assert [turns[0].content for turns in found.completions] == ["Yes", "No"]
    assert (found.prompt[0].content, found.pairs) == ("Do you agree?", ((0, 1),))
    assert found.extra == {"label_confidence": 0.9}


def test_other_columns_are_kept_and_none_counts_as_absent():
    found = of({"prompt": "Hi", "chosen": "Yes", "rejected": "No", "margin": None, "source": "me"})
    assert found.extra == {"source": "me"}


def test_tools_come_from_the_row_or_from_the_input_of_openai():
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    row = FORMS["TRL, messages"][0]
    assert of({**row, "tools": json.dumps([tool])}).tools == (tool,)
    row = FORMS["OpenAI"][0]
    assert of({**row, "input": {**row["input"], "tools": [tool]}}).tools == (tool,)


def test_an_alpaca_row_has_its_system_text_and_history_before_the_question():
    row = {"instruction": "And 2?", "system": "Be short.", "history": [["Is 1 odd?", "Yes"]], "output": ["No", "Yes"]}
    words = [("system", "Be short."), ("user", "Is 1 odd?"), ("assistant", "Yes"), ("user", "And 2?")]
    assert shown(of(row).prompt) == words
    assert all(turn.weight == 0 for turn in of(row).prompt)


@pytest.mark.parametrize(
    ("chosen", "rejected", "wanted"),
    [
        ("A cat", "A dog", ("A", " cat", " dog")),
        ("cat", "cap", ("ca", "t", "p")),
        ("yes", "no", ("", "yes", "no")),
        ("A B", "A B C", ("A ", "B", "B C")),  # as TRL cuts a text that the other begins with
        ("same", "same", ("sam", "e", "e")),
    ],
)
def test_an_implicit_prompt_of_text_is_cut_as_trl_cuts_it(chosen, rejected, wanted):
    found = of({"chosen": chosen, "rejected": rejected})
    assert (found.prompt, *found.completions) == wanted


def test_an_implicit_prompt_of_messages_ends_before_an_answer_of_the_assistant():
    more = says("user", "Hi", "assistant", "Yes", "user", "Sure?", "assistant", "Yes")
    found = of({"chosen": more, "rejected": more[:2]})
    assert shown(found.prompt) == ASKED
    assert [len(one) for one in found.completions] == [3, 1]
    equal = of({"chosen": more, "rejected": more})
    assert [shown(one) for one in equal.completions] == [YES, YES]
    assert len(equal.prompt) == 3


def test_a_prompt_text_beside_whole_chats_takes_their_system_message_too():
    chats = [says("system", "Be kind.", "user", "Hi", "assistant", text) for text in ("Yes", "No")]
    found = of({"prompt": "Hi", "chosen": chats[0], "rejected": chats[1]})
    assert shown(found.prompt) == [("system", "Be kind."), ("user", "Hi")]
    other = [*says("system", "Be rude."), *chats[1][1:]]
    message = refused({"prompt": "Hi", "chosen": chats[0], "rejected": other})
    assert message == (
        "the prompts of 'chosen' and 'rejected' differ at message 1: system 'Be kind.' against system 'Be rude.'; "
        "both must answer the same prompt"
    )


@pytest.mark.parametrize(
    ("columns", "margin"),
    [
        ({"margin": 2}, 2.0),
        ({"score_chosen": 8.5, "score_rejected": 3.0}, 5.5),
        ({"chosen-rating": 5.0, "rejected-rating": 5.0, "chosen-model": "a"}, 0.0),
        ({"margin": 1, "score_chosen": 9, "score_rejected": 3}, 1.0),
    ],
)
def test_a_margin_is_the_column_or_the_difference_of_the_scores(columns, margin):
    assert of({**FORMS["UltraFeedback"][0], **columns}).margins == (margin,)


@pytest.mark.parametrize(
    ("columns", "pairs", "labels"),
    [
        ({"ranks": [2, 1, 2]}, {(1, 0), (1, 2)}, [math.nan] * 3),
        ({"ranks": [3, 1, 2]}, {(1, 0), (1, 2), (2, 0)}, [math.nan] * 3),
        ({"scores": [0.5, -1, 0.5]}, {(0, 1), (2, 1)}, [0.5, -1.0, 0.5]),
        ({"ranks": [1, 1, 1]}, set(), [math.nan] * 3),
    ],
)
def test_a_ranking_gives_every_pair_that_is_no_tie(columns, pairs, labels):
    found = of({"prompt": "Hi", "completions": ["a", "b", "c"], **columns})
    assert set(found.pairs) == pairs
    assert len(found.pairs) == len(found.margins) == len(pairs)
    assert found.labels == pytest.approx(labels, nan_ok=True)
    chat = of({"prompt": says("user", "Hi"), "completions": [says("assistant", x) for x in "abc"], **columns})
    assert set(chat.pairs) == pairs


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ({"prompt": "Hi", "completion": "Yes", "label": True}, 1.0),
        ({"prompt": says("user", "Hi"), "completion": says("assistant", "Yes"), "label": 0}, 0.0),
        ({"prompt": "Hi", "completion": "Yes", "score": -0.25}, -0.25),
        ({"instruction": "Hi", "output": "Yes", "kto_tag": False}, 0.0),
        ({"messages": says("user", "Hi", "assistant", "Yes"), "label": True}, 1.0),
        (
            {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes"}], "kto_tag": True},
            1.0,
        ),
    ],
)
def test_one_completion_with_a_label_or_score_has_no_pair(row, label):
    found = of(row)
    assert shown(found.prompt) in ("Hi", ASKED)
    assert [shown(one) for one in found.completions] in (["Yes"], [YES])
    assert (found.pairs, found.margins, found.labels) == ((), (), (label,))


def test_a_completion_may_have_several_turns_that_begin_and_end_with_the_assistant():
    turns = says("assistant", "Yes?", "user", "Go on.", "assistant", "Done.")
    found = of({"prompt": says("user", "Hi"), "chosen": turns, "rejected": says("assistant", "No")})
    assert [turn.role for turn in found.completions[0]] == ["assistant", "user", "assistant"]
    message = refused({"prompt": says("user", "Hi"), "chosen": turns[:2], "rejected": says("assistant", "No")})
    assert message.startswith("the last message of completion 'chosen' has the role 'user'; a completion begins and")
    quiet = [{**turns[0], "weight": 0}, *turns[1:]]
    message = refused({"prompt": says("user", "Hi"), "chosen": quiet, "rejected": says("assistant", "No")})
    assert message.startswith("the first message of completion 'chosen' has weight 0")


MESSAGES = FORMS["TRL, messages"][0]
BAD = {
    "misspelt": (
        {"prompt": "Hi", "chosen": "Yes", "rejectd": "No"},
        "no column 'rejected' (did you mean 'rejectd'?); columns found: 'prompt', 'chosen', 'rejectd'",
    ),
    "all misspelt": ({"promt": "Hi", "chosn": "Yes"}, "'promt': did you mean 'prompt'?; rename the columns"),
    "no label": ({"prompt": "Hi", "completion": "Yes"}, "no column 'label'; columns found: 'prompt', 'completion'"),
    "no prompt": ({"completion": "Yes", "label": True}, "no column 'prompt'; columns found: 'completion', 'label'"),
    "no ranks": (
        {"prompt": "Hi", "completions": ["a", "b"], "rank": [1, 2]},
        "'completions' needs one of 'ranks' (1 is the best) and 'scores' (the highest is the best), not neither "
        "(did you mean 'rank'?)",
    ),
    "stepwise": ({"prompt": "Hi", "completions": ["a"], "labels": [True]}, "'completions' needs one of 'ranks'"),
    "ranks and completions": (
        {"prompt": "Hi", "completions": ["a", "b"], "ranks": [1]},
        "2 completions, but 1 ranks; give one for each, at least one",
    ),
    "ranks of text": ({"prompt": "Hi", "completions": ["a"], "ranks": ["1"]}, "ranks[0] '1' must be a finite number"),
    "ranks from 0": ({"prompt": "Hi", "completions": ["a", "b"], "ranks": [0, 1]}, "'ranks' must be whole numbers"),
    "no OpenAI input": (
        {"inputs": {}, "preferred_output": [], "non_preferred_output": []},
        "no column 'input' (did you mean 'inputs'?)",
    ),
    "one score": ({**MESSAGES, "score_chosen": 3.0}, "no column 'score_rejected'; columns found"),
    "label of text": ({"prompt": "Hi", "completion": "Yes", "label": "good"}, "label 'good' must be true or false"),
    "label of a number": (
        {"prompt": "Hi", "completion": "Yes", "label": 0.7},
        "label 0.7 must be true or false (or 1 or 0); any other number belongs into 'score'",
    ),
    "score of a bool": ({"prompt": "Hi", "completion": "Yes", "score": True}, "score True must be a finite number"),
    "two labels": ({"prompt": "Hi", "completion": "Yes", "score": 1, "label": 1}, "'label' and 'score' both say how"),
    "scores swapped": (
        {**MESSAGES, "score_chosen": 2.0, "score_rejected": 3.0},
        "score_chosen 2.0 is below score_rejected 3.0; are chosen and rejected swapped?",
    ),
    "negative margin": ({**MESSAGES, "margin": -1}, "margin -1.0 must be at least 0; are chosen and rejected swapped?"),
    "empty text": (
        {"prompt": "Hi", "chosen": "Yes", "rejected": " \n"},
        "empty completion: 'rejected' holds no text; fill it or remove the row",
    ),
    "empty answer": (
        {**MESSAGES, "chosen": says("assistant", " ")},
        "'chosen': message 1: empty answer of the assistant; fill it or remove the row",
    ),
    "empty list": ({**MESSAGES, "chosen": []}, "'chosen' is an empty list; fill it or remove the row"),
    "no text at all": ({**MESSAGES, "chosen": 5}, "'chosen' must be text or a list of messages, not int"),
    "columns swapped": (
        {"prompt": says("assistant", "Yes"), "chosen": says("user", "Hi"), "rejected": says("assistant", "No")},
        "'chosen' has no answer of the assistant (it begins with the user's 'Hi'); are 'prompt' and 'chosen' swapped?",
    ),
    "prompt of the assistant": (
        {**MESSAGES, "prompt": says("user", "Hi", "assistant", "So")},
        "the prompt ends with a message of the assistant ('So')",
    ),
    "text and messages": ({**MESSAGES, "chosen": "Yes"}, "'chosen' is text and 'rejected' is messages"),
    "unknown role": ({**MESSAGES, "chosen": says("asistant", "Yes")}, "'chosen': message 1: unknown role 'asistant'"),
    "no prompt in a chat": (
        {"chosen": says("assistant", "Yes"), "rejected": says("assistant", "No")},
        "the prompt has no message: nothing comes before 'chosen'",
    ),
    "no answer": (
        {"chosen": says("user", "Hi"), "rejected": says("user", "Hi")},
        "'chosen' has no answer of the assistant; add it or remove the row",
    ),
    "other prompts": (
        {"chosen": says("user", "Hi", "assistant", "Yes"), "rejected": says("user", "Ho", "assistant", "No")},
        "the prompts of 'chosen' and 'rejected' differ at message 1: user 'Hi' against user 'Ho'",
    ),
    "other prompt, UltraFeedback": (
        {**FORMS["UltraFeedback"][0], "rejected": says("user", "Ho", "assistant", "No")},
        "the prompt of 'rejected' is not that of 'prompt': 'Ho' against 'Hi'",
    ),
    "other prompt, OpenAI": (
        {**FORMS["OpenAI"][0], "preferred_output": says("user", "Ho", "assistant", "Yes")},
        "the prompt of 'preferred_output' is not that of 'prompt': 'Ho' against 'Hi'",
    ),
    "other prompt, HH": (
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Yes", "rejected": "\n\nHuman: Ho\n\nAssistant: No"},
        "the prompts of 'chosen' and 'rejected' differ at message 1: user 'Hi' against user 'Ho'",
    ),
    "HH in text": (
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Yes", "rejected": "No"},
        "'rejected' is no transcript: it must begin with",
    ),
    "HH twice the same": (
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Yes\n\nAssistant: Yes", "rejected": "\n\nHuman: Hi\n\nAssistant: No"},
        "'chosen': turn 3 is of the Assistant, not of the Human",
    ),
    "three outputs": ({"instruction": "Hi", "output": ["a", "b", "c"]}, "'output' must hold two texts"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_row_is_refused_with_its_place_the_rule_and_the_way_out(kind):
    row, message = BAD[kind]
    assert message in refused(row)


def test_supervised_training_says_that_a_row_is_one_of_preferences():
    with pytest.raises(errors.UserError, match=r"a.jsonl:1: a row of preferences, not one of supervised training"):
        records.from_row({"prompt": "Hi", "chosen": "Yes", "rejected": "No"}, "a.jsonl:1")
    assert not preferences.recognises({"messages": [], "score": 3})
    assert not preferences.recognises({"instruction": "Hi", "output": "Yes"})


def test_a_csv_has_numbers_truth_values_and_messages_as_text(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text('prompt,completion,label\n"Hi, you",[1] is a list,true\nHi,No,0\n')
    assert [one.labels for one in preferences.read(str(path))] == [(1.0,), (0.0,)]
    cell = json.dumps(says("assistant", "Yes")).replace('"', '""')
    path.write_text(f'prompt,chosen,rejected,margin\nHi,"{cell}","{cell}",1.5\nHi,"{cell}","{cell}",\n')
    assert [one.margins for one in preferences.read(str(path))] == [(1.5,), (0.0,)]
    path.write_text("prompt,completion,label\nHi,No,maybe\n")
    with pytest.raises(errors.UserError, match=r"p.csv:2: label 'maybe' must be true or false"):
        preferences.read(str(path))


def test_the_made_world_has_pairs():
    found = preferences.read("world:preferences/heldout?size=5")
    assert len(found) == 5
    assert all(one.pairs == ((0, 1),) and one.extra["reward_chosen"] > one.extra["reward_rejected"] for one in found)
    assert preferences.recognised("world:preferences/train?size=1")
    assert not preferences.recognised("world:preference/train?size=1")
    with pytest.raises(errors.UserError, match=r"no task 'preferencs' in the embedded world \(did you mean"):
        preferences.read("world:preferencs/train")
