"""DPO on the embedded base: it describes persons and shops of its world, and learns what a good description is.

python scripts/train.py --config configs/dpo/world.py
python scripts/train.py --config configs/dpo/world.py:loss=ipo     # or any name of docs/preferences.md for pairs

The made world has a rule for it (`ftjax.assets.world.reward`): three true facts and a kind sentence, nothing false,
nothing twice. The policy never sees it, only pairs; what its held-out answers get by the rule is measured before and
after.
"""

from configs import defaults
from ftjax import config as args

WITHOUT_REFERENCE = ("simpo", "cpo", "orpo", "sft")
BETA = {"ipo": 0.5, "sigmoid_norm": 2.0, "simpo": 2.0, "orpo": 0.5}  # of losses of means over tokens
SMOOTHING = {"exo_pair": 1e-3, "robust": 0.1}


def get_config(arg=""):
    arg = args.parse(arg, loss="dpo", debug=False)
    config = defaults.dpo()
    config.steps = 200
    config.loss.names = (arg.loss,)
    config.loss.beta = BETA.get(arg.loss, config.loss.beta)
    config.loss.label_smoothing = SMOOTHING.get(arg.loss, 0.0)
    if arg.loss in WITHOUT_REFERENCE:
        config.reference.kind = "none"
    config.data.max_length = 128
    config.data.layout = "padded"
    config.data.buckets = (64, 96, 128, 192)
    config.data.batch_size = 16
    config.optimizer.learning_rate = 8e-4
    config.eval.every = 100
    config.eval.text = "world:reading/heldout"
    config.eval.kl_prompts = 200
    config.checkpoint.every = 100
    if arg.debug:
        config.steps = 4
        config.eval.rows = 8
        config.eval.every = 2
        config.eval.kl_prompts = 8
        config.checkpoint.every = 2
        config.optimizer.warmup_steps = 1
    return config
