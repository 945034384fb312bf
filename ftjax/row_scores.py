"""A data file and a model -> scores of every row beside it (`data.scores`). A composition root beside `scoring`.

What the model says of a row is in `evals.rows`. Rows are scored in parts, those of like length together; each part is
on the disk when it is done, so a scoring that was killed goes on, with the numbers that it would have had.
"""

from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
from pathlib import Path
import shutil
from typing import Any, NamedTuple

import numpy as np

from ftjax import held_out, inference, lookup
from ftjax.checkpoint import hf_import
from ftjax.data import batch as arrays
from ftjax.data import candidates, draft, encode, files, records, rows, scores, template, tokenizer, versions
from ftjax.data.preferences import Preference
from ftjax.errors import UserError
from ftjax.evals import rows as evals
from ftjax.evals import tasks

BATCH = 16  # rows that are read at a time
ASKED = 32  # prompts that are answered at a time
PART = 128  # rows whose scores are kept at once
_SEEDS = 100_000  # between the parts: more than a part has batches of samples

Tell = Callable[[int, int], None]  # rows that are done, of how many


class Settings(NamedTuple):
    """How rows are scored, beside the model."""

    metric: str  # a check of answers by its name: tasks.exact_match, or pkg.mod:fn
    samples: int  # of each prompt; 0: none
    temperature: float  # of the samples
    max_new_tokens: int  # of an answer; 0: as many as the longest answer of the rows that are asked together
    seed: int


@dataclasses.dataclass(frozen=True)
class _Task:
    """A row that can be scored."""

    row: int
    example: encode.Example
    rejected: encode.Example | None
    item: tasks.Item | None  # what is asked; None where there is no prompt, or two completions


def score_file(
    file: str, made: inference.Made, settings: Settings, out: Path, *, dtype: str, tell: Tell
) -> scores.Scores:
    """Returns the scores of a file's rows, which it writes to `out`; those that are there already are read.

    Parts lie in a folder beside `out` until all are there. Scores or parts of other rows, of another model or of other
    settings are a `scores.ManifestError`; nothing is written over.
    """
    check = lookup.lookup("ftjax.evals", settings.metric)
    _in_range(settings)
    manifest = _manifest(file, made, settings, dtype)
    if out.exists():
        scores.check_same(scores.manifest(out), manifest, out)
        return scores.read(out)
    if not out.absolute().parent.is_dir():
        raise UserError(f"there is no folder for {out}; make it first")
    data = rows.read(file)
    model = inference.load_made(made, dtype=dtype)
    found, why = _tasks(data, model)
    parts = _parts(found)
    folder = out.with_name(f"{out.name}.parts")
    _open(folder, manifest, out)
    values, embedding = scores.blank(len(data.rows), model.config.d_model)
    done = 0
    for number, part in enumerate(parts):
        tell(done, len(found))
        made_part = scores.read_part(folder, number)
        if made_part is None:
            made_part = _score(part, model, check, settings, number)
            scores.write_part(folder, number, made_part)
        for name, column in made_part.values.items():
            values[name][made_part.rows] = column
        embedding[made_part.rows] = made_part.embedding
        done += len(part)
    tell(done, len(found))
    scored = np.array([one.row for one in found], int)
    values["outlier"][scored] = scores.outliers(embedding[scored])
    result = scores.Scores(manifest, [f"{file}:{row.line}" for row in data.rows], why, values, embedding)
    scores.write(out, result)
    shutil.rmtree(folder)
    return result


def _in_range(settings: Settings) -> None:
    for name in ("samples", "max_new_tokens", "seed"):
        if getattr(settings, name) < 0:
            raise UserError(f"{name} {getattr(settings, name)} must be at least 0")
    if not 0 < settings.temperature < float("inf"):
        raise UserError(f"temperature {settings.temperature} must be above 0: samples of 0 would all be alike")


def _manifest(file: str, made: inference.Made, settings: Settings, dtype: str) -> dict[str, Any]:
    """Returns what scores depend on; wrong names of model or adapter are found here, before weights are read."""
    folder = inference.folder_of(made.model)
    if made.adapter is not None:
        inference.check_writes(made.adapter)
    tok = tokenizer.load(folder)
    shown = template.load(made.template, tok).text if made.template or tok.chat_template else ""
    held = versions.content(versions.values(file))
    return {
        "format": scores.FORMAT,
        "file": file,
        "rows": held.rows,
        "rows_hash": held.hash,
        "model": made.model,
        "model_hash": hf_import.content_hash(folder),
        "adapter": made.adapter,
        "adapter_hash": None if made.adapter is None else files.digest(made.adapter),
        "tokenizer": tok.fingerprint,
        "template": hashlib.sha256(shown.encode()).hexdigest(),
        "quant": list(made.quant),
        "dtype": dtype,
        **settings._asdict(),
    }


def _open(folder: Path, manifest: dict[str, Any], out: Path) -> None:
    """Makes the folder of the parts, or sees that those in it are of these scores."""
    card = folder / "manifest.json"
    if card.exists():
        scores.check_same(json.loads(card.read_text(encoding="utf-8")), manifest, folder)
        return
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is no folder of scores of {out}; move it away, or give another --out")
    folder.mkdir(exist_ok=True)
    files.write_new(card, [json.dumps(manifest, indent=1, ensure_ascii=False), "\n"])


def _tasks(data: rows.DataFile, model: inference.Model) -> tuple[list[_Task], list[str | None]]:
    """Returns the rows that can be scored, and of every row why it cannot be (None: it can)."""
    owners: list[int] = []
    parts: list[records.Record] = []
    for n, row in enumerate(data.rows):
        own = _records(row.record)
        owners += [n] * len(own)
        parts += own
    drafter = draft.Drafter(model.tokenizer, model.template, train_on="assistant")
    why: list[str | None] = [str(row.refusal) if row.refusal is not None else None for row in data.rows]
    encoded: dict[int, list[encode.Example]] = {}
    for n, one in zip(owners, encode.attempts(parts, drafter, model.tokenizer), strict=True):
        if isinstance(one, UserError):
            why[n] = why[n] or str(one)
        elif len(one[0].ids) > model.config.context:
            why[n] = why[n] or (
                f"{one[0].where}: {len(one[0].ids)} tokens, and the context of {model.folder} has "
                f"{model.config.context}; shorten it"
            )
        else:
            encoded.setdefault(n, []).append(one[0])
    found = []
    for n, examples in encoded.items():
        record = data.rows[n].record
        if why[n] is not None or record is None:
            continue
        if isinstance(record, Preference):
            found.append(_Task(n, examples[0], examples[1] if len(examples) > 1 else None, None))
            continue
        has_prompt = evals.without_prompt(examples[0], 0) is not None
        asked = held_out.item(examples[0], record, model.tokenizer) if has_prompt else None
        found.append(_Task(n, examples[0], None, asked))
    return found, why


def _records(record: records.Record | Preference | None) -> list[records.Record]:
    """Returns the row as rows of supervised training: of preferences one that none beats, and one that beats none."""
    if record is None:
        return []
    if not isinstance(record, Preference):
        return [record]
    each = candidates.records_of(record)
    better, worse = {a for a, _ in record.pairs}, {b for _, b in record.pairs}
    if not record.pairs:
        return each[:1]
    return [each[min(better - worse, default=0)], each[max(worse - better, default=len(each) - 1)]]


def _parts(found: Sequence[_Task]) -> list[list[_Task]]:
    """Returns the tasks in parts, those of like length together: a function of the rows alone."""
    ordered = sorted(found, key=lambda task: (len(task.example.ids), task.row))
    return [ordered[first : first + PART] for first in range(0, len(ordered), PART)]


def _score(
    part: Sequence[_Task], model: inference.Model, check: tasks.Check, settings: Settings, number: int
) -> scores.Part:
    """Returns the scores of some rows, but for what only all rows together tell."""
    read = functools.partial(evals.read, model.params, model.config, rows=BATCH)
    values, _ = scores.blank(len(part), 0)
    said = read([task.example for task in part])
    values["nll"], values["tokens"] = said.nll, said.tokens.astype(np.float64)
    values["nll_per_token"], values["learning_value"] = said.nll / said.tokens, said.surprise
    tok = model.tokenizer
    start = next(i for i in (tok.bos_id, tok.eos_id, *model.stop_ids) if i is not None)
    bare = {n: one for n, task in enumerate(part) if (one := evals.without_prompt(task.example, start)) is not None}
    if bare:
        places = list(bare)
        alone = read(list(bare.values())).nll
        values["nll_without_prompt"][places] = alone
        values["ifd"][places] = said.nll[places] / np.maximum(alone, np.finfo(float).tiny)
    pairs = [n for n, task in enumerate(part) if task.rejected is not None]
    if pairs:
        other = read([task.rejected for task in part if task.rejected is not None])
        values["rejected_nll"][pairs], values["rejected_tokens"][pairs] = other.nll, other.tokens
        values["rejected_nll_per_token"][pairs] = other.nll / other.tokens
        values["prefers_chosen"][pairs] = said.nll[pairs] < other.nll
    _ask(part, model, check, settings, number, values)
    return scores.Part(np.array([task.row for task in part], np.int64), values, said.embedding)


def _ask(
    part: Sequence[_Task], model: inference.Model, check: tasks.Check, settings: Settings, number: int,
    values: dict[str, np.ndarray],
) -> None:  # fmt: skip
    """Puts into `values` whether the model's own answers are right, where prompt and answer fit into the context."""
    longest = max((int(task.example.mask.sum()) for task in part if task.item is not None), default=1)
    new = settings.max_new_tokens or arrays.width_of(longest, model.config.context)
    fits = lambda item: -(-len(item.prompt_ids) // 32) * 32 + new <= model.config.context
    asked = [n for n, task in enumerate(part) if task.item is not None and fits(task.item)]
    items = [item for n in asked if (item := part[n].item) is not None]
    if not items:
        return
    seeds = itertools.count(settings.seed + number * _SEEDS)
    answer = lambda items, temperature: [
        one.score >= 1
        for one in tasks.answer(
            lambda prompts: model.complete(
                prompts, max_new_tokens=new, temperature=temperature, top_k=0, top_p=1.0, seed=next(seeds)
            ),
            items,
            check,
            batch_size=ASKED,
        )
    ]
    with _named(settings.metric, part[asked[0]].example.where):
        values["handled"][asked] = answer(items, 0.0)
        if settings.samples:
            drawn = np.array(answer(items * settings.samples, settings.temperature), float)
            values["pass_rate"][asked] = drawn.reshape(settings.samples, len(items)).mean(axis=0)


@contextlib.contextmanager
def _named(metric: str, where: str) -> Any:
    """Returns a context in which a check that cannot score the rows is a UserError."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(
            f"{where}: --metric {metric!r} cannot score this row or one after it ({type(error).__name__}: {error}); "
            "name another one, or leave it out: tasks.exact_match"
        ) from error
