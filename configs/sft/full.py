"""Full fine-tuning: every weight trains, with the step, the data path and the numbers of the LoRA runs.

python scripts/train.py --config configs/sft/full.py
python scripts/train.py --config configs/sft/full.py:data=train.jsonl,model=DIR

The run folder gets a whole model (`model/`) in place of an adapter. Weights, gradients and both moments are float32: 16
bytes a parameter. The learning rate is a tenth of LoRA's, as is usual, and weight decay pulls on the projections.
"""

from configs import defaults
from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(arg, data="", model="base", eval="", template="", steps=0, exact=False)
    config = defaults.sft()
    config.adapter.name = "none"
    config.optimizer.learning_rate = 2e-5
    config.optimizer.weight_decay = 0.01
    config.model.path = arg.model
    config.data.template = arg.template
    if arg.model == "base":
        config.optimizer.learning_rate = 1e-3  # of a model of a few million parameters
    if arg.data:
        config.data.paths = (arg.data,)
        config.eval.path = arg.eval
        config.eval.check = "tasks.exact_match" if arg.exact else ""
    config.steps = arg.steps or config.steps
    config.optimizer.warmup_steps = min(config.optimizer.warmup_steps, config.steps // 10)
    return config
