"""`make` brings a machine from nothing to an environment, repairs what was left half-made, and then leaves it alone.

A stand-in for Python takes the part of the interpreter, of venv and of pip, so no package is installed here.
"""

import os
from pathlib import Path
import shutil
import subprocess

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = """#!/bin/sh
log="{log}"
case "$*" in
  --version) echo "Python 3.12.1" ;;
  "-m venv "*)
    echo "$*" >> "$log"
    [ -e "$log.die-in-venv" ] && rm "$log.die-in-venv" && kill -9 $PPID && exit 1
    mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  "-m pip install "*)
    echo "$*" >> "$log"
    [ -e "$log.fail" ] && exit 1
    if [ -e "$log.die-in-pip" ]; then rm "$log.die-in-pip"; kill -9 $PPID; exit 1; fi ;;
  "-m ruff "*|"-m mypy"*|"-m pytest "*|scripts/*) echo "ran $*" >> "$log" ;;
esac
exit 0
"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")


class Machine:
    """A checkout in a folder with a space in its name, and a path with one interpreter on it."""

    def __init__(self, folder, name="python3.12"):
        self.root, self.log, self.path = folder / "my checkout", folder / "log", folder / "bin"
        self.root.mkdir()
        self.path.mkdir()
        for file in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / file, self.root)
        for tool in ("sh", "cat", "cksum", "rm", "mkdir", "touch", "cp", "awk", "find", "make"):
            found = shutil.which(tool)
            assert found, tool
            (self.path / tool).symlink_to(found)
        if name:
            (self.path / name).write_text(PYTHON.format(log=self.log))
            (self.path / name).chmod(0o755)

    def make(self, *words):
        """Returns how make ended; `calls` holds what it ran since."""
        self.log.write_text("")
        settings = {"PATH": str(self.path), "HOME": str(self.root / "none")}
        return subprocess.run(
            [self.path / "make", *words], cwd=self.root, env=settings, capture_output=True, text=True, check=False
        )

    @property
    def calls(self):
        return self.log.read_text().splitlines()

    def next_dies(self, where):
        Path(f"{self.log}.die-in-{where}").touch()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


INSTALL = "-m pip install --quiet --disable-pip-version-check -c constraints.txt -e .[dev]"


def test_the_first_call_makes_the_environment_and_does_the_job_and_the_second_installs_nothing(machine):
    done = machine.make("quickstart")
    assert done.returncode == 0, done.stderr
    job = "ran scripts/train.py --config configs/quickstart.py"
    assert machine.calls == ["-m venv .venv", INSTALL, job]
    assert machine.make("quickstart").returncode == 0
    assert machine.calls == [job]


def test_make_test_leaves_out_what_needs_torch_time_or_an_accelerator(machine):
    assert machine.make("test", "ARGS=-k loss").returncode == 0
    assert machine.calls[-1] == (
        "ran -m pytest -n 2 -m not parity and not e2e and not gpu and not smollm2 and not browser "
        "--jaxtyping-packages=ftjax.nn,ftjax.losses,ftjax.rl,ftjax.sampling,beartype.beartype -k loss"
    )


@pytest.mark.parametrize("where", ["venv", "pip"])
def test_an_environment_whose_maker_was_killed_is_made_again(machine, where):
    machine.next_dies(where)
    assert machine.make("lint").returncode != 0
    assert not (machine.root / ".venv" / ".installed").exists()
    done = machine.make("lint")
    assert done.returncode == 0
    assert "half-made" in done.stdout
    assert machine.calls[:2] == ["-m venv .venv", INSTALL]


def test_a_failed_install_does_not_count_as_done(machine):
    Path(f"{machine.log}.fail").touch()
    assert machine.make("install").returncode != 0
    Path(f"{machine.log}.fail").unlink()
    assert machine.make("install").returncode == 0
    assert INSTALL in machine.calls


@pytest.mark.parametrize("damage", ["empty", "dangling", "file", "old"])
def test_a_broken_environment_is_made_again(machine, damage):
    machine.make("install")
    python = machine.root / ".venv" / "bin" / "python"
    if damage == "empty":
        shutil.rmtree(machine.root / ".venv")
        (machine.root / ".venv").mkdir()
    elif damage == "dangling":
        python.unlink()
        python.symlink_to("/no/such/python")
    elif damage == "file":
        shutil.rmtree(machine.root / ".venv")
        (machine.root / ".venv").write_text("")
    else:
        python.write_text("#!/bin/sh\nexit 1\n")
    done = machine.make("install")
    assert done.returncode == 0, done.stderr
    assert "broken; making it again" in done.stdout
    assert machine.calls == ["-m venv .venv", INSTALL]


@pytest.mark.parametrize("file", ["pyproject.toml", "constraints.txt"])
def test_other_requirements_are_installed_into_the_same_environment(machine, file):
    machine.make("install")
    with (machine.root / file).open("a") as changed:
        changed.write("# more\n")
    machine.make("install")
    assert machine.calls == [INSTALL]
    os.utime(machine.root / file)  # a checkout touches files without changing them
    machine.make("install")
    assert machine.calls == []


def test_a_checkout_that_was_moved_is_installed_again(machine):
    machine.make("install")
    machine.root = machine.root.rename(machine.root.with_name("elsewhere"))
    machine.make("install")
    assert machine.calls == [INSTALL]


def test_a_good_environment_of_the_users_own_is_kept(machine):
    machine.make("install")
    (machine.root / ".venv" / ".installed").unlink()
    (machine.root / ".venv" / "mine").touch()
    machine.make("install")
    assert machine.calls == [INSTALL]
    assert (machine.root / ".venv" / "mine").exists()


def test_parity_has_an_environment_of_its_own_with_torch_first(machine):
    assert machine.make("test-parity").returncode == 0
    quiet = "-m pip install --quiet --disable-pip-version-check"
    assert machine.calls == [
        "-m venv .venv-parity",
        f"{quiet} torch==2.13.0",
        f"{quiet} -c constraints.txt -e .[parity,dev]",
        "ran -m pytest -m parity",
    ]
    assert not (machine.root / ".venv").exists()


@pytest.mark.parametrize("name", ["", "python2"])
def test_a_machine_without_python_is_told_what_to_install(tmp_path, name):
    done = Machine(tmp_path, name).make("test")
    assert done.returncode != 0
    assert "No Python >= 3.11 with venv and pip" in done.stderr
    assert "apt install python3 python3-venv" in done.stderr


def test_an_interpreter_can_be_chosen_and_a_wrong_one_is_refused(tmp_path):
    machine = Machine(tmp_path, "mine")
    assert machine.make("install", "PYTHON=mine").returncode == 0
    shutil.rmtree(machine.root / ".venv")
    done = machine.make("install", "PYTHON=no-such-python")
    assert done.returncode != 0
    assert "no-such-python is no Python >= 3.11" in done.stderr


def test_help_lists_every_target_with_a_line_and_installs_nothing(machine):
    done = machine.make()
    text = (ROOT / "Makefile").read_text()
    (phony,) = [line for line in text.splitlines() if line.startswith(".PHONY:")]
    lines = dict(line.split(maxsplit=2)[1:] for line in done.stdout.splitlines())
    assert set(lines) == set(phony.split()[1:])
    assert all(len(line) > 10 for line in lines.values())
    assert machine.calls == []


def test_make_test_browser_says_plainly_that_there_is_no_browser(machine):
    refused = machine.make("test-browser")
    assert refused.returncode != 0
    assert "There is no Chromium on the path" in refused.stderr
    assert "apt install chromium" in refused.stderr
    assert not any("pytest" in call for call in machine.calls)
    (machine.path / "chromium").symlink_to("/bin/true")
    assert machine.make("test-browser").returncode == 0
    assert machine.calls[-1] == "ran -m pytest -m browser"
