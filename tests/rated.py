"""A human evaluation of two systems, answered by rules instead of raters."""

import json
from pathlib import Path

from ftjax import lookup
from ftjax.people import doors, rating

NAMES = ("zebra-untouched", "yak-tuned")  # of systems; in no text that a rater may see
AXES = ("accuracy", "helpfulness", "format", "safety")


def prompts(count):
    """Returns prompts, one of them with a system message."""
    found = [f"Question {number}?" for number in range(count - 1)]
    return [*found, [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Last question?"}]]


def answers(folder: Path, count=4):
    """Returns the files of two systems' answers, by name."""
    found = {}
    for name, word in zip(NAMES, ("Red", "Blue"), strict=True):
        rows = [
            {"prompt" if isinstance(prompt, str) else "messages": prompt, "answer": f"{word} {number}."}
            for number, prompt in enumerate(prompts(count))
        ]
        found[name] = folder / f"{name}.jsonl"
        found[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return found


def checks(folder: Path):
    """Returns a file of two attention checks."""
    rows = [
        {"prompt": "What is 2 + 2?", "a": "4 it is.", "b": "A banana.", "choice": "a"},
        {"prompt": "What is 3 + 4?", "answer": "Green.", "scores": {"accuracy": 1, "helpfulness": [1, 2]}},
    ]
    path = folder / "checks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def opened(folder: Path, *, count=4, asks=("preference", "rating"), known=(), ratings=2, store="store.sqlite"):
    """Returns the store of an evaluation of `answers`."""
    given = rating.read(answers(folder, count))
    return rating.opened(folder / store, given, asks=asks, known=known, ratings=ratings)


def join(store, *names):
    """Lets raters in, as the page does."""
    for name in names:
        doors.join(store, name)
    rating.campaign(store, guidelines="", news=None, measured=None).joined()


def answer(store, item, rater, said):
    """Keeps an answer as the page sends it."""
    question = store.questions()[item.question]
    kind = lookup.module("ftjax.people.kinds", question.kind)
    body = kind.check(item, question, rater, said)
    return store.answer(item.id, rater, body, counts=kind.counts(body), key=None)


def scores(accuracy, other=5):
    """Returns an answer with a number for each axis."""
    return {"scores": {name: accuracy if name == "accuracy" else other for name in AXES}}


def choose(store, item, rater, word):
    """Keeps a preference for the answer that begins with a word, as the rater sees it, or "tie", "both_bad", "skip"."""
    question = store.questions()[item.question]
    kind = lookup.module("ftjax.people.kinds", question.kind)
    texts = kind.shown(item, question, rater, None)["answers"]
    place = next((str(n) for n, text in enumerate(texts, start=1) if text.startswith(word)), word)
    return answer(store, item, rater, {"choice": place})
