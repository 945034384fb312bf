"""The host loop: cadence of logging, evaluation and checkpoints; signals; what stops a run.

Metrics of step t are fetched after step t + 1 is dispatched, so the device does not wait for the host. A step that must
not count (not finite, or a spike) changes nothing, nor does any step after it: the limit of the next step is made on
the device from whether the last one was applied.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import math
import os
from pathlib import Path
import signal
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ftjax import hosts
from ftjax.checkpoint.store import Store
from ftjax.errors import UserError
from ftjax.runs import clock as clocks
from ftjax.runs.writers import Several
from ftjax.train.state import TrainState
from ftjax.train.step import Step

SPIKE_WINDOW = 50  # losses that the median of a spike is taken over
SPIKE_MINIMUM = 10  # before so many steps nothing counts as a spike
SPIKE_LEAST = 1.0  # nats above the median that are a spike at least: ten times nearly nothing is nearly nothing
SPIKE_LASTING = 10  # steps that were as high before a step that is a spike; one alone may have rows unlike the others
SPIKE_ALONE = 20.0  # nats that are a spike at once: a token in 5e8, and that over a whole batch
MONITOR = "eval_loss"


@dataclasses.dataclass
class Progress:
    """Everything of the host's that a resumed run must know; it travels in the checkpoint's facts."""

    step: int = 0
    tokens: float = 0.0
    seconds: float = 0.0  # spent training, over all processes of the run
    losses: list[float] = dataclasses.field(default_factory=list)
    best: float | None = None
    best_step: int = -1
    waited: int = 0  # evaluations since the best one
    evaluated: int = -1  # the last step that was evaluated

    def see_loss(self, loss: float) -> None:
        """Keeps the last losses, for the median."""
        self.losses = [*self.losses, loss][-SPIKE_WINDOW - 1 :]

    def limit(self, number: int, factor: float) -> float:
        """Returns the loss above which step `number` is a spike.

        That is `factor` times the median where a run of steps was above it already, else at least `SPIKE_ALONE`: a
        model that has learned its rows by heart gives an odd one a high loss, and the next batch a low one again.

        From the losses of the steps before the last one, also where the last one is known already (after an
        evaluation, or a resume), so that the limit is a function of the step.
        """
        known = self.losses[:-1] if self.step == number else self.losses
        if factor <= 0 or len(known) < SPIKE_MINIMUM:
            return math.inf
        median = statistics.median(known[-SPIKE_WINDOW:])
        high = max(factor * median, median + SPIKE_LEAST)
        return high if min(known[-SPIKE_LASTING:]) > high else max(high, SPIKE_ALONE)

    def see_eval(self, value: float) -> None:
        """Counts evaluations without improvement."""
        self.evaluated = self.step
        if self.best is None or value < self.best:
            self.best, self.best_step, self.waited = value, self.step, 0
        else:
            self.waited += 1


@dataclasses.dataclass(frozen=True)
class Cadence:
    """How often what happens, in steps; 0 is never (the end is always evaluated and saved)."""

    steps: int
    log: int
    evaluate: int
    checkpoint: int
    keep_best: bool  # an evaluation that is the best so far is saved as well
    patience: int
    spike_factor: float


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How the loop ended: `reason` is "done", "patience" or "interrupted"."""

    state: TrainState
    progress: Progress
    reason: str


class Interrupt:
    """The first SIGINT or SIGTERM asks the loop to save and stop; the second ends the process at once.

    `say` is called inside the signal's handler, so it must not use buffered output.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.asked = False
        self._say = say

    def _handle(self, number: int, frame: Any) -> None:
        del frame
        if self.asked:
            os._exit(128 + number)
        self.asked = True
        self._say(f"{signal.Signals(number).name}: saving after this step; once more ends at once")

    @contextlib.contextmanager
    def installed(self) -> Iterator["Interrupt"]:
        """Handles both signals inside the block; outside the main thread it does nothing."""
        previous = {}
        with contextlib.suppress(ValueError):
            previous = {n: signal.signal(n, self._handle) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def run(
    *,
    state: TrainState,
    base: Any,
    progress: Progress,
    step: Step,
    batches: Callable[[int], Iterator[Any]],
    place: Callable[[Any], Any],
    experience: Callable[[TrainState, Any], Iterable[Any]],
    evaluate: Callable[[TrainState], dict[str, float]],
    sample: Callable[[TrainState], Sequence[Mapping[str, Any]]],
    epoch: Callable[[int], float],
    beside: Callable[[], Any],
    watch: Callable[[int, Mapping[str, float], Any], None],
    store: Store,
    writers: Several,
    position: Callable[[], int | None],
    cadence: Cadence,
    folder: Path,
    interrupt: Interrupt,
) -> Outcome:
    """Returns the state after the last step, or after the step at which a signal or patience stopped the run.

    Where the run has several processes, a signal to one of them stops all, after the step that follows.

    Resuming is calling this with the state, and the progress out of the facts, of a checkpoint: batch k depends on k
    alone. Raises UserError when a step is not finite or spikes; the last good state is then saved, and the batch is
    in `folder`. `watch` sees the numbers of every step, with what `beside` said right after its experience, and
    `experience` may raise a UserError, which ends the run with the state before its step saved.
    """
    clock = clocks.Clock(total=cadence.steps, window=20)
    began = time.monotonic() - progress.seconds
    stream = batches(progress.step)
    pending: tuple[int, Any, Mapping[str, jax.Array], Any, Any] | None = None
    stopping = False  # some process of several was asked to stop
    applied: Any = jnp.ones_like(state.step, jnp.float32)  # on the devices of the state, as that of a step is
    boundaries = (cadence.evaluate, cadence.checkpoint)
    saved = store.latest()

    def pause(seconds: float) -> None:
        """Takes time that was not spent training out of the speeds."""
        nonlocal began
        began += seconds
        clock.exclude(seconds)

    def save() -> None:
        nonlocal saved
        if saved == progress.step:
            return
        started = time.monotonic()
        progress.seconds = started - began
        monitored = {MONITOR: progress.best} if progress.best_step == progress.step else {}
        store.save(progress.step, state, {"progress": dataclasses.asdict(progress), "metrics": position()} | monitored)
        saved = progress.step
        pause(time.monotonic() - started)

    def asked() -> bool:
        """Returns whether to stop: the same in every process."""
        return stopping if hosts.several() else interrupt.asked

    def settle() -> None:
        """Waits for the numbers of the step that was dispatched last, writes them, and stops the run if it must."""
        nonlocal pending, stopping
        if pending is None:
            return
        number, batch, device, drawn, sums = pending
        numbers = {name: float(value) for name, value in device.items()}
        pending = None
        good, weight = numbers.pop("applied") > 0, numbers.pop("weight")
        del weight
        if not good:
            limit = progress.limit(number, cadence.spike_factor)
            _stop(number, batch, numbers["loss"], limit, progress, folder, save)
        signals, tokens = np.asarray(sums).tolist()
        stopping = signals > 0
        tokens += numbers.pop("tokens", 0.0)
        progress.step, progress.tokens = number + 1, progress.tokens + tokens
        progress.see_loss(numbers["loss"])
        speed = clock.tick(number + 1, tokens)
        if cadence.log and (number + 1) % cadence.log == 0:
            extra = {"epoch": epoch(number + 1), "num_tokens": progress.tokens}
            writers.write(number + 1, numbers | extra | speed | clocks.memory())
        watch(number + 1, numbers, drawn)

    def look() -> None:
        """Evaluates and shows samples. A checkpoint that this step has already lacks the evaluation: save again."""
        nonlocal saved
        started = time.monotonic()
        numbers = evaluate(state)
        progress.see_eval(numbers.get(MONITOR, math.inf))
        writers.write(progress.step, numbers)
        rows = sample(state)
        if rows:
            writers.text(progress.step, "samples", rows)
        saved = None
        pause(time.monotonic() - started)

    def due(every: int) -> bool:
        return every > 0 and progress.step % every == 0 and 0 < progress.step < cadence.steps

    def kept() -> bool:
        return due(cadence.checkpoint) or (cadence.keep_best and progress.best_step == progress.step > 0)

    def impatient() -> bool:
        return 0 < cadence.patience <= progress.waited

    if due(cadence.evaluate) and progress.evaluated != progress.step:  # a signal came before the evaluation
        look()
        if kept():
            save()
    reason = "patience" if impatient() else "done"
    for number in range(progress.step, cadence.steps if reason == "done" else 0):
        host_batch = next(stream)
        limit = jnp.where(applied > 0, jnp.float32(progress.limit(number, cadence.spike_factor)), -jnp.inf)
        try:
            parts = experience(state, place(host_batch))
        except UserError:  # nothing of this step has changed the state yet
            settle()
            save()
            raise
        drawn = beside()  # now: the next experience is made before these numbers are there
        for part in parts:
            state, metrics = step(state, base, part, limit)
        counted = int(np.count_nonzero(np.asarray(host_batch.segments)))
        sums, applied = hosts.total([interrupt.asked, counted], metrics["applied"])
        settle()
        pending = (number, host_batch, metrics, drawn, sums)
        if asked() or any(every > 0 and (number + 1) % every == 0 for every in boundaries):
            settle()
        else:
            continue
        if due(cadence.evaluate) and not asked():
            look()
        if kept():
            save()
        if asked() or impatient():
            reason = "patience" if impatient() else "interrupted"
            break
    settle()
    if reason == "done" and progress.step == cadence.steps and progress.evaluated != progress.step:
        look()
    progress.seconds = time.monotonic() - began
    save()
    return Outcome(state=state, progress=progress, reason="interrupted" if asked() else reason)


def _stop(
    number: int, batch: Any, loss: float, limit: float, progress: Progress, folder: Path, save: Callable[[], None]
) -> None:
    """Saves the last good state and the batch, and ends the run with what to do."""
    own = f".{jax.process_index()}" if hosts.several() else ""  # each process has its own rows of the batch
    dump = folder / f"bad_batch_{number}{own}.npz"
    arrays: Any = {name: np.asarray(value) for name, value in batch._asdict().items() if value is not None}
    np.savez(dump, **arrays)
    save()
    usual = (
        f"the median of the last steps is {statistics.median(progress.losses):.4g}" if progress.losses else "the first"
    )
    lower = "start again with a lower optimizer.learning_rate"
    if math.isfinite(loss) and loss > limit:
        found = f"the loss spikes (loss {loss:.6g}; above {limit:.4g} counts; {usual})"
        advice = (
            f"if the loss of the steps before rose as well, {lower}; if the batch only has rows unlike the others, "
            "resume with --config.stop.spike_factor=0, which lets every finite loss pass"
        )
    else:
        found = f"the loss or its gradient is not finite (loss {loss:.6g}; {usual})"
        advice = f"look at the batch, and {lower}"
    raise UserError(f"step {number + 1}: {found}; the state before it is saved, the batch is in {dump}; {advice}")
