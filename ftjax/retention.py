"""What a model must not forget: chats or texts that training is not about, measured before and after like a task.

Loss and perplexity of what an assistant writes in them, and the score of answers where a check is named. It is measured
in the same way whatever the algorithm learns from. A reward model writes nothing, so it has no such set.
"""

from collections.abc import Mapping
from typing import Any

from ftjax import held_out, inference
from ftjax.data import encode, records, tokenizer
from ftjax.evals import by_row
from ftjax.models.config import ModelConfig

ROUND = 64  # a packed row is made that much longer at a time
PREFIX = "eval_retention_"
MISSING = (
    "not measured; name chats or texts that the model must not forget: --config.retention.path=FILE.jsonl (of some "
    "hundred rows, not about the task)"
)


def build(
    c: Mapping[str, Any], tok: tokenizer.Tokenizer, name: str | None, config: ModelConfig
) -> held_out.HeldOut | None:  # fmt: skip
    """Returns the retention set of a config, ready to be measured; None where it names none."""
    if "retention" not in c or not c["retention"]["path"]:
        return None
    own = c["retention"]
    found, _ = encode.encode_file(
        own["path"], tok, template_name=name, max_length=min(own["max_length"], config.context), truncation="drop",
        train_on="assistant",
    )  # fmt: skip
    found = found[: own["rows"]]
    length = -(-max(len(one.ids) for one in found) // ROUND) * ROUND
    if c["data"].get("layout") == "packed" and "row_length" not in c["data"]:
        length = max(length, c["data"]["max_length"])  # that of held-out chats, whose program then serves
    source = records.rows_at(own["path"], [one.where for one in found])
    return held_out.build(found, source, tok, {**c["eval"], "check": own["check"], "samples": 0}, length=length)


def measure(held: held_out.HeldOut, evaluate: by_row.Evaluate, model: inference.Model) -> by_row.Measured:
    """Returns what a model does on a retention set; the names of its numbers say that they are of this one."""
    found = held.measure(evaluate, model)
    return found._replace(numbers={name.replace("eval_", PREFIX): value for name, value in found.numbers.items()})


def told(held: held_out.HeldOut | None, path: str) -> str:
    """Returns what is measured of retention, or how to have it measured."""
    return MISSING if held is None else f"{held.rows:,} rows of {path}"
