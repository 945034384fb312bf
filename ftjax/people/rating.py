"""What people think of answers: prompts with the answers of several systems as items, blind, and who gave them.

Each answer is rated by itself on the axes of `kinds/rating.py` ("rating"), each two answers to a prompt are compared
(`kinds/preference.py`, "preference"). Ids and places of items are drawn when the store is filled, so neither says whose
answer it is. Attention checks are items with a known answer that every rater gets among the others; whoever fails one
is flagged. What becomes of the answers is in `votes`, what they say in `verdicts`.
"""

from collections.abc import Callable, Mapping, Sequence
import hashlib
import itertools
import json
from pathlib import Path
import random
from typing import Any, NamedTuple

from ftjax import errors
from ftjax.data import files, questions, records
from ftjax.people import assign, doors, server
from ftjax.people import store as people_store
from ftjax.people.kinds import rating as kind

TASK = "human evaluation"
ASKS = ("preference", "rating")
KNOWN = " check"  # ends the id of the question of attention checks
COLUMN = "answer"
_CHOICES = {"a": 0, "b": 1, "tie": "tie", "both_bad": "both_bad"}
_NEW = "or name another --store to begin anew; the answers stay in this one"


class Check(NamedTuple):
    """An item with a known answer: of one text the right scores (axis -> least and most), of two the right choice."""

    prompt: Any
    texts: tuple[str, ...]
    known: dict[str, Any]


class Answers(NamedTuple):
    """Prompts, and the answer of each system to each of them."""

    prompts: list[Any]  # a text, or messages
    of: dict[str, list[str]]


def named(arguments: Sequence[str]) -> dict[str, str]:
    """Returns the files of --answers by the names of their systems: NAME=FILE, or FILE, whose stem is the name."""
    found: dict[str, str] = {}
    for text in arguments:
        name, given, path = text.partition("=")
        name, path = (name, path) if given else (Path(text).name.partition(".")[0], text)
        if not name or name in found:
            raise errors.UserError(f"--answers {text}: a second {name!r}; give each a name, as NAME={path}")
        found[name] = path
    return found


def read(paths: Mapping[str, str | Path]) -> Answers:
    """Returns the answers of systems, each a file whose rows have a prompt and `answer`, to the same prompts in order;
    a UserError names the line where there is none, or where the prompts of two files part."""
    found: dict[str, list[str]] = {}
    first: list[tuple[Any, str]] = []
    for name, path in paths.items():
        asked = questions.read(path)
        texts = [_text(one.row, one.where) for one in asked]
        own = [(_prompt(one.messages, one.where), one.where) for one in asked]
        first = first or own
        for (prompt, where), (wanted, beside) in zip(own, first, strict=False):
            if prompt != wanted:
                raise errors.UserError(
                    f"{where}: another prompt than {beside}; both files need the same prompts in the same order"
                )
        if len(own) != len(first):
            raise errors.UserError(
                f"{path} has {len(own)} prompts and {first[0][1].rpartition(':')[0]} has {len(first)}; "
                "both files need the same prompts in the same order"
            )
        found[name] = texts
    return Answers([prompt for prompt, _ in first], found)


def checks(path: str | Path) -> list[Check]:
    """Returns the attention checks of a file: {"prompt", "a", "b", "choice"} or {"prompt", "answer", "scores"}."""
    found = []
    for one in questions.read(path):
        row, prompt = one.row, _prompt(one.messages, one.where)
        if "choice" in row:
            if str(row["choice"]) not in _CHOICES or not all(isinstance(row.get(side), str) for side in ("a", "b")):
                raise errors.UserError(
                    f"{one.where}: a check has texts 'a' and 'b' and a choice of {', '.join(_CHOICES)}, "
                    f"not {row['choice']!r}"
                )
            texts = tuple(records.text(row[side], repr(side), one.where) for side in ("a", "b"))
            found.append(Check(prompt, texts, {"choice": row["choice"]}))
        else:
            found.append(Check(prompt, (_text(row, one.where),), {"scores": _ranges(row, one.where)}))
    return found


def _ranges(row: Mapping[str, Any], where: str) -> dict[str, list[int]]:
    given = row.get("scores")
    names = [axis["name"] for axis in kind.AXES]
    if not isinstance(given, dict) or not given or not set(given) <= set(names):
        raise errors.UserError(
            f"{where}: a check has a 'choice' (of a, b), or 'scores' of {', '.join(names)}, not {given!r}"
        )
    ranges = {name: value if isinstance(value, list) else [value, value] for name, value in given.items()}
    for name, value in ranges.items():
        if len(value) != 2 or any(step not in (1, 2, 3, 4, 5) for step in value) or value[0] > value[1]:
            raise errors.UserError(f"{where}: {name} {given[name]!r} must be 1 to 5, or [least, most]")
    return ranges


def opened(
    path: Path, answers: Answers, *, asks: Sequence[str], known: Sequence[Check], ratings: int
) -> people_store.Store:
    """Returns the store, filled where it is new; a UserError says in what it was made from something else.

    `asks` are of ASKS, `ratings` how many answers an item wants; an existing store takes the new number.
    """
    if ratings < 1:
        raise errors.UserError(f"--ratings {ratings}: an item wants at least 1")
    if len(answers.of) < 2 and "preference" in asks:
        raise errors.UserError("a preference is between two; name another system, or --ask rating alone")
    of_checks = ["rating" if "scores" in check.known else "preference" for check in known]
    if unasked := next((asked for asked in of_checks if asked not in asks), None):
        raise errors.UserError(f"a check is for {unasked}, but --ask is {' '.join(asks)}; leave the check out")
    about = {
        "task": TASK,
        "systems": list(answers.of),
        "asks": sorted(asks),
        "prompts": _hash(answers.prompts),
        "answers": _hash(answers.of),
        "checks": _hash(known),
    }
    store = people_store.Store(path)
    try:
        begun = {name: store.about(name) for name in about}
        if begun["task"] is None and not store.items():
            rng = random.SystemRandom()
            store.fill({**about, "begun": store.clock()}, _questions(asks), _items(answers, asks, known, ratings, rng))
        for name, value in about.items():
            if store.about(name) != value:
                raise errors.UserError(f"{path}: {_other(name, store.about(name), value)}; {_NEW}")
        _want(store, ratings)
    except BaseException:
        store.close()
        raise
    return store


def existing(path: str | Path) -> people_store.Store:
    """Returns the store of an evaluation that has begun."""
    store = people_store.Store(files.regular(path))
    if store.about("task") != TASK:
        store.close()
        raise errors.UserError(f"{path}: holds no answers of scripts/human.py rate; name the store that it printed")
    return store


def campaign(
    store: people_store.Store,
    *,
    guidelines: str,
    news: Callable[[people_store.Store], tuple[str, ...]],
    measured: Callable[[people_store.Store], list[dict[str, Any]]],
) -> server.Campaign:
    """Returns the page: comparisons first, then ratings, each in an order of the rater's own."""
    kinds = {item.id: item.question.removesuffix(KNOWN) for item in store.items()}

    def order(rater: str) -> Any:
        drawn = lambda item: hashlib.sha256(f"{rater}\0{item}".encode("utf-8", "replace")).digest()
        return lambda item: (ASKS.index(kinds[item]), drawn(item))

    return server.Campaign(
        title="Which answers are good?",
        store=store,
        guidelines=guidelines or guide(),
        finish="That is all. Thank you.",
        order=order,
        words={"answer": "Rate", "items": "My answers", "agreement": "How far"},
        opinions=True,
        joined=lambda: _want(store, None),
        measured=lambda: measured(store),
        news=lambda: news(store),
    )


def guide() -> str:
    """Returns the guidelines that raters read where none are given: what each step of each axis means."""
    parts = [
        "Nobody is told who wrote an answer, and you are not told what others say. Judge the text that is there, not "
        "its length or its tone. Look up what you do not know; skip (s) what you cannot judge.",
        "Which is better: take the answer that you would rather have got. Tie: it makes no difference. Both bad: "
        "neither should have been given.",
    ]
    for axis in kind.AXES:
        steps = "\n".join(f"  {number}  {words}" for number, words in enumerate(axis["steps"], start=1))
        parts.append(f"{axis['name'].capitalize()}: {axis['asks']}\n{steps}")
    return "\n\n".join(parts)


def is_check(item: people_store.Item) -> bool:
    """Tells whether an item is an attention check."""
    return item.question.endswith(KNOWN)


def passed(item: people_store.Item, body: Mapping[str, Any]) -> bool:
    """Tells whether an answer to an attention check is the known one."""
    known = item.payload["known"]
    if "scores" in known:
        return all(least <= body["scores"][name] <= most for name, (least, most) in known["scores"].items())
    wanted = _CHOICES[known["choice"]]
    if isinstance(wanted, str):
        return bool(body["choice"] == wanted)
    return body["place"] is not None and item.payload["answers"][body["place"]][0] == known["choice"]


def _items(
    answers: Answers, asks: Sequence[str], known: Sequence[Check], ratings: int, rng: random.Random
) -> list[people_store.Item]:
    payloads: list[tuple[str, dict[str, Any]]] = []
    for number, prompt in enumerate(answers.prompts):
        said = [[name, texts[number]] for name, texts in answers.of.items()]
        if "rating" in asks:
            payloads += [("rating", {"prompt": prompt, "answers": [one], "row": number}) for one in said]
        if "preference" in asks:
            twos = itertools.combinations(said, 2)
            payloads += [("preference", {"prompt": prompt, "answers": list(two), "row": number}) for two in twos]
    for check in known:
        sides = [[side, text] for side, text in zip("ab", check.texts, strict=False)]
        asked = "rating" if "scores" in check.known else "preference"
        payloads.append((asked + KNOWN, {"prompt": check.prompt, "answers": sides, "known": check.known}))
    rng.shuffle(payloads)
    made = []
    for line, (asked, payload) in enumerate(payloads, start=1):
        rng.shuffle(payload["answers"])
        texts = [turn["content"] for turn in kind.turns(payload["prompt"])] + [text for _, text in payload["answers"]]
        name = f"{rng.getrandbits(64):016x}"
        made.append(people_store.Item(name, asked, {**payload, "line": line}, "\n".join(texts), ratings))
    return made


def _questions(asks: Sequence[str]) -> list[people_store.Question]:
    settings: dict[str, dict[str, Any]] = {"preference": {}, "rating": {"axes": list(kind.AXES)}}
    return [people_store.Question(f"{asked}{end}", asked, settings[asked]) for asked in asks for end in ("", KNOWN)]


def _want(store: people_store.Store, ratings: int | None) -> None:
    """Makes every rater be asked every check, and others as often as is wanted (None: as before)."""
    items = store.items()
    before = next((item.wanted for item in items if not is_check(item)), 1)
    every = max(len(doors.raters(store)), 1)
    known = {item.id for item in items if is_check(item)}
    assign.want(store, known, otherwise=ratings or before, chosen=every)


def _prompt(messages: Sequence[records.Message], where: str) -> Any:
    for one in messages:
        records.text(one.content, "prompt", where)  # a plain one comes as it stands in the file
    if len(messages) == 1 and messages[0].role == "user":
        return messages[0].content
    return [{"role": one.role, "content": one.content} for one in messages]


def _text(row: Mapping[str, Any], where: str) -> str:
    if not isinstance(row.get(COLUMN), str):
        near = files.close_to(COLUMN, list(row))
        raise errors.UserError(f"{where}: the row has no text {COLUMN!r}{near}; its columns are {', '.join(row)}")
    return records.text(row[COLUMN], repr(COLUMN), where)


def _other(name: str, begun: Any, wanted: Any) -> str:
    if begun is None:
        return "is a store of something else; move it away"
    if name in ("systems", "asks"):
        what = {"systems": "is of", "asks": "asks for"}[name]
        return f"{what} {', '.join(begun)}, not {', '.join(wanted)}; give the same"
    return f"was made from other {name}; bring them back as they were"


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
