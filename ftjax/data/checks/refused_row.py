"""A row that training refuses for a reason that no other rule names."""

from collections.abc import Iterator

from ftjax.data import files, rows
from ftjax.data.checks import (
    _unread,
    data_type,
    example_missing_assistant_message,
    message_missing_key,
    missing_content,
    missing_messages_list,
    prompts_differ,
    unrecognized_role,
)

SEVERITY = "error"
WHY = "Training stops at this row."
FIX = "Do what the message says, or remove the row."
NAMED = (
    *(data_type, missing_messages_list, message_missing_key, unrecognized_role, missing_content),
    *(example_missing_assistant_message, prompts_differ),
)


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields refused rows of which no other rule has an error, with the words of training itself."""
    if missing_messages_list.columns_of_all(data) is not None:
        return
    refused = [row for row in data.rows if row.refusal is not None and not isinstance(row.refusal, files.BadRow)]
    part = rows.DataFile(data.path, refused, data.of_preferences)
    named = {found.line for rule in NAMED for found in rule.check(part)} if refused else set()
    for row in refused:
        if row.line not in named:
            yield rows.Found(row.line, _unread.reason(data, row))
