"""S1's base: the small byte-level model of the reproductions, trained from random weights on corpus A.

python scripts/train.py --config configs/repro/s1_base.py --workdir runs/repro/s1/base

`make repro` writes the corpora and the random model first (scripts/repro/s1.py). 2,500 steps of 16 rows of 64 bytes.
"""

from configs import defaults
from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(
        arg,
        model="runs/repro/s1/random",
        data="runs/repro/s1/a_train.jsonl",
        eval="runs/repro/s1/a_heldout.jsonl",
    )
    config = defaults.sft()
    config.steps = 2500
    config.model.path = arg.model
    config.adapter.name = "none"
    config.data.paths = (arg.data,)
    config.data.max_length = 64
    config.data.batch_size = 16
    config.optimizer.learning_rate = 4e-3
    config.optimizer.warmup_steps = 100
    config.optimizer.end_ratio = 0.0
    config.eval.path = arg.eval
    config.eval.rows = 512
    config.eval.every = 500
    config.eval.batch_size = 64
    config.eval.check = ""
    config.retention.path = ""  # random weights know nothing
    config.eval.samples = 0
    config.log.every = 10
    config.log.writers = ("jsonl",)
    config.checkpoint.every = 500
    return config
