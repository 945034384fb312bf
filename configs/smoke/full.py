"""Full fine-tuning from end to end in seconds: the LoRA smoke run with every weight training instead of adapters.

python scripts/train.py --config configs/smoke/full.py
python scripts/train.py --config configs/smoke/full.py:model=DIR
"""

from configs.smoke import lora


def get_config(arg=""):
    config = lora.get_config(arg)
    config.adapter.name = "none"
    return config
