"""DPO from end to end in seconds: every part of a run once, on one CPU. The numbers mean nothing.

python scripts/train.py --config configs/smoke/dpo.py
python scripts/train.py --config configs/smoke/dpo.py:loss=ipo      # or any name of docs/preferences.md for pairs
"""

from configs import defaults
from configs.smoke import small
from ftjax import config as args

WITHOUT_REFERENCE = ("simpo", "cpo", "orpo", "sft")


def get_config(arg=""):
    arg = args.parse(arg, model="base", loss="dpo")
    config = defaults.dpo()
    small.preferences(config)
    config.model.path = arg.model
    config.loss.names = (arg.loss,)
    if arg.loss == "exo_pair":
        config.loss.label_smoothing = 1e-3
    if arg.loss in WITHOUT_REFERENCE:
        config.reference.kind = "none"
    config.eval.text = "world:reading/heldout?size=8"
    config.eval.kl_prompts = 4
    return config
