"""GRPO and its kin from end to end in seconds: every part of a run once, on one CPU. The numbers mean nothing.

python scripts/train.py --config configs/smoke/grpo.py
python scripts/train.py --config configs/smoke/grpo.py:algorithm=raft         # or online_dpo
"""

from configs import defaults
from configs.smoke import ppo
from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(arg, model="base", algorithm="grpo")
    config = {"grpo": defaults.grpo, "raft": defaults.raft, "online_dpo": defaults.online_dpo}[arg.algorithm]()
    ppo.small(config, arg.model)
    config.rollout.samples = 4
    return config
