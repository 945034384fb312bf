"""Tool calls and answers of tools that do not fit together."""

from collections.abc import Iterator

from ftjax.data import rows
from ftjax.data.checks import _calls, _text

SEVERITY = "warning"
WHY = "The model learns to go on without what the tool said, or to read what it never asked for."
FIX = "Give each call one message of the role tool (with its tool_call_id), or remove the row."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields calls with too few or too many answers, and ids that match none; a chat may end with its calls."""
    for one in _calls.rounds(data):
        calls, answers = len(one.calls), len(one.answers)
        if not calls:
            yield rows.Found(one.line, f"message {one.number} is of a tool, but nothing has called one")
        elif calls != answers and not one.last:
            said = f"{_text.plural(answers, 'message')} of a tool"
            yield rows.Found(one.line, f"message {one.number} makes {_text.plural(calls, 'call')}, but {said} follow")
        ids = {call["id"] for call in one.calls if "id" in call}
        for answer in one.answers if ids else ():
            if answer.tool_call_id is not None and answer.tool_call_id not in ids:
                yield rows.Found(one.line, f"tool_call_id {answer.tool_call_id!r} is no call of message {one.number}")
