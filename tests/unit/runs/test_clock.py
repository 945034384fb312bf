"""Speeds are means of what has been measured, and memory is what the system says."""

import time

import jax
import numpy as np
import pytest

from ftjax.runs import clock


@pytest.fixture
def now(monkeypatch):
    """A watch that the test moves by hand."""
    seconds = [100.0]
    monkeypatch.setattr(clock.time, "monotonic", lambda: seconds[0])
    return seconds


def test_the_first_tick_only_starts_the_watch(now):
    watch = clock.Clock(total=100, window=4)
    now[0] += 60.0  # the compilation
    assert watch.tick(1, 1000) == {}
    now[0] += 2.0
    assert watch.tick(5, 800) == {"steps_per_second": 2.0, "tokens_per_second": 400.0, "eta_seconds": 47.5}


def test_speeds_are_means_over_the_window(now):
    watch = clock.Clock(total=1000, window=3)
    watch.tick(0, 0)
    for step, seconds in enumerate([9.0, 9.0, 1.0, 2.0, 3.0], start=1):
        now[0] += seconds
        found = watch.tick(step, 60)
    assert found == pytest.approx({"steps_per_second": 0.5, "tokens_per_second": 30.0, "eta_seconds": 1990.0})


def test_time_that_is_excluded_is_in_no_speed(now):
    watch = clock.Clock(total=10, window=3)
    watch.tick(1, 5)
    now[0] += 50.0
    watch.exclude(49.0)
    assert watch.tick(2, 5)["tokens_per_second"] == 5.0


def test_two_ticks_at_one_moment_have_no_speed(now):
    watch = clock.Clock(total=10, window=3)
    watch.tick(1, 5)
    assert watch.tick(2, 5) == {}
    with pytest.raises(AssertionError, match="step 2 after step 2"):
        watch.tick(2, 5)
    assert now[0] == 100.0


def test_memory_that_is_taken_is_seen():
    before = clock.memory()
    block = np.ones(40_000_000)  # 320 MB
    during = clock.memory()
    assert during["memory_rss_bytes"] - before["memory_rss_bytes"] > 250e6
    assert during["memory_peak_bytes"] >= during["memory_rss_bytes"] * 0.99
    del block
    assert clock.memory()["memory_peak_bytes"] >= during["memory_peak_bytes"]


def test_work_takes_cpu_seconds_and_sleep_does_not():
    start = clock.cpu_seconds()
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    assert clock.cpu_seconds() - start > 0.15


class Device:
    """A device that tells its memory."""

    def __init__(self, stats):
        self.stats = stats

    def memory_stats(self):
        return self.stats


def test_device_memory_is_that_of_the_busiest_device(monkeypatch):
    assert clock.device_memory() == {}  # CPUs do not tell
    devices = [
        Device({"bytes_in_use": 5, "peak_bytes_in_use": 50}),
        Device({"bytes_in_use": 9, "peak_bytes_in_use": 9}),
    ]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert clock.device_memory() == {"device_memory_bytes": 9.0, "device_memory_peak_bytes": 50.0}
