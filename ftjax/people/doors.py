"""Who may come in: names and tokens, and which requests are a page of ours rather than of somebody else.

On loopback a name is enough. Elsewhere a token is: one for all (`shared`), or one for each rater (`join`). The
page sends the token that it was given in a header of every request, never in a cookie, so another site that is open in
the same browser can do nothing in a rater's name. `Guard` refuses a Host that is not ours (DNS rebinding), and requests
that another origin makes.
"""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
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


def enter(
    store: people_store.Store, *, name: str, token: str, shared: str | None, everybody: bool
) -> tuple[str, str]:  # fmt: skip
    """Returns the rater's name and the token of this visit.

    A token that was made for a rater brings the name. With `shared` the name and that token are needed; with
    `everybody` (loopback) the name alone, unless it is one that a token was made for.
    """
    if token:
        known = whose(store, token)
        if known is not None:
            return known, token
        if shared is None or not hmac.compare_digest(_hash(token), _hash(shared)):
            raise Refused("this token opens nothing; ask for the link once more")
    elif not everybody:
        raise Refused("a token is needed here; open the link that you were given")
    name = _as_known(store, rater_name(name))
    if _has_link(store, name):
        raise Refused(f"{name} comes in by a link with a token; open it, or choose another name")
    return name, join(store, name)


def join(store: people_store.Store, name: str, token: str | None = None) -> str:
    """Returns a token of a rater, who is added where the name is new: a new one for a visit, or the one that is given.

    A given one is a link that was handed out; from then on the name cannot be entered without one. The file holds
    hashes of tokens, never tokens.
    """
    name = _as_known(store, rater_name(name))
    made = secrets.token_urlsafe(24) if token is None else token
    with store.writing() as connection:
        connection.execute("INSERT OR IGNORE INTO raters VALUES (?, ?)", (name, store.clock()))
        values = (_hash(made), name, int(token is not None))
        connection.execute("INSERT OR REPLACE INTO tokens VALUES (?, ?, ?)", values)
    return made


def whose(store: people_store.Store, token: str) -> str | None:
    """Returns the rater of a token, or None."""
    with store.reading() as connection:
        found = connection.execute("SELECT rater FROM tokens WHERE hash = ?", (_hash(token),)).fetchone()
    return None if found is None else found[0]


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


def _has_link(store: people_store.Store, name: str) -> bool:
    with store.reading() as connection:
        return bool(connection.execute("SELECT 1 FROM tokens WHERE rater = ? AND named", (name,)).fetchone())


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


def own_names(host: str) -> frozenset[str]:
    """Returns the names under which a server that listens on `host` is reached."""
    return frozenset({"localhost", socket.gethostname().lower(), host.lower()})
