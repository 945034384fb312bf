"""The smallest model that does the task: one task, learnt with the same LoRA by bases of growing size.

python scripts/sweep.py --config "configs/sweeps/sizes.py:bases=runs/small/base;runs/half/base;base" --run 1 --bar 0.9
python scripts/sweep.py --config "configs/sweeps/sizes.py:bases=DIR1;DIR2,data=train.jsonl,eval=test.jsonl,exact=true"
    --run 2 --bar 0.8

Without `data` it is the task of the quickstart, for bases that scripts/make_base.py has made. The comparison at the end
ranks them, has the front of quality against parameters and seconds, and names the smallest one whose interval lies
beyond --bar. Bases with templates of their own are compared with `template=NAME` for all.
"""

from configs import quickstart
from configs.sft import jsonl
from ftjax import config as args


def get_config(arg=""):
    arg = _parsed(arg)
    if arg.data:
        known = {"model": _bases(arg)[0], "data": arg.data, "eval": arg.eval, "template": arg.template}
        config = jsonl.get_config(f"exact={arg.exact},steps={arg.steps},{','.join(map('='.join, known.items()))}")
    else:
        config = quickstart.get_config()
        config.model.path = _bases(arg)[0]
        config.data.template = arg.template
        config.steps = arg.steps or config.steps
        config.optimizer.warmup_steps = min(config.optimizer.warmup_steps, config.steps // 10)
    return config


def get_sweep(arg=""):
    return [{"model.path": base} for base in _bases(_parsed(arg))]


def _parsed(arg):
    return args.parse(arg, bases="base", data="", eval="", template="", exact=False, steps=0)


def _bases(arg):
    return [base.strip() for base in arg.bases.split(";") if base.strip()]
