"""E3 on S1, for which its bounds were stated: LoRA r16 over a base in four bits, from corpus A to corpus B.

python scripts/sweep.py --config configs/repro/s1_qlora.py --here --workdir runs/repro/s1/qlora
python scripts/repro/run.py e3

Blocks of 32: the inputs of S1 are 96 wide, which 64 does not divide. The float32 runs are those of s1_lora.py.
"""

from configs.repro import s1_lora
from ftjax import config as args

FORMATS = ("nf4-dq", "int4-asym", "fp4")


def get_config(arg=""):
    config = s1_lora.get_config(arg)
    config.quant.group = 32
    return config


def get_sweep(arg=""):
    del arg
    return args.grid({"quant.format": FORMATS, "seed": s1_lora.SEEDS})
