"""Repeats a run: its resolved config, every default of that day included; what is newer than the run has today's.

python scripts/train.py --config configs/from_run.py:runs/NAME
"""

from configs import defaults
from ftjax import config as args


def get_config(arg=""):
    today = defaults.sft().to_dict()
    today["retention"]["path"] = ""  # of what is older than the section, and of reward models, which have none
    return args.from_run(arg, today)
