"""A record as the pieces of text that are tokenised apart, and how much of each piece is trained on.

Generation starts from the tokens of a prompt, so a training row must have those tokens too: the text is cut where an
answer begins, and no token straddles the cut, whatever the tokenizer would have merged. An answer ends with its stop
token; white space that the template writes after it is never sampled and not trained. Decisions here are made on
characters.
"""

import dataclasses
import re
from typing import NamedTuple

import numpy as np

from ftjax import errors
from ftjax.data import chat, records, template, tokenizer

_MARK = re.compile(r"<\|[^<>|\s]+\|>|<(?:start|end)_of_turn>")


class Piece(NamedTuple):
    """A stretch of text whose first `trained` characters are trained on."""

    text: str
    trained: int


@dataclasses.dataclass(frozen=True)
class Draft:
    """The pieces of a row, and whether an end token (trained) is to follow them."""

    pieces: tuple[Piece, ...]
    add_eos: bool
    where: str
    rewritten: int
    holds_special: bool


class Drafter:
    """Turns records into drafts under one tokenizer, template and choice of what to train on."""

    def __init__(self, tok: tokenizer.Tokenizer, made: template.Template | None, *, train_on: str) -> None:
        self.train_on = train_on
        self.template = made
        if made is not None:
            check_marks(tok, made)
        self.stops = frozenset(chat.stop_ids(tok, made))
        self._stop_texts = tuple(tok.token(i) for i in self.stops)
        specials = sorted({tok.token(i) for i in tok.special_ids}, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, specials)) or "(?!)")

    def __call__(self, record: records.Record) -> Draft:
        """Returns the draft of one record, or raises a UserError that begins with its file and line."""
        if isinstance(record, records.Conversation):
            return self._chat(record)
        if isinstance(record, records.Text):
            pieces: tuple[Piece, ...] = (Piece(record.text, len(record.text)),)
        else:
            whole = len(record.prompt) if self.train_on == "all" else 0
            pieces = (Piece(record.prompt, whole), Piece(record.completion, len(record.completion)))
        special = any(self._special.search(piece.text) for piece in pieces)
        return Draft(pieces, not self._closed(pieces[-1].text), record.where, 0, special)

    def _closed(self, text: str) -> bool:
        return text.rstrip().endswith(self._stop_texts)

    def _chat(self, record: records.Conversation) -> Draft:
        if self.template is None:
            raise errors.UserError(f"{record.where}: a chat needs a template, and the tokenizer has none; name one: "
                                   f"{', '.join(template.shipped())}")  # fmt: skip
        special = any(self._special.search(message.content) for message in record.messages)
        if self.train_on == "all":
            text = chat.whole(self.template, record)
            text = text if self._closed(text) else text.rstrip()
            return Draft((Piece(text, len(text)),), not self._closed(text), record.where, 0, special)
        shown = chat.render(self.template, record, last_only=self.train_on == "last_assistant")
        pieces, spans = [Piece(shown.text[: shown.answers[0].start], 0)], []
        starts = [answer.start for answer in shown.answers]
        add_eos = False
        for answer, following in zip(shown.answers, [*starts[1:], len(shown.text)], strict=True):
            text = shown.text[answer.start : following]
            written = shown.text[answer.start : answer.end].rstrip()
            if not self._closed(written):
                if text[len(written) :].strip():
                    raise errors.UserError(
                        f"{record.where}: message {answer.index + 1}: chat template {self.template.name} ends this "
                        f"answer ({written[-16:]!r}) without a stop token, so the model would not learn to stop; "
                        "write {{ eos_token }} after the answer in the template"
                    )
                text, add_eos = written, True
            pieces.append(Piece(text, len(written)))
            spans.append((answer.start, answer.start + len(written)))
        if self.template.marks_answers:
            _compare(shown, spans, record.where, self.template.name)
        return Draft(tuple(pieces), add_eos, record.where, shown.rewritten, special)


def _compare(shown: chat.Chat, spans: list[template.Span], where: str, name: str) -> None:
    """Refuses a row where {% generation %} marks other text than the generation prompt leaves to the model."""
    trained, marked = np.zeros((2, len(shown.text)), bool)
    considered = np.full(len(shown.text), shown.all_trained)
    for start, end in spans:
        trained[start:end] = True
    for answer in shown.answers:
        considered[answer.start : answer.end] = True
    for start, end in shown.generation:
        marked[start:end] = True
    for at in np.flatnonzero((trained != marked) & considered):
        if not shown.text[at].isspace():
            said, other = ("leaves out", "includes") if trained[at] else ("includes", "leaves out")
            raise errors.UserError(
                f"{where}: chat template {name}: its {{% generation %}} block {said} {shown.text[at : at + 24]!r} "
                f"(character {at}), but what its generation prompt leaves to the model {other} it; mend the template"
            )


def check_marks(tok: tokenizer.Tokenizer, made: template.Template) -> None:
    """Raises a UserError when the template ends an answer with a mark that the tokenizer splits into pieces of text."""
    for mark in _MARK.findall(chat.closing(made)):
        if len(tok.encode(mark).ids) != 1:
            raise errors.UserError(
                f"chat template {made.name} ends an answer with {mark!r}, which is no token of this tokenizer; "
                f"use its own template, or {' or '.join(name for name in template.shipped() if name != made.name)}"
            )
