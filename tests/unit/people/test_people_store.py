"""The file of answers: nothing that was acknowledged is lost, nothing is ever changed, undo brings back what stood."""

from pathlib import Path
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest

from ftjax import errors
from ftjax.people import assign, doors
from ftjax.people import store as people_store

ROOT = Path(__file__).resolve().parents[3]
WRITER = """
import sys
from ftjax.people import store
path, rater, first, last = sys.argv[1:]
with store.Store(path) as kept:
    for number in range(int(first), int(last)):
        made = kept.answer(str(number % 5), rater, {"n": number}, counts=True, key=f"{rater} {number}")
        print(made.number, number, flush=True)
"""


class Clock:
    """Time that a test sets."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path, clock):
    with people_store.Store(tmp_path / "answers.sqlite", clock=clock) as made:
        fill(made)
        yield made


def fill(store, wanted=(1, 1, 2, 1, 1)):
    items = [people_store.Item(str(n), "q", {"n": n}, f"text {n} Größe", many) for n, many in enumerate(wanted)]
    store.fill({"title": "test"}, [people_store.Question("q", "review", {"of_preferences": False})], items)
    for name in ("Anna", "Ben", "Cleo"):
        doors.join(store, name)


def written(path, rater, first, last):
    """A process that gives answers and says the number of each that it was told is kept."""
    command = [sys.executable, "-c", WRITER, str(path), rater, str(first), str(last)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def say(store, item, rater, word, **more):
    more = {"counts": True, "key": None, **more}
    return store.answer(item, rater, {"word": word}, **more)


def following(store, rater, lease=60.0, order=None):
    item = assign.following(store, rater, lease=lease, order=order)
    return None if item is None else item.id


def words(store, item=None):
    return [(one.item, one.rater, one.body["word"]) for one in store.standing(item)]


def test_a_killed_writer_loses_no_answer_that_it_was_told_is_kept(tmp_path):
    path = tmp_path / "answers.sqlite"
    with people_store.Store(path) as store:
        fill(store)
    for life, wait in enumerate((1, 7, 40)):
        with written(path, "Anna", life * 10_000, 10**9) as writer:
            told = [writer.stdout.readline() for _ in range(wait)]
            writer.send_signal(signal.SIGKILL)
            told += writer.stdout.readlines()
        acknowledged = dict(map(int, line.split()) for line in told if line.endswith("\n"))
        assert len(acknowledged) >= wait
        with people_store.Store(path) as store:
            kept = {one.number: one.body["n"] for one in store.history()}
            assert acknowledged.items() <= kept.items()
            assert len(store.standing()) == min(5, len(kept))
            with store.reading() as connection:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_two_processes_write_at_once_and_both_find_all(tmp_path):
    path = tmp_path / "answers.sqlite"
    with people_store.Store(path) as store:
        fill(store)
    running = [written(path, name, 0, 60) for name in ("Anna", "Ben")]
    told = [one.communicate(timeout=60)[0].splitlines() for one in running]
    assert [one.returncode for one in running] == [0, 0]
    with people_store.Store(path) as store:
        found = store.history()
    assert len(found) == 120
    for name, lines in zip(("Anna", "Ben"), told, strict=True):
        assert [f"{one.number} {one.body['n']}" for one in found if one.rater == name] == lines


def test_threads_share_one_store(store):
    def write(name):
        for n in range(30):
            say(store, str(n % 5), name, f"{name} {n}")

    running = [threading.Thread(target=write, args=(name,)) for name in ("Anna", "Ben", "Cleo")]
    for one in running:
        one.start()
    for one in running:
        one.join()
    assert len(store.history()) == 90
    assert len(store.standing()) == 15


def test_an_answer_stands_in_the_place_of_the_earlier_one_and_history_has_both(store):
    first = say(store, "0", "Anna", "yes")
    second = say(store, "0", "Anna", "no")
    assert words(store) == [("0", "Anna", "no")]
    assert second.supersedes == first.number
    assert [one.body["word"] for one in store.history("0")] == ["yes", "no"]


def test_undo_goes_back_step_by_step_and_history_keeps_every_step(store):
    for item, word in (("0", "yes"), ("1", "maybe"), ("0", "no")):
        say(store, item, "Anna", word)
    say(store, "2", "Ben", "mine")
    assert store.undo("Anna", key=None).body == {"word": "no"}
    assert words(store, "0") == [("0", "Anna", "yes")]
    assert store.undo("Anna", key=None).item == "1"
    assert words(store, "1") == []
    say(store, "1", "Anna", "again")
    assert store.undo("Anna", key=None).body == {"word": "again"}
    assert store.undo("Anna", key=None).body == {"word": "yes"}
    assert store.undo("Anna", key=None) is None
    assert words(store) == [("2", "Ben", "mine")]
    assert len(store.history()) == 5 + 4
    assert assign.progress(store, "Anna").answers == 1


def test_an_answer_that_is_sent_twice_is_kept_once(store):
    first = say(store, "0", "Anna", "yes", key="k")
    assert say(store, "0", "Anna", "yes", key="k") == first
    assert len(store.history()) == 1
    undone = store.undo("Anna", key="u")
    assert store.undo("Anna", key="u") == undone
    assert len(store.history()) == 2


def test_nothing_can_change_or_delete_an_answer(store):
    say(store, "0", "Anna", "yes")
    for statement in ("UPDATE answers SET body = '{}'", "DELETE FROM answers"):
        with pytest.raises(sqlite3.IntegrityError, match="answers are only added"), store.writing() as connection:
            connection.execute(statement)
    assert words(store) == [("0", "Anna", "yes")]


def test_a_transaction_that_fails_leaves_nothing(store):
    with pytest.raises(sqlite3.IntegrityError):
        store.fill(
            {"title": "other"}, [], [people_store.Item("9", "q", {}, "", 1), people_store.Item("9", "q", {}, "", 1)]
        )
    assert store.about("title") == "test"
    assert len(store.items()) == 5


def test_texts_that_utf8_cannot_hold_come_back_as_they_were(store):
    body = {"text": "half \ud800 of it, a null \x00, \u202e, 👩‍👩‍👧"}
    store.answer("0", "Anna", body, counts=True, key=None)
    assert store.standing()[0].body == body


def test_two_at_once_get_different_items_and_one_who_reloads_the_same(store):
    assert following(store, "Anna") == "0"
    assert following(store, "Ben") == "1"
    assert following(store, "Anna") == "0"
    assert following(store, "Cleo") == "2"


def test_an_item_that_wants_two_answers_goes_to_two_at_once_but_not_to_a_third(store):
    for name in ("Anna", "Ben", "Cleo"):
        say(store, "0", name, "yes")
        say(store, "1", name, "yes")
    assert [following(store, name) for name in ("Anna", "Ben", "Cleo")] == ["2", "2", "3"]


def test_a_lease_that_ran_out_frees_the_item_and_late_work_is_still_kept(store, clock):
    assert following(store, "Anna") == "0"
    clock.now += 59
    assert following(store, "Ben") == "1"
    clock.now += 2
    assert following(store, "Cleo") == "0"
    say(store, "0", "Anna", "late")
    assert words(store, "0") == [("0", "Anna", "late")]


def test_a_lease_that_is_renewed_does_not_run_out(store, clock):
    assert following(store, "Anna") == "0"
    for _ in range(5):
        clock.now += 50
        assign.take(store, "0", "Anna", lease=60)
    assert following(store, "Ben") == "1"


def test_nobody_gets_an_item_twice_and_a_skipped_one_goes_to_somebody_else(store):
    seen = []
    while (item := following(store, "Anna")) is not None:
        seen.append(item)
        say(store, item, "Anna", "pass", counts=item != "3")
    assert seen == ["0", "1", "2", "3", "4"]
    assert following(store, "Ben") == "2"
    say(store, "2", "Ben", "yes")
    assert following(store, "Ben") == "3"
    told = assign.progress(store, "Anna")
    assert told == assign.Progress(items=5, open=1, answers=5, wanted=6, mine=5, passed=1)


def test_an_item_that_is_taken_back_is_asked_again(store):
    say(store, "0", "Anna", "yes")
    store.undo("Anna", key=None)
    assert following(store, "Ben") == "0"


def test_the_order_is_the_raters_own_where_one_is_given(store):
    assert following(store, "Anna", order=lambda name: -int(name)) == "4"
    assert following(store, "Ben", order=lambda name: -int(name)) == "3"


def test_whoever_has_seen_the_others_cannot_answer_blind_or_take_back(store):
    say(store, "2", "Anna", "yes")
    say(store, "2", "Ben", "no")
    assert [one.body["word"] for one in store.reveal("2", "Anna")] == ["yes", "no"]
    for attempt in (lambda: say(store, "2", "Anna", "no"), lambda: store.undo("Anna", key=None)):
        with pytest.raises(errors.UserError, match="would not be blind; settle it under Conflicts"):
            attempt()
    say(store, "2", "Ben", "yes after all")
    say(store, "2", "Anna", "no", settles=True)
    assert [(one.rater, one.settles) for one in store.standing("2")] == [
        ("Anna", False),
        ("Ben", False),
        ("Anna", True),
    ]
    assert store.undo("Anna", key=None).settles
    assert words(store, "2") == [("2", "Anna", "yes"), ("2", "Ben", "yes after all")]


def test_second_opinions_are_a_share_and_more_rows_do_not_choose_anew():
    names = [str(n) for n in range(2000)]
    chosen = assign.second_opinions(names, 0.1, seed=0)
    assert 150 < len(chosen) < 250
    assert assign.second_opinions(names[:500], 0.1, seed=0) == {name for name in chosen if int(name) < 500}
    assert chosen < assign.second_opinions(names, 0.2, seed=0)
    assert assign.second_opinions(names, 0.0, seed=0) == set()
    assert assign.second_opinions(names, 1.0, seed=0) == set(names)


def test_search_finds_any_case_and_takes_its_text_as_it_is(store):
    find = lambda text, only="all": [
        one.item.id for one in assign.find(store, "Anna", text=text, only=only, among=None, after=0)[0]
    ]
    assert find("GRÖSSE") == find("größe") == ["0", "1", "2", "3", "4"]
    assert find("text 3") == ["3"]
    assert find("%") == find("'; DROP TABLE answers; --") == []
    say(store, "1", "Anna", "yes")
    say(store, "3", "Anna", "pass", counts=False)
    assert find("", "mine") == ["1", "3"]
    assert find("", "skipped") == ["3"]
    assert find("", "todo") == ["0", "2", "4"]
    assert find("", "open") == ["0", "2", "3", "4"]


def test_a_file_that_is_none_of_ours_is_refused_and_left_as_it_is(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("my notes\n" * 200)
    other = tmp_path / "other.sqlite"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE mine (a)")
    connection.commit()
    connection.close()
    newer = tmp_path / "newer.sqlite"
    with people_store.Store(newer) as store, store.writing() as inner:
        inner.execute("UPDATE about SET value = '2' WHERE name = 'format'")
    for path, said in (
        (text, "cannot be used"),
        (other, "something else"),
        (newer, "format 2, but this ftjax reads 1"),
    ):
        before = path.read_bytes()
        with pytest.raises(errors.UserError, match=said):
            people_store.Store(path)
        assert path.read_bytes() == before
    with pytest.raises(errors.UserError, match="there is no folder"):
        people_store.Store(tmp_path / "nowhere" / "a.sqlite")


def test_tokens_are_kept_as_hashes_and_a_name_with_a_link_needs_it(store, tmp_path):
    everybody, closed = doors.Doors(everybody=True), doors.Doors(everybody=False)
    doors.link(store, "Dora", "secret of Dora")
    name, visit = doors.enter(store, everybody, name="Anna", token="")
    assert doors.whose(store, everybody, "secret of Dora") == "Dora"
    assert (name, doors.whose(store, everybody, visit)) == ("Anna", "Anna")
    assert doors.whose(store, everybody, "") is None
    kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"secret of Dora" not in kept
    assert visit.encode() not in kept
    right = doors.Doors(everybody=False, shared="right")
    enter = lambda at=everybody, **given: doors.enter(store, at, **{"name": "", "token": "", **given})
    assert enter(token="secret of Dora") == ("Dora", "secret of Dora")
    assert enter(name="  Anna  B. ")[0] == "Anna B."
    assert enter(name="ANNA b.")[0] == "Anna B."  # one person, one name
    for given, said in (
        ({"name": "Dora"}, "by a link with a token"),
        ({"name": "dora"}, "by a link with a token"),
        ({"name": "Eve", "token": "guess"}, "opens nothing"),
        ({"name": "Eve", "at": closed}, "a token is needed"),
        ({"name": "Eve", "token": "guess", "at": right}, "opens nothing"),
        ({"name": " "}, "1 to 60 printable"),
        ({"name": "x" * 61}, "1 to 60 printable"),
        ({"name": "Eve\u202eevil"}, "1 to 60 printable"),
    ):
        with pytest.raises(errors.UserError, match=said):
            enter(**given)
    assert enter(name="Eve", token="right", at=right)[0] == "Eve"
    assert doors.raters(store) == ["Anna", "Anna B.", "Ben", "Cleo", "Dora", "Eve"]
