"""PPO from end to end in seconds: every part of a run once, on one CPU. The numbers mean nothing.

python scripts/train.py --config configs/smoke/ppo.py
python scripts/train.py --config configs/smoke/ppo.py:shared       # one trunk for policy and value
"""

from configs import defaults, models
from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(arg, model="base", shared=False)
    config = defaults.ppo()
    small(config, arg.model)
    config.value.shared = arg.shared
    config.updates.epochs = 2
    config.updates.minibatches = 2
    config.log.samples = 2
    return config


def small(config, model):
    """Sets the base of a config on own samples, and sizes so that it runs in seconds."""
    config.model.path = model
    models.keep(config, "world:reading/heldout?size=8" if model == "base" else "")
    config.steps = 4
    config.data.paths = ("world:preferences/train?size=40",)
    config.data.max_length = 64
    config.data.batch_size = 4
    config.data.buckets = (64,)
    config.rollout.max_new_tokens = 16
    config.rewards.check = "ftjax.assets.world:reward"
    config.eval.path = "world:preferences/heldout?size=8"
    config.eval.every = 2
    config.eval.batch_size = 4
    config.eval.max_new_tokens = 16
    config.eval.generate_batch = 8
    config.eval.samples = 2
    config.eval.kl_prompts = 4
    config.checkpoint.every = 2
    config.log.wandb = "disabled"
