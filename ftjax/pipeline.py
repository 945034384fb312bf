"""Several stages, one after another, each in a folder of its own: SFT -> preferences -> reward model -> PPO.

A config with `stages` and their `order` is a pipeline. A stage is the config of a training run, or has a section
`pairs` (`own_pairs`) or `compare` (`comparison`). "@NAME" in a value of a stage is the folder of an earlier one. A
folder is named after a hash of the stage's config, in which the folders that it builds on stand: so what is unchanged
is found and used again, and what changed is made anew beside it.
"""

from collections.abc import Callable, Mapping
import hashlib
import json
from pathlib import Path
from typing import Any

import ml_collections

from ftjax import comparison, experiment, own_pairs, run, training_data
from ftjax import config as configs
from ftjax.errors import UserError
from ftjax.runs import folder as folders

Say = Callable[[str], None]
KINDS = {"pairs": own_pairs.make, "compare": comparison.make}


def is_one(config: ml_collections.ConfigDict) -> bool:
    """Tells whether a config is a pipeline."""
    return "stages" in config


def train(config: ml_collections.ConfigDict, workdir: Path, command: list[str], say: Say) -> dict[str, Any]:
    """Returns the summary of every stage by its name; what is done already is not done again.

    A stage that a signal stopped ends the pipeline: the same command goes on with it.
    """
    names = check(config)
    found: dict[str, Path] = {}
    summaries: dict[str, Any] = {}
    for number, name in enumerate(names, start=1):
        stage = ml_collections.ConfigDict(_filled(config.stages[name].to_dict(), found, name))
        found[name] = workdir / f"{name}-{_digest(stage.to_dict())}"
        if (found[name] / "DONE").exists():
            training_data.check_unchanged([found[name]], _way_out)
            say(f"stage {number} of {len(names)}, {name}: unchanged, from {found[name]}")
        else:
            say(f"stage {number} of {len(names)}, {name}: {found[name]}")
            if not _run(stage, found[name], command, say):
                say(f"stopped in {name}; the same command goes on with it")
                return summaries
        summaries[name] = json.loads((found[name] / "summary.json").read_text(encoding="utf-8"))
    return summaries


def check(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Returns the order of the stages; raises UserError for what is wrong with one and shows before it runs."""
    names, stages = tuple(config.order), config.stages.to_dict()
    if sorted(names) != sorted(stages):
        raise UserError(f"config.order {names} must name each of config.stages once: {', '.join(sorted(stages))}")
    for name in names:
        try:
            _filled(stages[name], dict.fromkeys(names[: names.index(name)], Path("earlier")), name)
            experiment.check(stages[name], experiment.RANGES, experiment.CHOICES)
        except UserError as error:
            raise UserError(f"config.stages.{name}: {error}") from None
    return names


def _way_out(stage: Path) -> str:
    return f"give another --workdir, or move {stage} away with the stages that build on it, to have them made anew"


def _run(stage: ml_collections.ConfigDict, path: Path, command: list[str], say: Say) -> bool:
    """Returns whether a stage came to its end."""
    resume = folders.started(path)
    kind = next((make for section, make in KINDS.items() if section in stage), None)
    built = experiment.build(stage.lock()) if kind is None else None
    if built is not None and resume:
        run.check_same(built, path)
    config = built.config if built is not None else stage.to_dict()
    folder = folders.create(
        path, name=path.name, config=config, command=command, resume=resume, may_change=experiment.MAY_CHANGE
    )
    with folder.owned():
        summary = run.train(built, folder, say) if built is not None else kind(config, folder, say)  # type: ignore[misc]
    return summary.get("reason") != "interrupted"


def _filled(value: Any, found: Mapping[str, Path], name: str) -> Any:
    """Returns a value with the folder of an earlier stage for every "@NAME" that a text begins with."""
    if isinstance(value, dict):
        return {key: _filled(item, found, name) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_filled(item, found, name) for item in value)
    if not isinstance(value, str) or not value.startswith("@"):
        return value
    stage, slash, rest = value[1:].partition("/")
    if stage not in found:
        earlier = ", ".join(found) or "none"
        raise UserError(f"{value!r} names no stage before {name}; there are {earlier}")
    return f"{found[stage]}{slash}{rest}"


def _digest(stage: Mapping[str, Any]) -> str:
    """Returns eight hex digits for a stage: of all that decides what it makes."""
    flat = {key: value for key, value in configs.flatten(stage).items() if not key.startswith("log.")}
    return hashlib.sha256(json.dumps(flat, sort_keys=True, default=str).encode()).hexdigest()[:8]
