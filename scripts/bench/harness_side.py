"""One side of `harness.py`, which starts it: does tasks with ftjax, or with the harness's own `hf` backend.

python scripts/bench/harness_side.py ftjax|hf OUT.json [the flags of harness.py]
"""

import functools
import json
from pathlib import Path
import sys
import time

from scripts import cli
from scripts.bench import harness

KINDS = ("loglikelihood", "loglikelihood_rolling", "generate_until")


def ours(args):
    """Returns our model as the harness sees it, and the names of the two times that a task is done."""
    from ftjax import inference
    from ftjax.evals import harness as bridges

    model = inference.load(str(args.model), adapter=None, template_name=None, dtype="float32")
    lm = bridges.bridge(
        model.params, model.config, model.tokenizer, chat=model.template, stop_ids=model.stop_ids, length=args.length,
        rows=args.rows, seed=0,
    )  # fmt: skip
    return lm, {"first": lambda: None, "again": lambda: None}


def theirs(args):
    """Returns the `hf` backend, and how to do a task with each batch size."""
    from lm_eval.models import huggingface

    lm = huggingface.HFLM(pretrained=str(args.model), device="cpu", dtype="float32", batch_size=args.batches[0])
    size = lambda count: lambda: setattr(lm, "batch_size_per_gpu", count)
    return lm, {f"batch {count}": size(count) for count in args.batches}


def timed(spent, call, requests, *rest, **more):
    """Returns the answers; notes how many requests took how many CPU-seconds."""
    began = time.process_time()
    answers = call(requests, *rest, **more)
    spent.append((len(requests), time.process_time() - began, answers))
    return answers


def side(name, args):
    """Returns for each task its metrics and answers, and the requests and CPU-seconds of each time that it is done."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    from ftjax.evals import local_tasks

    lm, ways = (ours if name == harness.SIDES[0] else theirs)(args)
    spent = []
    for kind in KINDS:
        setattr(lm, kind, functools.partial(timed, spent, getattr(lm, kind)))
    own, known, found = local_tasks.found(args.data), TaskManager(include_defaults=False), {}
    for task in args.tasks:
        times = {}
        for way, prepare in ways.items():
            prepare()
            spent.clear()
            result = lm_eval.simple_evaluate(
                lm, tasks=[own[task]], limit=args.limit, task_manager=known, bootstrap_iters=0,
                gen_kwargs={"max_gen_toks": args.new}, random_seed=0, fewshot_random_seed=0,
            )["results"][task]  # fmt: skip
            ((requests, times[way], answers),) = spent
        numbers = {key: value for key, value in result.items() if isinstance(value, float) and "stderr" not in key}
        found[task] = {"requests": requests, "times": times, "numbers": numbers, "answers": answers}
    return found


def main(argv):
    """Writes what was found and returns the exit status."""
    name, file, *rest = argv
    Path(file).write_text(json.dumps(side(name, harness.flags(rest))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
