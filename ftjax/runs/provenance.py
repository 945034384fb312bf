"""What code and which machine a run came from."""

import importlib.metadata
import os
from pathlib import Path
import platform
import subprocess
import sys
from typing import Any

import ftjax

ROOT = Path(__file__).resolve().parent.parent.parent
LARGEST_PATCH = 20_000_000  # bytes; a larger one holds data, not code


def code() -> tuple[dict[str, Any], bytes]:
    """Returns the version, commit, branch and state of the code, and the patch against the commit.

    Outside the project's own git checkout (an installed wheel, an archive) the commit is None and the patch empty.
    """
    facts: dict[str, Any] = {
        "version": ftjax.__version__,
        "commit": None,
        "branch": None,
        "dirty": None,
        "untracked": [],
    }
    if _git("rev-parse", "--show-toplevel") != str(ROOT).encode():
        return facts, b""
    facts["commit"] = _git("rev-parse", "--verify", "HEAD").decode() or None
    facts["branch"] = _git("rev-parse", "--abbrev-ref", "HEAD").decode() or None
    facts["untracked"] = _git("ls-files", "--others", "--exclude-standard").decode(errors="replace").splitlines()
    patch = _git("diff", "HEAD", "--binary", strip=False) if facts["commit"] else b""
    facts["dirty"] = bool(patch or facts["untracked"])
    if len(patch) > LARGEST_PATCH:
        facts["patch_left_out"] = f"{len(patch)} bytes"
        patch = b""
    return facts, patch


def environment() -> dict[str, Any]:
    """Returns Python, packages, devices, processor, memory and the settings that change what XLA does."""
    prefixes = ("XLA_", "JAX_", "FTJAX_", "CUDA_VISIBLE", "NCCL_", "TF_", "LIBTPU_")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages(),
        "variables": {key: value for key, value in sorted(os.environ.items()) if key.startswith(prefixes)},
        "devices": devices(),
        "cpu": {"model": _cpu(), "cores": os.cpu_count(), "usable": usable_cores(), "memory_bytes": memory()},
    }


def packages() -> dict[str, str]:
    """Returns the version of every installed package."""
    found = {
        dist.metadata["Name"]: dist.version for dist in importlib.metadata.distributions() if dist.metadata["Name"]
    }
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def devices() -> dict[str, int]:
    """Returns how many devices of each kind JAX sees."""
    import jax

    counts: dict[str, int] = {}
    for device in jax.devices():
        kind = f"{device.platform}:{device.device_kind}"
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def usable_cores() -> int:
    """Returns the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def memory() -> int:
    """Returns the bytes of main memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _git(*arguments: str, strip: bool = True) -> bytes:
    """Returns what git prints, or nothing where git is missing or fails. It takes no lock and asks nothing."""
    settings = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, timeout=30, env=settings, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return b""
    if done.returncode:
        return b""
    return done.stdout.strip() if strip else done.stdout
