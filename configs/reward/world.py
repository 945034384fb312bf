"""A reward model of the made world's descriptions: it learns from pairs what `ftjax.assets.world.reward` scores.

python scripts/train.py --config configs/reward/world.py
python scripts/score.py --run runs/NAME --input FILE.jsonl --output SCORED.jsonl
"""

from configs import defaults
from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(arg, debug=False)
    config = defaults.reward()
    config.data.paths = ("world:preferences/train?size=2000",)
    config.data.max_length = 128
    config.data.layout = "padded"
    config.data.buckets = (64, 96, 128, 192)
    config.data.batch_size = 16
    config.optimizer.learning_rate = 2e-3
    config.eval.path = "world:preferences/heldout?size=500"
    config.eval.rows = 500
    config.eval.every = 25
    config.checkpoint.every = 25
    if arg.debug:
        config.steps = 4
        config.eval.rows = 8
        config.eval.every = 2
        config.checkpoint.every = 2
        config.optimizer.warmup_steps = 1
    return config
