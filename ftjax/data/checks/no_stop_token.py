"""Rows whose answer ends without a stop token under the model's template."""

from collections.abc import Iterator

from ftjax.data import rows

SEVERITY = "error"
NEEDS = ("model",)
WHY = "The model would learn to answer, but not to stop."
FIX = "Use a template that ends answers with a token of the tokenizer (--template), or set the tokenizer's eos_token."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields the rows, with the words of training itself."""
    for line, reason in refusals(data):
        if about_stop(reason):
            yield rows.Found(line, reason)


def refusals(data: rows.DataFile) -> Iterator[tuple[int, str]]:
    """Yields the line of each row that cannot be encoded, and why."""
    for n, refusal in data.tokens.refusals.items() if data.tokens is not None else ():
        reason = str(refusal).removeprefix(data.path).lstrip(":0123456789").lstrip()
        yield data.readable[n].line, reason


def about_stop(reason: str) -> bool:
    """Tells whether `encode` or `draft` refused for want of a stop token."""
    return "stop token" in reason or "no end token" in reason
