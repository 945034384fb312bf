"""Times steps of GRPO or PPO: episodes per CPU-second, and the share of drawing, scoring and updating.

python scripts/bench/rl.py --task grpo --model DIR --data PROMPTS.jsonl
python scripts/bench/rl.py --task ppo --epochs 4 --model DIR --data PROMPTS.jsonl

A step draws 16 completions of 64 tokens: for GRPO 8 of each of 2 prompts, scored by a function of the text; for PPO one
of each of 16 prompts, scored by a reward model (random adapters and head on the base), with a value of its own
adapters. LoRA r 16 on all linears, AdamW, float32, one pinned core. Random weights without --model.
"""

import functools
from pathlib import Path
import sys
import time

from scripts import cli
from scripts.bench import step

EPISODES, LENGTH, SAMPLES = 16, 64, 8


def letters(completions):
    """Returns the share of the letter e in each text: a reward that costs nothing."""
    return [text.count("e") / (len(text) + 1) for text in completions]


def flags(argv):
    """Returns the flags."""
    parser = cli.parser(__doc__)
    parser.add_argument("--task", choices=("grpo", "ppo"), default="grpo")
    parser.add_argument("--model", default="base", help="a model folder")
    parser.add_argument("--data", default="world:preferences/train?size=200", help="prompts, any format")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=0, help="over each experience; 0: 1 for grpo, 4 for ppo")
    parser.add_argument("--shared", action="store_true", help="ppo: the value is a head on the policy's trunk")
    parser.add_argument("--quant", default="none", help="the format of the frozen base")
    parser.add_argument("--cores", type=int, default=1, help="0: all")
    parser.add_argument("--out", type=Path, help="append the result as a JSON line")
    return cli.parse(parser, argv)


def config_of(args):
    """Returns the config of a run."""
    from configs import defaults

    config = (defaults.ppo if args.task == "ppo" else defaults.grpo)().unlock()
    config.model.path, config.quant.format = args.model, args.quant
    config.adapter.rank, config.adapter.alpha = 16, 32.0
    config.data.paths, config.data.max_length, config.data.truncation = (args.data,), 256, "truncate"
    config.data.buckets = tuple(range(16, 257, 16))
    config.data.batch_size = EPISODES if args.task == "ppo" else EPISODES // SAMPLES
    config.rollout.samples = 1 if args.task == "ppo" else SAMPLES
    config.rollout.max_new_tokens, config.rollout.fixed_length = LENGTH, True
    config.rewards.names = () if args.task == "ppo" else ("scripts.bench.rl:letters",)
    config.rewards.check = (
        "tasks.begins_with" if args.task == "ppo" else ""
    )  # in the place of the judge until it is made
    config.updates.epochs = args.epochs or (4 if args.task == "ppo" else 1)
    config.eval.path, config.eval.check, config.eval.samples = "", "", 1
    if args.task == "ppo":
        config.value.shared = args.shared
    return config.lock()


def judge(x, base):
    """Returns a reward model of random adapters and head."""
    import jax

    from ftjax import rollouts
    from ftjax.algorithms import reward_model
    from ftjax.objective import trainable_init
    from ftjax.rl import rollout

    init = reward_model.with_head(trainable_init(x.config["adapter"], x.abstract_base))
    adapters = jax.jit(init)(jax.random.key(7), base)
    program = jax.jit(functools.partial(rollouts.score, config=x.model_config, mean=0.0, std=1.0))
    return rollout.Judge("random", 1.0, functools.partial(program, adapters))


def build(args):
    """Returns `one(k) -> (tokens drawn, metrics)`, which makes step k."""
    import jax
    import jax.numpy as jnp

    from ftjax import experiment, run
    from ftjax.algorithms.algorithm import frozen

    x = experiment.build(config_of(args))
    parts = run.start(x, lambda _: None)
    if args.task == "ppo":
        x.objective.rollout.score, x.objective.rollout.judges = None, [judge(x, parts.base)]
    held = {"state": parts.state}

    def one(k):
        state, batch = held["state"], x.loader.batch(k)
        key = jax.random.fold_in(state.key, state.step)
        (experience,) = x.algorithm.experience(state.trainable, frozen(parts.base, state.extra), batch, key)
        held["state"], metrics = parts.step(state, parts.base, experience, jnp.float32(jnp.inf))
        numbers = {name: float(value) for name, value in metrics.items()}
        assert numbers["applied"] == 1
        return numbers["tokens"], numbers

    return one


def main(argv):
    """Prints the result and returns the exit status."""
    args = flags(argv)
    step.pin(args.cores)
    one = build(args)
    began = time.monotonic()
    for k in range(args.steps):  # all shapes of the steps that count
        one(k)
    compiled = time.monotonic() - began
    cpu, wall, drawn, scored = time.process_time(), time.monotonic(), 0.0, 0.0
    for k in range(args.steps):
        _, numbers = one(k)
        drawn, scored = drawn + numbers["time/generate"], scored + numbers["time/score"]
    cpu, wall = (time.process_time() - cpu) / args.steps, (time.monotonic() - wall) / args.steps
    result = {
        "task": args.task,
        "cpu_seconds_a_step": cpu,
        "episodes_per_cpu_second": EPISODES / cpu,
        "wall_seconds_a_step": wall,
        "share_of_drawing": drawn / args.steps / wall,
        "share_of_scoring": scored / args.steps / wall,
        "share_of_updates": 1 - (drawn + scored) / args.steps / wall,
        "warmup_and_compile_seconds": compiled,
        "quant": args.quant,
    }
    step.show(result)
    cli.append(args.out, result)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
