"""A dense checkpoint -> a folder in few bits, and what that costs, measured: bits, errors, perplexity.

A composition root like `export`: `ask` says what is to be made, and checks it, without weights; `write` makes it.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import datetime
import functools
import itertools
import json
import math
from pathlib import Path
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from ftjax import inference, tree
from ftjax.algorithms import sft
from ftjax.assets import world
from ftjax.checkpoint import folders, hf_export, hf_import
from ftjax.data import batch as arrays
from ftjax.data import encode, files, loader, records, template, tokenizer
from ftjax.errors import UserError
from ftjax.evals import divergence, perplexity
from ftjax.models import params
from ftjax.models.config import ModelConfig
from ftjax.quant import budget as budgets
from ftjax.quant import convert, cost
from ftjax.runs import card, provenance
from ftjax.train import step as steps

FILE = "quantization.json"
WIDER = ("int4", "int8")  # what a budget may choose beside the format that it begins at and the weights as they are
DENSE = "dense"
PLAIN_TEXT = (".txt", ".md")
ROWS, LENGTH = 8, 512  # of a batch
PROBES = 2  # batches on which each choice of a budget is measured
UNSEEN_ROWS = 300  # of the made world
Say = Callable[[str], None]


class Text(NamedTuple):
    """What perplexity is measured on."""

    name: str
    batches: list[Any]
    units: perplexity.Units


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is to be made of a checkpoint, without weights."""

    model: Path
    config: ModelConfig
    plan: convert.Plan  # under a budget the smallest
    budget: float | None  # bits a parameter of the leaves in `choices`
    choices: Mapping[str, Mapping[str, convert.Few]]  # by leaf and name, beside DENSE; empty without a budget
    text: Text | None


def ask(
    model: str,
    *,
    format: str,
    leaves: str,
    group: int,
    head: str | None,
    embeddings: bool,
    search: bool,
    rank: int,
    iterations: int,
    budget: float | None,
    text: str | None,
) -> Asked:
    """Returns what is to be made; whatever is wrong with it is a UserError here.

    `leaves` is a regex of paths, `head` a format of the output layer's own. What a tied head is, and any embedding,
    needs `embeddings`. `rank` above 0 keeps LoftQ's A B beside the bits of the blocks. `text` is a data file, or plain
    text; without one only the embedded base has something to be measured on.
    """
    folder = inference.folder_of(model)
    if hf_import.is_packed(folder):
        raise UserError(f"{folder} is in few bits already; give the dense checkpoint that it was made of")
    config = hf_import.read_config(folder)
    shapes = _shapes(config)
    few = lambda name: convert.Few(name, convert.group_of(name, group if convert.module(name).GROUP else 0), search)
    convert.module(format)
    chosen = convert.plan(format, shapes, leaves, group, embeddings=embeddings)
    plan = {path: one._replace(search=search) for path, one in chosen.items()}
    if head is not None:
        plan[_head(folder, config, embeddings=embeddings)] = few(head)
    if rank:
        blocks = {path: one for path, one in plan.items() if path.startswith("blocks.")}
        plan |= {path: one._replace(rank=rank, iterations=iterations) for path, one in blocks.items()}
    convert.check(plan, shapes)
    choices: dict[str, dict[str, convert.Few]] = {}
    if budget is not None:
        ways = [few(name) for name in (format, *WIDER)]
        free = [path for path in chosen if head is None or path.startswith("blocks.")]
        choices = {p: {w.format: plan[p]._replace(format=w.format, group=w.group) for w in ways} for p in free}
        _check_budget(budget, choices, shapes)
    found = _text(folder, config, text)
    if budget is not None and found is None:
        raise UserError("--budget chooses by what each weight's bits change on a text; give one with --text FILE")
    return Asked(folder, config, plan, budget, choices, found)


def _shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    return {path: leaf.shape for path, leaf in tree.paths(params.abstract(config, "float32")).items()}


def _nbytes(few: convert.Few, shape: tuple[int, ...]) -> int:
    return tree.nbytes(convert.abstract(shape, few))


def _check_budget(
    budget: float, choices: Mapping[str, Mapping[str, convert.Few]], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Raises where not even the smallest choices fit."""
    least = sum(min(_nbytes(few, shapes[path]) for few in ways.values()) for path, ways in choices.items())
    bits = 8 * least / sum(math.prod(shapes[path]) for path in choices)
    if bits > budget:
        raise UserError(f"--budget {budget:g}: the smallest choices take {bits:.4g} bits a parameter; raise it")


def _head(folder: Path, config: ModelConfig, *, embeddings: bool) -> str:
    """Returns the path of the output layer's weight."""
    if not config.tie_embeddings:
        return "lm_head"
    if not embeddings:
        raise UserError(
            f"the head of {folder} is its embedding (tie_word_embeddings), which stays dense unless --embeddings says "
            "that it may be in few bits"
        )
    return "embed_tokens"


def _text(folder: Path, config: ModelConfig, text: str | None) -> Text | None:
    """Returns the batches of a text, every token of which counts; None where there is no text."""
    if text is None and folder.resolve() != inference.embedded_base().resolve():
        return None
    tok = tokenizer.load(folder)
    tokenizer.check_vocabulary(tok, config.vocab_size)
    made = template.load(None, tok) if tok.chat_template else None
    length = min(LENGTH, config.context)
    settings: dict[str, Any] = {"max_length": length, "truncation": "truncate", "train_on": "all"}
    if text is None:
        rows = [records.from_row(row, "unseen") for row in itertools.islice(world.corpus(world.UNSEEN), UNSEEN_ROWS)]
        examples, _ = encode.encode_records(rows, tok, made=made, **settings)
    elif Path(text).suffix in PLAIN_TEXT:
        examples = _windows(tok, files.text(text), text, length)
    else:
        examples, _ = encode.encode_file(text, tok, template_name=None, **settings)
    texts = [tok.decode(example.ids[example.mask > 0].tolist(), skip_special=True) for example in examples]
    batches = loader.eval_batches(
        examples,
        collator=arrays.EXAMPLES,
        layout="packed",
        batch_size=ROWS,
        length=length,
        buckets=(),
        shard=loader.Shard(0, 1),
    )
    name = text or f"{UNSEEN_ROWS} rows of the made world that the base has not seen"
    return Text(name, batches, perplexity.units(texts))


def _windows(tok: tokenizer.Tokenizer, text: str, name: str, length: int) -> list[encode.Example]:
    """Returns plain text cut into rows of `length` tokens, each read on its own."""
    start = [] if tok.bos_id is None else [tok.bos_id]
    ids, room = tok.encode(text).ids, length - len(start)
    cuts = [np.array(start + ids[at : at + room], np.int32) for at in range(0, len(ids), room)]
    mask = lambda row: np.arange(len(row)) > 0  # nothing predicts the first
    return [encode.Example(row, mask(row).astype(np.uint8), name) for row in cuts if len(row) > 1]


class Report(NamedTuple):
    """What was made, and what it costs."""

    costs: list[cost.Cost]
    nbytes: int  # of the whole base
    parameters: int
    before: Mapping[str, float] | None  # perplexities of the dense model; None: there was no text
    after: Mapping[str, float] | None
    harms: Mapping[str, Mapping[str, float]]  # under a budget, nats a token by leaf and choice


def write(asked: Asked, out: str | Path, *, max_shard_bytes: int, command: str, say: Say) -> Report:
    """Writes the folder and returns its report, which is in the folder too, as quantization.json.

    Without a text the peak of memory is the result and one tensor. With one the dense model is in memory first, to be
    measured, and for a budget once more the leaf that is tried.
    """
    folders.refuse_content(out)
    shapes = _shapes(asked.config)
    folders.check_room(out, sum(_nbytes(few, shapes[path]) for path, few in asked.plan.items()))
    began, held = time.monotonic(), hf_import.stored_dtype(asked.model)
    plan, before, harms = asked.plan, None, {}
    if asked.text is not None:
        _, dense = hf_import.load(asked.model, dtype=held)
        say(f"measuring the dense model on {asked.text.name}")
        before = _perplexities(asked, asked.text, dense)
        if asked.budget is not None:
            harms = _harms(asked, asked.text, dense, say)
            plan = _chosen(asked, harms, np.dtype(held).itemsize)
        del dense
    say(f"quantising {len(plan)} leaves of {asked.model}")
    _, base = hf_import.load(asked.model, plan, held)
    costs = _costs(asked.model, base, plan)
    after = None
    if asked.text is not None:
        say("measuring the quantised model")
        after = _perplexities(asked, asked.text, base)
    report = Report(costs, tree.nbytes(base), tree.count(base), before, after, harms)
    facts = as_dict(report, asked, seconds=time.monotonic() - began)
    texts = {FILE: json.dumps(facts, indent=2) + "\n", "README.md": _card(asked, report, Path(out).name, command)}
    hf_export.save_packed(out, base, plan, asked.model, max_shard_bytes=max_shard_bytes, texts=texts)
    return report


def _perplexities(asked: Asked, text: Text, base: Any) -> dict[str, float]:
    config = dataclasses.replace(asked.config, dtype="float32")
    program = jax.jit(steps.make_evaluate(sft.make(lambda *_: None, config)))
    return perplexity.evaluate(lambda batch: program(None, base, batch), text.batches, text.units)


def _harms(asked: Asked, text: Text, dense: Any, say: Say) -> dict[str, dict[str, float]]:
    """Returns KL(dense || dense with this one leaf in few bits) in nats a token, by leaf and choice.

    The leaf is made dense again before the model runs, so that all choices run in one program.
    """
    config = dataclasses.replace(asked.config, dtype="float32")
    program = jax.jit(functools.partial(divergence.kl, config=config))
    again = jax.jit(lambda node, dtype: node.dequantize(dtype), static_argnums=1)
    found: dict[str, dict[str, float]] = {}
    weights = tree.paths(dense)
    for path, ways in asked.choices.items():
        found[path] = {}
        for name, few in ways.items():
            tried = again(convert.leaf(weights[path], few, path), weights[path].dtype)
            put = lambda at, leaf, path=path, tried=tried: tried if tree.name(at) == path else leaf
            other = jax.tree_util.tree_map_with_path(put, dense)
            sums = np.sum([jax.device_get(program(dense, other, batch)) for batch in text.batches[:PROBES]], axis=0)
            found[path][name] = max(0.0, float(sums[0] / sums[1]))
        say(f"{path}: " + ", ".join(f"{name} {harm:.2e}" for name, harm in found[path].items()) + " nats a token")
    return found


def _chosen(asked: Asked, harms: Mapping[str, Mapping[str, float]], itemsize: int) -> dict[str, convert.Few]:
    """Returns the plan with the choices that the budget allows; a leaf that stays dense is not in it."""
    assert asked.budget is not None
    shapes = _shapes(asked.config)
    sizes = {path: math.prod(shapes[path]) for path in asked.choices}
    ways = {
        path: {name: budgets.Choice(_nbytes(few, shapes[path]), harms[path][name]) for name, few in few_of.items()}
        | {DENSE: budgets.Choice(sizes[path] * itemsize, 0.0)}
        for path, few_of in asked.choices.items()
    }
    taken = budgets.greedy(ways, int(asked.budget * sum(sizes.values()) / 8))
    fixed = {path: few for path, few in asked.plan.items() if path not in taken}
    return fixed | {path: asked.choices[path][name] for path, name in taken.items() if name != DENSE}


def _costs(model: Path, base: Any, plan: convert.Plan) -> list[cost.Cost]:
    """Returns bytes and errors against the checkpoint, which is read once more, a tensor at a time."""
    found = tree.paths(base, tree.stands_for_weight)
    nodes = {path: jax.tree.map(np.asarray, found[path]) for path in plan}  # views on a CPU, so rows cost no program
    errors: dict[str, dict[str, cost.Error]] = {path: {} for path in plan}
    for path, at, dense in hf_import.matrices(model, plan):
        node = jax.tree.map(lambda leaf, at=at: leaf[at], nodes[path])
        errors[path][".".join(map(str, at))] = cost.error(dense, node)
    return [cost.of(path, few, nodes[path], errors[path]) for path, few in plan.items()]


def as_dict(report: Report, asked: Asked, *, seconds: float) -> dict[str, Any]:
    """Returns what quantization.json holds."""
    return {
        "base": {"path": str(asked.model), "hash": hf_import.content_hash(asked.model)},
        "bits": cost.bits(report.costs),
        "bits_of_all": 8 * report.nbytes / report.parameters,
        "nbytes": report.nbytes,
        "leaves": {one.leaf: one.as_dict() for one in report.costs},
        "text": asked.text.name if asked.text else None,
        "before": report.before,
        "after": report.after,
        "budget": asked.budget,
        "harms": report.harms,
        "seconds": seconds,
    }


def as_lines(report: Report) -> list[str]:
    """Returns the report as a table to be printed, and what it sums up to."""
    lines = [
        *cost.table(report.costs),
        f"{cost.bits(report.costs):.3f} bits a parameter in few bits, "
        f"{8 * report.nbytes / report.parameters:.3f} over all "
        f"({report.nbytes:,} bytes of {report.parameters:,} parameters)",
    ]
    if report.before is None or report.after is None:
        return [*lines, "perplexity was not measured: there is no text; give one with --text FILE"]
    pair = [numbers["eval_perplexity"] for numbers in (report.before, report.after)]
    return [*lines, f"perplexity a token {pair[0]:.4f} dense, {pair[1]:.4f} in few bits ({pair[1] / pair[0] - 1:+.2%})"]


def _card(asked: Asked, report: Report, title: str, command: str) -> str:
    formats = sorted({one.few.format for one in report.costs})
    metrics: Sequence[card.Measured] = ()
    if report.before is not None and report.after is not None:
        metrics = [card.Measured(n, v, report.after[n], None, None, None) for n, v in report.before.items()]
    return card.model_card(
        title=title,
        kind="quantised",
        base=str(asked.model),
        base_hash=hf_import.content_hash(asked.model),
        data=None,
        template="the base's own",
        command=command,
        metrics=metrics,
        trainable=None,
        total=None,
        tokens=None,
        versions=provenance.packages(),
        license=card.license_of(asked.model),
        date=datetime.date.today(),
        origin=f"{', '.join(formats)}: {cost.bits(report.costs):.3f} bits a parameter; errors are in {FILE}",
    )
