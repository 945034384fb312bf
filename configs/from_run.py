"""Repeats a run: its resolved config, every default of that day included.

python scripts/train.py --config configs/from_run.py:runs/NAME
"""

from ftjax import config as args


def get_config(arg=""):
    return args.from_run(arg)
