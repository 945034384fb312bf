"""Who is let in when a page is served again by other doors, and the address that is handed out."""

import itertools
import signal
import socket
import sys

import pytest

from ftjax import errors
from ftjax.people import addresses, doors, server
from ftjax.people import store as people_store


@pytest.fixture
def store(tmp_path):
    with people_store.Store(tmp_path / "answers.sqlite") as made:
        yield made


@pytest.fixture
def serve(store):
    """Returns a function: names and token of a command -> its doors, and the tokens of the links that it prints."""
    with addresses.listen("127.0.0.1", 0) as listener:

        def started(*names, shared=None):
            made, lines = doors.opened(store, names, shared=shared, host="127.0.0.1", listener=listener)
            return made, [line.partition("#token=")[2] for line in lines]

        yield started


def test_a_visit_by_other_doors_is_not_let_in_and_one_by_the_same_goes_on(store, serve):
    commands = {
        "everybody": ((), None), "token": ((), "one"), "another token": ((), "two"),
        "Ben": (("Ben",), None), "token and Ben": (("Ben",), "one"),
    }  # fmt: skip
    visits = {}
    for name, (named, shared) in commands.items():
        made, links = serve(*named, shared=shared)
        if made.everybody or shared:
            visits[name] = doors.enter(store, made, name="Eve", token=shared or "")[1]
        if named:
            visits[f"link of {name}"] = links[0]
    let_in = {
        "everybody": {"everybody", "link of Ben", "link of token and Ben"},  # a link proves who comes in by name
        "token": {"token", "token and Ben"},
        "another token": {"another token"},
        "Ben": {"link of Ben", "link of token and Ben"},
        "token and Ben": {"token", "token and Ben", "link of Ben", "link of token and Ben"},
    }
    for (name, (named, shared)), (visit, token) in itertools.product(commands.items(), visits.items()):
        rater = "Ben" if visit.startswith("link") else "Eve"
        made, _ = serve(*named, shared=shared)  # started again
        expected = rater if visit in let_in[name] else None
        assert doors.whose(store, made, token) == expected, (name, visit)
        if expected is None and visit != "everybody":
            with pytest.raises(doors.Refused, match="opens nothing"):
                doors.enter(store, made, name="", token=token)


def test_who_is_no_longer_named_is_shut_out_and_who_is_goes_on_by_the_old_link(store, serve):
    _, (anna, ben) = serve("Anna", "Ben")
    made, (again,) = serve("ben")
    assert doors.whose(store, made, anna) is None
    assert doors.whose(store, made, ben) == doors.whose(store, made, again) == "Ben"


def test_a_name_that_has_a_link_now_is_not_entered_by_who_took_it_before(store, serve):
    for shared in (None, "one"):
        name = f"Ben {shared}"
        made, _ = serve(shared=shared)
        visit = doors.enter(store, made, name=name, token=shared or "")[1]
        named, _ = serve(name, shared=shared)
        assert doors.whose(store, named, visit) is None
        again, _ = serve(shared=shared)
        # Where everybody comes in by name, a link that was handed out is still asked for.
        assert doors.whose(store, again, visit) == (None if again.everybody else name)


def test_a_visit_that_an_earlier_version_kept_is_asked_for_its_name_again(store, serve):
    made, _ = serve()
    doors.join(store, "Anna")
    with store.writing() as connection:
        connection.execute("INSERT INTO tokens VALUES (?, ?, 0)", (doors._hash("old"), "Anna"))
    assert doors.whose(store, made, "old") is None
    assert doors.enter(store, made, name="Anna", token="")[0] == "Anna"


def test_any_token_travels_in_the_link(serve):
    _, links = serve(shared="a&b=c+d e#f%/ü")
    assert links == ["a%26b%3Dc%2Bd%20e%23f%25%2F%C3%BC"]


def test_a_port_that_is_taken_is_named():
    with addresses.listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        assert addresses.address(first) == f"http://127.0.0.1:{port}/"
        with pytest.raises(errors.UserError, match=f"127.0.0.1:{port}: nothing can listen there"):
            addresses.listen("127.0.0.1", port)


@pytest.mark.parametrize("port", [99999, 65536, -1])
def test_a_port_that_is_none_is_named_with_what_one_is(port):
    with pytest.raises(
        errors.UserError, match=f"--port {port}: a port is a number from 0 to 65535; 0 takes a free one"
    ):
        addresses.listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "", "no such host"])
def test_a_host_that_is_none_is_named(host):
    with pytest.raises(errors.UserError, match="nothing can listen there"):
        addresses.listen(host, 0)


def test_the_address_of_a_page_for_all_is_one_that_others_can_open(monkeypatch):
    here = "203.0.113.7"
    known = {"desk.example.org": here, "desk": "127.0.1.1"}

    def looked_up(name, *_, **__):
        if name not in known:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (known[name], 0))]

    with addresses.listen("0.0.0.0", 0) as listener:
        port = listener.getsockname()[1]
        monkeypatch.setattr(addresses.socket, "getaddrinfo", looked_up)
        monkeypatch.setattr(addresses.socket, "getfqdn", lambda: "desk.example.org")
        monkeypatch.setattr(addresses.socket, "gethostname", lambda: "Desk")
        shown = addresses.address(listener)
        assert shown == f"http://desk.example.org:{port}/"
        assert addresses.own_names("0.0.0.0", shown) >= {"desk.example.org", "desk", "localhost"}
        known["desk.example.org"] = "127.0.1.1"  # as Debian has it: no other machine finds it so
        monkeypatch.setattr(addresses, "_outward", lambda _: here)
        assert addresses.address(listener) == f"http://{here}:{port}/"
        known.clear()
        assert addresses.address(listener) == f"http://{here}:{port}/"
        monkeypatch.setattr(addresses, "_outward", lambda _: None)
        assert addresses.address(listener) == f"http://Desk:{port}/"


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_page_for_all_is_served_under_the_address_that_is_said(store, host):
    if host == "::" and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with addresses.listen(host, 0) as listener:
        made, (line,) = doors.opened(store, [], shared="one", host=host, listener=listener)
        said = line.removeprefix("http://").partition("/")[0]
        assert not said.startswith((f"{host}:", f"[{host}]"))
        assert doors.Guard(None, names=made.names)._refusal("GET", {"host": said}) is None
        assert doors.Guard(None, names=made.names)._refusal("GET", {"host": "evil.example"}) is not None


@pytest.mark.parametrize("name", ["starlette", "uvicorn"])
def test_a_package_that_is_missing_is_named_with_the_way_to_install_it(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(errors.UserError, match=rf"needs the package {name}; install it: pip install 'ftjax\[people\]'"):
        addresses.listen("127.0.0.1", 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_ends_a_process_is_as_ctrl_c_while_something_is_open(number):
    before = signal.getsignal(number)
    try:
        signal.signal(number, signal.SIG_DFL)
        with pytest.raises(KeyboardInterrupt), server.interruptible():
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_who_asked_to_outlive_the_terminal_does():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with server.interruptible():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
