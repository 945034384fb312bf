"""DPO, or another loss of pairs, on your own preferences: any form of docs/formats.md, "Preference files".

python scripts/train.py --config configs/dpo/jsonl.py:data=pairs.jsonl[,eval=test.jsonl][,model=FOLDER][,loss=ipo]
python scripts/train.py --config configs/dpo/jsonl.py:data=pairs.jsonl,adapter=runs/sft/adapter    # go on from SFT

With `adapter` (of the rank and targets of `config.adapter`) the reference is the base with that adapter. `check=NAME`
scores the answers to held-out prompts, before and after. `retention=FILE` names chats that it must not forget.
"""

from configs import defaults, losses, models
from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(
        arg, data="", eval="", model="base", adapter="", loss="dpo", template="", check="", retention="", steps=0
    )
    config = defaults.dpo()
    models.use(config, arg.model)
    config.optimizer.learning_rate /= 10  # of a policy that only moves as far as the pairs say
    config.data.paths = (arg.data,) if arg.data else ()
    config.eval.path = arg.eval
    config.eval.check = arg.check
    config.retention.path = arg.retention or config.retention.path
    config.eval.kl_prompts = 50
    losses.use(config, arg.loss)
    if arg.template:
        config.data.template = arg.template
    if arg.adapter:
        config.adapter.path = arg.adapter
        if config.reference.kind != "none":
            config.reference.kind = "start"
    if arg.steps:
        config.steps = arg.steps
        config.optimizer.warmup_steps = min(config.optimizer.warmup_steps, arg.steps // 10)
    return config
