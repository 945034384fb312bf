"""One row of ours for the runner of peers: the same rows, the same model, timed and written as theirs are.

python run_all.py --add 'scripts/bench/peer_row.py dpo --reference cached' ...    # the runner; it writes the row
python scripts/bench/peer_row.py sft --layout packed                              # alone: prints the row

The runner's `common` module has to be on PYTHONPATH (the runner sees to it): it says where models and rows are, how
many steps are warm-up, and how a row is written. The flags after the task are those of `step.py` (sft), `preference.py`
(dpo) and `rl.py` (grpo, ppo). Before the times of sft and dpo mean anything the first losses must agree: same rows,
same base, and the adapter is zero.
"""

import importlib
import sys

from scripts import cli
from scripts.bench import preference, rl, step

TASKS = {"sft": (step, "sft.jsonl"), "dpo": (preference, "dpo.jsonl")}
OWN_SAMPLES = ("grpo", "ppo")


def case_of(task, args):
    """Returns the case that a task's flags describe."""
    from scripts.bench import workload

    if task == "dpo":
        return preference.build(args)
    return workload.build(args, step.SHAPES[args.shape], step.BATCH, step.LENGTH, step.RANK, step.ALPHA, step.RATE)


def own_samples(common, log, task, rest):
    """Writes the row of an algorithm that draws completions itself, and returns the exit status."""
    prompts = str(common.DATA / "prompts.jsonl")
    args = rl.flags([*rest, "--task", task, "--model", common.model_dir("S"), "--data", prompts])
    one = rl.build(args)
    log.mark("imported")
    for k in range(args.steps):  # compiles all shapes
        one(k)
    log.begin()
    for k in range(args.steps):
        tokens, numbers = one(k)
        log.add_tokens(tokens, rl.EPISODES * rl.LENGTH)
        log.end()
    seconds = log.summary(0)["cpu_step_s"]
    facts = {"size": "S", "flags": " ".join(rest)}
    shares = {name: numbers[name] for name in ("time/generate", "time/score")}
    common.emit(f"ftjax_{task}", facts, log, 0, samples_cpu_s=rl.EPISODES / seconds,
                samples_s=rl.EPISODES / log.summary(0)["step_s"], **shares)  # fmt: skip
    return 0


def main(argv):
    """Writes the row and returns the exit status."""
    task, rest = (argv[0] if argv else ""), argv[1:]
    known = (*TASKS, *OWN_SAMPLES)
    cli.refuse({f"{task!r} is no task; tasks are {', '.join(known)}": task not in known})
    common = importlib.import_module("common")
    log = common.StepLog()
    if task in OWN_SAMPLES:
        return own_samples(common, log, task, rest)
    module, data = TASKS[task]
    args = module.flags([*rest, "--model", common.model_dir("S"), "--data", str(common.DATA / data)])
    args.skip, (warmup, steps) = common.START["S"], common.STEPS["S"]
    args.steps = warmup + steps
    import jax
    import jax.numpy as jnp

    from scripts.bench import workload

    log.mark("imported")
    case = case_of(task, args)
    compiled = workload.compiled_for(case)
    losses = []
    log.begin()
    for batch in case.batches:
        log.add_tokens((batch.segments > 0).sum(), batch.tokens.size)
        program = compiled[batch.tokens.shape]
        case.state, metrics = program(case.state, case.base, jax.tree.map(jnp.asarray, batch), jnp.float32(jnp.inf))
        losses.append(float(metrics["loss"]))
        log.end()
    common.emit(
        f"ftjax_{task}",
        {"size": "S", "flags": " ".join(rest)},
        log,
        warmup,
        first_loss=losses[0],
        last_loss=losses[-1],
        temporary_mib=workload.temporary(compiled),
        versions=f"jax {jax.__version__}",
    )
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
