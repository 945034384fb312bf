"""Where a page is served: the socket that listens, and the address that persons open."""

import importlib
import ipaddress
import socket
import urllib.parse

from ftjax import errors


def installed() -> None:
    """Raises a UserError where a package that serves pages is missing."""
    for name in ("starlette", "uvicorn"):
        try:
            importlib.import_module(name)
        except ImportError:
            raise errors.UserError(
                f"a page needs the package {name}; install it: pip install 'ftjax[people]'"
            ) from None


def listen(host: str, port: int) -> socket.socket:
    """Returns a listening socket; port 0 takes a free one. A UserError says why it cannot be, or which package that
    serves pages is missing: a command listens first, before work that would be wasted."""
    installed()
    if not 0 <= port <= 65535:
        raise errors.UserError(f"--port {port}: a port is a number from 0 to 65535; 0 takes a free one")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, UnicodeError) as bad:  # UnicodeError: no name of a host ("a..b")
        why = getattr(bad, "strerror", None) or bad
        raise errors.UserError(
            f"{host}:{port}: nothing can listen there ({why}); name another port, or 0 for a free one"
        ) from None


def address(listener: socket.socket) -> str:
    """Returns the address of the page."""
    host = _host(listener)
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/"


def _host(listener: socket.socket) -> str:
    """Returns the address that is listened on; where that is all of this machine's (0.0.0.0, ::), which nobody
    elsewhere can open, this machine's name, or its address where the name leads nowhere."""
    host = str(listener.getsockname()[0])
    if not ipaddress.ip_address(host).is_unspecified:
        return host
    for name in (socket.getfqdn(), socket.gethostname()):
        if _leads_here(name, listener.family):
            return name
    return _outward(listener.family) or socket.gethostname()


def own_names(host: str, shown: str) -> frozenset[str]:
    """Returns the names under which a server that listens on `host` is reached; `shown` is the address that it said."""
    said = urllib.parse.urlsplit(shown).hostname or ""  # in small letters
    return frozenset({"localhost", socket.gethostname().lower(), host.lower(), said})


def _leads_here(name: str, family: int) -> bool:
    """Tells whether a name of this machine has an address, and none that means another machine there (127.0.1.1)."""
    try:
        found = socket.getaddrinfo(name, None, family=family, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return not any(ipaddress.ip_address(str(entry[4][0])).is_loopback for entry in found)


def _outward(family: int) -> str | None:
    """Returns the address from which this machine reaches others, or None where there is none."""
    elsewhere = "2001:db8::1" if family == socket.AF_INET6 else "192.0.2.1"  # of documentation: they are nobody's
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asked:
            asked.connect((elsewhere, 9))  # of a datagram socket this sends nothing
            return str(asked.getsockname()[0])
    except OSError:
        return None
