"""Run folders as a comparison reads them, written without training: rows with given answers, and the facts beside."""

import hashlib
import json
from pathlib import Path
import random
from typing import Any

from ftjax.compare import evaluations, findings, systems

COUNT = 120  # rows
WORDS = ("opens", "closes", "sells", "street", "owner", "bread", "lamp", "boat")


def row_id(number: int) -> str:
    """Returns the id of a row, as a hash would be."""
    return hashlib.sha256(str(number).encode()).hexdigest()[:16]


def line(number: int, *, before: dict[str, Any] | None, after: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Returns a line of held_out.jsonl."""
    word = WORDS[number % len(WORDS)]
    asked = f"When {word} number {number}, which {word} is it{' there' * (number % 7)}?"
    told = {"id": row_id(number), "prompt": asked, "reference": f"{word} {number}", **more}
    return told | ({} if before is None else {"before": before}) | {"after": after}


def measured(right: bool, *, nats: float, number: int) -> dict[str, Any]:
    """Returns what a model did on a row."""
    said = f"{WORDS[number % len(WORDS)]} {number}" if right else f"I <b>do not</b> know {number}"
    tokens = 3 + number % 5
    return {"nats": nats * tokens, "tokens": tokens, "score": float(right), "answer": said, "answer_tokens": tokens}


def lines(right: list[bool], *, before: list[bool] | None = None, nats: float = 0.5) -> list[dict[str, Any]]:
    """Returns the held-out rows of a run that is right where it is said, and was so before."""
    was = before or [False] * len(right)
    return [
        line(
            number,
            before=measured(old, nats=2.0 + 0.01 * (number % 3), number=number),
            after=measured(new, nats=nats + 0.01 * (number % 5), number=number),
        )
        for number, (old, new) in enumerate(zip(was, right, strict=True))
    ]


def write_lines(path: Path, found: list[dict[str, Any]]) -> None:
    """Writes JSON Lines."""
    path.write_text("".join(json.dumps(one) + "\n" for one in found), encoding="utf-8")


def write(
    folder: Path,
    held_out: list[dict[str, Any]],
    *,
    retention: list[dict[str, Any]] | None = None,
    config: dict[str, Any] | None = None,
    summary: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    template: str = "(the tokenizer's own)",
) -> Path:
    """Writes a finished run and returns its folder."""
    folder.mkdir(parents=True)
    rank = {"adapter": {"name": "lora", "rank": 8}, "eval": {"check": "tasks.exact_match"}, "data": {}, "seed": 0}
    numbers = {"parameters": 3_016_960, "trainable_parameters": 40_960, "num_tokens": 100_000, "train_seconds": 30.0}
    numbers |= {"memory_peak_bytes": 1.5e9, "tokens_per_second": 3_300.0, "step": 120, "before": {}, "after": {}}
    read = {"paths": ["world:format/train"], "hash": "ab" * 32, "report": {"rows": 800, "kept": 800, "tokens": 40_000}}
    facts = {
        "config.json": {**rank, **(config or {})},
        "summary.json": numbers | (summary or {}),
        "before.json": {"metrics": {}, "answers": []},
        "data.json": read | (data or {}),
        "base.json": {"path": "base", "hash": "cd" * 32},
        "tokenizer.json": {"fingerprint": "ef" * 16, "template": template, "stop_ids": [1]},
        "environment.json": {"devices": {"cpu": 1}},
    }
    for name, told in facts.items():
        (folder / name).write_text(json.dumps(told), encoding="utf-8")
    curve = [{"step": step, "loss": 2.0 / (1 + step / 20)} for step in range(1, 121)]
    write_lines(folder / "metrics.jsonl", [*curve, {"step": 120, "eval_loss": 0.4}])
    write_lines(folder / "held_out.jsonl", held_out)
    if retention is not None:
        write_lines(folder / "retention.jsonl", retention)
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"0" * 1000)
    (folder / "DONE").write_text("now\n", encoding="utf-8")
    return folder


def told(arguments, *, baseline=None, folders=(), people=(), bar=None, force=False, resamples=500):
    """Returns the numbers of a comparison, with few resamples."""
    found, judges = evaluations.added(systems.read([str(one) for one in arguments]), [str(one) for one in folders])
    against = systems.named(found, baseline or found[0].name)
    return findings.compare(
        found, against, judges=judges, people=people, bar=bar, force=force, level=0.95, resamples=resamples, seed=0
    )


def flips(share, seed=0):
    """Returns which of the rows are right."""
    rng = random.Random(seed)
    return [rng.random() < share for _ in range(COUNT)]
