"""A folder appears whole or not at all."""

import errno
from pathlib import Path

import pytest

from ftjax import disk
from ftjax.checkpoint import folders
from ftjax.errors import UserError


def test_a_folder_has_its_name_only_when_it_is_whole(tmp_path):
    out = tmp_path / "deep" / "out"
    with folders.written(out) as beside:
        (beside / "a.txt").write_text("a")
        assert not out.exists()
        assert beside.parent == out.parent
    assert [path.name for path in out.iterdir()] == ["a.txt"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_what_is_replaced_goes_and_a_folder_of_the_user_beside_it_stays(tmp_path):
    for folder in ("out", "out.old"):
        (tmp_path / folder).mkdir()
    (tmp_path / "out" / "a.txt").write_text("before")
    (tmp_path / "out.old" / "notes.txt").write_text("mine")
    with folders.written(tmp_path / "out", replace=("a.txt",)) as beside:
        (beside / "a.txt").write_text("after")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.old"]
    assert (tmp_path / "out" / "a.txt").read_text() == "after"
    assert (tmp_path / "out.old" / "notes.txt").read_text() == "mine"


def test_what_was_there_comes_back_where_the_new_folder_cannot_take_its_place(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("before")
    rename = Path.rename

    def fail(path, target):
        if ".tmp-" in path.name:
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="Input/output"), folders.written(tmp_path / "out", replace=("a.txt",)):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "a.txt").read_text() == "before"


def test_the_folder_that_one_is_in_is_refused_and_another_way_to_write_a_name_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^\.: is the folder that you are in"), folders.written("."):
        pass
    (tmp_path / "deep").mkdir()
    with folders.written("deep/../out") as beside:
        (beside / "a.txt").write_text("a")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "out"]


def fails(out, error):
    with folders.written(out) as beside:
        (beside / "a.txt").write_text("a")
        raise error


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
def test_after_an_error_nothing_is_left(tmp_path, error):
    with pytest.raises(type(error)):
        fails(tmp_path / "out", error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_disk_that_fills_is_one_line_and_nothing_is_left(tmp_path, error):
    with pytest.raises(UserError, match=r"out: no space left on the disk") as raised:
        fails(tmp_path / "out", error)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_known_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "free", lambda _: 999)
    folders.check_room(tmp_path / "out", 999)
    with pytest.raises(UserError, match=r"out: needs 1,000 bytes, and 999 are free") as raised:
        folders.check_room(tmp_path / "out", 1000)
    assert "\n" not in str(raised.value)


def test_free_bytes_are_those_of_the_nearest_folder_that_exists(tmp_path):
    assert disk.free(tmp_path / "not" / "yet") > 0
    assert disk.existing(tmp_path / "not" / "yet") == tmp_path


def test_a_folder_with_content_or_a_file_is_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"not empty \(mine.txt\)"), folders.written(tmp_path / "full"):
        pytest.fail("it was opened")
    with pytest.raises(UserError, match="is a file"), folders.written(tmp_path / "file"):
        pytest.fail("it was opened")
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"
