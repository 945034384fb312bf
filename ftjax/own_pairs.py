"""Preferences of a policy's own completions, by a check that stands in for people.

A stage of a pipeline with a section `pairs`: several completions of each prompt are drawn and marked; every prompt
whose marks differ by at least `margin` gives its best and its worst as a pair, in TRL's explicit form.
"""

from collections.abc import Callable, Mapping
import itertools
import json
from typing import Any

import numpy as np

from ftjax import inference, lookup
from ftjax.data import prompts
from ftjax.errors import UserError
from ftjax.runs.folder import Folder

FILE = "pairs.jsonl"


def make(config: Mapping[str, Any], folder: Folder, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns the summary of a stage that writes pairs.jsonl into its folder."""
    c = config["pairs"]
    check = lookup.lookup("ftjax.evals", c["check"])
    model = inference.load_made(inference.made_by(c["run"]), dtype="float32")
    rows, _ = prompts.read(
        c["prompts"], model.tokenizer, made=model.template, max_length=c["max_length"], truncation="drop",
        numbers=itertools.count(),
    )  # fmt: skip
    lines, marks = [], []
    for first in range(0, len(rows), c["batch_size"]):
        asked = rows[first : first + c["batch_size"]]
        texts = model.complete(
            [one.ids.tolist() for one in asked],
            max_new_tokens=c["max_new_tokens"],
            temperature=c["temperature"],
            top_k=0,
            top_p=1.0,
            seed=c["seed"] + first,
            samples=c["samples"],
        )
        for number, one in enumerate(asked):
            several = texts[number * c["samples"] : (number + 1) * c["samples"]]
            found = [float(check(one.row, text)) for text in several]
            marks += found
            best, worst = int(np.argmax(found)), int(np.argmin(found))
            if found[best] - found[worst] >= c["margin"]:
                lines.append(_line(one, several[best], several[worst], found[best], found[worst]))
        say(f"{min(first + c['batch_size'], len(rows)):,} of {len(rows):,} prompts, {len(lines):,} pairs")
    if not lines:
        raise UserError(
            f"no prompt of {c['prompts']} has completions whose marks differ by config.pairs.margin {c['margin']}; "
            "draw more of each (config.pairs.samples) or lower the margin"
        )
    folder.text(FILE, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    summary = {
        "prompts": len(rows),
        "pairs": len(lines),
        "mark": float(np.mean(marks)),
        "mark_std": float(np.std(marks, ddof=1)),
    }
    folder.summary(summary)
    folder.done()
    return summary


def _line(one: prompts.Prompt, best: str, worst: str, high: float, low: float) -> dict[str, Any]:
    turn = lambda text: [{"role": "assistant", "content": text}]
    columns = {key: value for key, value in one.row.items() if key not in _TAKEN}
    given = one.row.get("prompt_messages")
    prompt, chosen, rejected = (given, turn(best), turn(worst)) if given else (one.text, best, worst)
    marks = {"reward_chosen": high, "reward_rejected": low}
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **marks, **columns}


_TAKEN = {"prompt", "prompt_messages", "messages", "chosen", "rejected", "reference", "answer", "question"} | {
    "reward_chosen",
    "reward_rejected",
}
