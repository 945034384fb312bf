"""The whole of RLHF on the embedded world: SFT -> preferences -> reward model -> DPO, PPO and GRPO -> a comparison.

python scripts/train.py --config configs/ppo/pipeline.py                 # goes on where it stopped
python scripts/train.py --config configs/ppo/pipeline.py:seeds=3
python scripts/train.py --config configs/ppo/pipeline.py:debug --workdir runs/pipeline-debug     # every stage, small

The policy describes persons and shops. Its own completions are compared by the true rule of the world (a stand-in for
people), which nothing after that sees: the reward model learns it from the pairs, and PPO and GRPO learn from the
reward model. Each stage is a run of its own in the folder, and is used again while it is unchanged.
"""

import ml_collections

from configs import defaults
from ftjax import config as args

RULE = "ftjax.assets.world:reward"
HELD = "world:preferences/heldout?size=200"


def get_config(arg=""):
    arg = args.parse(arg, seeds=1, debug=False)
    config = ml_collections.ConfigDict()
    stages = {"sft": sft(), "pairs": pairs(), "reward": reward()}
    policies = []
    for seed in range(arg.seeds):
        for name, make in (("dpo", dpo), ("ppo", ppo), ("grpo", grpo)):
            stages[f"{name}_{seed}"] = made = make()
            made.seed = seed
            policies.append((name, f"@{name}_{seed}"))
    stages["compare"] = ml_collections.ConfigDict({"compare": compare(policies)})
    if arg.debug:
        for stage in stages.values():
            small(stage)
    config.order = tuple(stages)
    config.stages = stages
    return config


def sft():
    """Descriptions as the corpus has them: good ones and bad ones."""
    config = defaults.sft().unlock()
    config.steps = 60
    config.data.paths = ("world:descriptions/train?size=600",)
    config.data.max_length = 128
    config.optimizer.learning_rate = 5e-4
    config.eval.path = "world:descriptions/heldout"
    config.eval.check = RULE
    config.eval.every = 0
    config.log.writers = ("console", "jsonl")
    return config


def pairs():
    """Four completions of each of two thousand prompts, the best against the worst."""
    return ml_collections.ConfigDict(
        {
            "pairs": {
                "run": "@sft",
                "prompts": "world:preferences/train?size=2000",
                "check": RULE,
                "samples": 4,
                "margin": 0.5,
                "temperature": 1.0,
                "max_new_tokens": 64,
                "max_length": 64,
                "batch_size": 50,
                "seed": 0,
            }
        }
    )


def reward():
    """One epoch on the pairs; held out: pairs of others."""
    config = defaults.reward().unlock()
    config.data.paths = ("@pairs/pairs.jsonl",)
    config.data.max_length = 128
    config.data.batch_size = 4
    config.optimizer.learning_rate = 5e-4
    config.eval.path = ""
    config.eval.holdout = 0.1
    config.eval.every = 0
    config.log.writers = ("console", "jsonl")
    return config


def _from_sft(config):
    config.unlock()
    config.adapter.path = "@sft/adapter"
    config.reference.kind = "start"
    config.eval.path = HELD
    config.eval.check = RULE
    config.log.writers = ("console", "jsonl")
    return config


def dpo():
    """The same pairs, without a reward model."""
    config = _from_sft(defaults.dpo())
    config.steps = 150
    config.data.paths = ("@pairs/pairs.jsonl",)
    config.data.max_length = 128
    config.data.layout = "padded"
    config.data.buckets = (64, 96, 128, 192)
    config.data.batch_size = 16
    config.optimizer.learning_rate = 5e-4
    config.eval.every = 0
    return config


def _own_samples(config):
    config = _from_sft(config)
    config.data.paths = ("world:preferences/train?size=1000",)
    config.data.max_length = 32
    config.data.buckets = (32,)
    config.rewards.models = ("@reward",)
    config.rewards.missing_end = "penalty"
    return config


def ppo():
    """PPO on the reward model, whose adapters the value begins as."""
    config = _own_samples(defaults.ppo())
    config.steps = 60
    config.data.batch_size = 64
    config.value.path = "@reward"
    config.updates.epochs = 2
    config.updates.minibatches = 4
    config.loss.kl_coefficient = 0.05
    config.optimizer.learning_rate = 3e-4
    config.eval.every = 20
    return config


def grpo():
    """GRPO on the same reward model, with a penalty of the KL in the loss."""
    config = _own_samples(defaults.grpo())
    config.steps = 60
    config.data.batch_size = 8
    config.rollout.samples = 8
    config.loss.kl_coefficient = 0.05
    config.optimizer.learning_rate = 3e-4
    config.eval.every = 20
    return config


def compare(policies):
    """All of them against what they started from."""
    return {
        "start": "@sft",
        "reward": "@reward",
        "names": tuple(name for name, _ in policies),
        "policies": tuple(path for _, path in policies),
        "best_of": 16,
        "prompts": HELD,
        "check": RULE,
        "max_new_tokens": 64,
        "max_length": 64,
        "batch_size": 50,
        "seed": 0,
    }


def small(stage):
    """Sets the sizes of a stage so that it runs in seconds."""
    if "pairs" in stage:
        stage.pairs.prompts, stage.pairs.batch_size = "world:preferences/train?size=24", 12
    elif "compare" in stage:
        stage.compare.prompts, stage.compare.best_of, stage.compare.batch_size = (
            "world:preferences/heldout?size=8",
            4,
            8,
        )
    else:
        stage.steps, stage.optimizer.warmup_steps = 2, 0
        stage.eval.rows, stage.eval.every = 8, 0
        if "retention" in stage:
            stage.retention.rows = 8
        stage.data.batch_size = 4
        if "rollout" in stage:
            stage.rollout.max_new_tokens = 16
