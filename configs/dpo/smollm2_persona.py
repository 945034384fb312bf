"""DPO of SmolLM2-135M-Instruct on yes-or-no pairs that are given by path: it takes on (or off) a trait.

python scripts/train.py --config configs/dpo/smollm2_persona.py:data=conscientiousness.jsonl.gz

The files are Anthropic's model-written evaluations (github.com/anthropics/evals, persona/), read as they are. The true
rule: an answer of the model is right where it begins with the answer that matches the trait. `make smollm2` first.
"""

from configs import defaults, models
from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(arg, data="", steps=60)
    config = defaults.dpo()
    models.use(config, "smollm2-135m")
    config.steps = arg.steps
    config.data.paths = (arg.data,) if arg.data else ()
    config.data.layout = "padded"
    config.data.batch_size = 8
    config.data.max_length = 128
    config.data.buckets = (64, 96, 128, 160)
    config.optimizer.learning_rate = 2e-4
    config.model.remat = "dots"
    config.eval.path = ""
    config.eval.holdout = 0.1
    config.eval.rows = 100
    config.eval.every = 30
    config.eval.check = "tasks.begins_with"
    config.eval.max_new_tokens = 4
    config.eval.kl_prompts = 50
    config.checkpoint.every = 30
    return config
