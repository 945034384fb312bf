"""Reward functions in processes of their own, each call with a time limit that holds.

Processes, not threads: a thread that hangs in a regular expression cannot be ended. Started by spawn, never forked,
since JAX has threads that a fork would leave in the middle of things. concurrent.futures has no limit that ends a call,
and the libraries that do are either under the LGPL (Pebble) or rely on signals that C code does not see (mpire).
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
import contextlib
import math
import multiprocessing
from multiprocessing import connection
import pickle
import signal
import time
from typing import Any

from ftjax.errors import UserError
from ftjax.rl import calls
from ftjax.rl.calls import Outcome

START_LIMIT = 120.0  # seconds to start Python and import a function's module, which no time limit of a row should pay
_LOADED = "loaded"


class Pool:
    """At most `workers` processes, started when there is work, replaced when one has to be ended."""

    def __init__(self, workers: int) -> None:
        self._most = workers
        self._workers: list[_Worker] = []

    def run(
        self, function: Callable[..., Any], rows: Sequence[Mapping[str, list[Any]]], *, timeout: float
    ) -> list[Outcome]:  # fmt: skip
        """Returns the outcome of `function(**row)` for each row, in their order, whichever is ready first.

        A call that takes longer than `timeout` seconds is ended with its process. Raises UserError where processes do
        not start.
        """
        found: list[Outcome] = [Outcome(math.nan, "not run")] * len(rows)
        tasks = deque(range(len(rows)))
        while len(self._workers) < min(self._most, len(rows)):
            self._workers.append(_Worker())
        try:
            while tasks or any(worker.busy for worker in self._workers):
                for at, worker in enumerate(self._workers):
                    while tasks and not worker.busy:
                        row = tasks.popleft()
                        try:
                            task = pickle.dumps((function, dict(rows[row])))
                        except Exception as error:  # a column of this row
                            found[row] = Outcome(math.nan, f"cannot be sent to a process: {calls.said(error)}")
                            continue
                        if not worker.process.is_alive():
                            worker.end()
                            worker = self._workers[at] = _Worker()
                        worker.give(row, task)
                self._collect(found, timeout)
        except BaseException:  # Ctrl-C, too: no answer of this call may be taken for one of the next
            self.close()
            raise
        return found

    def close(self) -> None:
        """Ends all processes."""
        for worker in self._workers:
            worker.end()
        self._workers = []

    def _collect(self, found: list[Outcome], timeout: float) -> None:
        """Waits for the next message or deadline, and takes all messages that there are."""
        busy = [worker for worker in self._workers if worker.busy]
        if not busy:
            return
        left = min(worker.deadline for worker in busy) - time.monotonic()
        ready = connection.wait([worker.pipe for worker in busy], max(0.0, left))
        for worker in busy:
            if worker.pipe in ready:
                answer = worker.answer(timeout)
            elif time.monotonic() >= worker.deadline:
                limit = f"took longer than {timeout:g} s" if worker.loaded else f"did not load in {START_LIMIT:g} s"
                answer = Outcome(math.nan, limit)
                worker.end()  # `run` replaces it where there is another task
            else:
                continue
            if answer is not None:
                found[worker.row] = answer
                worker.busy = False


class _Worker:
    """One process and what it is doing."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.busy = self.loaded = self.served = False  # loaded: the function of this task; served: ever
        self.row, self.deadline = -1, math.inf

    def give(self, row: int, task: bytes) -> None:
        """Sends a task; a process that has ended meanwhile is noticed by `answer`."""
        self.busy, self.loaded, self.row = True, False, row
        self.deadline = time.monotonic() + START_LIMIT
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(task)

    def answer(self, timeout: float) -> Outcome | None:
        """Returns what came back, None where it is only that the clock may start."""
        try:
            message = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            if not self.served:
                raise UserError(
                    f"a process for reward functions ended with exit code {code} before it could call one; a script "
                    'that scores must do so under `if __name__ == "__main__":`, in a file that can be imported'
                ) from None
            return Outcome(math.nan, f"ended its process with exit code {code}")
        if message == _LOADED:
            self.loaded = self.served = True
            self.deadline = time.monotonic() + timeout
            return None
        return Outcome(*message)

    def end(self) -> None:
        """Ends the process, whatever it is doing."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: Any) -> None:
    """Answers tasks until the other end is closed; runs in the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who started us, and who ends us
    while True:
        try:
            task = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            function, row = pickle.loads(task)
        except Exception as error:
            pipe.send(tuple(Outcome(math.nan, f"cannot be loaded in a process: {calls.said(error)}")))
            continue
        pipe.send(_LOADED)
        pipe.send(tuple(calls.one(function, row)))
