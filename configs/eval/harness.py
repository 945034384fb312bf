"""A run, or a model with or without an adapter, on tasks of lm-evaluation-harness.

python scripts/evaluate.py --config configs/eval/harness.py:run=runs/NAME --config.harness.tasks=(arc_easy,hellaswag)
python scripts/evaluate.py --config configs/eval/harness.py:model=DIR,adapter=DIR,data=FOLDER
    --config.harness.tasks=(arc_easy_local,)

`data` is a folder with sets of which local tasks are made, so that nothing is fetched: arc_easy_requests, mmlu_subset,
anthropic_persona_evals, wikitext2_valid, gsm8k_train, ifeval; without `harness.tasks` the error names what it has.
`include` is a folder with task files of your own. Expect benchmarks.json and samples.jsonl: each metric with its
interval, each question.
"""

from configs.eval import defaults
from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(arg, run="", model="", adapter="", data="", include="")
    config = defaults.benchmark()
    config.model.run = arg.run
    config.model.path = arg.model or config.model.path
    config.model.adapter = arg.adapter
    config.harness.data = arg.data
    config.harness.include = arg.include
    return config
