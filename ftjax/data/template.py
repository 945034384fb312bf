"""Chat templates in Jinja, rendered as `transformers` renders them, but the same text every day.

A template comes from the tokenizer, from a file of `templates/` by name, or from a path that ends in .jinja. The one
intended difference to `transformers`: `strftime_now` gives a fixed date. Templates that print today's date would give
other tokens tomorrow, so that neither the cache nor a resumed run could be trusted.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import datetime
import functools
import json
from pathlib import Path
import re
from typing import Any

import jinja2
from jinja2 import ext, nodes, parser, runtime, sandbox

from ftjax import errors
from ftjax.data import files, tokenizer

FOLDER = Path(__file__).parent / "templates"
TODAY = datetime.datetime(2024, 7, 26)  # the date that Llama 3's template itself falls back to
Span = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Template:
    """A chat template with the special tokens that it may write. `name` is for messages, `text` the Jinja source."""

    name: str
    text: str
    bos_token: str
    eos_token: str

    @functools.cached_property
    def marks_answers(self) -> bool:
        """Whether the template says by {% generation %} which text the model writes."""
        return re.search(r"{%[-+]?\s*generation\s*[-+]?%}", self.text) is not None


@dataclasses.dataclass(frozen=True)
class Rendering:
    """The text of a chat and the character spans of its {% generation %} blocks."""

    text: str
    generation: tuple[Span, ...]


class RenderError(Exception):
    """The template raised or failed on a chat; the text is its reason."""


def shipped() -> list[str]:
    """Returns the names of the templates that come with ftjax."""
    return sorted(path.stem for path in FOLDER.glob("*.jinja"))


def load(name: str | None, tok: tokenizer.Tokenizer) -> Template:
    """Returns the template called `name`: None is the tokenizer's own, a path ends in .jinja, else a shipped one."""
    if name is None:
        if tok.chat_template is None:
            known = ", ".join(shipped())
            raise errors.UserError(f"the tokenizer has no chat template of its own; name one with template=: {known}")
        label, text = "(the tokenizer's own)", tok.chat_template
    elif name.endswith(".jinja"):
        label, text = name, files.text(name)
    elif name in shipped():
        label, text = name, (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    else:
        known = ", ".join(shipped())
        raise errors.UserError(
            f"no chat template {name!r}{files.close_to(name, shipped())}; shipped: {known}; or a path ending in .jinja"
        )
    made = Template(name=label, text=text, bos_token=tok.bos_token or "", eos_token=tok.eos_token or "")
    _compiled(text, label)
    return made


def render(
    template: Template,
    messages: Sequence[dict[str, Any]],
    *,
    tools: Sequence[dict[str, Any]],
    add_generation_prompt: bool,
    variables: dict[str, Any],
) -> Rendering:
    """Returns the text of a chat; raises RenderError with the template's reason when it refuses the chat.

    `variables` are further names that the template may read, such as `enable_thinking`.
    """
    compiled = _compiled(template.text, template.name)
    marks: list[Span] = []
    context = {
        "messages": list(messages),
        "tools": list(tools) or None,
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
        "bos_token": template.bos_token,
        "eos_token": template.eos_token,
        **variables,
    }
    try:
        if not template.marks_answers:
            return Rendering(text=compiled.render(context), generation=())
        text = "".join(_tracked(compiled, context, marks))
    except (jinja2.TemplateError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as bad:
        raise RenderError(str(bad).strip() or type(bad).__name__) from bad
    return Rendering(text=text, generation=tuple(marks))


def _tracked(compiled: jinja2.Template, context: dict[str, Any], marks: list[Span]) -> Iterator[str]:
    """Yields the blocks of a rendering and notes in `marks` where those of {% generation %} stand."""
    written = [0]
    for block in compiled.generate({**context, _MARKS: (marks, written)}):
        written[0] += len(block)
        yield block


_MARKS = "_ftjax_generation_marks"


class _Generation(ext.Extension):
    """{% generation %} ... {% endgeneration %}: leaves the text as it is and notes its span."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 wants a plain set here)

    def parse(self, parser: parser.Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_mark", [nodes.ContextReference()])
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _mark(self, context: runtime.Context, caller: Callable[[], str]) -> str:
        text = caller()
        if _MARKS in context:
            marks, (start,) = context[_MARKS]
            marks.append((start, start + len(text)))
        return text


@functools.lru_cache(maxsize=32)
def _compiled(text: str, name: str) -> jinja2.Template:
    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = TODAY.strftime
    try:
        return environment.from_string(text)
    except jinja2.TemplateSyntaxError as bad:
        raise errors.UserError(f"chat template {name}: line {bad.lineno}: {bad.message}") from None


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Unlike Jinja's own filter this escapes no HTML, as in transformers."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
