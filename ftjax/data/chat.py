"""Which characters of a rendered chat the model is to write: the answers of weight 1 with their end-of-turn token.

The rule works for any template, because it asks the template what a generation looks like. For assistant message i,

    prompt = render(messages[:i], add_generation_prompt=True)      what the model is given
    turn   = render(messages[:i + 1])                              must begin with `prompt`; the rest is the answer

and the full chat must begin with `turn`, so that what is trained is what is generated. Exceptions, each checked:
- a template may close a chat with the end token (Phi-3); in an earlier turn that token is missing;
- a template may drop its own scaffold from earlier turns (Qwen3: an empty think block). Such a turn is trained in the
  form that the chat shows, and counted as `rewritten`. When text of the message itself is dropped (real thinking), or
  anything else changes, the row is refused: no single text holds all its answers as they are generated;
- where prefixes do not render, the {% generation %} blocks of the template decide, if it has one for each answer.

Where the template has {% generation %} blocks they must agree (`draft` compares), but for white space that the
generation prompt has already written or that follows the stop token: neither is ever sampled, so neither is trained.
"""

from collections.abc import Sequence
import dataclasses
import itertools
from typing import Any

from ftjax import errors
from ftjax.data import records, template, tokenizer

# Printable, unlikely in data, without white space at the ends (templates trim).
_PROBE = "\u2045ftjax\u2046"


@dataclasses.dataclass(frozen=True)
class Answer:
    """Characters [start, end) of the chat that the model writes as message number `index`."""

    index: int
    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Chat:
    """A rendered conversation: its text, the answers to train on, and the merged {% generation %} spans."""

    text: str
    answers: tuple[Answer, ...]
    generation: tuple[template.Span, ...]
    all_trained: bool
    rewritten: int


class Renderer:
    """A template bound to one conversation's tools and variables."""

    def __init__(self, made: template.Template, conversation: records.Conversation) -> None:
        self.template = made
        self.where = conversation.where
        self.tools = conversation.tools
        variables = conversation.extra.get("chat_template_kwargs")
        self.variables: dict[str, Any] = variables if isinstance(variables, dict) else {}

    def __call__(self, messages: Sequence[records.Message], *, prompt: bool) -> template.Rendering:
        """Returns the rendering, or raises RenderError."""
        return template.render(
            self.template,
            [message.for_template() for message in messages],
            tools=self.tools,
            add_generation_prompt=prompt,
            variables=self.variables,
        )


def prompt(made: template.Template, conversation: records.Conversation) -> str:
    """Returns the text that asks for the next answer: the whole conversation and the header of the assistant."""
    try:
        return Renderer(made, conversation)(conversation.messages, prompt=True).text
    except template.RenderError as bad:
        raise errors.UserError(f"{conversation.where}: chat template {made.name} refuses this chat: {bad}") from None


def whole(made: template.Template, conversation: records.Conversation) -> str:
    """Returns the text of the whole conversation."""
    try:
        return Renderer(made, conversation)(conversation.messages, prompt=False).text
    except template.RenderError as bad:
        raise errors.UserError(f"{conversation.where}: chat template {made.name} refuses this chat: {bad}") from None


def render(made: template.Template, conversation: records.Conversation, *, last_only: bool) -> Chat:
    """Returns the chat with the answers to train on (only the last of them with `last_only`).

    Raises a UserError that names file, line, message and template where the rule above cannot be kept.
    """
    renderer = Renderer(made, conversation)
    turns = conversation.messages
    try:
        full = renderer(turns, prompt=False)
    except template.RenderError as bad:
        raise errors.UserError(f"{conversation.where}: chat template {made.name} refuses this chat: {bad}") from None
    _refuse_dropped(renderer, turns, full.text)
    spoken = [i for i, turn in enumerate(turns) if turn.role == "assistant"]
    chosen = [i for i in spoken if turns[i].weight]
    chosen = chosen[-1:] if last_only else chosen
    if not chosen:
        raise errors.UserError(f"{conversation.where}: every assistant message has weight 0, so no token is trained on")
    generation = _merged(full.generation)
    marked = dict(zip(spoken, generation, strict=True)) if len(generation) == len(spoken) else {}
    answers, rewritten = [], 0
    for i in chosen:
        try:
            start, end, changed = _span(renderer, turns, i, full.text)
        except _SpanError as reason:
            if i not in marked:
                raise errors.UserError(
                    f"{conversation.where}: message {i + 1}: chat template {made.name} {reason}"
                ) from None
            (start, end), changed = marked[i], False
        answers.append(Answer(index=i, start=start, end=end))
        rewritten += changed
    for before, after in itertools.pairwise(answers):
        if after.start < before.end:
            raise errors.UserError(
                f"{conversation.where}: message {after.index + 1}: chat template {made.name} renders this answer "
                "inside an earlier one; use another template"
            )
    return Chat(
        text=full.text,
        answers=tuple(answers),
        generation=generation,
        all_trained=chosen == spoken,
        rewritten=rewritten,
    )


def _refuse_dropped(renderer: Renderer, turns: Sequence[records.Message], full: str) -> None:
    """Refuses a chat of which the template leaves something out: a role, the tools or the calls."""
    name = renderer.template.name
    if renderer.tools and "tools" not in renderer.template.text:
        raise errors.UserError(f"{renderer.where}: chat template {name} does not show 'tools'; use one that does")
    for i, turn in enumerate(turns):
        missing = [call["function"]["name"] for call in turn.tool_calls if call["function"]["name"] not in full]
        if missing:
            raise errors.UserError(
                f"{renderer.where}: message {i + 1}: chat template {name} does not write the tool call {missing[0]!r}; "
                "use one that does"
            )
        if turn.content.strip() in full:
            continue
        changed = dataclasses.replace(turn, content=_PROBE)  # trimmed or escaped is well, as long as something is shown
        try:
            shown = renderer((*turns[:i], changed, *turns[i + 1 :]), prompt=False).text != full
        except template.RenderError:
            shown = True
        if not shown:
            raise errors.UserError(
                f"{renderer.where}: message {i + 1}: chat template {name} leaves out this message of the {turn.role}; "
                "use another template or remove the message"
            )


class _SpanError(Exception):
    """Why the span of one answer cannot be told; completes the sentence 'chat template X ...'."""


def _span(renderer: Renderer, turns: Sequence[records.Message], i: int, full: str) -> tuple[int, int, bool]:
    """Returns start and end of answer i in the full text, and whether an earlier turn was rewritten."""
    try:
        given = renderer(turns[:i], prompt=True).text
        turn = full if i + 1 == len(turns) else renderer(turns[: i + 1], prompt=False).text
    except template.RenderError as bad:
        raise _SpanError(
            f"cannot show the chat up to this answer ({bad}); begin the chat with a user message"
        ) from None
    if not turn.startswith(given):
        at, shown = _divergence(given, turn)
        raise _SpanError(
            f"does not begin this answer with its own generation prompt (at character {at}: {shown}); "
            "what is trained would not be what is generated: use a template made for training"
        )
    answer = turn[len(given) :]
    _refuse_header(renderer, turns, i, given, answer)
    if not full.startswith(given):
        at, shown = _divergence(given, full)
        raise _SpanError(
            f"shows earlier turns differently when later ones follow (at character {at}: {shown}); "
            "train on the last answer only (train_on='last_assistant'), or use a template made for training"
        )
    start, eos = len(given), renderer.template.eos_token
    forms = [answer, answer[: -len(eos)]] if eos and answer.endswith(eos) else [answer]
    for form in forms:
        if full.startswith(form, start):
            return start, start + len(form), False
    scaffold = _scaffold(renderer, turns, i, given)
    lead = len(full[start:]) - len(
        full[start:].lstrip()
    )  # with the scaffold, white space before the content may go too
    for form in forms:
        bare = form[len(scaffold) :].lstrip()
        if form.startswith(scaffold) and full.startswith(bare, start + lead):
            return start, start + lead + len(bare), True
    at, shown = _divergence(turn, full)
    raise _SpanError(
        f"writes this answer differently when later turns follow (at character {at}: {shown}); "
        "train on the last answer only (train_on='last_assistant'), or use a template made for training"
    )


def _refuse_header(renderer: Renderer, turns: Sequence[records.Message], i: int, given: str, answer: str) -> None:
    """Refuses a template without a generation prompt when it puts a role header before the answer."""
    content = turns[i].content.strip()
    if answer.lstrip().startswith(content):
        return
    if renderer(turns[:i], prompt=False).text != given:
        return  # it has a generation prompt, so what follows is written by the model (a think block, a channel)
    lead = answer.partition(content)[0] if content else answer
    if lead.strip():
        raise _SpanError(
            f"ignores add_generation_prompt, so its role header {lead.strip()!r} would be trained on; "
            "write the header under {% if add_generation_prompt %} as well"
        )


def _scaffold(renderer: Renderer, turns: Sequence[records.Message], i: int, given: str) -> str:
    """Returns what the template itself writes before the content of a last answer, whatever the content is."""
    try:
        probe = dataclasses.replace(turns[i], content=_PROBE, reasoning_content=None)
        turn = renderer((*turns[:i], probe), prompt=False).text
    except template.RenderError:
        return ""
    return turn[len(given) :].partition(_PROBE)[0] if turn.startswith(given) and _PROBE in turn else ""


def _divergence(expected: str, found: str) -> tuple[int, str]:
    """Returns where two texts part, and both continuations for a message."""
    pairs = zip(expected, found, strict=False)
    at = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(expected), len(found)))
    return at, f"{expected[at : at + 24]!r} against {found[at : at + 24]!r}"


def _merged(spans: Sequence[template.Span]) -> tuple[template.Span, ...]:
    """Returns the spans with adjacent ones joined and empty ones left out."""
    merged: list[template.Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif end > start:
            merged.append((start, end))
    return tuple(merged)


def stop_ids(tok: tokenizer.Tokenizer, made: template.Template | None) -> tuple[int, ...]:
    """Returns the ids at which a generation ends: the end token, and the ends of turns that the template writes."""
    if made is None:
        return tok.stop_ids
    closing_ids = [token for token in tok.encode(closing(made)).ids if token in tok.added_ids]
    return tuple(dict.fromkeys((*tok.stop_ids, *closing_ids)))


def closing(made: template.Template) -> str:
    """Returns what the template writes after the last answer of a chat: its end-of-turn token and white space."""
    turns = (records.Message(role="user", content="Hi"), records.Message(role="assistant", content=_PROBE))
    probe = records.Conversation(messages=turns, tools=(), where="probe", extra={})
    try:
        return Renderer(made, probe)(turns, prompt=False).text.rpartition(_PROBE)[2]
    except template.RenderError:
        return ""  # a template that refuses the simplest chat; the rows will say why, with their line
