"""Rows as the model will see them, with the trained tokens marked: for a terminal, for a pipe, and as an HTML page."""

from collections.abc import Sequence
import html
import itertools

import rich.text

from ftjax.data import encode, report, tokenizer

STYLE = "bold green"
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
h1 {{ font-size: 1.3rem; }} h2 {{ font-size: 1rem; margin: 1.5rem 0 .3rem; }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; background: #f6f6f4; padding: .8rem 1rem; border-radius: 6px; }}
mark {{ background: #c9efcf; color: inherit; border-radius: 2px; }}
p.note {{ color: #555; }}
</style></head><body>
<h1>{title}</h1>
<p class="note">Marked text is trained on; the rest is context. Special tokens are shown as they are written.</p>
<pre>{summary}</pre>
{rows}
</body></html>
"""


def runs(example: encode.Example, tok: tokenizer.Tokenizer) -> list[tuple[str, bool]]:
    """Returns the text of a row in runs of (text, trained on)."""
    ids = example.ids.tolist()
    found, end, before = [], 0, ""
    for trained, group in itertools.groupby(example.mask.tolist()):
        end += len(list(group))
        # Decoded from the start each time: a run by itself loses its first space, or half of a character.
        text = tok.decode(ids[:end], skip_special=False)
        found.append((text[len(before) :], bool(trained)))
        before = text
    return found


def heading(example: encode.Example) -> str:
    """Returns one line on a row: where it is from, and its counts of tokens."""
    return f"{example.where}: {len(example.ids)} tokens, {int(example.mask.sum())} trained on"


def bracketed(example: encode.Example, tok: tokenizer.Tokenizer) -> str:
    """Returns the row for a pipe or a file: trained text stands in [square brackets]."""
    return "".join(f"[{text}]" if trained else text for text, trained in runs(example, tok))


def coloured(example: encode.Example, tok: tokenizer.Tokenizer) -> rich.text.Text:
    """Returns the row for a terminal: trained text is green and bold, the rest is dim."""
    return rich.text.Text.assemble(*((text, STYLE if trained else "dim") for text, trained in runs(example, tok)))


def page(
    examples: Sequence[encode.Example], tok: tokenizer.Tokenizer, *, title: str, summary: report.EncodeReport
) -> str:
    """Returns a self-contained HTML page of rows and report; everything from the data is escaped."""
    rows = []
    for example in examples:
        parts = [(html.escape(text), trained) for text, trained in runs(example, tok)]
        body = "".join(f"<mark>{text}</mark>" if trained else text for text, trained in parts)
        rows.append(f"<h2>{html.escape(heading(example))}</h2>\n<pre>{body}</pre>")
    return _PAGE.format(
        title=f"Preview of {html.escape(title)}", summary=html.escape(summary.as_text()), rows="\n".join(rows)
    )
