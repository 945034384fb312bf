"""QLoRA against LoRA on one task: the base in each of the four-bit formats, three seeds.

python scripts/sweep.py --config configs/repro/qlora_vs_lora.py --here --workdir runs/repro/qlora_vs_lora
python scripts/repro/run.py qlora

The task and the settings of lora_vs_full.py at rank 16; its runs are the float32 rows. nf4-dq kept 96.5 % of LoRA's
gain (docs/repro.md).
"""

from configs.repro import lora_vs_full
from ftjax import config as args

FORMATS = ("nf4-dq", "nf4", "int4", "int4-asym", "fp4")


def get_config(arg=""):
    config = lora_vs_full.get_config(arg)
    config.optimizer.learning_rate = 1e-2
    if "data=" in arg:
        config.adapter.rank = 4
        config.adapter.alpha = 8.0
        config.optimizer.learning_rate = 2e-3
    return config


def get_sweep(arg=""):
    if "data=" in arg:
        return args.grid({"quant.format": FORMATS})
    return args.grid({"quant.format": FORMATS, "seed": lora_vs_full.SEEDS})
