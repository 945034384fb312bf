"""The made world: the same everywhere, nothing held out leaks into it, every checker knows its references."""

import hashlib
import itertools
import json
import os
import re
import subprocess
import sys

import pytest

from ftjax import errors
from ftjax.assets import rows, subjects, words, world

SCANNED = 12_000  # rows of the corpus that the tests read
GOLDEN = (
    "da936519b2154c2495bf30e7e8aa53dc8f78186a9920bca4032123d86e9cce11"  # SHA-256 of the first 500 rows of corpus(0)
)


def digest(count):
    lines = (json.dumps(row) + "\n" for row in itertools.islice(world.corpus(0), count))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@pytest.fixture(scope="module")
def corpus():
    return list(itertools.islice(world.corpus(0), SCANNED))


@pytest.fixture(scope="module")
def corpus_texts(corpus):
    return [text for row in corpus for text in texts_of(row)]


def texts_of(row):
    return [row["text"]] if "text" in row else [message["content"] for message in row["messages"]]


def prompt(row):
    return json.dumps(row["messages"][:-1])


def reference(row):
    return row["messages"][-1]["content"]


def test_the_corpus_is_the_same_byte_for_byte():
    assert digest(500) == GOLDEN


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_another_process_with_another_hash_seed_makes_the_same_corpus(hash_seed):
    program = (
        "import hashlib, itertools, json\nfrom ftjax.assets import world\n"
        "lines = (json.dumps(row) + '\\n' for row in itertools.islice(world.corpus(0), 500))\n"
        "print(hashlib.sha256(''.join(lines).encode()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    out = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == GOLDEN


def test_the_world_imports_neither_jax_nor_a_tokenizer():
    program = "import sys\nfrom ftjax.assets import world\nprint({'jax', 'numpy', 'tokenizers'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_another_seed_makes_another_corpus():
    first, second = (json.dumps(list(itertools.islice(world.corpus(seed), 50))) for seed in (0, 1))
    assert first != second


def test_every_kind_of_row_occurs_and_is_well_formed(corpus):
    for row in corpus:
        if "messages" in row:
            roles = [message["role"] for message in row["messages"]]
            spoken = roles[1:] if roles[0] == "system" else roles
            assert spoken == ["user", "assistant"] * (len(spoken) // 2)
            assert spoken
        assert all(text and text == text.strip() and "{" not in text.replace('{"', "") for text in texts_of(row))
    assert sum("text" in row for row in corpus) > SCANNED // 5
    assert sum(row.get("messages", [{"role": ""}])[0]["role"] == "system" for row in corpus) > SCANNED // 20


def test_held_out_sums_are_never_computed_in_the_corpus(corpus_texts):
    seen = set()
    for text in corpus_texts:
        for a, sign, b in re.findall(r"(\d+) ([+-]) (\d+)", text):
            first = int(a) if sign == "+" else int(a) - int(b)
            seen.add((sign, *sorted((first, int(b)))))
        for a, b in re.findall(r" has (\d+) \w+\. \w+ gives \w+ (\d+) more", text):
            seen.add(("+", *sorted((int(a), int(b)))))
    assert len(seen) > 300
    assert not [pair for pair in seen if subjects.held_out(*pair)]


def test_held_out_lists_never_occur_in_the_corpus(corpus_texts):
    word = f"(?:{'|'.join(words.LIST_WORDS)})"
    found = [
        tuple(sorted(match.split(", ")))
        for text in corpus_texts
        for match in re.findall(rf"\b{word}(?:, {word}){{2,}}", text)
    ]
    assert len(set(found)) > 1000
    assert not [chosen for chosen in found if subjects.held_out("list", *chosen)]


def test_held_out_facts_are_never_asked_about_but_are_stated(corpus):
    held = [
        (subject, relation)
        for subject in subjects.known().values()
        for relation in subject.facts
        if subjects.held_out("fact", subject.name, relation)
    ]
    questions = {ask for subject, relation in held for ask in subjects.asks(subject, relation)}
    claims = {f"Is this true? {subjects.answer(subject, relation)}" for subject, relation in held}
    statements = {text for subject, relation in held for text in subjects.statements(subject, relation)}
    asked, stated = set(), set()
    for row in corpus:
        if "text" in row:
            asked |= {line.removeprefix("Q: ") for line in row["text"].split("\n") if line.startswith("Q: ")}
            stated |= {sentence + "." for line in row["text"].split("\n") for sentence in line.rstrip(".").split(". ")}
        else:
            asked |= {m["content"] for m in row["messages"] if m["role"] == "user"}
    assert len(held) > 80
    assert not asked & (questions | claims)
    assert len(stated & statements) > len(statements) / 2


def test_held_out_names_and_the_company_never_occur_in_the_corpus(corpus_texts):
    tail = "|".join(words.SYLLABLES)
    names = {name for text in corpus_texts for name in re.findall(rf"\b[A-Z][a-z](?:{tail}){{1,2}}\b", text)}
    invented = {name for name in names if name not in subjects.known() and name != "Good"}
    assert len(invented) > 3000
    assert not [name for name in invented if subjects.held_out("name", name) and name[:2].lower() in words.SYLLABLES]
    assert not {subject.name.split()[0] for subject in world.company().values()} & invented


@pytest.mark.parametrize("name", world.TASKS)
def test_the_splits_of_a_task_share_no_prompt_and_have_enough_of_them(name):
    train, heldout = (world.task(name, split, size, 0) for split, size in (("train", 500), ("heldout", 300)))
    assert len({prompt(row) for row in train}) == 500
    assert len({prompt(row) for row in heldout}) == 300
    every = {prompt(row) for seed in range(4) for row in world.task(name, "train", 500, seed)}
    assert not every & {prompt(row) for row in heldout}


@pytest.mark.parametrize("name", world.TASKS)
def test_the_same_arguments_make_the_same_rows_and_another_seed_others(name):
    assert world.task(name, "train", 20, 3) == world.task(name, "train", 20, 3)
    assert world.task(name, "train", 20, 3) != world.task(name, "train", 20, 4)


@pytest.mark.parametrize("name", world.TASKS)
@pytest.mark.parametrize("split", world.SPLITS)
def test_every_reference_gets_full_marks_and_a_broken_one_does_not(name, split):
    for row in world.task(name, split, 100, 0):
        text = reference(row)
        assert row["task"] == name
        assert world.check(row, f"  {text}\n") == 1.0
        cut_off = "" if name == "sums" else text[:-3]  # "0 + 3 =" still ends in the right number
        for broken in ("", cut_off, f"{text} 77", "I do not know."):
            assert 0.0 <= world.check(row, broken) < 1.0, broken


def test_format_and_json_want_the_content_right_too():
    row = world.task("json", "heldout", 1, 0)[0]
    value = json.loads(reference(row))
    assert list(value) == list(row["schema"])
    assert world.check(row, json.dumps({**value, "age": value["age"] + 1})) == 0.75
    assert world.check(row, json.dumps({**value, "age": str(value["age"])})) == 0.0
    assert world.check(row, json.dumps({**value, "pet": "dog"})) == 0.0
    row = world.task("format", "heldout", 1, 0)[0]
    assert world.check(row, re.sub(r"[^ ]+$", "other", reference(row))) == 0.0


def test_sums_count_the_last_number_alone():
    row = world.task("sums", "train", 1, 0)[0]
    assert world.check(row, row["answer"]) == 1.0
    assert world.check(row, f"It is {row['answer']}, not 99") == 0.0
    assert world.check(row, "I am not sure.") == 0.0


def test_tone_gives_nothing_without_the_fact_and_half_for_half_a_tone():
    row = world.task("tone", "train", 1, 0)[0]
    opening, closing = (words.TONES[row["tone"]][place][0] for place in (1, 2))
    assert world.check(row, f"{opening} {row['answer']} {closing}") == 1.0
    assert world.check(row, f"{opening} {row['answer']}") == 0.5
    assert world.check(row, row["answer"]) == 0.0
    assert world.check(row, f"{opening} {closing}") == 0.0


def test_the_documents_tell_every_company_fact():
    told = {document["id"]: document for document in world.documents(0)}
    assert len(told) == len(world.company())
    for row in world.task("company", "heldout", 300, 0):
        [fact] = row["facts"]
        document = told[row["document"]]
        assert fact in document["facts"]
        assert fact[2] in document["text"]
    assert world.documents(0) == world.documents(0) != world.documents(1)


def test_untaught_company_facts_are_only_in_the_held_out_split():
    assert all(row["taught"] for row in world.task("company", "train", 500, 0))
    untaught = [row for row in world.task("company", "heldout", 300, 0) if not row["taught"]]
    assert 40 < len(untaught) < 120


def test_true_reward_orders_every_pair_and_is_what_the_row_says():
    for split in world.SPLITS:
        pairs = world.preferences(split, 300, 0)
        for pair in pairs:
            high, low = (world.true_reward(pair["prompt"], pair[key][0]["content"]) for key in ("chosen", "rejected"))
            assert (high, low) == (pair["reward_chosen"], pair["reward_rejected"])
            assert low + 0.5 <= high <= world.BEST_REWARD
    assert world.preferences("train", 20, 1) == world.preferences("train", 20, 1)


def test_the_reward_of_an_answer_is_that_of_the_row_it_answers():
    (pair,) = world.preferences("heldout", 1, 0)
    assert world.reward(pair, pair["chosen"][0]["content"]) == pair["reward_chosen"]
    assert world.check(pair, pair["chosen"][0]["content"]) == max(0, pair["reward_chosen"]) / world.BEST_REWARD
    (row,) = world.task("preference", "heldout", 1, 0)
    assert world.reward(row, reference(row)) == world.BEST_REWARD
    assert world.preferences("train", 30, 1)[:20] == world.preferences("train", 20, 1)


def test_the_better_description_is_as_often_the_shorter_one():
    pairs = world.preferences("train", 600, 0)
    longer = [len(pair["chosen"][0]["content"]) > len(pair["rejected"][0]["content"]) for pair in pairs]
    assert 0.35 < sum(longer) / len(longer) < 0.65


def test_preference_prompts_of_the_splits_are_about_other_subjects():
    train, heldout = (
        {pair["prompt"][0]["content"] for pair in world.preferences(split, 300, 0)} for split in world.SPLITS
    )
    assert not train & heldout


def test_true_reward_cannot_be_raised_by_saying_a_thing_twice_or_saying_false_things():
    asked = [{"role": "user", "content": words.ABOUT[0].format(s="Anna")}]
    anna = subjects.known()["Anna"]
    one = subjects.answer(anna, "job")
    false = subjects.answer(subjects.known()["Ben"], "job")
    assert world.true_reward(asked, one) == 1.0
    assert world.true_reward(asked, f"{one} {one}") == 0.5
    assert world.true_reward(asked, f"{one} {false}") == 0.0
    assert world.true_reward(asked, f"{one} {words.KIND[0]}") == 2.0
    assert world.true_reward(asked, f"{one} {words.KIND[0]} {words.KIND[1]}") == 2.0
    assert world.true_reward(asked, f"{one} {words.RUDE[0]}") == -0.5
    assert world.true_reward(asked, f"{one} Anna is") == 0.0
    assert world.true_reward(asked, "") == 0.0


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("froamt", "train", 1, 0), "froamt"),
        (("format", "test", 1, 0), "heldout"),
        (("sums", "heldout", 10_000, 0), "fewer"),
    ],
)
def test_a_wrong_task_split_or_size_is_named(arguments, names):
    with pytest.raises(errors.UserError, match=names):
        world.task(*arguments)


def test_a_reward_without_a_known_subject_is_refused():
    with pytest.raises(errors.UserError, match="names 0 known subjects"):
        world.true_reward([{"role": "user", "content": "Hello!"}], "Hello!")


def test_list_answers_are_what_they_say():
    chosen = ["pear", "apple", "door"]
    assert rows.list_answer("sort", chosen) == "apple, door, pear"
    assert rows.list_answer("reverse", chosen) == "door, apple, pear"
    assert (rows.list_answer("first", chosen), rows.list_answer("last", chosen)) == ("pear", "door")
