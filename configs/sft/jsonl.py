"""LoRA on a file of your own: chats (`messages`), prompts with completions, or plain text; JSONL, JSON, CSV, Parquet.

python scripts/data.py preview train.jsonl --model DIR
python scripts/train.py --config configs/sft/jsonl.py:data=train.jsonl,model=DIR
python scripts/train.py --config configs/sft/jsonl.py:data=train.jsonl,model=DIR,eval=test.jsonl,exact=true
python scripts/train.py --config configs/sft/jsonl.py:data=train.jsonl,model=smollm2-135m

`retention=FILE` names chats or texts that the model must not forget: their loss is measured before and after.

Without `eval` 5 % of the rows (at most 200) are held out and never trained on. Before, during and after training the
loss on them is measured and five answers are shown. `exact=true` answers all of them and counts those that equal the
reference to the letter: for fixed answers, not for prose.
"""

from configs import defaults, models
from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(arg, data="", model="base", eval="", template="", retention="", steps=0, exact=False)
    config = defaults.sft()
    models.use(config, arg.model)
    config.data.paths = tuple(filter(None, [arg.data]))
    config.data.template = arg.template or config.data.template
    config.eval.path = arg.eval
    config.retention.path = arg.retention or config.retention.path
    config.eval.check = "tasks.exact_match" if arg.exact else ""
    config.steps = arg.steps or config.steps
    config.optimizer.warmup_steps = min(config.optimizer.warmup_steps, config.steps // 10)
    return config
