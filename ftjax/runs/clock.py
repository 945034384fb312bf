"""How fast a run is and what memory it takes. Speeds are means over the last few logged steps, never one step's."""

from collections import deque
from pathlib import Path
import resource
import sys
import time
from typing import NamedTuple


class _Mark(NamedTuple):
    seconds: float
    step: int
    tokens: float


class Clock:
    """Steps and tokens a second over a window of `window` calls, and the time left.

    The first call only starts the watch, so the compilation before it is in no speed.
    """

    def __init__(self, *, total: int, window: int) -> None:
        assert window > 0, window
        self.total = total
        self._marks: deque[_Mark] = deque(maxlen=window + 1)
        self._tokens = 0.0
        self._paused = 0.0

    def tick(self, step: int, tokens: float) -> dict[str, float]:
        """Returns `steps_per_second`, `tokens_per_second`, `eta_seconds`; `tokens` are those since the last call.

        To be called after the numbers of the step have arrived from the device: a step that was only dispatched has
        taken no time yet. Empty at the first call.
        """
        self._tokens += tokens
        mark = _Mark(time.monotonic() - self._paused, step, self._tokens)
        assert not self._marks or step > self._marks[-1].step, f"step {step} after step {self._marks[-1].step}"
        self._marks.append(mark)
        first = self._marks[0]
        seconds = mark.seconds - first.seconds
        if mark.step == first.step or seconds <= 0:
            return {}
        rate = (mark.step - first.step) / seconds
        return {
            "steps_per_second": rate,
            "tokens_per_second": (mark.tokens - first.tokens) / seconds,
            "eta_seconds": max(0, self.total - step) / rate,
        }

    def exclude(self, seconds: float) -> None:
        """Takes time out of the speeds: an evaluation, a checkpoint, a table of samples."""
        self._paused += seconds


def memory() -> dict[str, float]:
    """Returns bytes of main memory now and at the highest, and of the busiest device where it tells.

    The peak counts from the start of the process; device memory is what XLA's allocator holds (a GPU or TPU reports it,
    the CPU does not).
    """
    numbers = {"memory_rss_bytes": float(rss()), "memory_peak_bytes": float(peak_rss())}
    return numbers | device_memory()


def rss() -> int:
    """Returns the resident bytes of this process now; where the system does not tell, the peak."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return peak_rss()
    return pages * resource.getpagesize()


def peak_rss() -> int:
    """Returns the highest resident bytes of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


def cpu_seconds() -> float:
    """Returns the seconds that all cores together have worked for this process, its finished children included."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def device_memory() -> dict[str, float]:
    """Returns bytes in use and at the highest on the busiest local device; empty where no device tells (CPU)."""
    import jax

    stats = [found for device in jax.local_devices() if (found := device.memory_stats())]
    if not stats:
        return {}
    return {
        "device_memory_bytes": float(max(found.get("bytes_in_use", 0) for found in stats)),
        "device_memory_peak_bytes": float(max(found.get("peak_bytes_in_use", 0) for found in stats)),
    }
