"""E4 and E5: S1 adapted from corpus A to corpus B by LoRA of several ranks and by full fine-tuning, at several rates.

python scripts/sweep.py --config configs/repro/s1_lora.py --here --workdir runs/repro/s1/sweep
python scripts/repro/run.py e4 e5

The settings of papers.md, section 2: 250 steps of 16 rows, cosine, LoRA alpha 32 at every rank. Attention alone at rank
46 and the MLP alone at rank 22 are its comparison of layers; full fine-tuning at 1e-3 is its warning on E5.
"""

from configs import defaults
from ftjax import config as args

SEEDS = (0, 1, 2)
TRIED = (  # at the first seed
    {"adapter.name": ("none",), "optimizer.learning_rate": (3e-4, 1e-3, 3e-3, 1e-2)},
    {"adapter.rank": (4, 16, 64), "optimizer.learning_rate": (3e-3, 1e-2, 3e-2)},
)
KEPT = (  # at every seed: each at its best rate of these, and full fine-tuning at a gentle one
    {"adapter.name": ("none",), "optimizer.learning_rate": (1e-3, 3e-3)},
    {"adapter.rank": (1, 4, 16, 64), "optimizer.learning_rate": (1e-2,)},
    {
        "adapter.targets": ("q_proj,k_proj,v_proj,o_proj",),
        "adapter.rank": (46,),
        "optimizer.learning_rate": (1e-2,),
    },
    {"adapter.targets": ("gate_proj,up_proj,down_proj",), "adapter.rank": (22,), "optimizer.learning_rate": (1e-2,)},
)


def get_config(arg=""):
    arg = args.parse(
        arg,
        model="runs/repro/s1/base/model",
        data="runs/repro/s1/b_train.jsonl",
        eval="runs/repro/s1/b_heldout.jsonl",
        retention="runs/repro/s1/a_heldout.jsonl",
    )
    config = defaults.sft()
    config.steps = 250
    config.model.path = arg.model
    config.adapter.rank = 16
    config.adapter.alpha = 32.0
    config.data.paths = (arg.data,)
    config.data.max_length = 64
    config.data.batch_size = 16
    config.optimizer.learning_rate = 1e-2
    config.optimizer.end_ratio = 0.0
    config.stop.spike_factor = 0.0  # a rate that is too high is a number of the sweep, not a failure
    config.eval.path = arg.eval
    config.eval.rows = 512
    config.eval.every = 0
    config.eval.batch_size = 64
    config.eval.check = ""
    config.retention.path = arg.retention  # what S1 was trained on
    config.eval.samples = 0
    config.log.every = 10
    config.log.writers = ("jsonl",)
    config.checkpoint.every = 0
    return config


def get_sweep(arg=""):
    del arg
    tried = [{**changes, "seed": SEEDS[0]} for part in TRIED for changes in args.grid(part)]
    kept = [{**changes, "seed": seed} for seed in SEEDS for part in KEPT for changes in args.grid(part)]
    return tried + [changes for changes in kept if changes not in tried]
