"""Runs and a file of prompts -> a file of answers for each run, made once and kept for a restart."""

from collections.abc import Callable, Mapping, Sequence
import hashlib
import json
from pathlib import Path
import re
from typing import Any, NamedTuple

from ftjax import answering, inference
from ftjax.checkpoint import hf_import
from ftjax.data import files, questions
from ftjax.errors import UserError

BASE = "base"
COLUMN = "answer"


class System(NamedTuple):
    """Who answers: a run, or the base that a run began with."""

    name: str
    made: inference.Made


def systems(arguments: Sequence[str]) -> list[System]:
    """Returns the systems of --runs, in order: run folders, `base` (of the first of these), `base:RUN`.

    Names are those of the folders, as scripts/compare.py has them; where two are alike, with the folder above it.
    """
    runs = [text for text in arguments if _base_of(text) is None]
    found = []
    for text in arguments:
        of = _base_of(text)
        if of is None:
            found.append((Path(text).resolve(), System(Path(text).resolve().name, inference.made_by(text))))
            continue
        if not (of or runs):
            raise UserError(f"{text}: of which run? name the run as well, or base:runs/NAME")
        made = inference.made_by(of or runs[0])
        if made.adapter is None:
            raise UserError(
                f"{text}: {of or runs[0]} trained all weights, so the base is not in it; answer with "
                "scripts/generate.py --model BASE, and give both files as --answers"
            )
        found.append((Path(of or runs[0]).resolve(), System(BASE, made._replace(adapter=None))))
    names = [one.name for _, one in found]
    named = [one._replace(name=_longer(one.name, at)) if names.count(one.name) > 1 else one for at, one in found]
    names = [one.name for one in named]
    if len(set(names)) < len(names):
        raise UserError(f"--runs names {max(names, key=names.count)} twice; name each once")
    return named


def _base_of(text: str) -> str | None:
    """Returns the run whose base is meant, "" for the first one's; None where a run itself is."""
    kind, _, run = text.partition(":")
    return run if kind == BASE and not Path(text).exists() else None


def _longer(name: str, folder: Path) -> str:
    return f"{BASE} of {folder.name}" if name == BASE else "/".join(folder.parts[-2:])


def collect(
    asked: Sequence[System],
    prompts: str | Path,
    folder: Path,
    *,
    sampling: Mapping[str, Any],
    seed: int,
    batch_size: int,
    say: Callable[[str], None],
) -> dict[str, Path]:
    """Returns for each system the file of its answers, rows of the prompts with `answer`, in `folder`.

    A file's name holds what made it: base, adapter, template, bits, prompts and sampling. One that is there is taken
    as it is; what is not is written whole or not at all, so after a kill only the system that was answering goes again.
    """
    folder.mkdir(exist_ok=True)
    rows = [{name: value for name, value in one.row.items() if name != COLUMN} for one in questions.read(prompts)]
    source = folder / f"prompts-{_key(rows)}.jsonl"
    if not source.exists():
        files.write_rows(source, rows)
    found = {}
    for one in asked:
        key = _key([_identity(one.made), rows, dict(sampling), seed])
        out = found[one.name] = folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', one.name)}-{key}.jsonl"
        if out.exists():
            continue
        say(f"{one.name} answers {len(rows):,} prompts ...")
        model = inference.load_made(one.made, dtype="float32")
        ask = lambda chats, start, model=model: model.complete(
            [model.prompt_ids(chat) for chat in chats], seed=start, **sampling
        )
        refuse = lambda chat, model=model: model.refuse(chat, sampling["max_new_tokens"])
        answering.answer(ask, refuse, (), source, out, column=COLUMN, batch_size=batch_size, seed=seed)
    return found


def _identity(made: inference.Made) -> dict[str, Any]:
    return {
        "base": hf_import.content_hash(inference.folder_of(made.model)),
        "adapter": made.adapter and files.digest(made.adapter),
        "template": made.template,
        "quant": list(made.quant),
    }


def _key(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]
