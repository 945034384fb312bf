"""The server of a page: an item at a time, answers that are on the disk before they are acknowledged, lists, conflicts.

`Campaign` is what is asked; `app` makes an ASGI application of it, `serve` runs that. All texts go out as JSON and into
the page as text; the assets are files of `pages/`, and nothing is loaded from elsewhere.

    GET  /api/campaign            title, guidelines, who I am, progress
    POST /api/enter               {"name", "token"} -> {"name", "token"}; the token goes into Authorization: Bearer
    GET  /api/next                the item to answer, leased; null where nothing is left
    GET  /api/items?text=&only=   a list
    GET  /api/items/ID            one item, without what others say
    POST /api/lease               {"item"} takes it, or keeps it
    POST /api/answers             {"item", "answer", "key"} -> {"number", "progress"}
    POST /api/undo                {"key"} -> {"item", "undone", "progress"}; null where there is nothing to undo
    GET  /api/agreement           numbers
    GET  /api/conflicts           items on which raters differ
    POST /api/conflicts/open      {"item"} -> the item with all answers; from then on the rater cannot answer it blind
    POST /api/conflicts/settle    {"item", "answer" (or "take": the number of one of the answers), "key"}
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import json
from pathlib import Path
import re
import signal
import socket
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

from ftjax import errors, lookup
from ftjax.people import addresses, agreement, assign, doors
from ftjax.people import store as people_store

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

PAGES = Path(__file__).parent / "pages"
_PLACE = re.compile("[0-9]{1,15}")  # SQLite's numbers have 64 bits
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}


@dataclasses.dataclass(frozen=True)
class Campaign:
    """What a page asks. `details(item)` is JSON-ready and shown with an item (findings); `flagged` are the ids of items
    that a rater may want to see alone; `notes` are about the whole; `finish` says what to do with the answers."""

    title: str
    store: people_store.Store
    guidelines: str = ""
    finish: str = ""
    notes: tuple[str, ...] = ()
    details: Callable[[people_store.Item], dict[str, Any]] = lambda _: {}
    flagged: tuple[str, ...] = ()
    order: Callable[[str], Callable[[str], Any]] | None = None  # rater -> (id -> what to sort by); None: as added
    words: Mapping[str, str] = dataclasses.field(default_factory=dict)  # other names of "answer" and "items"
    opinions: bool = False  # raters may differ: nobody settles it, and lists do not say how many have answered
    joined: Callable[[], None] = lambda: None  # called when somebody has come in
    measured: Callable[[], list[dict[str, Any]]] | None = None  # agreement; None: on every question alike
    news: Callable[[], tuple[str, ...]] = tuple  # lines above the agreement
    lease: float = assign.LEASE


def app(campaign: Campaign, entrance: doors.Doors) -> doors.Guard:
    """Returns the ASGI application, behind its guard."""
    addresses.installed()
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route

    desk = _Desk(campaign, entrance)
    routes = [
        Route("/", _asset("index.html")),
        *(Route(f"/{file.name}", _asset(file.name)) for file in sorted(PAGES.iterdir()) if file.suffix in _TYPES),
        Route("/favicon.ico", lambda _: Response(status_code=204)),
        Route("/api/enter", _post(desk.enter, desk, known=False), methods=["POST"]),
        Route("/api/campaign", _get(desk.campaign_told, desk)),
        Route("/api/next", _get(desk.following, desk)),
        Route("/api/items", _get(desk.found, desk)),
        Route("/api/items/{item}", _get(desk.item, desk)),
        Route("/api/lease", _post(desk.lease, desk), methods=["POST"]),
        Route("/api/answers", _post(desk.answer, desk), methods=["POST"]),
        Route("/api/undo", _post(desk.undo, desk), methods=["POST"]),
        Route("/api/agreement", _get(desk.agreement, desk)),
        Route("/api/conflicts", _get(desk.conflicts, desk)),
        Route("/api/conflicts/open", _post(desk.reveal, desk), methods=["POST"]),
        Route("/api/conflicts/settle", _post(desk.settle, desk), methods=["POST"]),
    ]
    return doors.Guard(Starlette(routes=routes), names=entrance.names)  # outermost: its headers are on errors too


def serve(campaign: Campaign, entrance: doors.Doors, listener: socket.socket) -> None:
    """Serves until Ctrl-C or SIGTERM; requests that were begun are finished."""
    served = app(campaign, entrance)
    import uvicorn

    config = uvicorn.Config(
        served, log_level="warning", access_log=False, ws="none", lifespan="off", server_header=False,
        timeout_graceful_shutdown=3,
    )  # fmt: skip
    with contextlib.suppress(KeyboardInterrupt), interruptible():
        uvicorn.Server(config).run(sockets=[listener])  # it raises the signal that ended it once more


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Returns a context in which SIGTERM, and the end of the terminal, are as Ctrl-C: they raise a KeyboardInterrupt,
    so what is open is closed. What was told to outlive its terminal (nohup) still does."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
        return

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, interrupted)}
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup is not None and signal.getsignal(hangup) is signal.SIG_DFL:
        # By way of SIGTERM, which the server that runs then takes in its own way.
        before[hangup] = signal.signal(hangup, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Desk:
    """What is done for a rater, request by request: JSON-ready values in and out."""

    def __init__(self, campaign: Campaign, entrance: doors.Doors) -> None:
        self.campaign, self.store, self.entrance = campaign, campaign.store, entrance
        self.asked = campaign.store.questions()
        self.kinds = {name: lookup.module("ftjax.people.kinds", one.kind) for name, one in self.asked.items()}

    def enter(self, rater: str, given: Mapping[str, Any]) -> dict[str, Any]:
        del rater
        name, token = _text(given, "name", ""), _text(given, "token", "")
        name, token = doors.enter(self.store, self.entrance, name=name, token=token)
        self.campaign.joined()
        return {"name": name, "token": token}

    def campaign_told(self, rater: str, _: Mapping[str, str]) -> dict[str, Any]:
        one = self.campaign
        return {
            "id": self.store.about("id"),
            "title": one.title,
            "guidelines": one.guidelines,
            "notes": list(one.notes),
            "finish": one.finish,
            "me": rater,
            "raters": doors.raters(self.store),
            "flagged": len(one.flagged),
            "words": dict(one.words),
            "opinions": one.opinions,
            **self._progress(rater),
        }

    def following(self, rater: str, _: Mapping[str, str]) -> dict[str, Any]:
        order = None if self.campaign.order is None else self.campaign.order(rater)
        item = assign.following(self.store, rater, lease=self.campaign.lease, order=order)
        return {
            "item": None if item is None else self._shown(item, rater),
            **self._progress(rater),
        }

    def item(self, rater: str, given: Mapping[str, str]) -> dict[str, Any]:
        item = self.store.item(_text(given, "item"))
        return {"item": self._shown(item, rater), **self._progress(rater)}

    def lease(self, rater: str, given: Mapping[str, Any]) -> dict[str, Any]:
        assign.take(self.store, self.store.item(_text(given, "item")).id, rater, lease=self.campaign.lease)
        return self._progress(rater)

    def answer(self, rater: str, given: Mapping[str, Any]) -> dict[str, Any]:
        return self._answered(rater, given, settles=False)

    def settle(self, rater: str, given: Mapping[str, Any]) -> dict[str, Any]:
        return self._answered(rater, given, settles=True)

    def _answered(self, rater: str, given: Mapping[str, Any], *, settles: bool) -> dict[str, Any]:
        item, said = self.store.item(_text(given, "item")), given.get("answer")
        key = _text(given, "key")
        kind = self.kinds[item.question]
        if settles:
            self._conflict(item.id)
        if settles and "take" in given:
            kept = next((one.body for one in self.store.standing(item.id) if one.number == given["take"]), None)
            if kept is None:
                raise errors.UserError(f"answer {given['take']} does not stand any more; open the conflict again")
        elif isinstance(said, dict):
            kept = kind.check(item, self.asked[item.question], rater, said)
        else:
            raise errors.UserError("'answer' must be an object")
        if settles and not kind.counts(kept):
            raise errors.UserError("a conflict is settled by a decision; leave it open if you cannot say")
        made = self.store.answer(item.id, rater, kept, counts=kind.counts(kept), key=key, settles=settles)
        return {"number": made.number, **self._progress(rater)}

    def _conflict(self, item: str) -> None:
        if self.campaign.opinions:
            raise errors.UserError("raters may differ here; nobody settles it, or sees what others say")
        if item not in {one["item"] for one in agreement.conflicts(self.store)}:
            raise errors.UserError(f"item {item} is no conflict (any more); reload the list")

    def undo(self, rater: str, given: Mapping[str, Any]) -> dict[str, Any]:
        last = self.store.undo(rater, key=_text(given, "key"))
        if last is None:
            return {"item": None, "undone": None, "settled": False, **self._progress(rater)}
        if not last.settles:
            assign.take(self.store, last.item, rater, lease=self.campaign.lease)
        item = self.store.item(last.item)
        shown = self.kinds[item.question].shown(item, self.asked[item.question], rater, last.body)
        told = {**self._shown(item, rater), "shown": shown}
        return {"item": told, "undone": self._told(item, last.body), "settled": last.settles, **self._progress(rater)}

    def found(self, rater: str, given: Mapping[str, str]) -> dict[str, Any]:
        only = given.get("only", "all")
        if only not in ("all", "open", "mine", "skipped", "todo", "flagged"):
            raise errors.UserError(f"only={only}: is none of all, open, mine, skipped, todo, flagged")
        after = given.get("after", "0")
        if not _PLACE.fullmatch(after):
            raise errors.UserError(f"after={after[:40]}: is no place in a list; give a number from 0 to {10**15 - 1}")
        among = list(self.campaign.flagged) if only == "flagged" else None
        lines, total = assign.find(
            self.store, rater, text=given.get("text", ""), only="all" if among is not None else only, among=among,
            after=int(after),
        )  # fmt: skip
        told = [
            {
                "id": one.item.id,
                "line": self.kinds[one.item.question].line(one.item),
                "number": one.item.payload.get("line"),
                **({} if self.campaign.opinions else {"counted": one.counted, "wanted": one.item.wanted}),
                "mine": one.mine and _own(self.kinds[one.item.question])(one.mine),
            }
            for one in lines
        ]
        return {"lines": told, "total": total, "most": assign.FOUND}

    def agreement(self, rater: str, _: Mapping[str, str]) -> dict[str, Any]:
        measured = self.campaign.measured
        found = agreement.table(self.store) if measured is None else measured()
        return {"agreement": found, "news": list(self.campaign.news()), **self._progress(rater)}

    def conflicts(self, _rater: str, _: Mapping[str, str]) -> dict[str, Any]:
        found = [] if self.campaign.opinions else agreement.conflicts(self.store)
        lines = []
        for one in found[: assign.FOUND]:
            item = self.store.item(one["item"])
            told = {"line": self.kinds[item.question].line(item), "number": item.payload.get("line")}
            lines.append({"id": item.id, "settled": one["settled"], **told})
        return {"lines": lines, "total": len(found), "open": sum(one["settled"] is None for one in found)}

    def reveal(self, rater: str, given: Mapping[str, Any]) -> dict[str, Any]:
        item = self.store.item(_text(given, "item"))
        self._conflict(item.id)
        kind, question = self.kinds[item.question], self.asked[item.question]
        answers = [
            {
                "number": one.number,
                "rater": one.rater,
                "answer": self._told(item, one.body),
                "shown": kind.shown(item, question, rater, one.body),
                "settles": one.settles,
            }
            for one in self.store.reveal(item.id, rater)
            if one.counts
        ]
        return {"item": self._shown(item, rater), "answers": answers}

    def _mine(self, item: str, rater: str) -> dict[str, Any] | None:
        given = [one.body for one in self.store.standing(item) if one.rater == rater and not one.settles]
        return given[-1] if given else None

    def _told(self, item: people_store.Item, answer: dict[str, Any] | None) -> dict[str, Any] | None:
        told = getattr(self.kinds[item.question], "told", None)
        return answer if told is None or answer is None else told(answer)

    def _shown(self, item: people_store.Item, rater: str) -> dict[str, Any]:
        mine = self._mine(item.id, rater)
        question = self.asked[item.question]
        return {
            "id": item.id,
            "kind": question.kind,
            "setting": question.setting,
            "shown": self.kinds[item.question].shown(item, question, rater, mine),
            "mine": self._told(item, mine),
            "details": self.campaign.details(item),
        }

    def _progress(self, rater: str) -> dict[str, Any]:
        return {"progress": assign.progress(self.store, rater)._asdict()}


def _own(kind: Any) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Returns how a kind tells raters their own answer in a list: by `own` where it has that, else by its labels."""
    return getattr(kind, "own", kind.labels)


def _text(given: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = given.get(name, default)
    if not isinstance(value, str) or len(value) > 1000:
        raise errors.UserError(f"{name!r} must be a text")
    if people_store.whole(value) != value:
        raise errors.UserError(f"{name!r} holds half a character, {value[:40]!r}; it cannot be kept")
    return value


def _json(value: Any, status: int = 200) -> "Response":
    from starlette.responses import Response

    text = json.dumps(value, allow_nan=False)  # ASCII, so half characters travel; of NaN a browser would read nothing
    return Response(text, status, media_type="application/json")


def _asset(name: str) -> Callable[["Request"], "Response"]:
    from starlette.responses import Response

    body = (PAGES / name).read_bytes()
    return lambda _: Response(body, headers={"content-type": _TYPES[Path(name).suffix]})


def _get(do: Callable[[str, Mapping[str, str]], Any], desk: _Desk) -> Callable[["Request"], "Response"]:
    def answered(request: "Request") -> "Response":
        return _done(
            lambda rater: do(rater, {**request.query_params, **request.path_params}), request, desk, known=True
        )

    return answered


def _post(do: Callable[[str, Mapping[str, Any]], Any], desk: _Desk, *, known: bool = True) -> Callable[..., Any]:
    async def answered(request: "Request") -> "Response":
        from starlette.concurrency import run_in_threadpool

        try:
            given = json.loads(await request.body())
        except (ValueError, RecursionError) as bad:
            return _json({"error": f"the request is no JSON ({bad})"}, 400)
        if not isinstance(given, dict):
            return _json({"error": "the request must be an object"}, 400)
        return await run_in_threadpool(_done, lambda rater: do(rater, given), request, desk, known=known)

    return answered


def _done(do: Callable[[str], Any], request: "Request", desk: _Desk, *, known: bool) -> "Response":
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    try:
        rater = doors.whose(desk.store, desk.entrance, token) if scheme.lower() == "bearer" else None
        if known and rater is None:
            return _json({"error": "who are you? enter your name again, or open the link that you were given"}, 401)
        return _json(do(rater or ""))
    except doors.Refused as refusal:
        return _json({"error": str(refusal)}, 401)
    except people_store.Taken as taken:
        return _json({"error": str(taken)}, 409)
    except errors.UserError as mistake:
        return _json({"error": str(mistake)}, 400)
    except sqlite3.OperationalError as bad:  # another process holds the file, or the disk is full: nothing was kept
        return _json({"error": f"the answer could not be kept ({bad}); try again"}, 503)
