"""A config -> what a model does on held-out rows, by the protocol of a run's own numbers before and after.

A composition root like `experiment`: `build` checks everything without weights, `measure` reads them.
"""

from collections.abc import Mapping
import dataclasses
import math
from pathlib import Path
import time
from typing import Any, NamedTuple

import jax

from ftjax import experiment, held_out, inference, training_data
from ftjax.algorithms import sft
from ftjax.checkpoint import hf_import
from ftjax.data import encode, records, report, template, tokenizer
from ftjax.errors import UserError
from ftjax.evals import by_row
from ftjax.models.config import ModelConfig
from ftjax.train import step as steps

RANGES: dict[str, experiment.Range] = {
    "seed": experiment.RANGES["seed"],
    "data.holdout": (lambda v: 0 <= v < 1, "in [0, 1) (0: every row of the file is measured)"),
    "data.max_length": experiment.RANGES["data.max_length"],
    "eval.rows": (lambda v: v >= 0, "at least 0 (0: all)"),
    "eval.batch_size": experiment.RANGES["eval.batch_size"],
    "eval.max_new_tokens": experiment.RANGES["eval.max_new_tokens"],
    "eval.generate_batch": experiment.RANGES["eval.generate_batch"],
    "eval.samples": experiment.RANGES["eval.samples"],
}
CHOICES = {name: experiment.CHOICES[name] for name in ("model.dtype", "model.weights")}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Everything that measuring needs, but for weights."""

    config: dict[str, Any]
    made: inference.Made
    model_dir: Path
    model_config: ModelConfig
    tokenizer: dict[str, Any]  # its fingerprint, and the name of the template
    data_report: report.EncodeReport
    held_out: held_out.HeldOut
    protocol: dict[str, Any]  # how perplexities are measured: rows on their own, so there is no stride

    @property
    def name(self) -> str:
        """Returns what is measured, for the name of a folder."""
        return Path(self.config["model"]["run"] or self.config["model"]["adapter"] or self.model_dir).name


def build(config: Any) -> Evaluation:
    """Returns the evaluation of a config; whatever is wrong with it is a UserError here, before weights are read."""
    c = experiment.plain(config)
    experiment.check(c, RANGES, CHOICES)
    m, d, e = c["model"], c["data"], c["eval"]
    made = inference.made_of(m, template=d["template"], quant=c["quant"])
    folder = inference.folder_of(made.model)
    model_config = dataclasses.replace(hf_import.read_config(folder), dtype=m["dtype"])
    tok = tokenizer.load(folder)
    tokenizer.check_vocabulary(tok, model_config.vocab_size)
    written = template.load(made.template, tok).name if made.template or tok.chat_template else None
    if not d["path"]:
        raise UserError(
            "config.data.path is empty, as a run on preferences has no held-out text of its own; name a file of chats "
            "(data=heldout.jsonl behind the config file); what it does on preferences is in its summary.json"
        )
    examples, told = encode.encode_file(
        d["path"],
        tok,
        template_name=made.template,
        max_length=d["max_length"],
        truncation=d["truncation"],
        train_on=d["train_on"],
    )
    if d["holdout"]:
        held, _ = held_out.split(len(examples), most=e["rows"] or len(examples), share=d["holdout"], seed=c["seed"])
        chosen = [examples[i] for i in held]
    else:
        chosen = examples[: e["rows"] or None]
    source = records.rows_at(d["path"], [one.where for one in chosen])
    found = held_out.build(chosen, source, tok, e, length=d["max_length"])
    training_data.check_context(model_config, chosen, found)
    facts = {"fingerprint": tok.fingerprint, "template": written}
    protocol = {
        "context": d["max_length"],
        "stride": None,
        "template": made.template or ("the tokenizer's own" if tok.chat_template else None),
        "counted": d["train_on"],
    }
    return Evaluation(c, made, folder, model_config, facts, told, found, protocol)


class Found(NamedTuple):
    """What was measured, and the seconds of an answer when `batch` of them are made at once, by programs that are
    compiled already; NaN where nothing is asked."""

    measured: by_row.Measured
    answer_seconds: float
    batch: int


def measure(x: Evaluation) -> Found:
    """Returns all numbers of the held-out rows, the answers, both by row, and how long an answer takes."""
    model = inference.load_made(x.made, dtype=x.config["model"]["weights"])
    model = dataclasses.replace(model, config=x.model_config)
    program = jax.jit(steps.make_measure(sft.make(lambda *_: None, x.model_config)))
    found = x.held_out.measure(lambda batch: program(None, model.params, jax.tree.map(jax.numpy.asarray, batch)), model)
    again = x.held_out.items[: x.held_out.generate_batch]
    start = time.perf_counter()
    x.held_out.answers(model, again)
    return Found(found, (time.perf_counter() - start) / len(again) if again else math.nan, len(again))


def lines(x: Evaluation, found: Found) -> list[dict[str, Any]]:
    """Returns the lines of held_out.jsonl, as a run has them, with what was measured as `after`."""
    return [{**told._asdict(), "after": row} for told, row in zip(x.held_out.told, found.measured.rows, strict=True)]


def facts(x: Evaluation, found: Found) -> dict[str, Any]:
    """Returns what evaluation.json holds."""
    return {
        "model": {"path": str(x.model_dir), "hash": hf_import.content_hash(x.model_dir), "adapter": x.made.adapter},
        "data": {"path": x.config["data"]["path"], "report": x.data_report.as_dict()},
        "rows": x.held_out.rows,
        "tokenizer": x.tokenizer,
        "protocol": x.protocol,
        "metrics": found.measured.numbers,
        "answer_seconds": found.answer_seconds,
        "answer_batch": found.batch,
    }


def in_words(protocol: Mapping[str, Any]) -> str:
    """Returns the protocol as a sentence."""
    return (
        f"each row on its own, {protocol['context']} tokens at most, with "
        f"{protocol['template'] or 'no'} template; counted: {protocol['counted']}"
    )
