"""What a run makes of its trained state: `adapter/`, that of a value in `value/`, or after full fine-tuning `model/`.

They are written whole beside their place; then each file goes over that of an earlier end, and what a person has put
beside them stays.
"""

from collections.abc import Mapping
import contextlib
import os
from pathlib import Path
import shutil
from typing import Any

import jax

from ftjax import hosts
from ftjax.checkpoint import hf_export, peft
from ftjax.errors import UserError
from ftjax.experiment import Experiment
from ftjax.runs import atomic, card
from ftjax.runs.folder import Folder
from ftjax.train import state as states


def places(x: Experiment) -> tuple[str, ...]:
    """Returns the folders that the end of a run writes, below its own."""
    if x.config["adapter"]["name"] == "none":
        return ("model",)
    return ("adapter",) if x.algorithm.value is None else ("adapter", "value")


def check(x: Experiment, workdir: Path) -> None:
    """Raises where the end of a run could not be written, hours before it comes; writes nothing."""
    for place in (workdir / name for name in places(x)):
        if not os.path.lexists(place):
            continue
        if not place.is_dir():
            raise UserError(f"{place} is no folder, and the run writes one of this name at its end; move it away")
        if place.stat().st_dev != workdir.stat().st_dev:
            raise UserError(f"{place} is on another disk than the run, which writes over it at its end; put it back")
        if not os.access(place, os.W_OK | os.X_OK):
            raise UserError(f"{place} may not be written, and the run does at its end; give yourself the permission")


def save(x: Experiment, folder: Folder, state: states.TrainState, summary: Mapping[str, Any]) -> None:
    """Writes what was trained, with its card; a UserError leaves that of an earlier end as it was."""
    trained = hosts.readable(state.trainable)
    if not hosts.is_first():
        return
    for name in places(x):
        for left in folder.path.glob(f"{name}.tmp-*"):  # of a process that was killed while it wrote
            shutil.rmtree(left, ignore_errors=True)
    if x.config["adapter"]["name"] == "none":
        made = x.template if x.config["data"]["template"] else None  # else the tokenizer has it
        with _put(folder.path / "model") as new:
            hf_export.save(
                new,
                trained,
                x.model_config,
                x.model_dir,
                stop_ids=x.stop_ids,
                template=made.text if made else None,
                card=card.of_run(folder.path, "merged", summary=summary),
            )
        return
    trained = jax.device_get(trained)
    saved = {"base_name": str(x.model_dir), "rslora": x.config["adapter"]["rslora"]}
    with _put(folder.path / "adapter") as new:
        peft.save(new, x.algorithm.policy(trained), x.model_config, **saved)
        atomic.write_text(new / "README.md", card.of_run(folder.path, "adapter", summary=summary))
    if x.algorithm.value is not None:
        with _put(folder.path / "value") as new:
            peft.save(new, x.algorithm.value(trained), x.model_config, **saved)


@contextlib.contextmanager
def _put(place: Path) -> Any:
    """Yields the name of a folder to write, whose files are at the end in `place`."""
    new = place.with_name(f"{place.name}.tmp-new")
    try:
        yield new
        atomic.put(new, place)
    finally:
        shutil.rmtree(new, ignore_errors=True)
