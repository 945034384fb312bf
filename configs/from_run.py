"""Repeats a run: its resolved config, every default of that day included; what is newer than the run has today's.

python scripts/train.py --config configs/from_run.py:runs/NAME
"""

from configs import defaults
from ftjax import config as args


def get_config(arg=""):
    return args.from_run(arg, defaults.sft().to_dict())
