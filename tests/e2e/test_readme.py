"""What the documents tell a user to type is there, and does what they say."""

from pathlib import Path
import re
import shlex
import subprocess
import sys

import pytest

from configs import defaults
from ftjax import config as configs
from ftjax.assets import world
from tests import bases, processes

ROOT = bases.ROOT
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> list[list[str]]:
    """Returns the words of each line of a page's bash blocks; a backslash continues a line, # begins a comment."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def scripts(page: Path) -> list[list[str]]:
    """Returns the commands that run one of our scripts, without variables in front."""
    found = []
    for words in commands(page):
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words[:1] == ["python"] and words[1].startswith("scripts/"):
            found.append(words)
    return found


def test_the_readme_has_commands_to_check():
    assert len(scripts(ROOT / "README.md")) >= 6


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_names_scripts_flags_configs_and_keys_that_exist(page, monkeypatch):
    monkeypatch.setattr(configs, "from_run", lambda _: defaults.sft())
    monkeypatch.chdir(ROOT)
    for words in scripts(page):
        verb = ROOT / "scripts" / "verbs" / f"{words[2]}.py"  # of data.py, whose flags are in the verb's file
        source = (verb if words[1] == "scripts/data.py" else ROOT / words[1]).read_text(encoding="utf-8")
        changes, rest = configs.overrides(words[2:])
        for flag in (word.partition("=")[0] for word in rest if word.startswith("--")):
            assert f'"{flag}"' in source or flag == "--debug", f"{words[1]} has no {flag}"
        named = "--config" in rest
        config = configs.load(rest[rest.index("--config") + 1]) if named else defaults.sft()
        configs.override(config, changes)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_of_a_page_is_in_the_makefile(page):
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    named = {words[1] for words in commands(page) if words[0] == "make" and len(words) > 1}
    named |= set(re.findall(r"`make ([a-z0-9-]+)", text))
    assert named <= targets


# What makes a command of the README quick; nothing here changes what it does.
QUICK = [f"--config.{key}={value}" for key, value in {
    "steps": 3, "optimizer.warmup_steps": 1, "data.batch_size": 4, "data.max_length": 128, "eval.batch_size": 4,
    "eval.rows": 4, "eval.max_new_tokens": 8, "log.wandb": "disabled",
}.items()]  # fmt: skip


@pytest.mark.e2e
def test_the_commands_of_the_readme_run_in_their_order(tmp_path):
    for name in ("scripts", "configs", "ftjax"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name, split in {"mine.jsonl": "train", "test.jsonl": "heldout"}.items():
        bases.write_rows(tmp_path / name, world.task("format", split, 40, 0))
    pairs = world.preferences("train", 40, 0)
    bases.write_rows(tmp_path / "pairs.jsonl", pairs)
    asked = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in pairs[:4]]
    bases.write_rows(tmp_path / "answers.jsonl", asked)
    for words in scripts(ROOT / "README.md"):
        if "configs/ppo/pipeline.py" in words:  # has stages, with steps of their own
            words = [word.replace("pipeline.py", "pipeline.py:debug") for word in words]
        elif words[1] == "scripts/train.py" and "--resume" not in words:
            words = [*words, *QUICK]
        several = {"JAX_NUM_CPU_DEVICES": "4"} if "--config.mesh.data=2" in words else {}
        done = subprocess.run(
            [sys.executable, *words[1:]],
            cwd=tmp_path,
            env=processes.environment() | several,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
    assert (tmp_path / "runs" / "mine" / "DONE").exists()
    assert (tmp_path / "exports" / "mine" / "model.safetensors").exists()
    assert (tmp_path / "scored.jsonl").read_text().count('"score"') == 4
    assert len(list((tmp_path / "runs").glob("*-eval-mine-*"))) == 1


@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_smoke_config_runs_from_end_to_end(start, tmp_path, kind):
    process = start("train", "--config", f"configs/smoke/{kind}.py", "--workdir", tmp_path / "run")
    assert process.ends() == 0, process.said()
    assert (tmp_path / "run" / "DONE").exists()
    assert (tmp_path / "run" / {"lora": "adapter", "full": "model"}[kind] / "README.md").exists()
    assert len(list((tmp_path / "run" / "plots").glob("*.png"))) == 5
