"""Numbers in Weights & Biases: online when logged in and the network is there, offline otherwise.

W&B can never stop a run or make it wait for an answer: nothing asks for a login, an unreachable server means offline,
and an error of W&B's is told once and ends this writer only. `wandb sync runs/NAME/wandb/offline-*` uploads later.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import functools
import itertools
import json
import netrc
import os
from pathlib import Path
import secrets
import socket
import sys
from typing import Any
import urllib.parse

from ftjax import errors
from ftjax.runs import atomic

MODES = ("auto", "online", "offline", "disabled")
ROWS = 1000  # of a table, at most
CONNECT_SECONDS = 4.0  # to reach the server at all
INIT_SECONDS = 30.0  # for the server to create the run
FINISH_SECONDS = 180.0  # for the last upload


class WandB:
    """Writes a W&B run below a run folder: config, numbers, sample tables, and at the end plots and the adapter.

    A resumed run goes on under the same id, which is kept in `wandb.json`.
    """

    def __init__(self, folder: Path, *, config: Mapping[str, Any], project: str, mode: str) -> None:
        self.folder = folder
        self._run: Any = None
        self._first = 0
        chosen = choose_mode(mode)
        if chosen == "disabled":
            return
        if chosen == "online" and not reachable(server()):
            _tell(f"no connection to {server()}, so this run is logged offline")
            chosen = "offline"
        self._start(chosen, dict(config), project)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Logs numbers at a step. Steps that this W&B run has already, from before a resume, are left as they are."""
        if self._run is not None and step >= self._first:
            self._guarded(lambda run: run.log(dict(numbers), step=step))

    def text(self, step: int, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Logs a table."""
        if self._run is not None and rows and step >= self._first:
            columns = list(rows[0])
            data = [[str(row.get(column, "")) for column in columns] for row in rows]
            self._guarded(lambda run: run.log({name: _wandb().Table(columns=columns, data=data)}, step=step))

    def close(self, summary: Mapping[str, Any]) -> None:
        """Logs the summary, the rows that were measured before and after, `plots/*.png` and the folder `adapter`.

        Then it finishes the run, within a bound on time.
        """
        if self._run is None:
            return
        run, self._run = self._run, None
        plots = sorted((self.folder / "plots").glob("*.png"))
        artifacts = [(self.folder / name, kind) for name, kind in (("adapter", "model"), ("code.patch", "code"))]
        last: list[Callable[[], Any]] = [
            lambda: run.summary.update(atomic.strict(dict(summary))),
            lambda: run.log({f"plots/{plot.stem}": _wandb().Image(str(plot)) for plot in plots}) if plots else None,
            *(functools.partial(_log_rows, run, self.folder / f"{name}.jsonl") for name in ("held_out", "retention")),
            *(functools.partial(_log_artifact, run, path, kind) for path, kind in artifacts if path.exists()),
            lambda: run.finish(),
            lambda: _wandb().teardown(),  # finish returns before the file of an offline run is whole
        ]
        for call in last:
            try:
                call()
            except Exception as error:
                _tell(f"could not take everything ({_line(error)}); the run folder has it all")

    def _start(self, mode: str, config: dict[str, Any], project: str) -> None:
        known = self.folder / "wandb.json"
        kept = json.loads(known.read_text(encoding="utf-8")) if known.exists() else {}
        try:
            wandb = _wandb()
        except ImportError:
            raise errors.UserError("the wandb writer needs wandb, which is not installed; pip install wandb") from None
        identity = kept.get("id") or secrets.token_hex(4)
        # On the disk before the run is created: killed in between, the resumed run still finds its id.
        atomic.write_json(known, {"id": identity, "project": project})
        for attempt in dict.fromkeys((mode, "offline")):
            try:
                wandb.setup(wandb.Settings(silent=True))
                self._run = wandb.init(
                    project=project,
                    name=self.folder.absolute().name,
                    id=identity,
                    resume="allow" if kept and attempt == "online" else None,
                    dir=str(self.folder),
                    config=config,
                    mode=attempt,
                    settings=wandb.Settings(
                        silent=True,
                        console="off",
                        disable_git=True,  # code.json and code.patch say more
                        init_timeout=INIT_SECONDS,
                        finish_timeout=FINISH_SECONDS,
                    ),
                )
            except Exception as error:
                _tell(f"{attempt} did not start ({_line(error)})")
                with contextlib.suppress(Exception):
                    wandb.teardown()  # else the id counts as in use by the run that did not come to be
                continue
            self._first = int(self._run.step or 0) if kept else 0
            return

    def _guarded(self, call: Callable[[Any], None]) -> None:
        """Calls with the run; an error of W&B's is told and ends this writer, never the training."""
        try:
            call(self._run)
        except Exception as error:
            _tell(f"is switched off for the rest of this run ({_line(error)}); metrics.jsonl has every number")
            self._run = None


def choose_mode(mode: str) -> str:
    """Returns online, offline or disabled. WANDB_MODE wins over the config; `auto` is online when logged in."""
    if mode not in MODES:
        raise errors.UserError(f"W&B mode {mode!r} is not known; use {' | '.join(MODES)}")
    variable = os.environ.get("WANDB_MODE", "").lower()
    if os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes"):
        variable = "disabled"
    wanted = {"dryrun": "offline", "run": "online", "shared": "online"}.get(variable, variable) or mode
    if wanted not in MODES:
        raise errors.UserError(f"WANDB_MODE={variable} is not known; use online | offline | disabled")
    if wanted in ("auto", "online") and not logged_in():
        if wanted == "online":
            _tell("there is no login for it, so this run is logged offline; wandb login makes one")
        return "offline"
    return "online" if wanted == "auto" else wanted


def server() -> str:
    """Returns the host of the W&B server, with its port where one is given."""
    return urllib.parse.urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc


def logged_in() -> bool:
    """Returns whether a key for the server is in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    named = os.environ.get("NETRC")
    for path in [Path(named)] if named else [Path("~/.netrc"), Path("~/_netrc")]:
        try:
            if netrc.netrc(path.expanduser()).authenticators(server()):
                return True
        except (OSError, netrc.NetrcParseError, RuntimeError):
            continue
    return False


def reachable(netloc: str) -> bool:
    """Returns whether the server, or the proxy in front of it, takes a connection within a few seconds."""
    url = urllib.parse.urlsplit(f"//{netloc}")
    secure = not os.environ.get("WANDB_BASE_URL", "https").startswith("http:")
    names = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy") if secure else ("HTTP_PROXY", "http_proxy")
    proxy = next((os.environ[name] for name in names if os.environ.get(name)), "")
    if proxy:
        url = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
    try:
        port = url.port or (443 if secure else 80)
        with socket.create_connection((url.hostname or "", port), timeout=CONNECT_SECONDS):
            return True
    except (OSError, ValueError):
        return False


def _log_rows(run: Any, path: Path) -> None:
    """Logs the lines of held_out.jsonl or retention.jsonl as a table, with a column for each value before and after."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as lines:
        found = [json.loads(line) for line in itertools.islice(lines, ROWS)]
    flat = [
        {name: row[name] for name in ("id", "prompt", "reference")}
        | {f"{when}/{name}": value for when in ("before", "after") for name, value in row[when].items()}
        for row in found
    ]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    data = [[row.get(column) for column in columns] for row in flat]
    run.log({path.stem: _wandb().Table(columns=columns, data=data, allow_mixed_types=True)})


def _log_artifact(run: Any, path: Path, kind: str) -> None:
    artifact = _wandb().Artifact(f"{path.stem}-{run.id}", type=kind)
    artifact.add_dir(str(path)) if path.is_dir() else artifact.add_file(str(path))
    run.log_artifact(artifact)


def _wandb() -> Any:
    import wandb

    return wandb


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _tell(text: str) -> None:
    print(f"W&B {text}", file=sys.stderr)
