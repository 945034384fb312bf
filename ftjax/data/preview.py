"""Rows as the model will see them, with the trained tokens marked: for a terminal, for a pipe, and as an HTML page."""

from collections.abc import Sequence
import html
import itertools
import math

import numpy as np
import rich.text

from ftjax.data import candidates, encode, preference_report, report, tokenizer

Row = encode.Example | candidates.Candidates
Runs = list[tuple[str, bool]]  # text, and whether it is trained on

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


def runs(example: encode.Example, tok: tokenizer.Tokenizer) -> Runs:
    """Returns the text of a row in runs of (text, trained on)."""
    ids = example.ids.tolist()
    found: Runs = []
    end, before = 0, ""
    for trained, group in itertools.groupby(example.mask.tolist()):
        end += len(list(group))
        # Decoded from the start each time: a run by itself loses its first space, or half of a character.
        text = tok.decode(ids[:end], skip_special=False)
        found.append((text[len(before) :], bool(trained)))
        before = text
    return found


def parts(row: Row, tok: tokenizer.Tokenizer) -> list[tuple[str, Runs]]:
    """Returns what is shown of a row, with titles: an example whole, of candidates the prompt and each completion."""
    if isinstance(row, encode.Example):
        return [("", runs(row, tok))]
    found: list[tuple[str, Runs]] = []
    for number, (ids, mask) in enumerate(zip(row.completions, row.masks, strict=True)):
        whole = np.concatenate([row.prompt, ids])
        example = encode.Example(whole, np.concatenate([np.zeros(len(row.prompt), np.uint8), mask]), row.where)
        prompt, *completion = runs(example, tok)  # what counts begins with the completion
        found = found or [("prompt", [prompt])]
        worse = [worse + 1 for better, worse in row.pairs if better == number]
        said = [f"completion {number + 1}", f"{len(ids)} tokens, {int(mask.sum())} count"]
        said += [f"better than {', '.join(map(str, worse))}"] if worse else []
        said += [] if math.isnan(row.labels[number]) else [f"label {row.labels[number]:g}"]
        found.append(("; ".join(said), completion))
    return found


def heading(row: Row) -> str:
    """Returns one line on a row: where it is from, and its counts of tokens."""
    if isinstance(row, encode.Example):
        return f"{row.where}: {len(row.ids)} tokens, {int(row.mask.sum())} trained on"
    return f"{row.where}: prompt of {len(row.prompt)} tokens, {len(row.completions)} completions"


def bracketed(row: Row, tok: tokenizer.Tokenizer) -> str:
    """Returns the row for a pipe or a file: trained text stands in [square brackets]."""
    shown = []
    for title, found in parts(row, tok):
        text = "".join(f"[{text}]" if trained else text for text, trained in found)
        shown.append(f"{title}:\n{text}" if title else text)
    return "\n".join(shown)


def coloured(row: Row, tok: tokenizer.Tokenizer) -> rich.text.Text:
    """Returns the row for a terminal: trained text is green and bold, the rest is dim."""
    shown = []
    for title, found in parts(row, tok):
        text = rich.text.Text.assemble(*((text, STYLE if trained else "dim") for text, trained in found))
        shown.append(rich.text.Text.assemble((f"{title}:\n", "italic"), text) if title else text)
    return rich.text.Text("\n").join(shown)


def page(
    rows: Sequence[Row],
    tok: tokenizer.Tokenizer,
    *,
    title: str,
    summary: report.EncodeReport | preference_report.PreferenceReport,
) -> str:
    """Returns a self-contained HTML page of rows and report; everything from the data is escaped."""
    bodies = []
    for row in rows:
        bodies.append(f"<h2>{html.escape(heading(row))}</h2>")
        for name, found in parts(row, tok):
            pieces = [(html.escape(text), trained) for text, trained in found]
            body = "".join(f"<mark>{text}</mark>" if trained else text for text, trained in pieces)
            bodies.append((f'<p class="note">{html.escape(name)}</p>\n' if name else "") + f"<pre>{body}</pre>")
    return _PAGE.format(
        title=f"Preview of {html.escape(title)}", summary=html.escape(summary.as_text()), rows="\n".join(bodies)
    )
