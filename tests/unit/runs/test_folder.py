"""A run folder says what was run, belongs to one process, and is never overwritten."""

import contextlib
import errno
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading

import pytest

from ftjax import errors
from ftjax.runs import atomic, folder, provenance

CONFIG = {"steps": 10, "optimizer": {"learning_rate": 1e-3}, "log": {"every": 1}}


@pytest.fixture(scope="module")
def known():
    """The environment, looked up once."""
    return provenance.environment()


@pytest.fixture(autouse=True)
def one_folder_at_a_time(monkeypatch, known):
    """Gives every folder free again that a test has made."""
    made = []
    original = folder.create
    monkeypatch.setattr(provenance, "environment", lambda: known)
    monkeypatch.setattr(folder, "create", lambda *args, **kwargs: made.append(original(*args, **kwargs)) or made[-1])
    yield
    for run in made:
        with contextlib.suppress(OSError):  # the test itself has released it
            run.release()


def create(workdir, *, config=CONFIG, resume=False, may_change=("steps", "log.")):
    command = ["python", "scripts/train.py", "--config", "configs/a b.py"]
    return folder.create(
        workdir, name="quick start", config=config, command=command, resume=resume, may_change=may_change
    )


def contents(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_new_run_has_its_own_folder_with_config_command_code_and_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, two = create(None), create(None)
    assert one.path != two.path
    assert one.path.parent == Path("runs")
    assert one.path.name.count("-") == 4  # date-time-quick-start-hex
    assert "quick-start" in one.path.name
    assert not one.resumed
    assert json.loads((one.path / "config.json").read_text()) == CONFIG
    assert list(json.loads((one.path / "config.json").read_text())) == sorted(CONFIG)
    environment = json.loads((one.path / "environment.json").read_text())
    assert environment["python"] == ".".join(map(str, sys.version_info[:3]))
    assert environment["packages"]["numpy"]
    assert sum(environment["devices"].values()) == 8
    code = json.loads((one.path / "code.json").read_text())
    assert set(code) >= {"version", "commit", "branch", "dirty", "untracked"}


def test_the_command_script_runs_the_same_words_in_the_same_folder(tmp_path, monkeypatch):
    place = tmp_path / "my place"
    place.mkdir()
    monkeypatch.chdir(place)
    words = [sys.executable, "-c", "import os, sys; print(os.getcwd(), sys.argv[1:])", "a b", "$HOME", "it's"]
    run = folder.create(None, name="x", config={}, command=words, resume=False, may_change=())
    done = subprocess.run([place / run.path / "command.sh"], cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{place} ['a b', '$HOME', \"it's\"]"


@pytest.mark.parametrize("name", ["notes.txt", "config.json", ".hidden", "command.sh"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_with_a_foreign_file_is_refused_and_left_as_it_is(tmp_path, name, resume):
    (tmp_path / name).write_text("mine")
    with pytest.raises(errors.UserError, match="another --workdir") as caught:
        create(tmp_path, resume=resume)
    assert str(tmp_path) in str(caught.value)
    assert contents(tmp_path) == {name: b"mine"}


def test_a_folder_with_a_run_in_it_is_refused_and_left_as_it_is(tmp_path):
    create(tmp_path / "run").release()
    before = contents(tmp_path)
    with pytest.raises(
        errors.UserError, match="holds a run already; continue it with --resume or give another --workdir"
    ):
        create(tmp_path / "run")
    assert contents(tmp_path) == before


def test_a_file_as_workdir_is_refused(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(errors.UserError, match="is a file"):
        create(tmp_path / "run")


@pytest.mark.parametrize("rest", ["x", "x/y"])
def test_a_folder_below_a_file_is_refused(tmp_path, rest):
    (tmp_path / "mine.jsonl").write_text("{}")
    for ask in (lambda path: folder.check(path, False), create):
        with pytest.raises(errors.UserError, match=r"is below .*mine\.jsonl, which is a file; give a folder"):
            ask(tmp_path / "mine.jsonl" / rest)


def test_a_name_that_is_too_long_for_a_folder_is_refused(tmp_path):
    with pytest.raises(errors.UserError, match="give another --workdir"):
        folder.check(tmp_path / ("x" * 300), False)


def test_resuming_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(errors.UserError, match="nothing to resume"):
        create(tmp_path / "run", resume=True)
    with pytest.raises(errors.UserError, match="add --workdir"):
        create(None, resume=True)
    assert not (tmp_path / "run").exists()


def test_an_empty_folder_may_be_used(tmp_path):
    assert not create(tmp_path).resumed


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_a_killed_process_left_without_a_config_is_begun_anew(tmp_path, resume):
    create(tmp_path / "run").release()
    (tmp_path / "run" / "config.json").unlink()
    (tmp_path / "run" / f".config.json{atomic.SUFFIX}").write_text('{"steps": ')
    run = create(tmp_path / "run", resume=resume)
    assert not run.resumed
    assert not list(run.path.glob(f".*{atomic.SUFFIX}"))
    assert json.loads((run.path / "config.json").read_text()) == CONFIG


def test_a_resumed_run_keeps_its_files_and_puts_its_marks_aside(tmp_path):
    first = create(tmp_path / "run")
    first.failed(ValueError("the first end"))
    first.release()
    second = create(tmp_path / "run", resume=True)
    assert second.resumed
    assert not (second.path / "FAILED").exists()
    assert "the first end" in (second.path / "FAILED.1").read_text()
    second.failed(ValueError("the second end"))
    second.release()
    third = create(tmp_path / "run", resume=True)
    assert "the first end" in (third.path / "FAILED.1").read_text()
    assert "the second end" in (third.path / "FAILED.2").read_text()
    assert len(json.loads((third.path / "resumes.json").read_text())) == 2


def test_resuming_with_another_config_is_refused_with_the_difference(tmp_path):
    create(tmp_path / "run").release()
    before = contents(tmp_path)
    other = {"steps": 20, "optimizer": {"learning_rate": 1e-2}, "log": {"every": 1}}
    with pytest.raises(errors.UserError) as caught:
        create(tmp_path / "run", config=other, resume=True)
    assert "optimizer.learning_rate: 0.001 (run) against 0.01 (now)" in str(caught.value)
    assert "steps" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before


def test_resuming_may_change_what_the_allow_list_names(tmp_path):
    create(tmp_path / "run").release()
    longer = CONFIG | {"steps": 20, "log": {"every": 5}}
    run = create(tmp_path / "run", config=longer, resume=True)
    assert json.loads((run.path / "config.json").read_text()) == longer
    assert "steps: 10 (run) against 20 (now)" in json.loads((run.path / "resumes.json").read_text())[0]["changed"]


def test_an_allowed_key_does_not_allow_keys_that_only_begin_like_it():
    refused, allowed = folder.changes({"steps": 1, "steps_warm": 1}, {"steps": 2, "steps_warm": 2}, ("steps",))
    assert refused == "steps_warm: 1 (run) against 2 (now)"
    assert allowed == "steps: 1 (run) against 2 (now)"
    refused, _ = folder.changes({"log": {"a": 1}, "logs": 1}, {"log": {"a": 2}, "logs": 2}, ("log.",))
    assert refused == "logs: 1 (run) against 2 (now)"


def test_a_key_that_an_older_run_does_not_have_may_come_and_none_may_go():
    old, new = {"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}
    assert folder.changes(old, new, ()) == ("", "a.c: nothing (run) against 2 (now)")
    assert folder.changes(new, old, ()) == ("a.c: 2 (run) against nothing (now)", "")


HOLD = """
import sys, time
from pathlib import Path
from ftjax.runs import folder, provenance
provenance.environment = lambda: {"devices": {}}
folder.create(Path(sys.argv[1]), name="x", config={"a": 1}, command=["x"], resume=False, may_change=())
print("held", flush=True)
time.sleep(60)
"""


def test_a_folder_in_use_is_refused_until_its_process_is_killed(tmp_path):
    path = tmp_path / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(errors.UserError, match=f"is in use by process {holder.pid};"):
            create(path, config={"a": 1}, resume=True)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    run = create(path, config={"a": 1}, resume=True)
    assert run.resumed
    assert (path / folder.LOCK).read_text().split()[0] == str(os.getpid())


def test_one_process_cannot_take_its_own_folder_twice(tmp_path):
    run = create(tmp_path / "run")
    with pytest.raises(errors.UserError, match="is in use by process"):
        create(tmp_path / "run", resume=True)
    run.release()
    assert create(tmp_path / "run", resume=True).resumed


def test_a_lock_of_an_earlier_process_with_the_same_id_is_stale(tmp_path):
    create(tmp_path / "run").release()
    (tmp_path / "run" / folder.LOCK).write_text(f"{os.getpid()} 12\n")  # same id, another start
    assert create(tmp_path / "run", resume=True).resumed


def test_of_many_threads_that_write_one_file_the_reader_sees_whole_contents_only(tmp_path):
    path = tmp_path / "file"
    atomic.write_bytes(path, b"0" * 100_000)
    stop = threading.Event()
    seen = set()

    def look():
        while not stop.is_set():
            data = path.read_bytes()
            seen.add((len(data), len(set(data))))

    reader = threading.Thread(target=look)
    reader.start()
    for digit in b"123456789" * 5:
        atomic.write_bytes(path, bytes([digit]) * 100_000)
    stop.set()
    reader.join()
    assert seen == {(100_000, 1)}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path, monkeypatch, code):
    run = create(tmp_path / "run")
    run.summary({"loss": 1.0})
    before = contents(tmp_path)

    def full(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(errors.UserError, match=r"disk full while writing .*summary\.json"):
        run.summary({"loss": 2.0})
    run.failed(ValueError("x"))  # cannot be written, and must not hide the error that led here
    assert contents(tmp_path) == before


def test_a_folder_without_permission_is_one_line(tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(errors.UserError, match=r"cannot be written \(Permission denied\); give another --workdir"):
        create(tmp_path / "run")


def test_a_folder_below_a_file_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(errors.UserError, match=r"run is below .*file, which is a file; give a folder as --workdir"):
        create(tmp_path / "file" / "run")


def test_the_end_of_a_run_is_marked(tmp_path):
    run = create(tmp_path / "run")
    try:
        raise KeyError("the cause")
    except KeyError as error:
        run.failed(error)
    text = (run.path / "FAILED").read_text()
    assert "Traceback" in text
    assert "the cause" in text
    run.done()
    assert (run.path / "DONE").read_text().strip()


def test_numbers_that_json_lacks_are_texts_that_float_reads(tmp_path):
    import numpy as np

    run = create(tmp_path / "run")
    run.summary({"loss": float("nan"), "high": np.float32("inf"), "rows": np.int64(3), "path": Path("a"), "on": True})
    found = json.loads((run.path / "summary.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert found == {"loss": "NaN", "high": "Infinity", "rows": 3, "path": "a", "on": True}
    assert np.isnan(float(found["loss"]))


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A git checkout with one commit, in the place of the project's own."""
    root = tmp_path / "checkout"
    root.mkdir()
    monkeypatch.setattr(provenance, "ROOT", root.resolve())
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)

    def git(*arguments):
        author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *author, *arguments], cwd=root, check=True, capture_output=True)

    git("init", "-b", "trunk")
    (root / "a.py").write_text("one\n")
    git("add", "a.py")
    git("commit", "-m", "first")
    return root


def test_the_commit_and_the_changes_since_are_kept(repository, tmp_path):
    assert provenance.code()[0]["dirty"] is False
    (repository / "a.py").write_text("two\n")
    (repository / "new.py").write_text("new\n")
    run = create(tmp_path / "run")
    code = json.loads((run.path / "code.json").read_text())
    assert code["branch"] == "trunk"
    assert len(code["commit"]) == 40
    assert code["dirty"] is True
    assert code["untracked"] == ["new.py"]
    (repository / "a.py").write_text("one\n")
    subprocess.run(["git", "apply", run.path / "code.patch"], cwd=repository, check=True)
    assert (repository / "a.py").read_text() == "two\n"


def test_a_checkout_of_somebody_else_around_the_package_is_not_ours(repository, monkeypatch):
    inside = repository / "site-packages"
    inside.mkdir()
    monkeypatch.setattr(provenance, "ROOT", inside)
    code, patch = provenance.code()
    assert (code["commit"], patch) == (None, b"")


def test_code_without_git_is_still_named_by_its_version(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, patch = provenance.code()
    assert code["version"]
    assert (code["commit"], patch) == (None, b"")
