"""KTO on your own labelled completions, or on pairs, which are taken apart.

python scripts/train.py --config configs/dpo/kto.py:data=labels.jsonl[,eval=test.jsonl][,model=FOLDER]

`retention=FILE` names chats that the model must not forget.
"""

from configs import defaults, models
from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(arg, data="", eval="", model="base", template="", check="", retention="", steps=0)
    config = defaults.kto()
    models.use(config, arg.model)
    config.optimizer.learning_rate /= 10
    config.data.paths = (arg.data,) if arg.data else ()
    config.eval.path = arg.eval
    config.eval.check = arg.check
    config.retention.path = arg.retention or config.retention.path
    if arg.template:
        config.data.template = arg.template
    if arg.steps:
        config.steps = arg.steps
        config.optimizer.warmup_steps = min(config.optimizer.warmup_steps, arg.steps // 10)
    return config
