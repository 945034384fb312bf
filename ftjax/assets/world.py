"""The made world that the embedded base model speaks of: its corpus, the task sets about it, and their checkers.

`corpus` is what the base was trained on. `task` makes seeded rows of a task set, `check` marks a prediction for a row;
`documents` and the task "company" are about a company that the base has never heard of; `preferences` are pairs whose
`true_reward` is known. Words are in words.py, facts and phrasings in subjects.py, the rows of the corpus in rows.py.
To add a task set: write its function from (rng, heldout) to a row, a checker, and a line in each of the two tables.
"""

from collections.abc import Callable, Iterator
import functools
import itertools
import json
import random
import re
import zlib

from ftjax import errors
from ftjax.assets import rows, subjects, words
from ftjax.assets.rows import Row
from ftjax.assets.subjects import Rng, Subject

ROWS = 180_000  # rows of a corpus: about 13 M tokens
UNSEEN = 1_000_003  # seed of the corpus that perplexity is measured on
SPLITS = ("train", "heldout")
JSON_KEYS = {"name": str, "job": str, "age": int, "town": str}
CLOCK = {"opens": 0, "closes": 12}  # hours to add for a 24-hour clock
BEST_REWARD = 4.0


def corpus(seed: int) -> Iterator[Row]:
    """Yields the rows of a corpus, {"text": ...} or {"messages": [...]}, the same for a seed on every machine."""
    rng = random.Random(f"corpus {seed}")
    for kind in rng.choices(list(rows.MIX), list(rows.MIX.values()), k=ROWS):
        yield kind(rng)


def text(split: str, size: int, seed: int) -> list[Row]:
    """Returns the first rows of a corpus: "train", of seed 0, is that of the base, "heldout" one that it has not read.

    Both speak of the same persons, shops, animals and towns, in other sentences.
    """
    return list(itertools.islice(corpus(seed + (UNSEEN if _checked(split) == "heldout" else 0)), size))


def _heldout_only(*parts: str) -> bool:
    """Whether a task set uses something only in its held-out split: one in three, by CRC-32."""
    return zlib.crc32("/".join(parts).encode()) % 3 == 0


def _row(name: str, user: str, reference: str, system: str = "") -> Row:
    return {**rows.chat([(user, reference)], system), "task": name, "answer": reference}


def _askable(rng: Rng, name: str, heldout: bool, *kinds: str) -> tuple[Subject, str]:
    """A fact that the base knows and has been asked for, of a subject in the right split."""
    while True:
        subject, relation = rows.askable(rng)
        if subject.kind in kinds and _heldout_only(name, subject.name) == heldout:
            return subject, relation


def formatted(subject: Subject, relation: str) -> str:
    """Returns the fact in the fixed format of the task "format": `shop: Mill Bakery | opens: 08:00`."""
    value = subject.facts[relation]
    if relation in CLOCK:
        value = f"{int(value) + CLOCK[relation]:02d}:00"
    return f"{subject.kind}: {subject.name} | {relation}: {value}"


def _format(rng: Rng, heldout: bool) -> Row:
    subject, relation = _askable(rng, "format", heldout, "person", "shop")
    return _row("format", rng.choice(subjects.asks(subject, relation)), formatted(subject, relation))


def _tone(rng: Rng, heldout: bool) -> Row:
    subject, relation = _askable(rng, "tone", heldout, "person", "shop")
    tone = rng.choice(list(words.TONES))
    system, openings, closings = words.TONES[tone]
    fact = subjects.answer(subject, relation)
    reference = f"{rng.choice(openings)} {fact} {rng.choice(closings)}"
    row = _row("tone", rng.choice(subjects.asks(subject, relation)), reference, system)
    return {**row, "answer": fact, "tone": tone}


def _known(rng: Rng, heldout: bool) -> Row:
    """In the held-out split the base has read the fact but was never asked for it."""
    while True:
        subject = rng.choice(subjects.of_kind("person", "shop", "animal", "town"))
        relation = rng.choice(list(subject.facts))
        if subjects.held_out("fact", subject.name, relation) == heldout:
            return _row("known", rng.choice(subjects.asks(subject, relation)), subjects.answer(subject, relation))


def _reading(rng: Rng, heldout: bool) -> Row:
    text, [(subject, relation)] = rows.reading(rng, held=heldout, questions=1)
    user = f"{text}\n{rng.choice(subjects.asks(subject, relation))}"
    return {**_row("reading", user, subjects.answer(subject, relation)), "document": text}


def _json(rng: Rng, heldout: bool) -> Row:
    person = subjects.invent(rng, "person", held=heldout)
    relations = ["job", "age", "town", *rng.sample(("pet", "friend", "food"), rng.randint(0, 2))]
    text = subjects.passage(rng, person, rng.sample(relations, len(relations)))
    facts = {**person.facts, "name": person.name, "age": int(person.facts["age"])}
    reference = {key: facts[key] for key in JSON_KEYS}
    row = _row("json", f"Write this as JSON: {text}", json.dumps(reference))
    return {**row, "schema": {key: kind.__name__ for key, kind in JSON_KEYS.items()}, "document": text}


def _sums(rng: Rng, heldout: bool) -> Row:
    a, b = rows.operands(rng, "+", held=heldout)
    row = _row("sums", rng.choice(words.SHY).format(a=a, b=b), rows.equation(a, b, "+"))
    return {**row, "answer": str(a + b)}


def _lists(rng: Rng, heldout: bool) -> Row:
    chosen, operation = rows.word_list(rng, held=heldout), rng.choice(list(words.LIST_ASKS))
    user = rng.choice(words.LIST_ASKS[operation]).format(w=", ".join(chosen))
    return {**_row("lists", user, rows.list_answer(operation, chosen)), "operation": operation}


@functools.cache
def company() -> dict[str, Subject]:
    """Returns the staff, products and branches of a company that no corpus mentions, by name."""
    rng = random.Random("the company")
    found: dict[str, Subject] = {}
    while len(found) < 45:
        subject = subjects.invent(rng, rows.INVENTED[len(found) % 3], held=True)
        if all(subject.name[:4] != name[:4] for name in found):
            found[subject.name] = subject
    return found


def documents(seed: int) -> list[Row]:
    """Returns one document for each subject of the company, with all its facts: id, title, text, facts."""
    rng = random.Random(f"documents {seed}")
    return [
        {
            "id": f"doc-{number:02d}",
            "title": subject.name,
            "text": subjects.passage(rng, subject, subjects.some(rng, subject, len(subject.facts))),
            "facts": [[subject.name, relation, value] for relation, value in subject.facts.items()],
        }
        for number, subject in enumerate(company().values())
    ]


def _company(rng: Rng, heldout: bool) -> Row:
    """Both splits ask for the same facts, in different phrasings; one fact in four is never in the train split.

    `taught` says whether the train split asks for the fact: if not, only its document (`document` is the id) tells it.
    """
    while True:
        number, subject = rng.choice(list(enumerate(company().values())))
        relation = rng.choice(list(subject.facts))
        taught = zlib.crc32(f"taught/{subject.name}/{relation}".encode()) % 4 != 0
        if taught or heldout:
            break
    phrasings = subjects.asks(subject, relation)
    kept = len(phrasings) // 3
    row = _row(
        "company", rng.choice(phrasings[-kept:] if heldout else phrasings[:-kept]), subjects.answer(subject, relation)
    )
    fact = [subject.name, relation, subject.facts[relation]]
    return {**row, "document": f"doc-{number:02d}", "facts": [fact], "taught": taught}


def _described(rng: Rng, heldout: bool) -> tuple[Subject, str]:
    """A subject in the right split, and a request to tell about it."""
    while True:
        subject = rng.choice(subjects.of_kind("person", "shop"))
        if _heldout_only("preference", subject.name) == heldout:
            return subject, rng.choice(words.ABOUT).format(s=subject.name)


def _preference(rng: Rng, heldout: bool) -> Row:
    subject, user = _described(rng, heldout)
    facts = subjects.passage(rng, subject, rng.sample(list(subject.facts), 3))
    return _row("preference", user, f"{facts} {rng.choice(words.KIND)}")


def true_reward(prompt_messages: list[dict[str, str]], completion: str) -> float:
    """Returns how good a description of the subject of the prompt is, by the rule that the preferences follow.

    One point for each of up to three different true facts and for one kind sentence; minus 1.5 for a rude sentence,
    0.25 for an empty one, 0.5 for a fact said twice or past the third, and 1 for any other sentence (false, of another
    subject, broken off, no English). The most is BEST_REWARD.
    """
    request = prompt_messages[-1]["content"]
    about = [s for s in subjects.of_kind("person", "shop") if s.name in request]
    named = [s for s in about if re.search(rf"\b{s.name}\b", request)]
    if len(named) != 1:
        raise errors.UserError(f"true_reward: {request!r} names {len(named)} known subjects; ask about one.")
    ways = {
        way: relation
        for relation in named[0].facts
        for text in subjects.statements(named[0], relation)
        for way in (text, subjects.by_pronoun(named[0], text))
    }
    reward, kind = 0.0, False
    told: set[str] = set()
    for sentence in re.findall(r"[^.!?]+[.!?]*", completion.strip()):
        sentence = sentence.strip()
        if sentence in ways:
            reward += 1 if ways[sentence] not in told and len(told) < 3 else -0.5
            told.add(ways[sentence])
        elif sentence in words.KIND:
            reward += 0 if kind else 1
            kind = True
        elif sentence in words.RUDE:
            reward -= 1.5
        else:
            reward -= 0.25 if sentence in words.VAGUE else 1
    return reward


def _two(rng: Rng, subject: Subject) -> tuple[str, str]:
    """Two descriptions as the corpus has them; in two pairs of five the best one there is, and it with more behind it.

    Without the latter the better answer is the longer one in two pairs of three, and a policy learns to talk without
    end, which the reward does not want.
    """
    if rng.random() < 0.6:
        return rows.about(rng, subject), rows.about(rng, subject)
    facts = subjects.passage(rng, subject, rng.sample(list(subject.facts), 3))
    more = [
        subjects.passage(rng, subject, [relation]) for relation in rng.choices(list(subject.facts), k=rng.randint(1, 3))
    ]
    closing = [rng.choice(words.KIND)] if rng.random() < 0.5 else []
    return f"{facts} {rng.choice(words.KIND)}", " ".join([facts, *more, *closing])


def preferences(split: str, size: int, seed: int) -> list[Row]:
    """Returns pairs of descriptions of different true reward: prompt, chosen, rejected (messages), and both rewards.

    Both have sentences that the base writes. The first n pairs of a seed are the same whatever `size` is. No prompt is
    in both splits.
    """
    rng = random.Random(f"preferences {_checked(split)} {seed}")
    pairs: list[Row] = []
    while len(pairs) < size:
        subject, user = _described(rng, split == "heldout")
        prompt = [{"role": "user", "content": user}]
        scored = sorted((true_reward(prompt, text), text) for text in _two(rng, subject))
        (low, rejected), (high, chosen) = scored
        if high - low >= 0.5:
            answers = {
                key: [{"role": "assistant", "content": text}]
                for key, text in (("chosen", chosen), ("rejected", rejected))
            }
            rewards = {"reward_chosen": high, "reward_rejected": low}
            pairs.append({"prompt": prompt, **answers, **rewards, "task": "preference"})
    return pairs


def descriptions(split: str, size: int, seed: int) -> list[Row]:
    """Returns chats in which a subject is described as the corpus does it: well and badly, not by the true reward."""
    rng = random.Random(f"descriptions {_checked(split)} {seed}")
    found = []
    for _ in range(size):
        subject, user = _described(rng, split == "heldout")
        found.append(_row("preference", user, rows.about(rng, subject)))
    return found


def reward(row: Row, answer: str) -> float:
    """Returns the true reward of an answer to a row of `preferences`, or of the task "preference"."""
    return true_reward(row["prompt"] if "prompt" in row else row["messages"][:-1], answer)


def _is_answer(row: Row, prediction: str) -> float:
    """1 where the prediction is the reference, white space around it aside."""
    return float(prediction.strip() == row["messages"][-1]["content"].strip())


def _last_number(row: Row, prediction: str) -> float:
    """1 where the last whole number of the prediction is the answer."""
    return float(re.findall(r"\d+", prediction)[-1:] == [row["answer"]])


def _in_tone(row: Row, prediction: str) -> float:
    """0 without the true sentence; with it, a half for an opening and a half for a closing of the tone."""
    _, openings, closings = words.TONES[row["tone"]]
    start, found, end = prediction.strip().partition(row["answer"])
    return 0.5 * (start.strip() in openings) + 0.5 * (end.strip() in closings) if found else 0.0


def _strict_json(row: Row, prediction: str) -> float:
    """0 unless it is one JSON object with just the keys and types of the schema; then the share of right values."""
    try:
        value = json.loads(prediction)
    except ValueError:
        return 0.0
    if not isinstance(value, dict) or {key: type(item).__name__ for key, item in value.items()} != row["schema"]:
        return 0.0
    reference = json.loads(row["messages"][-1]["content"])
    return sum(value[key] == reference[key] for key in reference) / len(reference)


def _rewarded(row: Row, prediction: str) -> float:
    """The true reward as a share of the best one, not below 0."""
    return max(0.0, reward(row, prediction)) / BEST_REWARD


_ROW: dict[str, Callable[[Rng, bool], Row]] = {
    "format": _format,
    "tone": _tone,
    "company": _company,
    "json": _json,
    "preference": _preference,
    "sums": _sums,
    "lists": _lists,
    "known": _known,
    "reading": _reading,
}
_CHECK: dict[str, Callable[[Row, str], float]] = {
    "format": _is_answer,
    "tone": _in_tone,
    "company": _is_answer,
    "json": _strict_json,
    "preference": _rewarded,
    "sums": _last_number,
    "lists": _is_answer,
    "known": _is_answer,
    "reading": _is_answer,
}
TASKS = tuple(_ROW)


def _checked(split: str) -> str:
    if split not in SPLITS:
        raise errors.UserError(f"split {split!r} is unknown; the splits of a task are {' and '.join(SPLITS)}.")
    return split


def task(name: str, split: str, size: int, seed: int) -> list[Row]:
    """Returns rows with different prompts; the last message is the reference answer, `task` names the checker.

    No prompt is in both splits. Raises UserError where the split has fewer prompts than `size`.
    """
    if name not in _ROW:
        raise errors.UserError(f"task {name!r} is unknown; the made world has {', '.join(TASKS)}.")
    rng = random.Random(f"task {name} {_checked(split)} {seed}")
    found: dict[str, Row] = {}
    misses = 0
    while len(found) < size:
        row = _ROW[name](rng, split == "heldout")
        prompt = json.dumps(row["messages"][:-1])
        misses = misses + 1 if prompt in found else 0
        if misses > 2000:
            raise errors.UserError(
                f"task {name!r}, split {split!r}: only {len(found)} prompts, not {size}; ask for fewer."
            )
        found.setdefault(prompt, row)
    return list(found.values())


def check(row: Row, prediction: str) -> float:
    """Returns the mark, 0 to 1, of a prediction for a row of `task`, by the checker of the row's task."""
    return _CHECK[row["task"]](row, prediction)
