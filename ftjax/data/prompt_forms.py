"""The forms in which preference files hold a prompt, and how it is taken from chosen and rejected where it is in both.

Prompt and completions come out all as text or all as messages. Two completions of which one belongs to another prompt
are refused: `_differ` shows where they part.
"""

from collections.abc import Sequence
import re
from typing import Any, NoReturn

from ftjax import errors
from ftjax.data import records

Turns = tuple[records.Message, ...]
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"  # of the transcripts of Anthropic's HH data
_SPEAKER = re.compile(r"\n\n(Human|Assistant):")


def turns(value: Any, at: str) -> Turns:
    """Returns messages given as a list of dicts, of OpenAI's form or ShareGPT's, or as one dict; `at` begins errors."""
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, (list, tuple)) and any(isinstance(item, dict) and "from" in item for item in value):
        value = records.sharegpt({"conversations": value}, at)
    if not isinstance(value, (list, tuple)):
        raise errors.UserError(f"{at} must be text or a list of messages, not {type(value).__name__}")
    if not value:
        raise errors.UserError(f"{at} is an empty list; fill it or remove the row")
    return records.messages(value, at)


def side(value: Any, at: str) -> str | Turns:
    """Returns a completion (or prompt with completion) as its text or as messages."""
    return records.text(value, "the value", at) if isinstance(value, str) else turns(value, at)


def context(row: dict[str, Any], where: str, *, alone: bool) -> tuple[str | Turns | None, tuple[str, ...]]:
    """Returns what comes before the completions by its own columns, or None, and the columns that it was in.

    `alone`: a column `messages` is no prompt here, because chosen and rejected are whole chats (UltraFeedback).
    """
    if "prompt" in row:
        return side(row["prompt"], f"{where}: 'prompt'"), ("prompt",)
    if "conversations" in row:
        found = records.messages(records.sharegpt(row, where), where)
        return found, ("conversations", "system")
    if "messages" in row and not alone:
        return turns(records.unpacked(row["messages"], "messages", where), f"{where}: 'messages'"), ("messages",)
    if "instruction" in row:
        return records.alpaca(row, where), ("instruction", "input", "system", "history")
    return None, ()


def beside(prompt: str | Turns, sides: Sequence[str | Turns], names: Sequence[str], where: str) -> list[Any]:
    """Returns prompt and completions in one form; where the completions repeat the prompt, it is taken from them."""
    texts = [one for one in sides if isinstance(one, str)]
    if isinstance(prompt, str) and len(texts) == len(sides):
        if not prompt.startswith(HUMAN):
            return [prompt, *texts]
        whole = [one if one.startswith(prompt) else f"{prompt}{one}" for one in texts]
        return _transcripts(whole, names, where)
    given = records.messages([{"role": "user", "content": prompt}], where) if isinstance(prompt, str) else prompt
    found: list[Turns] = []
    for name, one in zip(names, sides, strict=True):
        if isinstance(one, str):
            one = _answer(one, name, where)
        if one[0].role != "assistant":
            one = _after(given, one, name, where, whole=not isinstance(prompt, str))
        found.append(one)
    if isinstance(prompt, str):  # the completions may hold more than the question: a system message, earlier turns
        starts = [
            one[: len(one) - len(rest)] for one, rest in zip(sides, found, strict=True) if not isinstance(one, str)
        ]
        for name, start in zip(names, starts, strict=False):
            if start != starts[0]:
                _differ(starts[0], start, (names[0], name), where)
        given = starts[0] if starts and starts[0] else given
    return [given, *found]


def implicit(sides: Sequence[str | Turns], names: Sequence[str], where: str) -> list[Any]:
    """Returns prompt, chosen and rejected, of which the prompt is the longest common beginning of the two.

    Texts are cut as TRL's `extract_prompt` does: a space before the first difference goes to the completions. Chats
    are cut before an assistant's message; HH transcripts before the last one, and all before it must be equal.
    """
    first, second = sides
    if isinstance(first, str) and isinstance(second, str):
        if first.startswith(HUMAN) or second.startswith(HUMAN):
            return _transcripts([first, second], names, where)
        most = min(len(first), len(second))
        at = next((n for n in range(most) if first[n] != second[n]), None)
        cut = max(most - 1, 0) if at is None else at - (at > 0 and first[at - 1] == " ")
        return [first[:cut], first[cut:], second[cut:]]
    assert not isinstance(first, str)
    assert not isinstance(second, str)
    for name, one in zip(names, (first, second), strict=True):
        if not any(turn.role == "assistant" for turn in one):
            raise errors.UserError(f"{where}: {name!r} has no answer of the assistant; add it or remove the row")
    shared = 0
    while shared < min(len(first), len(second)) and first[shared] == second[shared]:
        shared += 1
    if shared == min(len(first), len(second)):  # one is the beginning of the other, or they are equal
        shared -= 1
        while shared and first[shared].role != "assistant":
            shared -= 1
    if any(one[shared].role != "assistant" for one in (first, second)):
        _differ(first, second, names, where)
    while shared and first[shared - 1].role == "assistant":
        shared -= 1
    return [first[:shared], first[shared:], second[shared:]]


def check(prompt: str | Turns, sides: Sequence[str | Turns], names: Sequence[str], where: str) -> None:
    """Raises a UserError for a prompt that cannot be answered, and for a completion that is empty or no answer."""
    if not isinstance(prompt, str):
        if not prompt:
            raise errors.UserError(
                f"{where}: the prompt has no message: nothing comes before {names[0]!r}; add the question or remove "
                "the row"
            )
        if prompt[-1].role == "assistant":
            raise errors.UserError(
                f"{where}: the prompt ends with a message of the assistant ({prompt[-1].content[:24]!r}); it must end "
                f"with what the completions answer; are 'prompt' and {names[0]!r} swapped?"
            )
    for name, one in zip(names, sides, strict=True):
        if isinstance(one, str):
            if not one.strip():
                raise errors.UserError(f"{where}: empty completion: {name!r} holds no text; fill it or remove the row")
            continue
        if not one:
            raise errors.UserError(f"{where}: empty completion: {name!r} has no answer after the prompt; add it")
        for turn, which in ((one[0], "first"), (one[-1], "last")):
            if turn.role != "assistant" or not turn.weight:
                what = "weight 0" if turn.role == "assistant" else f"the role {turn.role!r}"
                raise errors.UserError(
                    f"{where}: the {which} message of completion {name!r} has {what}; a completion begins and ends "
                    "with an answer of the assistant that counts"
                )


def _answer(text: str, name: str, where: str) -> Turns:
    if not text.strip():
        raise errors.UserError(f"{where}: empty completion: {name!r} holds no text; fill it or remove the row")
    return (records.Message(role="assistant", content=text),)


def _after(given: Turns, one: Turns, name: str, where: str, *, whole: bool) -> Turns:
    """Returns what follows the prompt in a chat that repeats it; `whole`: it repeats every message of the prompt."""
    start = len(given) if whole else next((n for n, turn in enumerate(one) if turn.role == "assistant"), len(one))
    repeated = one[:start] if whole else one[max(start - 1, 0) : start]
    if not any(turn.role == "assistant" for turn in one):
        raise errors.UserError(
            f"{where}: {name!r} has no answer of the assistant (it begins with the {one[0].role}'s "
            f"{one[0].content[:24]!r}); are 'prompt' and {name!r} swapped?"
        )
    if _contents(repeated) != _contents(given):
        said, asked = ((turns[-1].content if turns else "") for turns in (repeated, given))
        raise errors.UserError(
            f"{where}: the prompt of {name!r} is not that of 'prompt': {said[:40]!r} against {asked[:40]!r}; a "
            "completion begins with the assistant, or repeats the prompt"
        )
    return one[start:]


def _contents(found: Turns) -> list[tuple[str, str]]:
    return [(turn.role, turn.content.strip()) for turn in found]


def _transcripts(texts: Sequence[str], names: Sequence[str], where: str) -> list[Any]:
    """Returns prompt and last answers of HH transcripts, "\\n\\nHuman: ...\\n\\nAssistant: ..." in turn."""
    chats = [_transcript(text, f"{where}: {name!r}") for name, text in zip(names, texts, strict=True)]
    for name, chat in zip(names, chats, strict=True):
        if chat[:-1] != chats[0][:-1]:
            _differ(chats[0][:-1], chat[:-1], (names[0], name), where)
    return [chats[0][:-1], *(chat[-1:] for chat in chats)]


def transcript_turns(text: str) -> list[dict[str, str]]:
    """Returns role and content of each turn of an HH transcript, unchecked."""
    _, *parts = _SPEAKER.split(text)
    return [
        {"role": records.SHAREGPT[speaker.lower()], "content": said.strip()}
        for speaker, said in zip(parts[::2], parts[1::2], strict=True)
    ]


def _transcript(text: str, at: str) -> Turns:
    before, *parts = _SPEAKER.split(text)
    if before.strip() or not parts:
        raise errors.UserError(f"{at} is no transcript: it must begin with {HUMAN!r}, not {text[:24]!r}")
    found: list[dict[str, Any]] = []
    for number, (speaker, said) in enumerate(zip(parts[::2], parts[1::2], strict=True), start=1):
        expected = ("Human", "Assistant")[(number - 1) % 2]
        if speaker != expected:
            raise errors.UserError(
                f"{at}: turn {number} is of the {speaker}, not of the {expected}; mend the turns or remove the row"
            )
        if not said.strip():
            raise errors.UserError(f"{at}: turn {number}, of the {speaker}, is empty; fill it or remove the row")
        found.append({"role": records.SHAREGPT[speaker.lower()], "content": said.strip()})
    if len(found) % 2:
        raise errors.UserError(f"{at} ends with a turn of the Human; it must end with the Assistant's answer")
    return records.messages(found, at)


def _differ(first: Turns, second: Turns, names: Sequence[str], where: str) -> NoReturn:
    """Raises the UserError of completions that answer different prompts, with the message where they part."""
    most = min(len(first), len(second))
    at = next((n for n in range(most) if first[n] != second[n]), most)
    shown = [f"{one[at].role} {one[at].content[:40]!r}" if at < len(one) else "nothing" for one in (first, second)]
    raise errors.UserError(
        f"{where}: the prompts of {names[0]!r} and {names[1]!r} differ at message {at + 1}: {shown[0]} against "
        f"{shown[1]}; both must answer the same prompt"
    )
