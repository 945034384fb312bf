"""The losses of docs/preferences.md side by side: the same pairs of the made world, steps and rate.

python scripts/sweep.py --config configs/sweeps/preferences.py --here --metric after.eval_reward
python scripts/sweep.py --config configs/sweeps/preferences.py:labels=true --here --metric after.eval_reward
"""

from configs import defaults, losses
from configs.dpo import world
from ftjax import config as args

PAIRS = (
    *("dpo", "hinge", "ipo", "robust", "exo_pair", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
    *("apo_zero", "apo_down", "discopop", "sigmoid_norm", "simpo", "cpo", "orpo", "sft"),
)
LABELS = ("kto", "apo_zero_unpaired")


def get_config(arg=""):
    arg = args.parse(arg, labels=False)
    config = world.get_config()
    if arg.labels:
        kto = defaults.kto()
        for section in ("data", "optimizer", "eval", "retention"):
            kto[section].update(config[section])
        config = kto
    config.steps = 100
    config.eval.rows = config.retention.rows = 100
    config.eval.every = 0
    config.eval.kl_prompts = 100
    config.checkpoint.every = 0
    config.log.wandb = "disabled"
    return config


def get_sweep(arg=""):
    if args.parse(arg, labels=False).labels:
        return [{"loss.name": name} for name in LABELS]
    return [*map(losses.changes, PAIRS), losses.changes("dpo") | {"loss.names": ("dpo", "sft")}]
