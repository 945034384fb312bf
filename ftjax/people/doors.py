"""Who may come in: names and tokens, and which requests are a page of ours rather than of somebody else.

On loopback a name is enough. Elsewhere a token is: one for all (`shared`), or one for each rater (`link`). Whoever has
come in by a name gets a token of the visit, which is worth something as long as the doors are those that it was made
at: a server that is started again with others asks anew. The page sends the token that it was given in a header of
every request, never in a cookie, so another site that is open in the same browser can do nothing in a rater's name.
`Guard` refuses a Host that is not ours (DNS rebinding), and requests that another origin makes.
"""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
import dataclasses
import hashlib
import hmac
import ipaddress
import json
import re
import secrets
import socket
from typing import Any
import unicodedata
import urllib.parse

from ftjax import errors
from ftjax.people import addresses
from ftjax.people import store as people_store

LARGEST = 4_000_000  # bytes of a request
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_HOST = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::\d+)?")
_Message = MutableMapping[str, Any]
_App = Callable[[_Message, Callable[[], Awaitable[_Message]], Callable[[_Message], Awaitable[None]]], Awaitable[None]]


LONGEST_NAME = 60


class Refused(errors.UserError):
    """A rater who may not come in."""


@dataclasses.dataclass(frozen=True)
class Doors:
    """Who may come in: everybody by name (loopback), or whoever has the token of all, and raters by links of their own.

    `linked` are the raters who come in by their link alone, `names` those of hosts that the page is asked for under.
    """

    everybody: bool
    shared: str | None = None
    linked: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset({"localhost"})


def opened(
    store: people_store.Store, names: Sequence[str], *, shared: str | None, host: str, listener: socket.socket
) -> tuple[Doors, list[str]]:
    """Returns the doors of a page and the addresses that are handed out, a line each.

    Each of `names` comes in by a link with a token of their own, anybody by the one with the token `shared`; where
    there is neither, everybody by name who is on this machine.
    """
    base = addresses.address(listener)
    lines = [f"{name}: {base}#token={link(store, name, secrets.token_urlsafe(24))}" for name in names]
    if shared is not None or not names:
        quoted = "" if shared is None else f"#token={urllib.parse.quote(shared, safe='', errors='replace')}"
        lines.append(base + quoted)
    doors = Doors(
        everybody=is_loopback(host) and shared is None and not names,
        shared=shared,
        linked=frozenset(_as_known(store, name) for name in names),
        names=addresses.own_names(host, base),
    )
    return doors, lines


def enter(store: people_store.Store, doors: Doors, *, name: str, token: str) -> tuple[str, str]:
    """Returns the rater's name and the token of this visit.

    A token that was made for a rater brings the name. Else a name is needed that no link was made for, and where not
    everybody may come in the token of all beside it.
    """
    if token:
        known = whose(store, doors, token)
        if known is not None:
            return known, token
        if doors.shared is None or not hmac.compare_digest(_hash(token), _hash(doors.shared)):
            raise Refused("this token opens nothing; ask for the link once more")
    elif not doors.everybody:
        raise Refused("a token is needed here; open the link that you were given")
    name = rater_name(name)
    if _by_link_alone(store, doors, _as_known(store, name)):
        raise Refused(f"{_as_known(store, name)} comes in by a link with a token; open it, or choose another name")
    name, made = join(store, name), secrets.token_urlsafe(24)
    _keep(store, name, _of_visit(doors, made), linked=False)
    return name, made


def join(store: people_store.Store, name: str) -> str:
    """Returns the name of a rater, who is added where it is new."""
    name = _as_known(store, rater_name(name))
    with store.writing() as connection:
        connection.execute("INSERT OR IGNORE INTO raters VALUES (?, ?)", (name, store.clock()))
    return name


def link(store: people_store.Store, name: str, token: str) -> str:
    """Returns the token, which from now on is a rater's own: the file holds hashes of tokens, never tokens."""
    _keep(store, join(store, name), _hash(token), linked=True)
    return token


def whose(store: people_store.Store, doors: Doors, token: str) -> str | None:
    """Returns the rater of a token that opens one of these doors, or None."""
    with store.reading() as connection:
        sought = "SELECT rater FROM tokens WHERE hash = ? AND named = ?"
        linked = connection.execute(sought, (_hash(token), 1)).fetchone()
        visiting = connection.execute(sought, (_of_visit(doors, token), 0)).fetchone()
    if linked is not None and (doors.everybody or linked[0] in doors.linked):
        return str(linked[0])
    if visiting is not None and not _by_link_alone(store, doors, visiting[0]):
        return str(visiting[0])
    return None


def raters(store: people_store.Store) -> list[str]:
    """Returns the names of raters, in the order in which they joined."""
    with store.reading() as connection:
        return [name for (name,) in connection.execute("SELECT name FROM raters ORDER BY joined, name")]


def rater_name(name: str) -> str:
    """Returns a rater's name without white space around it; a UserError says what is wrong with it."""
    name = unicodedata.normalize("NFC", " ".join(name.split()))
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise errors.UserError(f"a name has 1 to {LONGEST_NAME} printable characters; {name[:80]!r} has {len(name)}")
    return name


def named(text: str | None) -> list[str]:
    """Returns the raters of "NAME,...", each once; a UserError says what is wrong with a name."""
    return list(dict.fromkeys(rater_name(name) for name in (text or "").split(",") if name.strip()))


def _as_known(store: people_store.Store, name: str) -> str:
    """Returns the name as it was written first: `anna` is Anna, and no second opinion on her own answers."""
    return next((known for known in raters(store) if known.casefold() == name.casefold()), name)


def _by_link_alone(store: people_store.Store, doors: Doors, name: str) -> bool:
    """Tells whether a name comes in by its link alone: where that opens a door, nobody else is to come in by name."""
    if not doors.everybody:
        return name in doors.linked
    with store.reading() as connection:
        return bool(connection.execute("SELECT 1 FROM tokens WHERE rater = ? AND named", (name,)).fetchone())


def _keep(store: people_store.Store, name: str, hashed: str, *, linked: bool) -> None:
    with store.writing() as connection:
        connection.execute("INSERT OR REPLACE INTO tokens VALUES (?, ?, ?)", (hashed, name, int(linked)))


def _of_visit(doors: Doors, token: str) -> str:
    """Returns what is kept of a visit: the door is in the hash, so at another one its token is unknown."""
    by_name = "everybody" if doors.everybody else "nobody"
    door = by_name if doors.shared is None else f"token {_hash(doors.shared)}"
    return _hash(f"{door}\0{token}")


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def is_loopback(host: str) -> bool:
    """Tells whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """An ASGI application around another: refuses what is not ours, and puts HEADERS on every answer."""

    def __init__(self, app: _App, *, names: frozenset[str]) -> None:
        self.app, self.names = app, names

    async def __call__(
        self, scope: _Message, receive: Callable[[], Awaitable[_Message]], send: Callable[[_Message], Awaitable[None]]
    ) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sealed(message: _Message) -> None:
            if message["type"] == "http.response.start":
                given = [(name, value) for name, value in message["headers"] if name.decode("latin-1") not in HEADERS]
                message["headers"] = [*given, *((name.encode(), value.encode()) for name, value in HEADERS.items())]
            await send(message)

        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope["method"], headers)
        if refusal is None:
            await self.app(scope, receive, sealed)
            return
        status, text = refusal
        body = json.dumps({"error": text}).encode()
        start = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await sealed({"type": "http.response.start", "status": status, "headers": start})
        await sealed({"type": "http.response.body", "body": body})

    def _refusal(self, method: str, headers: Mapping[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not self._ours(host):
            return 403, f"the host {host!r} is not served here; open the address that the command printed"
        if method in ("GET", "HEAD"):
            return None
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
        if (origin is not None and urllib.parse.urlsplit(origin).netloc != host) or site not in ("same-origin", "none"):
            return 403, f"a page of {origin or 'another site'} may not write here"
        if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return 415, "only application/json is taken"
        length = headers.get("content-length", "")
        if not length.isdigit() or int(length) > LARGEST:
            return 413, f"a request has at most {LARGEST:,} bytes, and says how many"
        return None

    def _ours(self, host: str) -> bool:
        """Tells whether a Host is ours: a name that we know, or an address, which no DNS answer can turn against us."""
        if not _HOST.fullmatch(host):
            return False
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name.lower() in self.names
        return True
