"""What counts as a word, a sentence, a part, capitals; and the two relations that IFEval holds a count against."""

from collections.abc import Iterator
import re

from ftjax.errors import UserError

RELATIONS = ("less than", "at least")
# What ends in a period within a sentence. Punkt's English model, which the original counts by, knows some 150.
_ABBREVIATIONS = frozenset(
    (
        *("mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "rev", "hon", "gen", "col", "maj", "capt"),
        *("lt", "sgt", "cmdr", "adm", "gov", "sen", "rep", "pres", "vs", "inc", "ltd", "corp", "co", "bros"),
        *("jan", "feb", "mar", "apr", "aug", "sept", "oct", "nov", "dec", "e.g", "i.e", "a.m", "p.m", "u.s"),
        *("u.k", "u.n", "ph.d", "d.c", "ave", "blvd", "dept", "est", "cf", "al", "fig", "vol", "pp"),
    )
)
_END = re.compile(r"(?:\.|(?<![?!])[?!]++)[\"'”’)»\]}*_]*(?=\s|$)")
_SPLIT = re.compile(r"[\s;@#$%&?!()\[\]{}<>\"“”„‘’«»`…]|[:,](?![0-9])|--")
_CONTRACTION = re.compile(r"(?<=\w)(?=(?:n't|N'T|'(?:[sSmMdD]|ll|LL|re|RE|ve|VE))(?!\w))")


def compare(count: int, relation: str, wanted: float) -> bool:
    """Returns whether a count is "less than" or "at least" what is wanted; raises UserError on another relation."""
    if relation not in RELATIONS:
        raise UserError(f"the relation {relation!r} is not known; give one of {', '.join(RELATIONS)}")
    return count < wanted if relation == "less than" else count >= wanted


def words(text: str) -> int:
    r"""Returns the number of words of a text, runs of `\w`."""
    return sum(1 for _ in re.finditer(r"\w+", text))


def sentences(text: str) -> int:
    """Returns the number of sentences of a text, as Punkt's English model has them, nearly (docs/rewards.md).

    A period after an abbreviation or an initial ends none, nor does one within an ellipsis; a line break ends none.
    """
    starts = [0, *_ends(text)]
    return sum(1 for start, end in zip(starts, [*starts[1:], len(text)], strict=True) if text[start:end].strip())


def parts(text: str, mark: str) -> list[str]:
    """Returns what stands between marks in a text, without white space around it; nothing before the first or after the
    last is no part, nothing between two is an empty one."""
    found = [part.strip() for part in text.split(mark)]
    return [part for place, part in enumerate(found) if part or 0 < place < len(found) - 1]


def capitals(text: str) -> int:
    """Returns the number of words all in capitals: what NLTK's tokenizer makes of contractions counts twice (DON'T)."""
    return sum(token.isupper() for token in _SPLIT.split(_CONTRACTION.sub(" ", text)) if token)


def _ends(text: str) -> Iterator[int]:
    for found in _END.finditer(text):
        if text[found.start()] == ".":
            before = re.search(r"\S*$", text[max(0, found.start() - 20) : found.start()])
            word = before[0].lstrip("\"'“‘([{*_") if before else ""
            if word.endswith(".") or word.lower() in _ABBREVIATIONS or (len(word) == 1 and word.isalpha()):
                continue
        yield found.end()
