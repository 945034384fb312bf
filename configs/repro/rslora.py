"""E6: 150 steps of S1 on corpus B at ranks 4 and 64 and one rate, scaled by alpha / r and by alpha / sqrt(r).

python scripts/sweep.py --config configs/repro/rslora.py --here --workdir runs/repro/s1/rslora
python scripts/repro/run.py e6
"""

from configs.repro import s1_lora
from ftjax import config as args


def get_config(arg=""):
    config = s1_lora.get_config(arg)
    config.steps = 150
    config.optimizer.learning_rate = 3e-3
    config.optimizer.schedule = "constant"
    return config


def get_sweep(arg=""):
    del arg
    return args.grid({"adapter.rank": (4, 64), "adapter.rslora": (False, True)})
