"""LoRA on the embedded base: it knows the made world's shops, and learns to answer about them in a fixed format.

What it must not forget is text of the corpus that it was made of (`retention` of configs/defaults.py).

make quickstart
python scripts/train.py --config configs/quickstart.py
python scripts/train.py --config configs/quickstart.py:debug

"""

from configs import defaults
from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(arg, debug=False)
    config = defaults.sft()
    config.steps = 120
    config.adapter.rank = 4
    config.adapter.alpha = 8.0
    config.optimizer.learning_rate = 5e-3
    config.data.batch_size = 8
    config.data.max_length = 256
    config.eval.every = 40
    config.checkpoint.every = 40
    if arg.debug:
        config.steps = 4
        config.eval.rows = config.retention.rows = 8
        config.eval.every = 2
        config.checkpoint.every = 2
        config.optimizer.warmup_steps = 1
    return config
