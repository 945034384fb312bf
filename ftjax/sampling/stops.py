"""Strings that end a row: whether a tokenizer can write them, and the token at which one is complete."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from ftjax.errors import UserError

Decode = Callable[[Sequence[int]], str]  # token ids -> text
Find = Callable[[Sequence[int], int], int | None]  # (ids of a row, how many hold none) -> how many hold one


@runtime_checkable
class Tokenizer(Protocol):
    """The part of `data.tokenizer.Tokenizer` that is needed."""

    def encode(self, text: str) -> Any:
        """Returns something whose `ids` are the tokens of a text."""
        ...

    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str:
        """Returns the text of tokens."""
        ...


def finder(strings: Sequence[str], tokenizer: Tokenizer | Decode | None) -> Find:
    """Returns a function that finds the first token at which a row's text contains one of the strings.

    The text is that of the completion, special tokens included. Raises UserError for an empty string, for strings
    without a tokenizer, and for a string that does not come back from the tokenizer, at the beginning of a text or
    inside it; a bare function from ids to text cannot be asked.
    """
    if isinstance(strings, str) or not all(strings):
        raise UserError(f"stop_strings {strings!r} must be a list of strings that are not empty")
    if tokenizer is None:
        raise UserError("stop_strings need the tokenizer that turns tokens into text; give it as tokenizer")
    decode: Any = tokenizer
    if not callable(tokenizer):
        reader = tokenizer
        decode = lambda ids: reader.decode(ids, skip_special=False)
        for string in strings:
            if not any(string in decode(reader.encode(before + string).ids) for before in ("", "a")):
                back = decode(reader.encode(string).ids)
                raise UserError(
                    f"stop string {string!r}: this tokenizer cannot write it (it comes back as {back!r}), so no row "
                    "would ever stop there; leave it out or give what the model does write"
                )

    def find(ids: Sequence[int], known: int) -> int | None:
        if not any(string in decode(ids) for string in strings):
            return None
        # What the first tokens say may end in half a character, but a string that is there stays there.
        return next(n for n in range(known + 1, len(ids) + 1) if any(string in decode(ids[:n]) for string in strings))

    return find
