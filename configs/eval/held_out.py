"""A run, or a model with or without an adapter, on held-out rows: loss, perplexity by token, word and byte, answers.

python scripts/evaluate.py --config configs/eval/held_out.py:run=runs/NAME
python scripts/evaluate.py --config configs/eval/held_out.py:run=runs/NAME,data=test.jsonl
python scripts/evaluate.py --config configs/eval/held_out.py:run=runs/NAME,data=test.jsonl,base=true
python scripts/evaluate.py --config configs/eval/held_out.py:model=DIR,adapter=DIR,data=test.jsonl

A run without `data` is measured on its own held-out rows, and gives the numbers of its summary.json again. On another
file its chat template, lengths and masks are used too. `base=true` measures the base of the run in its place. A run on
preferences needs `data`: a file of chats.

Answers to rows of your own are marked only when you say how: `exact=true` counts those that equal the reference to the
letter, `check=NAME` calls a function of ftjax.evals, or your own package.module:function.
"""

from configs import defaults
from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(arg, run="", model="", adapter="", data="", check="", base=False, exact=False)
    config = defaults.evaluate()
    if arg.run:
        run = args.from_run(arg.run)
        config.model.run = "" if arg.base else arg.run
        config.model.path = run.model.path
        config.seed = run.seed
        for section, names in {
            "model": ("dtype", "weights"),
            "data": ("template", "train_on", "max_length", "truncation"),
            "eval": ("rows", "batch_size", "check", "max_new_tokens", "generate_batch", "samples"),
        }.items():
            for name in names:
                if name in run[section]:  # a run on preferences has no data.train_on
                    config[section][name] = run[section][name]
        supervised = run.algorithm == "sft"
        config.data.path = (run.eval.path or run.data.paths[0]) if supervised else ""
        config.data.holdout = 0.0 if run.eval.path or not supervised else run.eval.holdout
    if arg.model:
        config.model.path = arg.model
    config.model.adapter = arg.adapter
    if arg.data:
        config.data.path = arg.data
        config.data.holdout = 0.0
        config.eval.rows = 0
        config.eval.check = ""
    if arg.exact:
        config.eval.check = "tasks.exact_match"
    if arg.check:
        config.eval.check = arg.check
    return config
