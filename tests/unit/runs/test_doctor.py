"""The doctor answers on every machine, in words and with its exit status, and never with a traceback."""

import os
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent.parent


def doctor(*options, **variables):
    command = [sys.executable, *options, ROOT / "scripts" / "doctor.py"]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout


def test_a_machine_that_can_train_is_told_so(tmp_path):
    status, text = doctor(WANDB_MODE="offline", FTJAX_CACHE=str(tmp_path))
    base = ROOT / "ftjax" / "assets" / "base" / "model.safetensors"
    assert status == (0 if base.exists() else 1), text
    for word in (
        "python ",
        "jax 0.",
        "devices ",
        "GB memory",
        f"{tmp_path} (0 MB",
        "W&B          offline",
        "extra dev",
    ):
        assert word in text
    assert "PROBLEM" not in text or not base.exists()


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"JAX_PLATFORMS": "abacus"}, "PROBLEM      devices: RuntimeError"),
        ({"WANDB_MODE": "sometimes"}, "PROBLEM      weights_and_biases: UserError: WANDB_MODE=sometimes"),
    ],
)
def test_a_wrong_setting_is_a_problem_with_its_name(variables, problem):
    status, text = doctor(**variables)
    assert status == 1
    assert problem in text
    assert text.splitlines()[-1] == "training cannot run here"


def test_without_any_package_it_says_how_to_install_them():
    status, text = doctor("-I", "-S")
    assert status == 1
    assert "not installed: jax, jaxlib, flax" in text
    assert "run: make install" in text
