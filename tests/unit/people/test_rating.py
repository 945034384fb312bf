"""A human evaluation: blind, in an order of each rater's own, of the answers that it began with, with known items."""

import itertools
import json

import pytest

from ftjax import errors
from ftjax.people import assign, doors, rating, server, verdicts, votes
from ftjax.people.kinds import preference
from tests import rated

testclient = pytest.importorskip("starlette.testclient")


@pytest.fixture
def store(tmp_path):
    with rated.opened(tmp_path, count=2, known=rating.checks(rated.checks(tmp_path))) as made:
        rated.join(made, "Anna", "Ben")
        yield made


@pytest.fixture
def page(store):
    """A page whose raters come in by name: name -> (path, body or None) -> what it tells, as text."""
    made = rating.campaign(store, guidelines="", news=verdicts.news, measured=verdicts.measured)
    served = server.app(made, doors.Doors(everybody=True))

    def enter(name):
        token = http.post("/api/enter", json={"name": name, "token": ""}).json()["token"]
        head = {"authorization": f"Bearer {token}"}

        def ask(path, body=None):
            sent = {"headers": head} if body is None else {"headers": head, "json": body}
            kept = http.request("GET" if body is None else "POST", f"/api/{path}", **sent)
            assert kept.status_code < 500
            return kept.text

        return ask

    with testclient.TestClient(served, base_url="http://localhost") as http:
        yield enter


def following(page):
    return json.loads(page("next"))["item"]


def test_every_answer_and_every_two_answers_to_a_prompt_are_asked_for(store):
    asked = {name: [item for item in store.items() if item.question == name] for name in store.questions()}
    assert {name: len(items) for name, items in asked.items()} == {
        "preference": 2, "preference check": 1, "rating": 4, "rating check": 1,
    }  # fmt: skip
    said = sorted((item.payload["row"], *item.payload["answers"][0]) for item in asked["rating"])
    words = {"zebra-untouched": "Red", "yak-tuned": "Blue"}
    assert said == sorted((row, name, f"{words[name]} {row}.") for row in range(2) for name in rated.NAMES)


@pytest.mark.parametrize(("column", "name"), [("prompt", "prompt"), ("answer", "'answer'")])
def test_half_of_a_surrogate_pair_is_refused_with_its_line(tmp_path, column, name):
    rows = [{"prompt": "q0", "answer": "x"}, {"prompt": "q1", "answer": "y"}]
    rows[1][column] += "\ud800"
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(errors.UserError, match=f"a.jsonl:2: {name} holds half of a surrogate pair"):
        rating.read({"a": file})
    check = {"prompt": "q", "a": "x", "b": "y\ud800", "choice": "a"}
    file.write_text(json.dumps(check))
    with pytest.raises(errors.UserError, match=r"a.jsonl:1: 'b' holds half of a surrogate pair"):
        rating.checks(file)


def test_nothing_that_the_page_is_told_says_who_wrote_an_answer(page):
    texts = []
    for name in ("Anna", "Ben"):
        ask = page(name)
        for path in ("campaign", "items?text=", "items?text=zebra", "agreement", "conflicts"):
            texts.append(ask(path))
        while (item := following(ask)) is not None:
            texts += [json.dumps(item), ask(f"items/{item['id']}")]
            said = rated.scores(3) if item["kind"] == "rating" else {"choice": "1", "comment": "better"}
            texts.append(ask("answers", {"item": item["id"], "answer": said, "key": f"{name} {item['id']}"}))
        texts += [ask(path) for path in ("agreement", "items?text=", "campaign")]
        texts.append(ask("undo", {"key": f"undo {name}"}))
    assert len(texts) > 2 * 8 * 3
    for text in texts:
        for secret in ("zebra", "yak", "untouched", "tuned", "known", "check", '"a"', '"row"'):
            assert secret not in text, text


def test_which_answer_stands_first_changes_with_rater_and_item_and_stays(store):
    question, items = store.questions()["preference"], [f"item {number}" for number in range(400)]
    raters = ("Anna", "Ben", "Cleo", "Dora")
    first = {rater: [preference.order(item, rater)[0] for item in items] for rater in raters}
    for rater, own in first.items():
        assert 150 < sum(own) < 250, rater
        assert own == [preference.order(item, rater)[0] for item in items]
    for one, other in itertools.combinations(raters, 2):
        same = sum(a == b for a, b in zip(first[one], first[other], strict=True))
        assert 150 < same < 250, (one, other)
    item = next(item for item in store.items() if item.question == "preference")
    seen = {rater: preference.shown(item, question, rater, None)["answers"] for rater in map(str, range(20))}
    assert len({tuple(texts) for texts in seen.values()}) == 2


def test_ids_and_places_do_not_say_whose_answer_it_is(tmp_path):
    with rated.opened(tmp_path, count=200) as store:
        items = store.items()
    first = [item.payload["answers"][0][0] for item in items if item.question == "preference"]
    assert 60 < first.count(rated.NAMES[0]) < 140
    own = [item for item in items if item.question == "rating"]
    numbers = {name: [item.payload["line"] for item in own if item.payload["answers"][0][0] == name]
               for name in rated.NAMES}  # fmt: skip
    means = [sum(lines) / len(lines) for lines in numbers.values()]
    assert abs(means[0] - means[1]) < 100  # of 600 places; standard deviation 17
    assert len({item.id for item in items}) == len(items)


def test_two_raters_get_another_order_and_comparisons_before_ratings(store):
    orders = {}
    for rater in ("Anna", "Ben"):
        order = rating.campaign(store, guidelines="", news=None, measured=None).order(rater)
        orders[rater] = [
            item.question.removesuffix(" check") for item in sorted(store.items(), key=lambda i: order(i.id))
        ]
        assert orders[rater] == ["preference"] * 3 + ["rating"] * 5
        orders[rater] = [item.id for item in sorted(store.items(), key=lambda i: order(i.id))]
    assert orders["Anna"] != orders["Ben"]


def test_everybody_gets_every_check_and_other_items_as_often_as_is_wanted(store, page):
    asks = {name: page(name) for name in ("Anna", "Ben", "Cleo")}
    seen = {name: [] for name in asks}
    while any(items := {name: following(ask) for name, ask in asks.items()}.values()):
        for (name, ask), item in zip(asks.items(), list(items), strict=True):
            if item is not None:
                seen[name].append(item["id"])
                said = rated.scores(2) if item["kind"] == "rating" else {"choice": "1"}
                ask("answers", {"item": item["id"], "answer": said, "key": f"{name} {item['id']}"})
    known = {item.id for item in store.items() if rating.is_check(item)}
    for name, ids in seen.items():
        assert known <= set(ids), name
        assert len(set(ids)) == len(ids)
    times = [sum(item.id in ids for ids in seen.values()) for item in store.items() if item.id not in known]
    assert times == [2] * 6


def test_who_fails_a_check_is_flagged_and_skipping_one_is_not_failing(store):
    rated.join(store, "Cleo")
    two, one = (
        next(item for item in store.items() if item.question == f"{name} check") for name in ("preference", "rating")
    )
    rated.choose(store, two, "Anna", "4 it is")
    rated.answer(store, one, "Anna", rated.scores(1, 2))
    rated.choose(store, two, "Ben", "tie")
    rated.answer(store, one, "Ben", rated.scores(1, 3))  # helpfulness is 1 or 2
    rated.choose(store, two, "Cleo", "skip")
    rated.answer(store, one, "Cleo", {"scores": None})
    found = votes.attention(store)
    assert {name: tuple(one) for name, one in found.items()} == {
        "Anna": (2, 0, 0), "Ben": (0, 2, 0), "Cleo": (0, 0, 2),
    }  # fmt: skip
    assert [name for name, one in found.items() if one.flagged] == ["Ben"]


def test_nobody_opens_or_settles_what_others_say(page):
    ask = page("Anna")
    item = following(ask)["id"]
    for path in ("conflicts/open", "conflicts/settle"):
        assert "nobody settles it" in ask(path, {"item": item, "answer": {"choice": "1"}, "key": "k"})


def test_the_same_command_goes_on_and_other_numbers_of_ratings_are_taken(tmp_path):
    with rated.opened(tmp_path, ratings=1) as store:
        rated.join(store, "Anna")
        ids = [item.id for item in store.items()]
        rated.choose(store, next(item for item in store.items() if item.question == "preference"), "Anna", "tie")
    with rated.opened(tmp_path, ratings=3) as store:
        assert [item.id for item in store.items()] == ids
        assert {item.wanted for item in store.items()} == {3}
        assert len(votes.votes(store)) == 1
        assert assign.progress(store, "Anna").answers == 1


def test_a_store_that_was_made_from_something_else_is_named_and_left(tmp_path):
    rated.opened(tmp_path).close()
    files = rated.answers(tmp_path)
    before = (tmp_path / "store.sqlite").read_bytes()
    given = rating.read(files)

    def refused(said, answers=given, **changes):
        with pytest.raises(errors.UserError, match=said):
            rating.opened(
                tmp_path / "store.sqlite", answers,
                **{"asks": ("preference", "rating"), "known": (), "ratings": 2, **changes},
            )  # fmt: skip

    other = {name: ["other", *texts[1:]] for name, texts in given.of.items()}
    refused("made from other answers", rating.Answers(given.prompts, other))
    refused("made from other prompts", rating.Answers(["Other?", *given.prompts[1:]], given.of))
    refused("made from other checks", known=rating.checks(rated.checks(tmp_path)))
    refused("asks for preference, rating, not rating", asks=("rating",))
    renamed = dict(zip(("a", "b"), given.of.values(), strict=True))
    refused("is of zebra-untouched, yak-tuned, not a, b", rating.Answers(given.prompts, renamed))
    assert (tmp_path / "store.sqlite").read_bytes() == before
    rated.opened(tmp_path).close()


def test_a_store_of_a_review_is_no_evaluation(tmp_path):
    from ftjax.data import rows
    from ftjax.people import review

    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "A?", "completion": "B."}\n')
    review.opened(rows.read(str(file), columns=None), columns=None, second_opinions=None).close()
    with pytest.raises(errors.UserError, match=r"holds no answers of scripts/human\.py rate"):
        rating.existing(f"{file}.review.sqlite")
    with pytest.raises(errors.UserError, match="is a store of something else"):
        rated.opened(tmp_path, store="mine.jsonl.review.sqlite")
    with pytest.raises(errors.UserError, match="no such file"):
        rating.existing(tmp_path / "none.sqlite")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            ['{"prompt": "A?", "answer": "x"}', '{"prompt": "C?", "answer": "y"}'],
            r"b.jsonl:2: another prompt than .*a.jsonl:2; both files need the same prompts in the same order",
        ),
        (['{"prompt": "A?", "answer": "x"}'], r"b.jsonl has 1 prompts and .*a.jsonl has 2"),
        (['{"prompt": " ", "answer": "x"}'], "b.jsonl:1: prompt is empty"),
        (['{"answer": "x"}'], "b.jsonl:1: the row has neither `messages` nor `prompt`"),
        (['{"prompt": "A?", "answers": "x"}'], r"b.jsonl:1: the row has no text 'answer' \(did you mean 'answers'\?\)"),
        (['{"prompt": "A?", "answer": null}'], "b.jsonl:1: the row has no text 'answer'"),
    ],
)
def test_answers_that_are_not_to_the_same_prompts_are_named_by_line(tmp_path, rows, said):
    (tmp_path / "a.jsonl").write_text('{"prompt": "A?", "answer": "1"}\n{"prompt": "B?", "answer": "2"}\n')
    (tmp_path / "b.jsonl").write_text("\n".join(rows) + "\n")
    with pytest.raises(errors.UserError, match=said):
        rating.read({"a": tmp_path / "a.jsonl", "b": tmp_path / "b.jsonl"})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "A?", "a": "1", "b": "2", "choice": "left"}, "checks.jsonl:1: a check has texts 'a' and 'b'"),
        ({"prompt": "A?", "a": "1", "b": "2", "choice": ["a"]}, "checks.jsonl:1: a check has texts 'a' and 'b'"),
        ({"prompt": "A?", "a": "1", "choice": "a"}, "checks.jsonl:1: a check has texts 'a' and 'b'"),
        ({"prompt": "A?", "answer": "1"}, "checks.jsonl:1: a check has a 'choice'"),
        ({"prompt": "A?", "answer": "1", "scores": {"truth": 1}}, "checks.jsonl:1: a check has a 'choice'"),
        ({"prompt": "A?", "answer": "1", "scores": {"safety": 6}}, "safety 6 must be 1 to 5"),
        ({"prompt": "A?", "answer": "1", "scores": {"safety": [3, 2]}}, r"safety \[3, 2\] must be 1 to 5"),
    ],
)
def test_a_check_without_a_known_answer_is_named(tmp_path, row, said):
    (tmp_path / "checks.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(errors.UserError, match=said):
        rating.checks(tmp_path / "checks.jsonl")


def test_names_of_answers_are_stems_or_given():
    assert rating.named(["runs/a.jsonl", "new=x/a.jsonl"]) == {"a": "runs/a.jsonl", "new": "x/a.jsonl"}
    with pytest.raises(errors.UserError, match=r"a second 'a'; give each a name, as NAME=x/a\.jsonl"):
        rating.named(["a.jsonl", "x/a.jsonl"])


def test_one_system_can_be_rated_but_not_compared(tmp_path):
    given = rating.read(dict(list(rated.answers(tmp_path).items())[:1]))
    with pytest.raises(errors.UserError, match="a preference is between two"):
        rating.opened(tmp_path / "s.sqlite", given, asks=("preference",), known=(), ratings=1)
    assert not (tmp_path / "s.sqlite").exists()
    with pytest.raises(errors.UserError, match="--ratings 0: an item wants at least 1"):
        rating.opened(tmp_path / "s.sqlite", given, asks=("rating",), known=(), ratings=0)
    with pytest.raises(errors.UserError, match="a check is for preference, but --ask is rating"):
        rating.opened(
            tmp_path / "s.sqlite", given, asks=("rating",), known=rating.checks(rated.checks(tmp_path)), ratings=1
        )
    with rating.opened(tmp_path / "s.sqlite", given, asks=("rating",), known=(), ratings=1) as store:
        assert len(store.items()) == 4


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"scores": {"accuracy": 6, "helpfulness": 1, "format": 1, "safety": 1}}, "accuracy is 6; give 1 to 5"),
        ({"scores": {"accuracy": True, "helpfulness": 1, "format": 1, "safety": 1}}, "accuracy is True"),
        ({"scores": {"accuracy": 5}}, "helpfulness is None"),
        ({"scores": {**rated.scores(3)["scores"], "truth": 1}}, "there is no axis 'truth'"),
        ({"scores": [1, 2, 3, 4]}, "a number from 1 to 5 for each axis"),
        ({"scores": rated.scores(3)["scores"], "comment": 5}, "a comment is a text"),
    ],
)
def test_a_rating_of_another_shape_is_refused_in_words(store, said, why):
    item = next(item for item in store.items() if item.question == "rating")
    with pytest.raises(errors.UserError, match=why):
        rated.answer(store, item, "Anna", said)
