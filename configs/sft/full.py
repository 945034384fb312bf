"""Full fine-tuning: every weight trains, with the step, the data path and the numbers of the LoRA runs.

python scripts/train.py --config configs/sft/full.py
python scripts/train.py --config configs/sft/full.py:data=train.jsonl,model=DIR

The run folder gets a whole model (`model/`) in place of an adapter. Weights, gradients and both moments are float32: 16
bytes a parameter. The learning rate is a tenth of LoRA's, as is usual, and weight decay pulls on the projections. The
first command takes a minute or two on 2 cores: the embedded base learns the fixed answer format of the quickstart.
`retention=FILE` names chats or texts that a model must not forget.
"""

from configs import defaults, models
from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(arg, data="", model="base", eval="", template="", retention="", steps=0, exact=False)
    config = defaults.sft()
    config.adapter.name = "none"
    config.optimizer.learning_rate = 2e-5
    config.optimizer.weight_decay = 0.01
    config.model.path = arg.model
    config.data.template = arg.template
    config.retention.path = arg.retention or (models.OWN_TEXT if arg.model == "base" else "")
    if arg.model == "base":  # a few million parameters, and short rows
        config.optimizer.learning_rate = 1e-3
        config.data.max_length = 256
        config.steps = 60
        config.eval.every = config.checkpoint.every = 20
    if arg.data:
        config.data.paths = (arg.data,)
        config.eval.path = arg.eval
        config.eval.check = "tasks.exact_match" if arg.exact else ""
    config.steps = arg.steps or config.steps
    config.optimizer.warmup_steps = min(config.optimizer.warmup_steps, config.steps // 10)
    return config
