"""LoRA from end to end in seconds: every part of a run once, on one CPU. The numbers mean nothing.

python scripts/train.py --config configs/smoke/lora.py
python scripts/train.py --config configs/smoke/lora.py:model=DIR
python scripts/train.py --config configs/smoke/lora.py:adapter=dora     # or pissa, olora, ia3, vera
"""

from configs import defaults, models
from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(arg, model="base", adapter="lora")
    config = defaults.sft()
    config.adapter.name = arg.adapter
    if arg.adapter == "ia3":
        config.adapter.targets = "k_proj,v_proj,down_proj"
    config.steps = 4
    config.model.path = arg.model
    models.keep(config, "world:corpus/heldout?size=8" if arg.model == "base" else "")
    config.data.paths = ("world:format/train?size=40",)
    config.data.max_length = 64
    config.data.batch_size = 8
    config.optimizer.warmup_steps = 1
    config.eval.path = "world:format/heldout?size=8"
    config.eval.every = 2
    config.eval.batch_size = 8
    config.eval.max_new_tokens = 16
    config.eval.generate_batch = 8
    config.eval.samples = 2
    config.checkpoint.every = 2
    config.log.wandb = "disabled"
    return config
