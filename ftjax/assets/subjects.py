"""Who and what is in the made world, what is true of them, and how it is said and asked.

Known subjects (people, shops, animals, towns) have fixed facts that the base learns by heart. Invented subjects
(people, shops, things) have made-up names and stand in the text of the question, so they have to be read.
"""

from collections.abc import Callable
import dataclasses
import functools
import random
import zlib

from ftjax.assets import words

Rng = random.Random
PEOPLE = (*words.GIRLS, *words.BOYS)


@dataclasses.dataclass(frozen=True)
class Subject:
    """Somebody or something with facts; `kind` is its key in RELATIONS, `item` is what a shop sells."""

    kind: str
    name: str
    pronoun: str
    item: str
    facts: dict[str, str]


def held_out(*parts: str | int) -> bool:
    """Returns whether a combination is kept out of every corpus: one in eight, by the CRC-32 of its parts.

    Combinations: ("fact", name, relation) is stated but never asked about; ("+" or "-", a, b), smaller number first,
    is never computed; ("list", *sorted words) is never given; ("name", invented name) never occurs.
    """
    return zlib.crc32("|".join(map(str, parts)).encode()) % 8 == 0


@functools.cache
def known() -> dict[str, Subject]:
    """Returns the subjects that the base knows by heart, by name: 80 people, 60 shops, 16 animals, 8 towns."""
    rng = Rng("the made world")
    subjects = [
        _person(rng, name, "She" if name in words.GIRLS else "He", lambda: rng.choice(PEOPLE)) for name in PEOPLE
    ]
    for kind, goods in words.GOODS.items():
        for word in words.SHOP_WORDS:
            subjects.append(_shop(rng, f"{word} {kind}", rng.choice(goods), lambda: rng.choice(PEOPLE)))
    for name, values in words.ANIMALS.items():
        subjects.append(Subject("animal", name, "It", "", dict(zip(words.RELATIONS["animal"], values, strict=True))))
    for name, sight, mayor in zip(words.TOWNS, words.SIGHTS, rng.sample(PEOPLE, len(words.TOWNS)), strict=True):
        subjects.append(Subject("town", name, "It", "", {"sight": sight, "mayor": mayor}))
    return {subject.name: subject for subject in subjects}


@functools.cache
def of_kind(*kinds: str) -> tuple[Subject, ...]:
    """Returns the known subjects of these kinds."""
    return tuple(subject for subject in known().values() if subject.kind in kinds)


def _person(rng: Rng, name: str, pronoun: str, somebody: Callable[[], str]) -> Subject:
    friend = somebody()
    while friend == name:
        friend = somebody()
    facts = {
        "job": rng.choice(words.JOBS),
        "town": rng.choice(words.TOWNS),
        "pet": rng.choice(words.PETS),
        "age": str(rng.randint(18, 79)),
        "friend": friend,
        "food": rng.choice(words.FOODS),
    }
    return Subject("person", name, pronoun, "", facts)


def _shop(rng: Rng, name: str, item: str, somebody: Callable[[], str]) -> Subject:
    facts = {
        "opens": str(rng.randint(6, 11)),
        "closes": str(rng.randint(4, 9)),
        "sells": item + "s",
        "price": str(rng.randint(2, 29)),
        "owner": somebody(),
        "town": rng.choice(words.TOWNS),
    }
    return Subject("shop", name, "It", item, facts)


def made_up(rng: Rng, *, held: bool) -> str:
    """Returns a name of two or three syllables that nobody known bears; the held-out ones never occur in a corpus."""
    while True:
        name = "".join(rng.choices(words.SYLLABLES, k=rng.choice((2, 2, 3)))).capitalize()
        if held_out("name", name) == held and name not in known():
            return name


def anybody(rng: Rng) -> str:
    """Returns the name of a known person or, as often, of nobody known."""
    return rng.choice(PEOPLE) if rng.random() < 0.5 else made_up(rng, held=False)


def invent(rng: Rng, kind: str, *, held: bool) -> Subject:
    """Returns a new person, shop or thing with random facts, which can only be known by reading them."""
    name = made_up(rng, held=held)
    if kind == "person":
        return _person(rng, name, rng.choice(("She", "He")), lambda: anybody(rng))
    if kind == "shop":
        category = rng.choice(list(words.GOODS))
        return _shop(rng, f"{name} {category}", rng.choice(words.GOODS[category]), lambda: anybody(rng))
    facts = {
        "colour": rng.choice(words.COLOURS),
        "price": str(rng.randint(2, 99)),
        "maker": anybody(rng),
        "weight": str(rng.randint(2, 40)),
    }
    return Subject("thing", f"{name} {rng.choice(words.THINGS)}", "It", "", facts)


def fill(template: str, subject: Subject, relation: str) -> str:
    """Returns a phrasing of RELATIONS with the subject's name, value and goods in it."""
    text = template.format(s=subject.name, v=subject.facts[relation], i=subject.item)
    return text[0].upper() + text[1:]


def asks(subject: Subject, relation: str) -> list[str]:
    """Returns every question for one fact of a subject."""
    return [fill(ask, subject, relation) for ask in words.RELATIONS[subject.kind][relation].asks]


def follow_ups(subject: Subject, relation: str) -> list[str]:
    """Returns the questions for a fact by the pronoun; there are none where every phrasing needs the name."""
    pronoun = dataclasses.replace(subject, name=subject.pronoun.lower())
    needs_name = ("of {s}", "at {s}", "the {s}", "a {s}", "in {s}")
    templates = [
        ask for ask in words.RELATIONS[subject.kind][relation].asks if not any(part in ask for part in needs_name)
    ]
    return [fill(ask, pronoun, relation) for ask in templates]


def answer(subject: Subject, relation: str) -> str:
    """Returns the sentence with which the base answers a question for one fact."""
    return fill(words.RELATIONS[subject.kind][relation].answer, subject, relation)


def statements(subject: Subject, relation: str) -> list[str]:
    """Returns every way to state a fact by the name of its subject."""
    phrasing = words.RELATIONS[subject.kind][relation]
    return [fill(template, subject, relation) for template in (phrasing.answer, *phrasing.states)]


def by_pronoun(subject: Subject, statement: str) -> str:
    """Returns the statement with he, she or it where it begins with the name, else as it was."""
    if statement.startswith(subject.name + " "):
        return subject.pronoun + statement.removeprefix(subject.name)
    return statement


def passage(rng: Rng, subject: Subject, relations: list[str]) -> str:
    """Returns a paragraph that states these facts; the first sentence names the subject, later ones not always."""
    first, *rest = (rng.choice(statements(subject, relation)) for relation in relations)
    return " ".join([first, *(by_pronoun(subject, text) if rng.random() < 0.6 else text for text in rest)])


def some(rng: Rng, subject: Subject, least: int) -> list[str]:
    """Returns at least that many relations of a subject in random order, or all where it has fewer."""
    relations = list(subject.facts)
    return rng.sample(relations, rng.randint(min(least, len(relations)), len(relations)))
