"""The defaults of evaluations; those of held-out rows are in configs/defaults.py, because a run measures itself so."""

import ml_collections

from configs import defaults


def benchmark() -> ml_collections.ConfigDict:
    """A model on tasks of lm-evaluation-harness; the sections of the model are those of held-out rows."""
    own = defaults.evaluate()
    config = ml_collections.ConfigDict()
    config.seed = own.seed
    config.model, config.quant = own.model, own.quant
    config.data = {"template": own.data.template}
    config.harness = {
        "tasks": (),  # names of the harness's tasks and groups, or of local ones
        "data": "",  # a folder with sets of which local tasks are made (evals/local_tasks.py)
        "include": "",  # a folder with task files of your own, in the harness's YAML
        "limit": 0,  # questions of a task at most; 0: all
        "shots": -1,  # examples before a question; -1: as many as the task says
        "chat": False,  # questions are rendered with the chat template
        "new_tokens": 0,  # of an answer at most; 0: as many as the task says
        "length": 512,  # tokens of a row that several requests share
        "rows": 4,  # rows of a batch, and answers generated at once
    }
    config.eval = {"level": 0.95}
    return config.lock()


def long_text() -> ml_collections.ConfigDict:
    """A model on one long text; the sections of the model are those of held-out rows."""
    own = defaults.evaluate()
    config = ml_collections.ConfigDict()
    config.model, config.quant = own.model, own.quant
    config.data = {
        "path": "",  # a text file, .gz too
        "tokens": 0,  # of its beginning; 0: all
    }
    config.text = {
        "context": 512,  # tokens of a window
        "stride": 256,  # tokens by which a window is further than the one before; the context: windows do not overlap
        "bos": "tokenizer",  # before the text: tokenizer (where it puts one itself) | always | never
        "rows": 4,  # windows computed at once
    }
    return config.lock()


def judge() -> ml_collections.ConfigDict:
    """A model that judges which of two answers is better; words and orders are MT-bench's."""
    config = ml_collections.ConfigDict()
    config.seed = 0  # of the bootstrap, and of the stub
    config.judge = {
        "kind": "endpoint",  # endpoint: OpenAI-compatible, over HTTP | local: a model here | stub: none, seeded
        "url": "",  # of the endpoint, before /chat/completions: https://host/v1
        "model": "",  # its name there; local: a model folder, a GGUF file or a run
        "key": "OPENAI_API_KEY",  # the environment variable that holds the key; this machine itself needs none
        "mode": "pairwise",  # pairwise: which is better, asked in both orders | single: each rated from 1 to 10
        "rubric": "",  # a text file with what to judge by, in place of the usual aspects
        "reference": True,  # the judge sees the reference of a row that has one
        "temperature": 0.0,
        "max_tokens": 1024,  # of an answer
        "concurrency": 8,  # requests on their way at once; local: prompts in a batch
        "timeout": 120.0,  # seconds without a byte
        "retries": 8,  # after 429, 5xx, a timeout or a cut line; the pause doubles each time
        "backoff": 0.25,  # seconds before the first retry
        "budget_tokens": 2_000_000,  # of prompts and answers together; never overstepped
        "budget_money": 0.0,  # in the currency of the prices; 0: no cap
        "prompt_price": 0.0,  # for a million tokens
        "answer_price": 0.0,
    }
    config.stub = {"accuracy": 0.8, "first": 0.1, "nonsense": 0.02}  # how the stub errs
    config.data = {
        "path": "",  # lines with prompt, a, b, and if known reference and human (a, b, tie, or a list of votes)
        "rows": 0,  # at most; 0: all
        "a": "a",  # what the two are called in the report
        "b": "b",
    }
    config.eval = {"level": 0.95, "resamples": 10_000}  # of intervals; draws of the bootstrap of ratings
    return config.lock()
