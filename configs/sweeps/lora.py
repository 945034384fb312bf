"""Which rank and which learning rate suit a task: LoRA at three ranks and three rates.

python scripts/sweep.py --config configs/sweeps/lora.py
python scripts/sweep.py --config configs/sweeps/lora.py --run 2 --workdir runs/rates
python scripts/sweep.py --config configs/sweeps/lora.py:data=train.jsonl,model=smollm2-135m --config.steps=100 --run 1

The rates are a third, once and three times that of the model. Alpha stays, so the update is scaled by alpha / rank and
the best rate should hardly depend on the rank.
"""

from configs import defaults, models
from configs.sft import jsonl
from ftjax import config as args

RANKS = (4, 16, 64)
FACTORS = (0.3, 1.0, 3.0)


def get_config(arg=""):
    if "data=" in arg:
        config = jsonl.get_config(arg)
    else:
        config = defaults.sft()
        models.use(config, args.parse(arg, model="base").model)
    config.adapter.alpha = 32.0
    config.stop.spike_factor = 0.0  # a rate that is too high is a number of the sweep, not a failure
    config.checkpoint.every = 0
    return config


def get_sweep(arg=""):
    rate = get_config(arg).optimizer.learning_rate
    rates = tuple(float(f"{factor * rate:.1e}") for factor in FACTORS)
    return args.grid({"adapter.rank": RANKS, "optimizer.learning_rate": rates})
