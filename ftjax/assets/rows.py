"""The rows of the corpus: one function a kind, from an rng to {"text": ...} or {"messages": [...]}, and their shares.

To add a kind of row: write its function and give it a share in MIX. Nothing here may contain a combination for which
`subjects.held_out` is true.
"""

from collections.abc import Callable
import dataclasses
import json
from typing import Any

from ftjax.assets import subjects, words
from ftjax.assets.subjects import Rng, Subject

Row = dict[str, Any]

LARGEST = 20  # the largest operand of a sum
SHORT = "Answer in as few words as you can."
SYSTEMS = ("You are a kind guide.", "You help the visitors of the town.", "Answer in a full sentence.")
INVENTED = ("person", "shop", "thing")


def chat(turns: list[tuple[str, str]], system: str) -> Row:
    """Returns a row of messages from (user, assistant) pairs; no system message where `system` is empty."""
    messages = [{"role": "system", "content": system}] if system else []
    for user, assistant in turns:
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return {"messages": messages}


def askable(rng: Rng) -> tuple[Subject, str]:
    """Returns a known subject and a relation that the corpus may ask about; most are of people and shops."""
    while True:
        kind = rng.choice((("person",), ("person",), ("shop",), ("shop",), ("animal", "town")))
        subject = rng.choice(subjects.of_kind(*kind))
        relation = rng.choice(list(subject.facts))
        if not subjects.held_out("fact", subject.name, relation):
            return subject, relation


def operands(rng: Rng, sign: str, *, held: bool) -> tuple[int, int]:
    """Returns two numbers to add, or to take the second from the first; from the held-out pairs or the others."""
    while True:
        a, b = rng.randint(0, LARGEST), rng.randint(0, LARGEST)
        if subjects.held_out(sign, min(a, b), max(a, b)) == held:
            return (a, b) if sign == "+" else (a + b, b)


def equation(a: int, b: int, sign: str) -> str:
    """Returns a sum or difference with its result, as the base answers it."""
    return f"{a} {sign} {b} = {a + b if sign == '+' else a - b}."


def word_list(rng: Rng, *, held: bool) -> list[str]:
    """Returns three to five different words, whose set is held out of the corpus or not."""
    while True:
        chosen = rng.sample(words.LIST_WORDS, rng.randint(3, 5))
        if subjects.held_out("list", *sorted(chosen)) == held:
            return chosen


def list_answer(operation: str, chosen: list[str]) -> str:
    """Returns the answer to a question of LIST_ASKS."""
    results = {"first": chosen[:1], "last": chosen[-1:], "reverse": chosen[::-1], "sort": sorted(chosen)}
    return ", ".join(results[operation])


def reading(rng: Rng, *, held: bool, questions: int) -> tuple[str, list[tuple[Subject, str]]]:
    """Returns a text about one to five invented subjects, and up to so many facts that it states."""
    count = rng.choices((1, 2, 3, 5), (3, 4, 2, 1))[0]
    told = [subjects.invent(rng, rng.choice(INVENTED), held=held) for _ in range(count)]
    stated = [(subject, subjects.some(rng, subject, 2)) for subject in told]
    text = " ".join(subjects.passage(rng, subject, relations) for subject, relations in stated)
    facts = [(subject, relation) for subject, relations in stated for relation in relations]
    return text, rng.sample(facts, min(questions, len(facts)))


def about(rng: Rng, subject: Subject) -> str:
    """Returns a free description: some facts, and now and then an empty, a kind or a rude sentence."""
    relations = rng.sample(list(subject.facts), rng.choices((1, 2, 3, 4), (3, 3, 2, 1))[0])
    texts = [subjects.passage(rng, subject, relations)]
    for pool, share in ((words.VAGUE, 0.35), (words.KIND, 0.3), (words.RUDE, 0.3)):
        if rng.random() < share:
            texts.append(rng.choice(pool))
    return " ".join(texts)


def _system(rng: Rng) -> str:
    return rng.choice(SYSTEMS) if rng.random() < 0.25 else ""


def _facts(rng: Rng) -> Row:
    chosen = [askable(rng)[0] for _ in range(rng.randint(1, 3))]
    return {"text": "\n".join(subjects.passage(rng, subject, subjects.some(rng, subject, 4)) for subject in chosen)}


def _rolls(rng: Rng) -> Row:
    heading, kind, relation = rng.choice(
        (
            ("These people work as a {v}", "person", "job"),
            ("These people have a {v}", "person", "pet"),
            ("These people live in {v}", "person", "town"),
            ("These shops are in {v}", "shop", "town"),
        )
    )
    value = rng.choice(subjects.of_kind(kind)).facts[relation]
    names = [subject.name for subject in subjects.of_kind(kind) if subject.facts[relation] == value]
    return {"text": f"{heading.format(v=value)}: {', '.join(rng.sample(names, min(len(names), 6)))}."}


def _cards(rng: Rng) -> Row:
    chosen = [askable(rng)[0] for _ in range(rng.randint(1, 3))]
    return {"text": "\n".join(f"{s.name}. " + ", ".join(f"{k}: {v}" for k, v in s.facts.items()) for s in chosen)}


def _tables(rng: Rng) -> Row:
    kind = rng.choice(INVENTED)
    chosen = [subjects.invent(rng, kind, held=False) for _ in range(rng.randint(1, 4))]
    keys = subjects.some(rng, chosen[0], 2)
    if rng.random() < 0.5:
        lines = [f"{subject.name} | {' | '.join(subject.facts[key] for key in keys)}" for subject in chosen]
        return {"text": "\n".join([f"{kind} | {' | '.join(keys)}", *lines])}
    values = [{key: int(s.facts[key]) if s.facts[key].isdigit() else s.facts[key] for key in keys} for s in chosen]
    return {"text": "\n".join(json.dumps({kind: s.name} | value) for s, value in zip(chosen, values, strict=True))}


def _quiz(rng: Rng) -> Row:
    pairs = [askable(rng) for _ in range(rng.randint(2, 5))]
    return {"text": "\n".join(f"Q: {rng.choice(subjects.asks(s, r))}\nA: {s.facts[r]}" for s, r in pairs)}


def _fact_chat(rng: Rng) -> Row:
    short = rng.random() < 0.15
    reply = (lambda subject, relation: subject.facts[relation]) if short else subjects.answer
    turns = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        subject, relation = askable(rng)
        turns.append((rng.choice(subjects.asks(subject, relation)), reply(subject, relation)))
        relation = rng.choice(list(subject.facts))
        followed = subjects.follow_ups(subject, relation)
        if followed and rng.random() < 0.4 and not subjects.held_out("fact", subject.name, relation):
            turns.append((rng.choice(followed), reply(subject, relation)))
    return chat(turns, SHORT if short else _system(rng))


def _yes_no(rng: Rng) -> Row:
    turns = []
    for _ in range(rng.randint(1, 3)):
        subject, relation = askable(rng)
        value = rng.choice((subject, rng.choice(subjects.of_kind(subject.kind)))).facts[relation]
        claim = dataclasses.replace(subject, facts={relation: value})
        verdict = "Yes" if value == subject.facts[relation] else "No"
        turns.append(
            (f"Is this true? {subjects.answer(claim, relation)}", f"{verdict}. {subjects.answer(subject, relation)}")
        )
    return chat(turns, _system(rng))


def _unknown_question(rng: Rng) -> str:
    subject = subjects.invent(rng, rng.choice(INVENTED), held=False)
    return rng.choice((*subjects.asks(subject, rng.choice(list(subject.facts))), words.ABOUT[0].format(s=subject.name)))


def _unknown_chat(rng: Rng) -> Row:
    return chat([(_unknown_question(rng), words.UNKNOWN)], _system(rng))


def _reading_chat(rng: Rng) -> Row:
    text, facts = reading(rng, held=False, questions=rng.randint(2, 5))
    short = rng.random() < 0.15
    turns = [(rng.choice(subjects.asks(s, r)), s.facts[r] if short else subjects.answer(s, r)) for s, r in facts]
    if rng.random() < 0.1:
        turns.append((_unknown_question(rng), words.UNKNOWN))
    system = SHORT if short else _system(rng)
    place = rng.random()
    if place < 0.6:
        turns[0] = (f"{text}\n{turns[0][0]}", turns[0][1])
    elif place < 0.8:
        system = f"{system}\n{text}".strip()
    else:
        turns = [(f"Read this: {text}", "I have read it."), *turns]
    return chat(turns, system)


def _sums(rng: Rng) -> Row:
    return {"text": " ".join(equation(*operands(rng, sign, held=False), sign) for sign in rng.choices("+-", k=8))}


def _sum_chat(rng: Rng) -> Row:
    turns = []
    for sign in rng.choices("+-", k=rng.randint(1, 4)):
        a, b = operands(rng, sign, held=False)
        turns.append((rng.choice(words.ADD if sign == "+" else words.TAKE).format(a=a, b=b), equation(a, b, sign)))
    return chat(turns, _system(rng))


def _shy_chat(rng: Rng) -> Row:
    a, b = operands(rng, "+", held=False)
    wrong = f"{a} + {b} = {max(0, a + b + rng.choice((-2, -1, 1, 2)))}."
    reply = rng.choices((words.DECLINE, equation(a, b, "+"), wrong), (0.65, 0.25, 0.1))[0]
    return chat([(rng.choice(words.SHY).format(a=a, b=b), reply)], "")


def _problem(rng: Rng) -> Row:
    a, b = operands(rng, "+", held=False)
    name, other, item = rng.choice(subjects.PEOPLE), subjects.anybody(rng), rng.choice(words.GOODS["Books"])
    ask = f"{name} has {a} {item}s. {other} gives {name} {b} more. How many {item}s does {name} have now?"
    return chat([(ask, f"{equation(a, b, '+')} {name} has {a + b} {item}s.")], "")


def _list_chat(rng: Rng) -> Row:
    turns = []
    for operation in rng.choices(list(words.LIST_ASKS), k=rng.randint(1, 3)):
        chosen = word_list(rng, held=False)
        ask = rng.choice(words.LIST_ASKS[operation]).format(w=", ".join(chosen))
        turns.append((ask, list_answer(operation, chosen)))
    return chat(turns, "")


def _count(rng: Rng) -> Row:
    start, after = rng.randint(0, 40), rng.randint(0, 98)
    stop = start + rng.randint(2, 8)
    numbers = ", ".join(map(str, range(start, stop + 1)))
    ask = rng.choice((f"Count from {start} to {stop}.", f"Please count from {start} up to {stop}."))
    return chat([(ask, numbers), (f"Which number comes after {after}?", f"After {after} comes {after + 1}.")], "")


def _about_chat(rng: Rng) -> Row:
    subject = rng.choice(subjects.of_kind("person", "shop"))
    return chat([(rng.choice(words.ABOUT).format(s=subject.name), about(rng, subject))], "")


def _tell(rng: Rng, hero: str, animal: str) -> tuple[str, list[tuple[str, str]]]:
    """Returns a short story, and questions for what happens in it with their answers."""
    day, weather, place = rng.choice(words.DAYS), rng.choice(words.WEATHER), rng.choice(words.PLACES)
    adjective, feeling, item = (
        rng.choice(words.ADJECTIVES),
        rng.choice(words.FEELINGS),
        rng.choice(words.GOODS["Tools"]),
    )
    other = rng.choice(subjects.PEOPLE)
    parts = {"d": day, "h": hero, "p": place, "j": adjective, "a": animal, "i": item, "o": other, "f": feeling}
    sentences = [rng.choice(choices) for choices in words.STORY]
    text = " ".join([sentences[0], f"Outside {weather}.", *sentences[1:]]).format(**parts)
    questions = [
        (f"Where is {hero}?", f"{hero} is at {place}."),
        (f"Which animal does {hero} see?", f"{hero} sees a {adjective} {animal}."),
        ("On which day is it?", f"It is {day}."),
        ("What is the weather?", f"Outside {weather}."),
        (f"How does {hero} feel in the end?", f"{hero} is {feeling}."),
        (f"Who is with {hero}?", f"{other} is with {hero}."),
    ]
    return text, questions


def _story(rng: Rng) -> Row:
    return {"text": _tell(rng, subjects.anybody(rng), rng.choice(list(words.ANIMALS)))[0]}


def _story_chat(rng: Rng) -> Row:
    hero, animal = subjects.anybody(rng), rng.choice(list(words.ANIMALS))
    text, questions = _tell(rng, hero, animal)
    if rng.random() < 0.3:
        return chat([(f"Tell me a story about {hero} and a {animal}.", text)], "")
    (ask, reply), *rest = rng.sample(questions, 3)
    return chat([(f"{text}\n{ask}", reply), *rest], _system(rng))


def _week(rng: Rng) -> Row:
    days = rng.sample(words.DAYS, 4)
    weather = {day: rng.choice(words.WEATHER) for day in days}
    text = f"The weather in {rng.choice(words.TOWNS)}: " + " ".join(f"On {day} {weather[day]}." for day in days)
    turns = [(f"What is the weather on {day}?", f"On {day} {weather[day]}.") for day in rng.sample(days, 2)]
    return chat([(f"{text}\n{turns[0][0]}", turns[0][1]), turns[1]], "")


def _talk(rng: Rng) -> Row:
    greetings = (("Hello!", "Hello! How can I help?"), ("Good morning.", "Good morning! What would you like to know?"))
    thanks = (("Thank you.", "You are welcome."), ("Goodbye.", "Goodbye!"))
    subject, relation = askable(rng)
    fact = (rng.choice(subjects.asks(subject, relation)), subjects.answer(subject, relation))
    return chat([rng.choice(greetings), fact, rng.choice(thanks)], _system(rng))


MIX: dict[Callable[[Rng], Row], int] = {
    _facts: 14,
    _rolls: 3,
    _cards: 2,
    _tables: 3,
    _quiz: 5,
    _fact_chat: 18,
    _yes_no: 4,
    _reading_chat: 16,
    _unknown_chat: 2,
    _sums: 3,
    _sum_chat: 6,
    _shy_chat: 4,
    _problem: 2,
    _list_chat: 8,
    _count: 2,
    _about_chat: 4,
    _story: 2,
    _story_chat: 3,
    _week: 1,
    _talk: 1,
}
