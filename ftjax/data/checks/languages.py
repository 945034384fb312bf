"""Answers in several languages, and answers in another language than the question."""

from collections import Counter
from collections.abc import Iterator

from ftjax.data import rows, topics
from ftjax.data.checks import _languages, _text

SEVERITY = "note"
WHY = "A language of a few rows is learnt badly, and the model may answer in it where nobody asked for it."
FIX = "Keep it if it is wanted, with enough rows of each language; else remove the rows."
MOST = 2_000  # rows that are looked at, spread over the file: a text takes 0.1 ms


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields the languages of the answers where there is more than one, and rows that answer in another one.

    A language counts from two answers on. Of preferences, the better completions are looked at.
    """
    chosen = [data.samples[n] for n in topics.spread(len(data.samples), MOST)]
    spoken = list(_languages.of(sample.answer for sample in chosen))
    counted = Counter(code for code in spoken if code)
    several = {code: count for code, count in counted.most_common() if count > 1}
    if len(several) > 1:
        shares = ", ".join(f"{code} {count / sum(several.values()):.1%}" for code, count in several.items())
        yield rows.Found(None, f"answers in {len(several)} languages ({shares}, of {_text.plural(len(chosen), 'row')})")
    asked = _languages.of(sample.asked for sample in chosen)
    for sample, own, other in zip(chosen, spoken, asked, strict=True):
        if own in several and other in several and own != other:
            yield rows.Found(sample.line, f"asked in {other}, answered in {own}: {_text.shown(sample.answer)}")
