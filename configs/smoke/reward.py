"""A reward model from end to end in seconds: every part of a run once, on one CPU. The numbers mean nothing.

python scripts/train.py --config configs/smoke/reward.py
"""

from configs import defaults
from configs.smoke import dpo
from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(arg, model="base")
    config = defaults.reward()
    dpo.small(config, arg.model)
    config.normalise.rows = 16
    return config
