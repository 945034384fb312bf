"""PPO's kin (GRPO, RLOO, GSPO ...) on the true reward in the world of E7, against the exact frontier.

python scripts/repro/run.py kin --kin configs/repro/kin.py
python scripts/repro/run.py kin --kin configs/repro/kin.py:debug --folder runs/repro_debug

Read by scripts/repro/kin.py; no training run of scripts/train.py is made of it. World, seeds, samples, steps and bounds
are those of PPO in frontier.py, its rate too: nothing was tuned for these methods, and clips were set before any run.
`debug` shows in a minute that everything works; it passes no bound.
"""

from configs.repro import frontier
from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(arg, debug=False)
    config = frontier.get_config("debug" if arg.debug else "")
    config.group = 4  # completions of a group
    config.beta = 0.3  # of the KL penalty
    return config
