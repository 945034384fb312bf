"""A model as judge of two answers: what it is asked, and what its words mean.

The conventions are MT-bench's (Zheng et al. 2023, and FastChat's llm_judge): a pair is asked in both orders, [[A]],
[[B]] and [[C]] are the verdicts, two orders that disagree are a tie; a rating is [[1]] to [[10]], and ratings at most
TIE_DELTA apart are a tie. An answer that holds no verdict, or several, is counted and never guessed. (FastChat takes
the first of several in the order A, B, C, the first of several ratings, and a number in single brackets, which may as
well be a citation.) To add a way of judging: a function that returns the `Asked` of a pair, and
a branch in `read`.
"""

from collections.abc import Sequence
import re
from typing import NamedTuple

from ftjax.data import pairs

TIE_DELTA = 0.1  # FastChat's: ratings this near each other are a tie
_RATING = re.compile(r"\[\[(-?\d+(?:\.\d*)?)\]\]")

Messages = tuple[tuple[str, str], ...]  # role, content

_FAIR = (
    "Judge without prejudice: neither the order in which the answers stand, nor their length, nor the names of the "
    "assistants may count."
)
_ASPECTS = "Weigh how helpful, relevant, correct, deep, creative and detailed it is, and whether it does what is asked."
_AGAINST = "A reference answer is given: compare with it first, and name what is wrong."


class Asked(NamedTuple):
    """One request to the judge, and what it shows: `first` is the system that stands first, or the one rated."""

    messages: Messages
    first: str


class Judged(NamedTuple):
    """What came of a pair. `verdicts` are in the order asked; None is an answer without a verdict."""

    verdicts: tuple[str | None, ...]  # pairwise: who is better by each order, a, b or tie
    ratings: tuple[float | None, ...]  # single: of a and of b
    winner: str | None  # a, b or tie


def pairwise(pair: pairs.Pair, *, rubric: str) -> list[Asked]:
    """Returns the two requests that compare the answers of a pair, a first and then b first."""
    task = [
        "You are an impartial judge. Two AI assistants, A and B, have answered the question of a user. Decide whose "
        "answer is better.",
        _rules(pair, rubric),
        _FAIR,
        "Explain briefly what speaks for each. Then end with your verdict in exactly this form: "
        '"[[A]]" if A is better, "[[B]]" if B is better, "[[C]]" for a tie.',
    ]
    asked = []
    for first, second in (("a", "b"), ("b", "a")):
        shown = [
            *_question(pair),
            _section("Answer of assistant A", getattr(pair, first)),
            _section("Answer of assistant B", getattr(pair, second)),
        ]
        asked.append(Asked((("system", " ".join(task)), ("user", "\n\n".join(shown))), first))
    return asked


def single(pair: pairs.Pair, *, rubric: str) -> list[Asked]:
    """Returns the two requests that rate each answer of a pair by itself, from 1 to 10."""
    task = [
        "You are an impartial judge. An AI assistant has answered the question of a user. Rate the answer.",
        _rules(pair, rubric),
        "Its length alone must not count.",
        "Explain your rating briefly. Then end with it, from 1 (worst) to 10 (best), in exactly this form: "
        '"[[rating]]", for example "[[5]]".',
    ]
    return [
        Asked(
            (
                ("system", " ".join(task)),
                ("user", "\n\n".join([*_question(pair), _section("Answer", getattr(pair, name))])),
            ),
            name,
        )
        for name in ("a", "b")
    ]


MODES = {"pairwise": pairwise, "single": single}


def _rules(pair: pairs.Pair, rubric: str) -> str:
    aspects = f"Judge by this rubric and nothing else:\n{rubric.strip()}\n" if rubric.strip() else _ASPECTS
    return f"{_AGAINST} {aspects}" if pair.reference else aspects


def _question(pair: pairs.Pair) -> list[str]:
    reference = [_section("Reference answer", pair.reference)] if pair.reference else []
    return [_section("Question", pair.prompt), *reference]


def _section(name: str, text: str) -> str:
    return f"[{name} begins]\n{text}\n[{name} ends]"


def verdict(text: str) -> str | None:
    """Returns the one verdict in a text, A, B or C; None where there is none, or more than one."""
    found = set(re.findall(r"\[\[([ABC])\]\]", text))
    return found.pop() if len(found) == 1 else None


def rating(text: str) -> float | None:
    """Returns the one rating in a text, from 1 to 10; None where there is none, or more than one."""
    found = set(map(float, _RATING.findall(text)))
    return next(iter(found)) if len(found) == 1 and 1 <= min(found) <= 10 else None


def read(mode: str, asked: Sequence[Asked], texts: Sequence[str]) -> Judged:
    """Returns what the judge's answers to the requests of a pair come to."""
    if mode == "single":
        rated = tuple(map(rating, texts))
        return Judged((), rated, of_ratings(*rated))
    found = tuple(_who(verdict(text), one.first) for one, text in zip(asked, texts, strict=True))
    return Judged(found, (), of_orders(*found))


def of_orders(one: str | None, other: str | None) -> str | None:
    """Returns who wins by the verdicts of the two orders: whom both name, else nobody; None without one of them."""
    if one is None or other is None:
        return None
    return one if one == other else "tie"


def of_ratings(a: float | None, b: float | None) -> str | None:
    """Returns who wins by two ratings, or that they are about equal; None without one of them."""
    if a is None or b is None:
        return None
    return "tie" if abs(a - b) <= TIE_DELTA else "a" if a > b else "b"


def _who(found: str | None, first: str) -> str | None:
    return None if found is None else {"A": first, "B": "b" if first == "a" else "a", "C": "tie"}[found]
