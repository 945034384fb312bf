"""A judge behind an OpenAI-compatible endpoint: POST {url}/chat/completions, several at a time, retried, paid for."""

from collections.abc import Sequence
from concurrent import futures
import ipaddress
import json
import math
import random
import threading
from typing import Any
from urllib import parse

import httpx

from ftjax.errors import UserError
from ftjax.evals import replies
from ftjax.evals.budget import Budget
from ftjax.evals.judge import Messages
from ftjax.evals.replies import Keep, Reply

CONNECT_SECONDS = 10.0
LONGEST_PAUSE = 60.0  # seconds between two attempts, whatever the server asks for
MESSAGE_TOKENS = 16  # more than any template puts around a message
MOST_TOKENS = 10**9  # of a request; a server that says more does not count
_AGAIN = {408, 409, 425, 429}  # and 500 to 599


class Endpoint:
    """Asks one model at one address; counts `requests` with their `retries`, and replies whose size is `estimated`."""

    def __init__(
        self,
        *,
        url: str,
        model: str,
        key: str,
        temperature: float,
        max_tokens: int,
        concurrency: int,
        timeout: float,
        retries: int,
        backoff: float,
        budget: Budget,
    ) -> None:
        self.url, self.model, self._key = url.rstrip("/"), model, key
        self.temperature, self.max_tokens = temperature, max_tokens
        self.concurrency, self.timeout, self.most_retries, self.backoff = concurrency, timeout, retries, backoff
        self.budget = budget
        self.requests = self.retries = self.estimated = 0
        self._lock = threading.Lock()

    def __call__(self, requests: Sequence[Messages], keep: Keep) -> None:
        """Asks each request and keeps its reply at once; a UserError stops the others, and what came stays kept."""
        stop = threading.Event()
        client = httpx.Client(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx.Timeout(self.timeout, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=self.concurrency),
            trust_env=not is_loopback(self.url),  # no proxy between this machine and itself
        )

        def one(number: int) -> None:
            if not stop.is_set():
                reply = self._paid(client, requests[number], stop)
                if reply is not None:
                    keep(number, reply)

        with client, futures.ThreadPoolExecutor(self.concurrency) as pool:
            asked = [pool.submit(one, number) for number in range(len(requests))]
            try:
                for done in futures.as_completed(asked):
                    done.result()
            except BaseException:
                stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _paid(self, client: httpx.Client, messages: Messages, stop: threading.Event) -> Reply | None:
        # A token is at least a byte, so this is never too little.
        prompt = sum(len(text.encode()) + MESSAGE_TOKENS for _, text in messages)
        self.budget.reserve(prompt, self.max_tokens)
        reply = None
        try:
            reply = self._ask(client, messages, stop)
        except BaseException:
            stop.set()
            raise
        finally:
            self.budget.settle(prompt, self.max_tokens, reply)
        return reply

    def _ask(self, client: httpx.Client, messages: Messages, stop: threading.Event) -> Reply | None:
        """Returns the reply; None where others made it stop. UserError after the last attempt, or where none helps."""
        body = {
            "model": self.model,
            "messages": [{"role": role, "content": text} for role, text in messages],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        problem = ""
        pause = 0.0
        for attempt in range(self.most_retries + 1):
            wait = max(pause, self.backoff * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)) if attempt else 0.0
            if stop.wait(min(wait, LONGEST_PAUSE)):  # also before the first: this thread may have waited for budget
                return None
            with self._lock:
                self.requests += 1
                self.retries += attempt > 0
            pause = 0.0
            try:
                response = client.post(f"{self.url}/chat/completions", json=body)
            except httpx.RequestError as error:  # refused, cut, too slow, packed otherwise than it says
                problem = f"{type(error).__name__}: {error}"
                continue
            problem = f"status {response.status_code}: {_start(response)}"
            if response.status_code in _AGAIN or response.status_code >= 500:
                pause = _seconds(response.headers.get("retry-after"))
                continue
            if response.status_code != 200:
                raise UserError(self._refused(response.status_code, problem, messages))
            try:
                return self._reply(json.loads(response.content, parse_int=_integer), messages)
            except (ValueError, LookupError, TypeError, RecursionError):
                problem = f"no chat completion: {_start(response)}"
        raise UserError(
            f"{self.url} failed {self.most_retries + 1} times on one request, the last time with {problem}; the "
            "answers so far are kept: start again to go on, nothing is asked twice"
        )

    def _reply(self, body: Any, messages: Messages) -> Reply:
        text = body["choices"][0]["message"]["content"] or ""
        if not isinstance(text, str):
            raise TypeError(text)
        text = replies.whole(text)
        usage = body.get("usage")
        told = usage if isinstance(usage, dict) else {}
        sizes = [_tokens(told.get(name)) for name in ("prompt_tokens", "completion_tokens")]
        if None in sizes:  # some servers do not count; four bytes a token is usual for English
            with self._lock:
                self.estimated += 1
        bytes_ = (sum(len(content.encode()) for _, content in messages), len(text.encode()))
        return Reply(text, *(-(-own // 4) if size is None else size for size, own in zip(sizes, bytes_, strict=True)))

    def _refused(self, status: int, problem: str, messages: Messages) -> str:
        if status in (401, 403):
            return f"{self.url} refuses the key ({problem}); put a valid one into the variable of config.judge.key"
        if status == 404:
            return (
                f"{self.url} does not know this address or {self.model!r} ({problem}); see config.judge.url and .model"
            )
        about = messages[-1][1][:60].replace("\n", " ")
        return f"{self.url} refuses a request ({problem}); it is about {about!r}: mend or leave out that pair"


def is_loopback(url: str) -> bool:
    """Returns whether an address is this machine itself."""
    host = parse.urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _integer(digits: str) -> float:
    """Returns a number of JSON; Python refuses to read some thousands of digits, and the answer stands beside them."""
    return int(digits) if len(digits) < 100 else math.inf


def _tokens(told: Any) -> int | None:
    """Returns a number of tokens that a server tells; None for what is none (text, negative, infinite, absurd)."""
    counts = isinstance(told, int | float) and not isinstance(told, bool) and 0 <= told <= MOST_TOKENS
    return int(told) if counts else None


def _start(response: httpx.Response) -> str:
    # Not `response.text`: the server names the encoding, and not every name is one of a text.
    return repr(" ".join(response.content[:1000].decode("utf-8", "replace").split())[:120])


def _seconds(header: str | None) -> float:
    """Returns what a Retry-After header asks for in seconds; 0 without one, or where it is a date."""
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0
