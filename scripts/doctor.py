"""Says whether training can run here, and what is missing with the command that installs it: python scripts/doctor.py

Exits with 0 when training can run, else with 1.
"""

import importlib.metadata
import os
from pathlib import Path
import platform
import shutil
import sys

RUNTIME = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "transformers", "tokenizers", "datasets"),
    *("ml-collections", "wandb", "safetensors", "jaxtyping", "rich", "matplotlib", "httpx", "scipy"),
)
EXTRAS = {
    "eval": ("krippendorff", "lm-eval", "rouge-score", "sacrebleu", "statsmodels"),
    "gguf": ("gguf",),
    "tensorboard": ("tensorboardX",),
    "parity": ("torch", "peft", "trl"),
    "dev": ("pytest", "ruff", "mypy"),
}
BASE = Path(__file__).resolve().parent.parent / "ftjax" / "assets" / "base"
GB = 1e9


def version(package: str) -> str | None:
    """Returns the installed version of a package, None without one."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def packages() -> list[str]:
    """Prints versions; returns what is missing."""
    print(f"python       {platform.python_version()} at {sys.executable}")
    print("packages     " + ", ".join(f"{name} {version(name)}" for name in RUNTIME if version(name)))
    for extra, wanted in EXTRAS.items():
        absent = [name for name in wanted if version(name) is None]
        state = f"not installed ({', '.join(absent)}); pip install -e '.[{extra}]'" if absent else "installed"
        print(f"  extra {extra:<12} {state}")
    missing = [name for name in RUNTIME if version(name) is None]
    return [f"not installed: {', '.join(missing)}; run: make install"] if missing else []


def devices() -> list[str]:
    """Prints what JAX computes on, after one multiplication on it; returns what is wrong."""
    import jax
    import jax.numpy as jnp

    found = jax.devices()
    total = float((jnp.ones((64, 64)) @ jnp.ones((64, 64))).sum())
    print(f"devices      {len(found)} x {found[0].device_kind} ({found[0].platform})")
    for device in found:
        if limit := (device.memory_stats() or {}).get("bytes_limit"):
            print(f"  {device}: {limit / GB:.1f} GB")
    if shutil.which("nvidia-smi") and found[0].platform == "cpu":
        print("  there is an NVIDIA driver, but JAX sees no GPU; pip install -e '.[cuda12]' (or cuda13)")
    return [] if total == 64**3 else [f"a 64 x 64 multiplication gives {total}, not {64**3}; reinstall jaxlib"]


def machine() -> list[str]:
    """Prints cores, memory and free disk; returns what is too small to train even the embedded model."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    free = shutil.disk_usage(Path.cwd()).free / GB
    print(f"machine      {os.cpu_count()} cores, {memory:.1f} GB memory, {free:.1f} GB free in {Path.cwd()}")
    problems = [f"{memory:.1f} GB of memory; training wants 2"] if memory < 2 else []
    problems += [f"{free:.2f} GB of disk is free here; a run wants 0.2"] if free < 0.2 else []
    return problems + ([] if os.access(Path.cwd(), os.W_OK) else [f"{Path.cwd()} is not writable; use another folder"])


def cache() -> list[str]:
    """Prints where compiled programs and tokenised data are kept."""
    path = Path(os.environ.get("FTJAX_CACHE") or "~/.cache/ftjax").expanduser()
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else 0
    print(f"cache        {path} ({size / 1e6:.0f} MB; FTJAX_CACHE moves it)")
    return []


def weights_and_biases() -> list[str]:
    """Prints where a run would be logged."""
    from ftjax.runs import weights_and_biases as wandb

    state = {"online": f"online at {wandb.server()}", "offline": "offline (not logged in; wandb login changes that)"}
    mode = wandb.choose_mode("auto")
    print(f"W&B          {state.get(mode, mode)}")
    return []


def base() -> list[str]:
    """Prints whether the embedded base is whole."""
    absent = [name for name in ("config.json", "model.safetensors", "tokenizer.json") if not (BASE / name).is_file()]
    print(f"base         {BASE} ({'missing ' + ', '.join(absent) if absent else 'complete'})")
    return [f"the embedded base lacks {', '.join(absent)}; git checkout -- ftjax/assets"] if absent else []


def main() -> int:
    """Runs every check, also after one has failed; returns the exit status."""
    problems = []
    for check in (packages, devices, machine, cache, weights_and_biases, base):
        try:
            problems += check()
        except Exception as error:
            problems.append(f"{check.__name__}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
    for problem in problems:
        print(f"PROBLEM      {problem}")
    print("training cannot run here" if problems else "training can run here; try: make quickstart")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
