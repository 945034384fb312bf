"""W&B gets the run, offline where it must, and never asks, hangs, or ends a training."""

import json
import os
from pathlib import Path
import socket
import sys
import time

import pytest

from ftjax import errors
from ftjax.runs import weights_and_biases


@pytest.fixture
def logged_out(tmp_path, monkeypatch):
    """A machine where nobody has logged in to W&B, and nothing says how to run."""
    for name in list(os.environ):
        if name.startswith("WANDB_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked the user"))
    monkeypatch.setattr("getpass.getpass", lambda *_: pytest.fail("asked the user"))


@pytest.fixture
def deaf_server():
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def run_folder(tmp_path):
    folder = tmp_path / "20260101-000000-test-abcd"
    folder.mkdir()
    return folder


def records(file):
    """Returns the records of an offline run: LevelDB's log format in blocks of 32 KiB behind a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, position, parts, found = file.read_bytes(), 7, [], []
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        parts.append(data[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):  # the whole record, or its last part
            found.append(wandb_internal_pb2.Record.FromString(b"".join(parts)))
            parts = []
    return found


def offline_records(folder):
    return [record for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")) for record in records(file)]


def key(item):
    return item.key or "/".join(item.nested_key)


@pytest.mark.usefixtures("logged_out")
def test_an_offline_run_holds_everything_and_keeps_its_id_when_resumed(tmp_path, capfd):
    folder = run_folder(tmp_path)
    config = {"steps": 3, "optimizer": {"learning_rate": 1e-3, "betas": (0.9, 0.95)}}
    writer = weights_and_biases.WandB(folder, config=config, project="mine", mode="auto")
    for step in range(1, 4):
        writer.write(step, {"loss": 1 / step, "grad_norm": 2.0})
        writer.write(step, {"eval_loss": 3.0 / step})
    writer.text(3, "samples", [{"prompt": "p", "answer": "a"}])
    (folder / "plots").mkdir()
    _png(folder / "plots" / "loss.png")
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    row = {"id": "0" * 16, "prompt": "p", "reference": None, "before": {"nats": 2.0}, "after": {"nats": 1.0}}
    other = row | {"after": {"nats": "NaN", "answer": "a"}}
    (folder / "held_out.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(other)}\n")
    writer.close({"exact_match": 0.75, "bad": float("nan")})
    again = weights_and_biases.WandB(folder, config=config, project="mine", mode="auto")
    again.write(4, {"loss": 0.25})
    again.close({"exact_match": 0.75})

    found = offline_records(folder)
    runs = [record.run for record in found if record.WhichOneof("record_type") == "run"]
    assert len(list(folder.glob("wandb/offline-run-*"))) == 2
    assert len({run.run_id for run in runs}) == 1
    assert runs[0].project == "mine"
    assert runs[0].run_id == json.loads((folder / "wandb.json").read_text())["id"]
    assert runs[0].display_name == folder.name
    kept = {key(item): json.loads(item.value_json) for item in runs[0].config.update}
    assert kept["steps"] == 3
    assert kept["optimizer"] == {"learning_rate": 1e-3, "betas": [0.9, 0.95]}

    history = {}
    for record in found:
        if record.WhichOneof("record_type") == "history":
            row = {key(item): json.loads(item.value_json) for item in record.history.item}
            history[row["_step"]] = row
    assert history[4]["loss"] == 0.25
    for step in range(1, 4):
        assert history[step]["loss"] == pytest.approx(1 / step, rel=1e-12)
        assert history[step]["eval_loss"] == pytest.approx(3 / step, rel=1e-12)
    everything = {name for row in history.values() for name in row}
    assert {"samples", "plots/loss", "held_out"} <= {name.rpartition("/")[0] for name in everything}, everything

    summary = {}
    for record in found:
        if record.WhichOneof("record_type") == "summary":
            summary |= {key(item): json.loads(item.value_json) for item in record.summary.update}
    assert summary["exact_match"] == 0.75
    artifacts = [str(record) for record in found if "artifact" in str(record) and "adapter_config.json" in str(record)]
    assert artifacts
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("logged_out")
def test_a_server_that_never_answers_means_offline(tmp_path, monkeypatch, capsys, deaf_server):
    monkeypatch.setenv("WANDB_BASE_URL", f"http://{deaf_server}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(weights_and_biases, "INIT_SECONDS", 1.0)
    folder = run_folder(tmp_path)
    start = time.monotonic()
    writer = weights_and_biases.WandB(folder, config={}, project="mine", mode="auto")
    writer.write(1, {"loss": 1.0})
    writer.close({})
    assert time.monotonic() - start < 25
    assert "W&B online did not start" in capsys.readouterr().err
    assert any(record.WhichOneof("record_type") == "history" for record in offline_records(folder))


@pytest.mark.usefixtures("logged_out")
def test_no_network_means_offline_within_seconds(tmp_path, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    started = []
    monkeypatch.setattr(weights_and_biases.WandB, "_start", lambda _, mode, *rest: started.append((mode, rest)))
    weights_and_biases.WandB(run_folder(tmp_path), config={}, project="p", mode="online")
    assert [mode for mode, _ in started] == ["offline"]
    assert f"no connection to 127.0.0.1:{port}" in capsys.readouterr().err


@pytest.mark.usefixtures("logged_out")
@pytest.mark.parametrize(
    ("variables", "mode", "chosen"),
    [
        ({}, "auto", "offline"),
        ({}, "online", "offline"),
        ({}, "disabled", "disabled"),
        ({"WANDB_API_KEY": "k"}, "auto", "online"),
        ({"WANDB_API_KEY": "k"}, "offline", "offline"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}, "auto", "offline"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "dryrun"}, "online", "offline"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "disabled"}, "online", "disabled"),
        ({"WANDB_API_KEY": "k", "WANDB_DISABLED": "true"}, "online", "disabled"),
        ({"WANDB_MODE": "online"}, "disabled", "offline"),
    ],
)
def test_the_mode_follows_the_environment_then_the_config_then_the_login(monkeypatch, variables, mode, chosen):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert weights_and_biases.choose_mode(mode) == chosen


@pytest.mark.usefixtures("logged_out")
@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("machine api.wandb.ai login user password x\n", True),
        ("machine example.org login user password x\n", False),
        ("nonsense", False),
    ],
)
def test_a_login_in_the_netrc_file_counts_for_its_server_only(tmp_path, text, known):
    (tmp_path / "netrc").write_text(text)
    (tmp_path / "netrc").chmod(0o600)
    assert weights_and_biases.logged_in() is known


@pytest.mark.usefixtures("logged_out")
def test_an_unknown_mode_is_refused(monkeypatch):
    with pytest.raises(errors.UserError, match="W&B mode 'onlin' is not known"):
        weights_and_biases.choose_mode("onlin")
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(errors.UserError, match="WANDB_MODE=sometimes"):
        weights_and_biases.choose_mode("auto")


def test_a_disabled_writer_does_not_import_wandb(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    writer = weights_and_biases.WandB(tmp_path, config={}, project="p", mode="disabled")
    writer.write(1, {"loss": 1.0})
    writer.text(1, "samples", [{"a": "b"}])
    writer.close({})
    assert list(tmp_path.iterdir()) == []


class Broken:
    """A W&B run whose every call fails."""

    def __getattr__(self, name):
        raise RuntimeError(f"no {name} today")


def test_an_error_of_wandb_is_told_once_and_ends_only_this_writer(tmp_path, capsys):
    writer = weights_and_biases.WandB(tmp_path, config={}, project="p", mode="disabled")
    writer._run = Broken()
    for step in range(3):
        writer.write(step, {"loss": 1.0})
    writer.close({})
    assert capsys.readouterr().err.count("switched off") == 1


def test_a_run_folder_that_wandb_cannot_close_is_told_and_left(tmp_path, capsys):
    writer = weights_and_biases.WandB(tmp_path, config={}, project="p", mode="disabled")
    writer._run = Broken()
    writer.close({"a": 1})
    assert "no finish today" in capsys.readouterr().err


def _png(path: Path):
    from PIL import Image

    Image.new("RGB", (4, 4)).save(path)
