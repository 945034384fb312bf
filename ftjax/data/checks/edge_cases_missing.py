"""Kinds of input that a deployed model meets and the file has no row of."""

from collections import Counter
from collections.abc import Iterator
import re
import statistics

from ftjax.data import rows, topics
from ftjax.data.checks import _languages, _phrases, _text, languages

SEVERITY = "note"
WHY = "What a model does with input that it never saw in training is left to chance."
FIX = "Write some rows of each kind that your users will send, with the answer that you want."
CASES = {
    "empty": "empty or one-word input",
    "long": "very long input (10 times the median)",
    "malformed": "malformed input",
    "out_of_scope": "questions out of scope, answered as such",
    "refused": "requests that must be refused",
    "several_turns": "several turns",
    "other_language": "another language",
    "typos": "typing errors",
}
_GARBLED = re.compile(r"(.)\1{5,}|[^\w\s]{8,}|\b[bcdfghjklmnpqrstvwxz]{7,}\b", re.IGNORECASE)


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields each kind that is missing; files of plain text have no input."""
    if any(sample.asked for sample in data.samples):
        for name, count in covered(data).items():
            if not count:
                yield rows.Found(None, f"no row with {CASES[name]}")


def covered(data: rows.DataFile) -> dict[str, int]:
    """Returns how many rows of each kind there are; languages and typing errors of at most 2,000 rows."""
    samples = data.samples
    lengths = [len(sample.asked) for sample in samples]
    middle = statistics.median(lengths) if lengths else 0
    chosen = [samples[n] for n in topics.spread(len(samples), languages.MOST)]
    spoken = Counter(code for code in _languages.of(sample.asked for sample in chosen) if code)
    return {
        "empty": sum(len(_text.words(sample.asked[:200])) < 2 for sample in samples),
        "long": sum(length > max(10 * middle, 1000) for length in lengths),
        "malformed": sum(_malformed(sample.asked) for sample in samples),
        "out_of_scope": sum(bool(_phrases.OUT_OF_SCOPE.search(sample.answer[:400])) for sample in samples),
        "refused": sum(bool(_phrases.REFUSAL.search(sample.answer[:300])) for sample in samples),
        "several_turns": sum(sample.turns > 2 for sample in samples),
        "other_language": sum(spoken.values()) - max(spoken.values(), default=0),
        "typos": _typos(chosen),
    }


def _malformed(asked: str) -> bool:
    start = asked[:2000]
    if len(asked) <= 2000 and any(start.count(a) != start.count(b) for a, b in ("{}", "[]")):
        return True
    return bool(_GARBLED.search(start))


def _typos(samples: list[rows.Sample]) -> int:
    """Returns the rows with a rare word that is a frequent one but for an inner letter lost, doubled or swapped."""
    words = [_text.words(sample.asked[:2000]) for sample in samples]
    counted = Counter(word for own in words for word in own)
    wrong = {form for word, count in counted.items() if count >= 5 and len(word) >= 6 for form in _misspelt(word)}
    return sum(any(counted[word] <= 2 and word in wrong for word in own) for own in words)


def _misspelt(word: str) -> Iterator[str]:
    for n in range(1, len(word) - 2):  # not at the ends: there it is an inflection
        yield word[:n] + word[n + 1 :]
        yield word[:n] + word[n + 1] + word[n] + word[n + 2 :]
        yield word[:n] + word[n] + word[n:]
