"""Times tasks of lm-evaluation-harness here and by its own `hf` backend: requests per CPU-second; do both agree?

python scripts/bench/harness.py --model DIR --data FOLDER --tasks arc_easy_local gsm8k_local --limit 50 --peer PYTHON

PYTHON is that of an environment with torch and the extra `parity`; both read the same folder (a Hugging Face one, with
tokenizer.json) in float32, one after the other on one pinned core, in processes of their own. CPU-seconds are those
between request and answer, tokenising included; reading weights is not. `hf` does every task with each of --batches,
and its best time counts. Ours counts without compiling ("first" is with it): a task is done twice.
"""

import json
import os
from pathlib import Path
import subprocess
import sys
import tempfile

from scripts import cli
from scripts.bench import step

SIDES = ("ftjax", "hf")


def flags(argv):
    """Returns the flags."""
    parser = cli.parser(__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="a folder with sets of evals/local_tasks.py")
    parser.add_argument("--tasks", nargs="+", required=True)
    parser.add_argument("--limit", type=int, default=50, help="questions of a task")
    parser.add_argument("--new", type=int, default=32, help="tokens of an answer at most")
    parser.add_argument("--length", type=int, default=512, help="tokens of a row of ours")
    parser.add_argument("--rows", type=int, default=4, help="rows of a batch of ours")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32], help="of the peer")
    parser.add_argument("--peer", default=os.environ.get("FTJAX_PEER"), help="its Python; default: FTJAX_PEER")
    parser.add_argument("--cores", type=int, default=1, help="0: all")
    parser.add_argument("--out", type=Path, help="append the results as JSON lines")
    return cli.parse(parser, argv)


def compared(task, mine, peer):
    """Returns a row: rates, their ratio, and by how much log-probabilities, or how many texts, differ."""
    import numpy as np

    best = min(peer["times"], key=peer["times"].get)
    rate, other = mine["requests"] / mine["times"]["again"], peer["requests"] / peer["times"][best]
    both = list(zip(mine["answers"], peer["answers"], strict=True))
    logps = [[np.ravel(one)[0] for one in pair] for pair in both if not isinstance(pair[0], str)]
    return {
        "task": task,
        "requests": mine["requests"],
        "ours": rate,
        "first": mine["requests"] / mine["times"]["first"],
        "hf": other,
        "hf_best": best,
        "ratio": rate / other,
        "largest_difference": float(np.abs(np.diff(logps)).max()) if logps else None,
        "different_texts": sum(a != b for a, b in both if isinstance(a, str)),
        "different_numbers": sum(
            abs(mine["numbers"][key] - value) > 1e-6 * abs(value) for key, value in peer["numbers"].items()
        ),
        "numbers": mine["numbers"],
    }


def main(argv):
    """Prints a row for each task and returns the exit status."""
    args = flags(argv)
    cli.refuse({"no peer; give its Python as --peer, or as FTJAX_PEER": not args.peer})
    step.pin(args.cores)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for side, python in zip(SIDES, (sys.executable, args.peer), strict=True):
            file = Path(folder, f"{side}.json")
            subprocess.run([python, Path(__file__).with_name("harness_side.py"), side, file, *argv], check=True)
            found[side] = json.loads(file.read_text(encoding="utf-8"))
    for task in args.tasks:
        row = compared(task, found["ftjax"][task], found["hf"][task])
        step.show(row)
        cli.append(
            args.out, row | {"model": args.model.name, "limit": args.limit, "hf_times": found["hf"][task]["times"]}
        )
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
