"""Does it pay to leave out what the base answers already? All rows, the others, those of high IFD, as many at random.

python scripts/repro/run.py selection
python scripts/repro/run.py selection --persona anthropic_persona_evals
python scripts/train.py --config configs/repro/selection.py:data=train.jsonl,eval=heldout.jsonl    # one arm

The runner writes the training file, scores it with the base, chooses the rows of each arm and trains each arm at every
seed: LoRA, as many steps whatever the rows, and of the unhandled rows also as many passes. Rate, rank and steps are
those of other experiments, none was tuned here (docs/repro.md). The second command adds SmolLM2 on questions that are
answered Yes or No.

Training without the 370 rows that the embedded base answers cost 18 points of right answers: it unlearns them.
Without the 39 of 400 that SmolLM2 answers nothing changed, for the others ask the same in the same words.
"""

from configs import defaults, models
from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(arg, model="base", data="", eval="", rows=240)
    config = defaults.sft()
    models.use(config, arg.model)
    config.adapter.rank = 16
    config.adapter.alpha = 32.0
    config.steps = 60
    config.optimizer.warmup_steps = 6
    config.stop.spike_factor = 0.0
    config.log.writers = ("jsonl",)
    config.data.paths = (arg.data,)
    config.data.batch_size = 2
    config.data.max_length = 256
    config.eval.path = arg.eval
    config.eval.rows = arg.rows
    config.eval.every = config.checkpoint.every = 0
    config.eval.samples = 0
    config.eval.max_new_tokens = 32
    if arg.model != "base":
        config.steps = 40
        config.optimizer.warmup_steps = 4
        config.data.layout = "padded"
        config.data.batch_size = 8
        config.data.max_length = 128
        config.data.buckets = (64, 128)
        config.eval.check = "tasks.begins_with"
        config.eval.max_new_tokens = 4
    return config
