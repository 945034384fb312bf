"""The model card that goes with an adapter or a merged export: what it is, what it was made of, what was measured."""

from collections.abc import Mapping, Sequence
import datetime
import json
from pathlib import Path
import re
from typing import Any, NamedTuple

import ftjax
from ftjax.runs import provenance

LIBRARIES = {"adapter": "peft", "merged": "transformers", "quantised": "ftjax"}
LIBRARIES |= {"reward_adapter": "peft", "reward_merged": "transformers"}
MADE_WITH = ("jax", "jaxlib", "flax", "optax", "transformers", "tokenizers", "safetensors")


class Measured(NamedTuple):
    """One metric on held-out rows, before and after; an interval is (low, high) at 95 %, None where not estimated."""

    name: str
    before: float | None
    after: float
    before_interval: tuple[float, float] | None
    after_interval: tuple[float, float] | None
    rows: int | None


def model_card(
    *,
    title: str,
    kind: str,
    base: str,
    base_hash: str,
    data: str | None,
    template: str,
    command: str,
    metrics: Sequence[Measured],
    trainable: int | None,
    total: int | None,
    tokens: int | None,
    versions: Mapping[str, str],
    license: str | None,
    date: datetime.date,
    origin: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> str:
    """Returns the card as Markdown with the front matter that the Hugging Face hub reads.

    `kind` is `adapter` (PEFT), `merged`, `quantised` (a base for ftjax), `reward_adapter` or `reward_merged`;
    `trainable` and `total` are numbers of parameters; `tokens` are those that were trained on; `origin` is what was
    done after training; `changes` is `change` of a summary. What is None is not known and left out. Of `versions` the
    card shows those of `MADE_WITH`.
    `license` None means that the base states none.
    """
    front = [f"base_model: {base}"] if base else []
    front += [f"library_name: {LIBRARIES[kind]}"]
    front += [f"license: {license}"] if license else []
    front += ["tags:", "- ftjax", *(["- lora"] if kind.endswith("adapter") else [])]
    front += ["- reward-model"] if kind.startswith("reward") else []
    what = {"adapter": "An adapter for", "merged": "A merged fine-tune of", "quantised": "In few bits,"}
    what |= {"reward_adapter": "A reward model, as an adapter for", "reward_merged": "A reward model, merged into"}
    known = ", ".join(f"{name} {versions[name]}" for name in MADE_WITH if name in versions)
    share = (
        None if trainable is None or total is None else f"{trainable:,} of {total:,} ({100 * trainable / total:.2f} %)"
    )
    facts = [
        ("base", f"`{base}`"),
        ("base content hash", f"`{base_hash}`"),
        ("made from", origin),
        ("data", data),
        ("chat template", template),
        ("trained parameters", share),
        ("trained tokens", None if tokens is None else f"{tokens:,}"),
        ("date", date.isoformat()),
        ("versions", f"ftjax {ftjax.__version__}" + (f", {known}" if known else "")),
        ("license", license or "the base states none; ask its owner before you share this"),
    ]
    parts = [
        "---\n" + "\n".join(front) + "\n---",
        f"# {title}",
        f"{what[kind]} `{base}`, made with ftjax.",
        _table(("what", "value"), [(name, value.replace("|", "\\|")) for name, value in facts if value is not None]),
    ]
    if metrics:
        parts += ["## Measured", _metrics(metrics)]
    if changes and any(map(_differences, changes.values())):
        parts += ["## What training changed", _changes(changes)]
    parts += [
        "## How it was made",
        f"```bash\n{command}\n```",
        "## How to load it",
        f"```python\n{_loading(kind, base)}```",
    ]
    return "\n\n".join(parts) + "\n"


def of_run(folder: Path, kind: str, origin: str | None = None, *, summary: Mapping[str, Any] | None = None) -> str:
    """Returns the card of what a run made, from the files of its folder.

    `summary` is what `summary.json` is going to hold where the run is at its end and that is not written yet. `origin`
    says what was done to it since; then the metrics are those before. `kind` is `adapter` or `merged`.
    """
    read = lambda name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    config, base, known = read("config"), read("base"), read("data")
    summary = read("summary") if summary is None else summary
    named = list(config["data"]["paths"])
    if "files" in known:  # an older ftjax kept no versions
        named = [f"{one['path']} (version `{one['hash'][:12]}`)" for one in known["files"] if one["path"] in named]
    kind = f"reward_{kind}" if summary.get("reward_model") else kind
    return model_card(
        title=folder.absolute().name,
        kind=kind,
        base=config["model"]["path"],
        base_hash=base["hash"],
        data=f"{', '.join(named)}; SHA-256 of its tokens `{known['hash']}`",
        template=read("tokenizer")["template"] or "none",
        command=(folder / "command.sh").read_text(encoding="utf-8").splitlines()[-1],
        metrics=[
            Measured(name, float(summary["before"][name]), float(value), None, None, _rows(name, summary))
            for name, value in summary["after"].items()
        ],
        changes=summary.get("change"),  # which a run of an older ftjax does not have
        trainable=summary["trainable_parameters"],
        total=summary["parameters"],
        tokens=int(summary["num_tokens"]),
        versions=provenance.packages(),
        license=license_of(Path(base["path"])),
        date=datetime.date.today(),
        origin=origin,
    )


def of_parts(
    *,
    title: str,
    kind: str,
    base: str,
    base_hash: str,
    origin: str,
    template: str,
    command: str,
    license: str | None,
    versions: Mapping[str, str],
    date: datetime.date,
) -> str:
    """Returns the card of an export that comes from no single run: what it was made from, and nothing measured."""
    return model_card(
        title=title,
        kind=kind,
        base=base,
        base_hash=base_hash,
        data=None,
        template=template,
        command=command,
        metrics=(),
        trainable=None,
        total=None,
        tokens=None,
        versions=versions,
        license=license,
        date=date,
        origin=origin,
    )


def license_of(base: Path) -> str | None:
    """Returns the licence that the card of a base states in its front matter."""
    file = base / "README.md"
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    front = text.split("---\n")[1] if text.startswith("---\n") else ""
    found = re.search(r"^license: *[\"']?([\w.+-]+)", front, re.MULTILINE)
    return found.group(1) if found else None


def _metrics(metrics: Sequence[Measured]) -> str:
    rows = [
        (
            entry.name,
            _value(entry.before, entry.before_interval),
            _value(entry.after, entry.after_interval),
            "" if entry.rows is None else f"{entry.rows:,}",
        )
        for entry in metrics
    ]
    note = (
        "\n\nOn held-out rows; brackets are 95 % intervals." if any(entry.after_interval for entry in metrics) else ""
    )
    return _table(("metric", "before", "after", "rows"), rows) + note


def _rows(name: str, summary: Mapping[str, Any]) -> int:
    """Returns the number of rows that a metric is of."""
    return int(summary["retention_rows" if name.startswith("eval_retention_") else "rows"])


def _differences(change: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Returns the metrics of a set that have a difference with an interval."""
    return {name: found for name, found in change.items() if isinstance(found, Mapping) and "p" in found}


def _changes(changes: Mapping[str, Any]) -> str:
    rows = []
    for of, change in changes.items():
        for name, found in _differences(change).items():
            ends = f"{found['value']:+.3g} [{float(found['low']):.3g}, {float(found['high']):.3g}]"  # may be "Infinity"
            p = "< 0.001" if found["p"] < 0.001 else f"{found['p']:.2g}"
            both = (_value(found["before"], None), _value(found["after"], None))
            rows.append((f"{of.replace('_', '-')}: {name}", *both, ends, p, f"{found['of']:,}"))
    told = [f"- {of.replace('_', '-')}: {change['words']}" for of, change in changes.items() if "words" in change]
    flips = changes.get("held_out", {}).get("flips")
    told += [f"- held-out rows won by {flips['of']}: {flips['won']}; lost: {flips['lost']}"] if flips else []
    note = "Row by row on the same rows, after less before; brackets are 95 % intervals (bootstrap over rows)."
    table = _table(("of", "before", "after", "difference", "p", "rows"), rows)
    return "\n\n".join([table, note, "\n".join(told)])


def _value(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" + (f" [{interval[0]:.4g}, {interval[1]:.4g}]" if interval else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _loading(kind: str, base: str) -> str:
    if kind == "adapter":
        return (
            "from peft import PeftModel\n"
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'model = AutoModelForCausalLM.from_pretrained("{base}")\n'
            'model = PeftModel.from_pretrained(model, "this folder")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{base}")\n'
        )
    if kind.startswith("reward"):
        adapter, scores = kind == "reward_adapter", "AutoModelForSequenceClassification"
        return (
            ("from peft import PeftModel\n" if adapter else "")
            + f"from transformers import {scores}, AutoTokenizer\n\n"
            + f'model = {scores}.from_pretrained("{base if adapter else "this folder"}"'
            + (', num_labels=1)\nmodel = PeftModel.from_pretrained(model, "this folder")\n' if adapter else ")\n")
            + f'tokenizer = AutoTokenizer.from_pretrained("{base if adapter else "this folder"}")\n'
            + ("model.config.pad_token_id = ..  # a token that ends no text, and the tokenizer's\n" if adapter else "")
            + "# The score is read at the last token of a text; (score - mean) / std of score.json normalises it.\n"
        )
    if kind == "quantised":
        return (
            "from ftjax.checkpoint import hf_import\n\n"
            'config, base = hf_import.load("this folder")  # or --model, or --config.model.path, of the scripts\n'
        )
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model = AutoModelForCausalLM.from_pretrained("this folder")\n'
        'tokenizer = AutoTokenizer.from_pretrained("this folder")\n'
    )
