"""The judge behind HTTP, against a server on loopback that is slow, fails, cuts the line and answers nonsense."""

import time

import pytest

from ftjax.errors import UserError
from ftjax.evals import budget, endpoint, replies
from tests import judge_server

MESSAGES = [(("system", "Judge."), ("user", f"{n}: [assistant A begins] good [ends]")) for n in range(12)]


def purse(**changes):
    return budget.Budget(**{"tokens": 10**9, "money": 0.0, "prompt_price": 0.0, "answer_price": 0.0} | changes)


def judge(url, **changes):
    terms = {"temperature": 0.0, "max_tokens": 50, "concurrency": 4, "timeout": 5.0, "retries": 6, "backoff": 0.002}
    return endpoint.Endpoint(**{"url": url, "model": "m", "key": "secret", **terms, "budget": purse()} | changes)


def ask(one, requests=MESSAGES):
    found = {}
    one(requests, lambda number, reply: found.__setitem__(number, reply))
    return found


def test_every_request_gets_its_reply_and_several_are_on_their_way_at_once():
    with judge_server.serving(lambda *_: 0.02) as server:
        found = ask(judge(server.url))
    assert found == {n: replies.Reply("So it is. [[A]]", 100, 10) for n in range(12)}
    assert 2 <= server.most_on_way <= 4
    assert set(server.keys) == {"Bearer secret"}


@pytest.mark.parametrize(
    "failure",
    ["429", "500", "503", "cut", "garbage", "packed", b"[" * 200_000, b"null", b'{"choices": [{"message": 3}]}'],
    ids=lambda failure: failure[:9] if isinstance(failure, str) else failure[:9].decode(),
)
def test_a_request_that_fails_is_asked_again_and_no_other_is(failure):
    with judge_server.serving(lambda number, attempt: failure if number % 3 == 0 and attempt < 2 else "good") as server:
        one = judge(server.url)
        assert len(ask(one)) == 12
    assert sorted(server.tried.values()) == [1] * 8 + [3] * 4
    assert set(server.answered.values()) == {1}
    assert (one.requests, one.retries) == (20, 8)


def test_a_server_that_is_too_slow_is_asked_again():
    with judge_server.serving(lambda _, attempt: 0.6 if attempt == 0 else "good") as server:
        assert len(ask(judge(server.url, timeout=0.2), MESSAGES[:2])) == 2
        time.sleep(0.5)  # the first answers are still on their way
    assert set(server.tried.values()) == {2}


def test_a_server_says_how_long_to_wait():
    with judge_server.serving(lambda _, attempt: "429" if attempt < 3 else "good") as server:
        start = time.perf_counter()
        ask(judge(server.url), MESSAGES[:1])
        assert time.perf_counter() - start >= 0.3
    pauses = [endpoint._seconds(text) for text in (None, "", "3", "0.5", "-1", "Wed, 21 Oct 2026 07:28:00 GMT")]
    assert pauses == [0, 0, 3, 0.5, 0, 0]


def test_nonsense_is_a_reply_like_any_other():
    with judge_server.serving(lambda *_: "nonsense") as server:
        found = ask(judge(server.url))
    assert {reply.text for reply in found.values()} == {"I like both."}
    assert set(server.tried.values()) == {1}


def test_a_server_that_does_not_count_tokens_is_estimated():
    with judge_server.serving(lambda *_: "uncounted") as server:
        one = judge(server.url)
        found = ask(one, MESSAGES[:1])
    assert found[0].prompt_tokens == -(-sum(len(text) for _, text in MESSAGES[0]) // 4)
    assert one.estimated == 1


@pytest.mark.parametrize(
    ("told", "counted"),
    [
        *(("Infinity", None), ("1e400", None), ("-1000000", None), ("null", None), ('"12"', None), ("NaN", None)),
        *(("9" * 400, None), ("9" * 5000, None), ("true", None), ("[]", None), ("7.0", 7), ("0", 0)),
    ],
)
def test_a_number_of_tokens_that_is_none_is_estimated_and_the_answer_counts(told, counted):
    body = b'{"choices": [{"message": {"content": "[[A]]"}}], "usage": {"prompt_tokens": %s, "completion_tokens": 3}}'
    with judge_server.serving(lambda *_: body % told.encode()) as server:
        one = judge(server.url)
        found = ask(one, MESSAGES[:1])[0]
    guess = -(-sum(len(text) for _, text in MESSAGES[0]) // 4)
    assert found == replies.Reply("[[A]]", guess if counted is None else counted, 3)
    assert (one.requests, one.estimated) == (1, counted is None)
    assert one.budget.prompt_tokens == found.prompt_tokens


@pytest.mark.parametrize("usage", ["null", "[1]", "{}", '"many"'])
def test_half_of_a_surrogate_pair_is_mended_where_it_comes_in(usage):
    body = b'{"choices": [{"message": {"content": "hi \\ud800 \\ud83d\\ude00 [[A]]"}}], "usage": %s}' % usage.encode()
    with judge_server.serving(lambda *_: body) as server:
        found = ask(judge(server.url, retries=0), MESSAGES[:1])[0]
    assert found.text == "hi \ufffd \U0001f600 [[A]]"
    assert found.completion_tokens == 5


def test_what_an_older_version_kept_is_mended_when_it_is_read(tmp_path):
    kept = replies.Replies(tmp_path / "judge.sqlite")
    kept.put("key", replies.Reply("hi \ud800 [[A]]", -1_000_000, 5))
    assert kept.get("key") == replies.Reply("hi \ufffd [[A]]", 0, 5)
    assert kept.get("other") is None
    kept.close()


def test_a_server_that_stays_down_is_named_and_what_came_is_kept():
    with judge_server.serving(lambda number, _: "good" if number < 4 else "500") as server:
        found = {}
        with pytest.raises(UserError, match=r"failed 3 times .* status 500: .*this is a stub.* nothing is asked twice"):
            judge(server.url, retries=2, concurrency=1)(MESSAGES, found.__setitem__)
    assert sorted(found) == [0, 1, 2, 3]
    assert max(server.tried.values()) == 3
    assert len(server.tried) == 5


@pytest.mark.parametrize(
    ("status", "complaint"),
    [("401", "refuses the key"), ("404", "does not know this address or 'm'"), ("400", "it is about '0: .assistant A")],
)
def test_a_refusal_is_not_asked_again(status, complaint):
    with judge_server.serving(lambda *_: status) as server:
        with pytest.raises(UserError, match=complaint) as error:
            ask(judge(server.url, concurrency=1))
        assert sum(server.tried.values()) == 1
    assert "secret" not in str(error.value)


def test_nobody_at_the_address_is_named():
    with judge_server.serving() as server:
        url = server.url
    with pytest.raises(UserError, match="failed 2 times on one request, the last time with ConnectError"):
        ask(judge(url, retries=1), MESSAGES[:1])


def test_the_budget_is_never_overstepped_and_what_it_paid_for_is_kept():
    size = sum(len(text) + endpoint.MESSAGE_TOKENS for _, text in MESSAGES[0]) + 50
    with judge_server.serving(lambda *_: 0.01) as server:
        cap = purse(tokens=110 * 5 + size - 1)  # a reply takes 110: five fit with what the sixth may take
        found = {}
        with pytest.raises(UserError, match=r"550 of .* tokens \(config.judge.budget_tokens\), and the next request"):
            judge(server.url, budget=cap)(MESSAGES, found.__setitem__)
    assert len(found) == 5
    assert sum(server.answered.values()) == 5
    assert cap.prompt_tokens + cap.answer_tokens == 550 <= cap.tokens


def test_money_is_counted_by_the_prices_of_prompts_and_answers():
    cap = purse(money=0.01, prompt_price=10.0, answer_price=30.0)
    with judge_server.serving() as server, pytest.raises(UserError, match=r"of 0.01 \(config.judge.budget_money\)"):
        ask(judge(server.url, budget=cap))
    assert 0.005 < cap.cost() <= 0.01
    assert cap.cost() == pytest.approx((cap.prompt_tokens * 10 + cap.answer_tokens * 30) / 1e6)


def test_a_request_is_asked_once_however_often_it_stands_there_and_never_again(tmp_path):
    requests = [*MESSAGES[:3], MESSAGES[0]]
    counted, told = [], []
    listen = {"count": counted.append, "tell": lambda *two: told.append(two)}
    with judge_server.serving() as server:
        kept = replies.Replies(tmp_path / "sub" / "judge.sqlite")
        first, new = replies.ask(kept, {"model": "m"}, requests, judge(server.url), **listen)
        assert (len(first), new, counted) == (4, 3, [])
        assert told == [(1, 3), (2, 3), (3, 3)]
        kept.close()
        kept = replies.Replies(tmp_path / "sub" / "judge.sqlite")
        again = replies.ask(kept, {"model": "m"}, requests, judge(server.url), **listen)
        assert again == (first, 0)
        assert counted == first[:3]
        other, new = replies.ask(kept, {"model": "n"}, requests[:1], judge(server.url), **listen)
        assert (other, new) == (first[:1], 1)
        kept.close()
    assert sorted(server.answered.values()) == [1, 1, 2]


def test_a_file_that_keeps_no_replies_is_named(tmp_path):
    (tmp_path / "judge.sqlite").write_text("this is no database, and it is long enough to be seen as none at all")
    with pytest.raises(UserError, match=r"judge.sqlite cannot keep replies .*FTJAX_CACHE"):
        replies.Replies(tmp_path / "judge.sqlite")
