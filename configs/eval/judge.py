"""Which of two answers is better, by a judge: win rate, what swapping changes, length, cost, agreement with people.

python scripts/evaluate.py --config configs/eval/judge.py --config.judge.url=https://api.openai.com/v1
    --config.judge.model=gpt-4o-mini --config.data.path=pairs.jsonl --workdir runs/judged
python scripts/evaluate.py --config configs/eval/judge.py:data=pairs.jsonl,local=runs/NAME
python scripts/evaluate.py --config configs/eval/judge.py:data=pairs.jsonl,stub

The key is read from the environment (`config.judge.key` names the variable). A line of the file has `prompt`, `a`, `b`,
and if known `reference` and `human` (a, b, tie, or a list of votes). Expect judge.json and judgments.jsonl in the
folder. Killed, the same command goes on; nothing that was answered is asked again.
"""

from configs.eval import defaults
from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(arg, data="", local="", stub=False)
    config = defaults.judge()
    config.data.path = arg.data
    if arg.local:
        config.judge.kind, config.judge.model = "local", arg.local
    if arg.stub:
        config.judge.kind = "stub"
    return config
