"""An experiment and its folder -> a finished run: load, measure, train, measure again, leave everything behind.

The only caller of the loop. What an algorithm or a format adds must not show here.
"""

from collections.abc import Callable, Collection, Mapping
import contextlib
import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax

from ftjax import before_after, hosts, inference, reference, results, retention, reward_report, rollouts, tree, watch
from ftjax import held_out as held_outs
from ftjax import mesh as meshes
from ftjax.adapters import adapter, attach
from ftjax.algorithms import sft
from ftjax.algorithms.algorithm import frozen
from ftjax.checkpoint import hf_import
from ftjax.checkpoint.store import Store
from ftjax.data import used, versions
from ftjax.errors import UserError
from ftjax.evals import by_row
from ftjax.experiment import Experiment
from ftjax.runs import atomic, clock, plots, report, writers
from ftjax.runs.folder import Folder, Followed
from ftjax.runs.jsonl import Jsonl
from ftjax.train import epochs, loop
from ftjax.train import state as states
from ftjax.train import step as steps


@dataclasses.dataclass(frozen=True)
class Parts:
    """An experiment with its weights in memory and its programs ready to compile."""

    experiment: Experiment
    base: Any  # frozen; a tree of None in full fine-tuning, where everything is in the state
    state: states.TrainState
    step: steps.Step
    measure: steps.Measure  # by the loss that is trained with
    text: steps.Measure  # by the loss of text, which is the same in supervised fine-tuning


@contextlib.contextmanager
def on_mesh(x: Experiment) -> Any:
    """Sets the mesh, where there is one, for everything that is traced inside the block."""
    with jax.set_mesh(x.mesh) if x.mesh is not None else contextlib.nullcontext():
        yield


def folder_of_first(make: Callable[[], Folder]) -> Folder:
    """Returns the folder that the first process makes; in others of the run, one that writes nothing."""
    made: list[Folder] = []

    def create() -> tuple[str, bool]:
        made.append(make())
        return str(made[0].path), made[0].resumed

    path, resumed = hosts.of_first(create)
    return made[0] if made else Followed(Path(path), resumed)


def start(x: Experiment, say: Callable[[str], None]) -> Parts:
    """Returns the experiment with weights loaded and the state before its first step."""
    c = x.config
    x = reference.from_model(x, say)
    q = c["quant"]
    _, base = hf_import.load(
        x.model_dir, q["format"], c["model"]["weights"], x.mesh, leaves=q["leaves"], group=q["group"]
    )
    x = reference.from_base(x, base, say)
    make = lambda base, given: states.begin(
        rollouts.going_on(x.algorithm, given), base, x.optimizer, jax.random.key(c["seed"])
    )  # fmt: skip
    state = jax.jit(make, out_shardings=x.state_shardings)(base, x.start)
    if x.state_shardings is None:
        # What a step returns is bound to its device; a program for arrays that are not would be compiled once more.
        state = jax.device_put(state, jax.local_devices()[0])
    if c["adapter"]["name"] == "none":
        base = jax.tree.map(lambda _: None, base)
    given = {"microbatches": c["microbatches"]}
    if x.plan is None:
        step = steps.make(x.algorithm, x.optimizer, x.schedule, **given)
    else:
        step = epochs.make(x.algorithm, x.optimizer, x.schedule, plan=x.plan, **given)
    out = None if x.state_shardings is None else (x.state_shardings, None)
    # Elements of all devices are for every host, which adds them up by row.
    everywhere = None if x.mesh is None else jax.sharding.NamedSharding(x.mesh, jax.sharding.PartitionSpec())
    measure = jax.jit(steps.make_measure(x.algorithm), out_shardings=everywhere)
    plain = sft.make(lambda *_: None, x.model_config)
    return Parts(
        experiment=x,
        base=base,
        state=state,
        step=jax.jit(step, donate_argnums=0, out_shardings=out),
        measure=measure,
        text=measure if trains_text(x) else jax.jit(steps.make_measure(plain), out_shardings=everywhere),
    )


def trains_text(x: Experiment) -> bool:
    """Tells whether the loss that is trained with is that of text."""
    return x.objective.data == "rows"


def evaluate(parts: Parts, state: states.TrainState) -> by_row.Evaluate:
    """Returns the function from a host's batch to what its loss, weight and metrics add up to, and its elements."""
    base = frozen(parts.base, state.extra)
    return lambda batch: parts.measure(state.trainable, base, meshes.place_batch(parts.experiment.mesh, batch))


def sums(parts: Parts, state: states.TrainState) -> held_outs.Sums:
    """Returns the function from a host's batch to its summed loss, weight and metrics."""
    found = evaluate(parts, state)
    return lambda batch: found(batch)[0]


def model(parts: Parts, trainable: Any) -> inference.Model:
    """Returns the model that the base and what trains make together."""
    x = parts.experiment
    attached = attach.attach(parts.base, x.algorithm.policy(trainable))
    return inference.Model(x.model_dir, x.model_config, attached, x.tokenizer, x.template, x.stop_ids)


def measure(parts: Parts, state: states.TrainState, names: Collection[str]) -> before_after.Both:
    """Returns all that is measured before and after training, by the name of the set."""
    x = parts.experiment
    known = x.algorithm.reference
    held_against = known(frozen(parts.base, state.extra)) if known else None
    own = model(parts, state.trainable)
    found = {"held_out": x.held_out.measure(evaluate(parts, state), own, held_against)}
    if x.retention is not None and "retention" in names:
        run = evaluate(parts, state)
        if not trains_text(x):
            run = lambda batch: parts.text(None, own.params, meshes.place_batch(x.mesh, batch))
        found["retention"] = retention.measure(x.retention, run, own)
    return found


def train(x: Experiment, folder: Folder, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns the run's summary after training to the end, to patience or to a signal, with all files written."""
    c = x.config
    say("loading weights")
    with on_mesh(x):
        return _train(start(x, say), folder, say, c)


def _train(parts: Parts, folder: Folder, say: Callable[[str], None], c: Mapping[str, Any]) -> dict[str, Any]:
    x = parts.experiment
    store = Store(folder.path / "checkpoints", c["checkpoint"]["keep_last"], (loop.MONITOR, "min"))
    progress, state, position = loop.Progress(), parts.state, None
    if folder.resumed and store.latest() is not None:
        state, facts = store.restore(None, parts.state)
        progress, position = loop.Progress(**facts["progress"]), facts["metrics"]
        say(f"resuming at step {progress.step:,}")
    parts = dataclasses.replace(parts, state=state)
    inputs = _inputs(x)
    for name, facts in inputs.items():
        folder.json(name, facts)
    if hosts.is_first():
        _keep_rows(x, inputs[used.FACTS], folder, say)
    folder.json("tokenizer.json", _tokenizer_facts(x))
    out = writers.make(
        c["log"]["writers"],
        folder.path,
        process=jax.process_index(),
        config=c,
        steps=c["steps"],
        start=progress.step,
        position=position,
        project=c["log"]["project"],
        mode=c["log"]["wandb"],
    )
    with out:
        before = _before(parts, folder, progress, say)
        samples = x.held_out.items[: c["eval"]["samples"]]
        warned: list[str] = []

        def remarked(numbers: dict[str, float]) -> dict[str, float]:
            remark = x.held_out.remark(before["metrics"], numbers)
            if remark and not warned:
                warned.append(remark)
                say(remark)
            return numbers

        every = c["log"]["samples"] if x.objective.rollout else 0
        seen = watch.Watch(say, before["metrics"])
        interrupt = loop.Interrupt(report.at_once)
        with interrupt.installed():
            outcome = loop.run(
                state=state,
                base=parts.base,
                progress=progress,
                step=parts.step,
                batches=lambda k: x.loader.iterate(k, threads=1, prefetch=4),
                place=functools.partial(meshes.place_batch, x.mesh),
                experience=lambda s, batch: x.algorithm.experience(
                    s.trainable, frozen(parts.base, s.extra), batch, jax.random.fold_in(s.key, s.step)
                ),
                evaluate=lambda s: seen.evaluated(
                    remarked(x.held_out.during(sums(parts, s), lambda: model(parts, s.trainable)))
                ),
                sample=lambda s: held_outs.shown(x.held_out.answers(model(parts, s.trainable), samples)),
                epoch=lambda k: k / x.loader.batches_per_epoch,
                beside=lambda: x.objective.rollout and x.objective.rollout.last,
                watch=lambda k, numbers, drawn: seen.step(k, numbers, drawn, out, every),
                store=store,
                writers=out,
                position=_position(out),
                cadence=loop.Cadence(
                    steps=c["steps"],
                    log=c["log"]["every"],
                    evaluate=c["eval"]["every"],
                    checkpoint=c["checkpoint"]["every"],
                    keep_best=c["checkpoint"]["use"] == "best",
                    patience=c["stop"]["patience"],
                    spike_factor=c["stop"]["spike_factor"],
                ),
                folder=folder.path,
                interrupt=interrupt,
            )
        if outcome.reason == "interrupted":
            summary = {"reason": outcome.reason, "step": outcome.progress.step}
            out.close(summary)
            return summary
        return _finish(parts, folder, store, outcome, before, out, say)


def _inputs(x: Experiment) -> dict[str, dict[str, Any]]:
    """Returns what a run is made from, by the file that keeps it in the run folder."""
    return {
        "base.json": {"path": str(x.model_dir), "hash": hf_import.content_hash(x.model_dir)},
        "data.json": {
            "paths": x.config["data"]["paths"],
            "hash": x.data.hash,
            "report": x.data.report.as_dict(),
        },
        **reference.inputs(x),
    }


def _keep_rows(x: Experiment, known: dict[str, Any], folder: Folder, say: Callable[[str], None]) -> None:
    """Adds to what is known of the data which version of each file is read, and writes what becomes of each row."""
    files, table = used.seen(x.data.sources)
    for line in used.told(files):
        say(line)
    folder.json(used.FACTS, known | {"files": files, "template": versions.template_facts(x.template)})
    folder.raw(used.ROWS, table.dumped())


def check_same(x: Experiment, workdir: Path) -> None:
    """Raises where the run in `workdir` cannot go on as it is now asked to; writes nothing.

    Its base or its data are not what it was started with, it has taken more steps already, or its end has no place.
    """
    for name, facts in _inputs(x).items():
        if not (workdir / name).exists():
            continue
        known = json.loads((workdir / name).read_text(encoding="utf-8"))
        if known["hash"] != facts["hash"]:
            raise UserError(
                f"{'the data' if name == 'data.json' else facts['path']} has content hash {facts['hash'][:12]}, but "
                f"the run began on {known['hash'][:12]}; put back what it was or start a new run"
            )
    checkpoints = (path for path in (workdir / "checkpoints").glob("*") if path.name.isdecimal())
    taken, steps = max((int(path.name) for path in checkpoints), default=0), x.config["steps"]
    if taken > steps:
        raise UserError(
            f"config.steps is {steps:,}, but the run in {workdir} is at step {taken:,}; give at least as many "
            f"(--config.steps={taken}), or start a new run"
        )
    results.check(x, workdir)


def _tokenizer_facts(x: Experiment) -> dict[str, Any]:
    made = x.template
    return {"fingerprint": x.tokenizer.fingerprint, "template": made.name if made else None, "stop_ids": x.stop_ids}


def _position(out: writers.Several) -> Callable[[], int | None]:
    lines = next((writer for writer in out.writers if isinstance(writer, Jsonl)), None)
    return lines.position if lines is not None else lambda: None


def _before(parts: Parts, folder: Folder, progress: loop.Progress, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns what the base does on the held-out set; measured once, at the start of the run."""
    path = folder.path / "before.json"
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
        before_after.check(parts.experiment, known, str(path))
        if "rows" not in known:
            say("an older ftjax began this run, so what changes from row to row, and retention, are not measured")
        # The file is strict JSON, in which an infinite perplexity is the text "Infinity".
        return known | {"metrics": {name: float(value) for name, value in known["metrics"].items()}}
    if progress.step > 0:
        raise UserError(f"{path} is missing, and the run is past its start; put the file back")
    say("measuring the base on the held-out set")
    x = parts.experiment
    found = before_after.kept(x, measure(parts, parts.state, before_after.sets(x)))
    folder.json("before.json", found)
    return found


def _finish(
    parts: Parts,
    folder: Folder,
    store: Store,
    outcome: loop.Outcome,
    before: Mapping[str, Any],
    out: writers.Several,
    say: Callable[[str], None],
) -> dict[str, Any]:
    x, c, progress = parts.experiment, parts.experiment.config, outcome.progress
    state, used = outcome.state, progress.step
    best = store.best()
    if c["checkpoint"]["use"] == "best" and best is not None and best != used:
        state, used = store.restore(best, parts.state)[0], best
    found = measure(parts, state, before_after.measured(x, before))
    rows = before_after.both(x, before, found)
    changed = [
        {"prompt": old["prompt"], "reference": old["reference"], "before": old["answer"], "after": new.prediction}
        | ({"score_before": old["score"], "score_after": new.score} if "score" in old else {})
        for old, new in zip(before["answers"], found["held_out"].answers, strict=True)
    ]
    trainable, total = tree.count(adapter.trained(state.trainable)), tree.count(x.abstract_base)
    summary = {
        "reason": outcome.reason,
        "step": progress.step,
        "checkpoint": used,
        "before": before["metrics"],
        "after": before_after.numbers(found),
        "change": before_after.changed(rows, c["seed"]),
        "rows": x.held_out.rows,
        **({"retention_rows": x.retention.rows} if x.retention is not None and "retention" in found else {}),
        "num_tokens": progress.tokens,
        "train_seconds": progress.seconds,
        "tokens_per_second": progress.tokens / max(progress.seconds, 1e-9),
        "trainable_parameters": trainable,
        "parameters": total,
        "trainable_share": trainable / total,
        "reward_model": x.objective.reward,
        **clock.memory(),
    }
    results.save(x, folder, state, atomic.strict(summary))
    if x.objective.reward:
        summary |= reward_report.leave(x, parts.base, state.trainable, folder)
    folder.summary(summary)
    before_after.leave(rows, folder)
    folder.text("answers.jsonl", "".join(json.dumps(row) + "\n" for row in changed))
    metrics = folder.path / "metrics.jsonl"
    if hosts.is_first() and metrics.exists():
        plots.draw(metrics, folder.path / "plots")
    elif hosts.is_first():
        say("there are no plots, because config.log.writers has no jsonl, whose metrics.jsonl they are drawn from")
    out.close(summary)
    folder.done()
    shown = changed[: c["eval"]["samples"]]
    flipped = before_after.flipped(rows, summary["change"], [row["prompt"] for row in shown])
    return summary | {"samples": shown, "flipped": flipped}
