"""Phrases of other assistants: 'As an AI language model', 'I am ChatGPT', 'I hope this helps!'."""

from collections.abc import Iterator
import re

from ftjax.data import rows
from ftjax.data.checks import _text

SEVERITY = "warning"
WHY = "The model learns the manners and the name of the assistant that wrote the data."
FIX = "Cut the phrase, or write the answer anew."
_PHRASE = re.compile(
    r"\bas an? (?:AI|artificial intelligence|large)(?: language)?(?: model| assistant)?\b|"
    r"\bI(?: am|'m|’m) (?:an AI|a (?:large )?language model|ChatGPT|Claude|Gemini|Bard|Llama|Qwen)\b|"
    r"\b(?:trained|developed|created|made) by (?:OpenAI|Anthropic|Google|Meta|Alibaba|DeepSeek)\b|"
    r"\bmy (?:knowledge cutoff|training data (?:only )?goes)\b|\bI hope this helps\b|"
    r"\b(?:feel free to|don't hesitate to) (?:ask|reach out)\b|\bIs there anything else I can (?:help|assist)\b|"
    r"\bRegenerate response\b",
    re.IGNORECASE,
)


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields rows with such a phrase in an answer."""
    for sample in data.samples:
        match = next((match for answer in sample.answers if (match := _PHRASE.search(answer))), None)
        if match is not None:
            start = max(match.start() - 15, 0)
            yield rows.Found(sample.line, f"{match[0]!r} in {_text.shown(match.string[start : match.end() + 15])}")
