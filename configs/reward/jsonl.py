"""A reward model on your own preferences: any form of docs/formats.md, "Preference files".

python scripts/train.py --config configs/reward/jsonl.py:data=pairs.jsonl[,eval=test.jsonl][,model=FOLDER]
python scripts/train.py --config configs/reward/jsonl.py:data=labels.jsonl,labels=true       # single completions
python scripts/score.py --run runs/NAME --input FILE.jsonl --output SCORED.jsonl
"""

from configs import defaults, models
from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(arg, data="", eval="", model="base", template="", labels=False, steps=0)
    config = defaults.reward()
    rate = config.optimizer.learning_rate
    models.use(config, arg.model)
    config.optimizer.learning_rate = rate
    config.data.paths = (arg.data,) if arg.data else ()
    config.eval.path = arg.eval
    if arg.labels:
        config.loss.name = "pointwise"
        config.loss.centring = 0.0
    if arg.template:
        config.data.template = arg.template
    config.steps = arg.steps or config.steps
    config.optimizer.warmup_steps = min(config.optimizer.warmup_steps, config.steps // 10)
    return config
