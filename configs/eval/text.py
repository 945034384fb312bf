"""A run, or a model with or without an adapter, on one long text: perplexity by token, word and byte.

python scripts/evaluate.py --config configs/eval/text.py:model=DIR,data=FILE.txt
python scripts/evaluate.py --config configs/eval/text.py:run=runs/NAME,data=FILE.txt
    --config.text.context=1024 --config.text.stride=512

A window slides over the text, as in the documentation of `transformers`: of each window of `context` tokens those count
that no window before had, so each token counts once with at least `context - stride` before it. Smaller strides give
lower perplexities and take longer; compare numbers of one protocol alone. Expect evaluation.json with the protocol.
"""

from configs.eval import defaults
from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(arg, run="", model="", adapter="", data="")
    config = defaults.long_text()
    config.model.run = arg.run
    config.model.path = arg.model or config.model.path
    config.model.adapter = arg.adapter
    config.data.path = arg.data
    return config
