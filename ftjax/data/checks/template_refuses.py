"""Rows that the model's chat template or tokenizer cannot take."""

from collections.abc import Iterator

from ftjax.data import rows
from ftjax.data.checks import no_stop_token

SEVERITY = "error"
NEEDS = ("model",)
WHY = "Training stops at this row."
FIX = "Do what the message says, or choose another template with --template."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields the rows, with the words of training itself; those without a stop token are another rule's."""
    for line, reason in no_stop_token.refusals(data):
        if not no_stop_token.about_stop(reason):
            yield rows.Found(line, reason)
