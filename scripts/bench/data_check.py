"""Times `data.py check` on a made file of chats: rows a second, seconds of each rule, and peak memory.

python scripts/bench/data_check.py                          # 100,000 rows, structure, duplicates and token lengths
python scripts/bench/data_check.py --rules all              # every rule
python scripts/bench/data_check.py --file mine.jsonl --model MODEL_DIR

The made rows have about 20 words of question and 80 of answer, with frequencies of words as in language (Zipf), and one
row in a hundred is nearly an earlier one. Only one file is measured a process, because peak memory never falls.
"""

import json
from pathlib import Path
import resource
import sys
import tempfile
import time

import numpy as np

from scripts import cli

TASKS = ("company", "known", "reading", "tone")
BASIC = (
    *("data_type", "broken_json", "broken_csv", "not_utf8", "missing_messages_list", "message_missing_key"),
    *("message_unrecognized_key", "unrecognized_role", "missing_content", "example_missing_assistant_message"),
    *("refused_row", "role_order", "last_turn", "missing_user_message", "empty_user_message", "duplicate_rows"),
    *("near_duplicates", "contradicting_answers", "longer_than_context", "answer_beyond_context", "template_refuses"),
    *("no_stop_token", "special_token_in_text", "length_outlier", "fewer_than_50", "fewer_than_500"),
)


def flags(argv):
    """Returns the flags."""
    parser = cli.parser(__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the made file (default 100000)")
    parser.add_argument("--file", help="measure this file in place of a made one")
    parser.add_argument("--model", default="ftjax/assets/base", help="model folder whose tokenizer counts")
    parser.add_argument("--rules", choices=("basic", "all"), default="basic", help="which rules (default basic)")
    parser.add_argument("--out", type=Path, help="append the result as a JSON line")
    return cli.parse(parser, argv)


def made(place, count):
    """Writes rows of words of the made world, so that the embedded tokenizer reads them as it reads language."""
    from ftjax.data import rows
    from ftjax.data.checks import _text

    draw = np.random.default_rng(0)
    said = (text for task in TASKS for _, row in rows.attempts(f"world:{task}/train") for text in _text.every(row))
    words = np.array(sorted({word for text in said for word in text.split() if word.isalpha()}))
    odds = 1 / np.arange(1, len(words) + 1)
    odds /= odds.sum()
    draw.shuffle(words)
    earlier = None
    with place.open("w", encoding="utf-8") as stream:
        for n in range(count):
            chosen = words[draw.choice(len(words), 100 + draw.integers(-30, 30), p=odds)]
            if n % 100 == 99:
                chosen = earlier.copy()
                chosen[draw.integers(len(chosen))] = "other"
            earlier = chosen
            asked, answer = " ".join(chosen[:20]) + "?", " ".join(chosen[20:]) + "."
            turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
            stream.write(json.dumps({"messages": turns}) + "\n")


def main(argv):
    """Prints the times."""
    arguments = flags(argv)
    from ftjax.data import check

    with tempfile.TemporaryDirectory() as folder:
        file = arguments.file
        if file is None:
            file = str(Path(folder) / "made.jsonl")
            made(Path(file), arguments.rows)
        began, cpu = time.perf_counter(), time.process_time()
        data = check.load(
            file, model=arguments.model, template_name=None, max_length=None, against=(), columns=None,
            progress=lambda: None, counted=lambda *_: None,
        )  # fmt: skip
        seconds = {"reading and counting tokens": time.perf_counter() - began}
        for rule in check.rules():
            if "against" in rule.needs or (arguments.rules == "basic" and rule.name not in BASIC):
                continue
            start = time.perf_counter()
            found = sum(1 for _ in rule.module.check(data))
            seconds[f"{rule.name} ({found:,} found)"] = time.perf_counter() - start
    total, used = time.perf_counter() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    for name, spent in sorted(seconds.items(), key=lambda entry: -entry[1])[:12]:
        print(f"{spent:7.1f} s  {name}")
    print(
        f"{len(data.rows):,} rows in {total:.1f} s ({used:.1f} CPU-s), {len(data.rows) / total:,.0f}/s, {peak:.2f} GiB"
    )
    result = {"rows": len(data.rows), "rules": arguments.rules, "seconds": total, "cpu_seconds": used, "peak_gib": peak}
    cli.append(arguments.out, result)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
