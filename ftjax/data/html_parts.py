"""What pages without scripts and outside assets share: style, frame, texts of the data made safe, what differs."""

import difflib
import html
import re

from ftjax.data.checks import _hidden

_CHARACTERS = 700  # of a text that is cut
_WORDS = re.compile(r"\s+|[^\s]+")
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5b6470; --line: #dfe3e8; --paper: #fff; --box: #f6f7f9;
  --bar: #4c7fb8; --error: #b3261e; --warning: #8a5a00; --note: #3d5a80; --good: #1b6e3c; --mark: #ffe2a8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a2abb6; --line: #39414b; --paper: #15181c;
  --box: #1e2329; --bar: #7aa9dc; --error: #ff8a80; --warning: #f2c14e; --note: #9bbce6; --good: #7fd49d; --mark:
  #5c4a1c; } }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto;
  max-width: 68rem; padding: 1.5rem 1rem 4rem; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; line-height: 1.25; margin: 0 0 .5rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; } p { margin: .4rem 0; } .soft { color: var(--soft); font-size: .92em; }
.verdict { font-size: 1.1rem; border-left: .3rem solid var(--good); padding: .5rem .9rem; background: var(--box); }
.verdict.error { border-color: var(--error); } .verdict.warning { border-color: var(--warning); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .6rem; margin: 1rem 0; }
.tile { background: var(--box); border-radius: .4rem; padding: .5rem .8rem; } .tile b { display: block; font-size:
  1.3rem; }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .5rem 0; padding: .5rem .8rem; }
summary { cursor: pointer; } summary b { font-family: ui-monospace, monospace; font-size: .95em; }
.error > summary b { color: var(--error); } .warning > summary b { color: var(--warning); }
.note > summary b { color: var(--note); }
table { border-collapse: collapse; width: 100%; font-size: .92em; } td, th { text-align: left; vertical-align: top;
  padding: .25rem .6rem .25rem 0; border-top: 1px solid var(--line); } td:first-child, th:first-child { white-space:
  nowrap; }
td:first-child { width: 1%; } td.number { white-space: nowrap; } .number { font-variant-numeric: tabular-nums; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem; }
.wide { overflow-x: auto; } .wide th { white-space: nowrap; } td.text { min-width: 16rem; }
.wide td:first-child { white-space: normal; min-width: 8rem; }
.narrow { max-width: 44rem; } ul { padding-left: 1.2rem; margin: .4rem 0; }
@media (max-width: 30rem) { .narrow svg text { font-size: 15px; } }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--box); border-radius: .4rem; padding: .6rem
  .8rem;
  margin: .3rem 0; font: .88em/1.5 ui-monospace, monospace; }
mark { background: var(--mark); color: inherit; } svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
@media (max-width: 30rem) { svg text { font-size: 17px; } h1 { font-size: 1.2rem; } }
.guide .good { color: var(--good); font-weight: 600; } .guide .bad { color: var(--error); font-weight: 600; }
.flag { white-space: nowrap; font-family: ui-monospace, monospace; }
table.guide { margin: 1rem 0; } .bar { fill: var(--bar); } .axis { stroke: var(--line); }
.limit { stroke: var(--error); stroke-dasharray: 4 3; }
"""


def document(title: str, body: str) -> str:
    """Returns a page; both parts are markup already."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style></head><body>\n<main>\n{body}</main>\n</body></html>\n"
    )


def safe(text: str) -> str:
    """Returns a text of the data for the page: private data masked, markup escaped, half characters replaced."""
    return html.escape(_hidden.hidden(text).encode("utf-8", "replace").decode("utf-8"))


def cut(text: str) -> str:
    """Returns at most so much of a text as is shown on a page."""
    return text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]}…"


def marked(first: str, second: str) -> tuple[str, str]:
    """Returns two texts with the words marked in which they differ."""
    words: list[list[str]] = [_WORDS.findall(_hidden.hidden(text)) for text in (first, second)]
    steps = difflib.SequenceMatcher(None, words[0], words[1], autojunk=False).get_opcodes()
    sides: tuple[list[str], list[str]] = ([], [])
    for kind, a, b, c, d in steps:
        for side, own, start, end in ((sides[0], words[0], a, b), (sides[1], words[1], c, d)):
            text = safe("".join(own[start:end]))
            side.append(text if kind == "equal" or not text.strip() else f"<mark>{text}</mark>")
    return "".join(sides[0]), "".join(sides[1])
