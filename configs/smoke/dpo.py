"""DPO from end to end in seconds: every part of a run once, on one CPU. The numbers mean nothing.

python scripts/train.py --config configs/smoke/dpo.py
python scripts/train.py --config configs/smoke/dpo.py:loss=ipo      # or any name of docs/preferences.md for pairs
"""

from configs import defaults, losses, models
from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(arg, model="base", loss="dpo")
    config = defaults.dpo()
    small(config, arg.model)
    losses.use(config, arg.loss)
    config.eval.kl_prompts = 4
    return config


def small(config, model):
    """Sets the base of a config on preferences, and sizes so that it runs in seconds."""
    config.model.path = model
    models.keep(config, "world:reading/heldout?size=8" if model == "base" else "")
    config.steps = 4
    config.data.paths = ("world:preferences/train?size=40",)
    config.data.max_length = 128
    config.data.batch_size = 4
    config.optimizer.warmup_steps = 1
    config.eval.path = "world:preferences/heldout?size=8"
    config.eval.every = 2
    config.eval.batch_size = 4
    config.eval.max_new_tokens = 16
    config.eval.generate_batch = 8
    config.eval.samples = 2
    config.checkpoint.every = 2
    config.log.wandb = "disabled"
