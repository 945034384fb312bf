"""The E2E restaurant data as chats, and BLEU of a run's answers against all references of a context.

The file is `context||sentence` a line (examples/NLG/data/e2e of microsoft/LoRA); it is given by path and not shipped.
"""

import gzip
import importlib.util
import json
from pathlib import Path
import random

SYSTEM = "Turn the data into one sentence."
HELD = 60  # contexts held out, with all their references


def write(source: Path, folder: Path) -> tuple[Path, Path]:
    """Writes train.jsonl (every sentence) and heldout.jsonl (one row a context), and returns their paths."""
    opened = gzip.open if source.suffix == ".gz" else open
    with opened(source, "rt", encoding="utf-8") as lines:
        pairs = [[part.strip() for part in line.split("||")] for line in lines if "||" in line]
    contexts = list(dict.fromkeys(context for context, _ in pairs))
    random.Random(0).shuffle(contexts)
    held = contexts[:HELD]
    answers = {context: [text for other, text in pairs if other == context] for context in held}
    folder.mkdir(parents=True, exist_ok=True)
    train = [_row(context, text) for context, text in pairs if context not in answers]
    heldout = [{**_row(context, answers[context][0]), "references": answers[context]} for context in held]
    for name, rows in (("train", train), ("heldout", heldout)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder / "train.jsonl", folder / "heldout.jsonl"


def has_bleu() -> bool:
    """Returns whether sacrebleu (the extra `eval`) is installed."""
    return importlib.util.find_spec("sacrebleu") is not None


def bleu(run: Path, heldout: Path, column: str) -> float:
    """Returns corpus BLEU of the answers in a run's answers.jsonl; `column` is before or after."""
    import sacrebleu

    answers = [json.loads(line)[column] for line in (run / "answers.jsonl").read_text("utf-8").splitlines()]
    rows = [json.loads(line) for line in heldout.read_text("utf-8").splitlines()][: len(answers)]
    most = max(len(row["references"]) for row in rows)
    columns = [[row["references"][i] if i < len(row["references"]) else None for row in rows] for i in range(most)]
    return float(sacrebleu.corpus_bleu(answers, columns).score)


def _row(context: str, text: str) -> dict[str, list[dict[str, str]]]:
    turns = (("system", SYSTEM), ("user", context), ("assistant", text))
    return {"messages": [{"role": role, "content": content} for role, content in turns]}
