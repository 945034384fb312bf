"""QLoRA from end to end in seconds: the LoRA smoke run over a base in four bits.

python scripts/train.py --config configs/smoke/qlora.py
python scripts/train.py --config configs/smoke/qlora.py:format=int4
"""

from configs.smoke import lora
from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(arg, model="base", format="nf4-dq")
    config = lora.get_config(f"model={arg.model}")
    config.quant.format = arg.format
    return config
