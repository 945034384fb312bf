"""The house keeps its layering, and every rule of it can fail."""

import graphlib
from pathlib import Path
import subprocess
import sys

import layering
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("rule", layering.RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps(rule):
    assert list(rule(ROOT)) == []


def test_the_table_has_no_circle():
    order = list(graphlib.TopologicalSorter(layering.MAY_IMPORT).static_order())
    assert order.index("losses") < order.index("train")


def test_every_room_that_is_named_is_in_the_table():
    assert set().union(*layering.MAY_IMPORT.values()) <= set(layering.MAY_IMPORT)
    known = {*layering.ROOMS, "serving"}
    assert set().union(*layering.ONLY_AT.values(), layering.JAX_FREE, layering.MAY_PRINT) <= known


CLEAN = {
    "ftjax/__init__.py": '"""The package."""\n\n__version__ = "1"\n',
    "ftjax/errors.py": "class UserError(ValueError):\n    pass\n",
    "ftjax/losses/__init__.py": '"""Losses."""\n',
    "ftjax/losses/one.py": "import jax\n",
    "ftjax/data/__init__.py": '"""Data."""\n',
    "ftjax/data/loader.py": "import grain\n\nfrom ftjax.data import one\n",
    "ftjax/data/one.py": "import numpy\n\nimport ftjax\nfrom ftjax import errors\nfrom ftjax.assets import world\n",
    "ftjax/assets/__init__.py": '"""Assets."""\n',
    "ftjax/assets/world.py": "import json\n",
    "ftjax/train/__init__.py": '"""Training."""\n',
    "ftjax/train/loop.py": "from ftjax.losses import one\n",
    "ftjax/runs/__init__.py": '"""Runs."""\n',
    "ftjax/runs/wb.py": "def f():\n    import wandb\n    print(wandb)\n",
    "ftjax/experiment.py": "import ml_collections\nfrom ftjax.train import loop\nx = {}['a']\n",
    "configs/one.py": "from configs import defaults\nfrom ftjax import config\n",
    "scripts/train.py": "from ftjax import experiment\nfrom scripts import cli\nprint(1)\n",
    "tests/test_one.py": "import ftjax.train.loop\n",
}


def house(root, changes):
    for name, text in (CLEAN | changes).items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return [found for rule in layering.RULES for found in rule(root)]


def test_a_clean_house_breaks_no_rule(tmp_path):
    assert house(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("ftjax/losses/two.py", "from ftjax.models import decoder\n", "losses may not import models"),
        ("ftjax/losses/two.py", "from ftjax import errors\n", "losses may not import errors"),
        ("ftjax/runs/two.py", "def f():\n    import ftjax.train.loop\n", "two.py:2: runs may not import train"),
        ("ftjax/train/two.py", "import ftjax.experiment\n", "train may not import experiment"),
        ("ftjax/data/two.py", "from ftjax.assets import pretrain\n", "data may not import assets.pretrain"),
        ("ftjax/data/two.py", "from ftjax.data import loader\n", "data may not import data.loader"),
        ("ftjax/experiment.py", "from ftjax import run\n", "experiment may not import run"),
        ("ftjax/experiment.py", "from ftjax.assets import pretrain\n", "experiment may not import assets.pretrain"),
        ("ftjax/attic/__init__.py", '"""Things."""\n', "the room 'attic' has no row"),
        ("ftjax/attic.py", "", "the room 'attic' has no row"),
        ("ftjax/train/two.py", "import wandb\n", "wandb is imported in ['runs'] only"),
        ("ftjax/models/two.py", "from transformers import x\n", "transformers is imported in"),
        (
            "ftjax/train/two.py",
            "import ml_collections\n",
            "ml_collections is imported in ['config', 'experiment', 'pipeline'] only",
        ),
        ("ftjax/runs/two.py", "from absl import app\n", "absl is imported in no room only"),
        ("ftjax/runs/two.py", "import scripts.train\n", "scripts is imported in no room only"),
        ("ftjax/data/two.py", "import jax.numpy as jnp\n", "data does not import jax, and jax does"),
        ("ftjax/data/two.py", "from flax import struct\n", "data does not import jax, and flax does"),
        ("ftjax/data/two.py", "import grain.python\n", "grain is imported in ['data.loader'] only"),
        ("ftjax/assets/two.py", "import numpy\n", "assets uses the standard library only, not numpy"),
        ("tests/test_two.py", "from scripts import cli\n", "nobody imports scripts"),
        ("scripts/two.py", "from scripts import train\n", "nobody imports scripts"),
        ("configs/two.py", "from ftjax.train import loop\n", "a config file imports ftjax.config alone"),
        ("configs/two.py", "import ftjax\n", "a config file imports ftjax.config alone"),
        ("ftjax/data/two.py", "from . import one\n", "imports are absolute"),
        ("tests/test_two.py", "from __future__ import annotations\n", "no `from __future__ import annotations`"),
        ("ftjax/data/two.py", "x = 1\n" * 401, "401 lines, more than 400"),
        ("scripts/two.py", "x = 1\n" * 121, "121 lines, more than 120"),
        ("ftjax/data/__init__.py", '"""Data."""\n\nfrom ftjax.data import one\n', "a docstring and nothing else"),
        ("ftjax/data/__init__.py", "", "an __init__ begins with a docstring"),
        ("ftjax/data/__init__.py", '"""Data."""\n\n__version__ = "1"\n', "a docstring and nothing else"),
        ("ftjax/train/two.py", "print(1)\n", "print belongs to scripts/ and runs/"),
        ("ftjax/experiment.py", "x = {}\nx.get('steps', 3)\n", "x.get(...) hides a default"),
        ("docs/data.bin", "x" * 8_000_001, "8,000,001 bytes, more than 8,000,000"),
    ],
)
def test_a_planted_violation_is_found_and_nothing_else(tmp_path, name, text, says):
    found = [entry for entry in house(tmp_path, {name: text}) if entry.split(":")[0] == name]
    assert any(says in entry for entry in found), found
    assert len(found) <= 2, found


def test_a_source_file_that_git_ignores_is_found(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("runs/\n")
    assert house(tmp_path, {}) == [
        f"ftjax/runs/{name}: .gitignore hides a source file" for name in ("__init__.py", "wb.py")
    ]
    (tmp_path / ".gitignore").write_text("/runs/\n")
    assert house(tmp_path, {}) == []


JAX_FREE = """
import importlib, pkgutil, sys
import ftjax.config, ftjax.errors, ftjax.lookup
assert "jax" not in sys.modules, "config, errors or lookup imports jax"
for package in ("ftjax.data", "ftjax.assets"):
    found = importlib.import_module(package)
    for module in pkgutil.walk_packages(found.__path__, package + "."):
        if module.name not in sys.argv[1:]:
            importlib.import_module(module.name)
            assert "jax" not in sys.modules, f"{module.name} imports jax"
print("free")
"""


def test_what_must_start_fast_does_not_import_jax_by_any_way():
    programs = [f"ftjax.{name}" for name in (*layering.PROGRAMS, "data.loader")]
    done = subprocess.run([sys.executable, "-c", JAX_FREE, *programs], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("free\n", "")
