"""DPO on the embedded base: it describes persons and shops of its world, and learns what a good description is.

python scripts/train.py --config configs/dpo/world.py
python scripts/train.py --config configs/dpo/world.py:loss=ipo     # or any name of docs/preferences.md for pairs

The made world has a rule for it (`ftjax.assets.world.reward`): three true facts and a kind sentence, nothing false,
nothing twice. The policy never sees it, only pairs; what its held-out answers get by the rule is measured before and
after.
"""

from configs import defaults, losses
from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(arg, loss="dpo", debug=False)
    config = defaults.dpo()
    config.steps = 200
    losses.use(config, arg.loss)
    config.data.max_length = 128
    config.data.layout = "padded"
    config.data.buckets = (64, 96, 128, 192)
    config.data.batch_size = 16
    config.optimizer.learning_rate = 8e-4
    config.eval.every = 100
    config.retention.path, config.retention.rows = "world:reading/heldout", 200  # it also answers questions on texts
    config.eval.kl_prompts = 200
    config.checkpoint.every = 100
    if arg.debug:
        config.steps = 4
        config.eval.rows = config.retention.rows = 8
        config.eval.every = 2
        config.eval.kl_prompts = 8
        config.checkpoint.every = 2
        config.optimizer.warmup_steps = 1
    return config
