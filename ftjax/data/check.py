"""Every rule of `checks/` over a data file: findings, and a summary of the file in numbers and in one sentence."""

from collections import Counter
from collections.abc import Callable, Sequence
import dataclasses
import functools
import importlib
import pkgutil
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ftjax import errors
from ftjax.data import checks, guide, report, rows, scored, scores_told, tokenizer, tokens_of_rows
from ftjax.data.checks import _diversity, _hidden, _text, edge_cases_missing, fewer_than_50, length_bias

SEVERITIES = ("error", "warning", "note")
NEEDS = {"model": "--model", "limit": "--max-length", "against": "--against"}  # what a rule may need: its flag
_SHOWN = 5  # findings of a rule in the text, unless all are asked for


class Rule(NamedTuple):
    """A rule: its name and what its module says."""

    name: str
    severity: str
    why: str
    fix: str
    needs: tuple[str, ...]
    module: ModuleType


class Finding(NamedTuple):
    """What a rule says of a line, or of the file (None)."""

    rule: str
    severity: str
    line: int | None
    message: str
    suggestion: str

    def as_dict(self) -> dict[str, Any]:
        """Returns the finding as JSON-ready values."""
        return self._asdict()


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """What was found in a file. `summary` holds counts and statistics, JSON-ready."""

    path: str
    rows: int
    findings: list[Finding]
    summary: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Returns the report as JSON-ready values."""
        return {
            "file": self.path,
            "rows": self.rows,
            "findings": [finding.as_dict() for finding in self.findings],
            "summary": self.summary,
        }

    def failed(self, *, strict: bool) -> bool:
        """Tells whether there is an error; with `strict`, or a warning."""
        bad = SEVERITIES[:2] if strict else SEVERITIES[:1]
        return any(finding.severity in bad for finding in self.findings)

    def by_rule(self) -> dict[str, list[Finding]]:
        """Returns the findings by rule, worst severity first, then most findings first."""
        found: dict[str, list[Finding]] = {}
        for finding in self.findings:
            found.setdefault(finding.rule, []).append(finding)
        worst = lambda entry: (SEVERITIES.index(entry[1][0].severity), -len(entry[1]))
        return dict(sorted(found.items(), key=worst))

    def as_text(self, *, every: bool) -> str:
        """Returns the report for the console: each rule with its first findings (or all), and the summary."""
        known = {rule.name: rule for rule in rules()}
        lines = []
        for name, found in self.by_rule().items():
            lines.append(f"{found[0].severity}: {name} ({len(found):,}). {known[name].why}")
            shown = found if every else found[:_SHOWN]
            lines += [f"  {self.path}{'' if one.line is None else f':{one.line}'}: {one.message}" for one in shown]
            if len(shown) < len(found):
                lines.append(f"  ... {len(found) - len(shown):,} more; --all shows them")
            lines += [f"  -> {found[0].suggestion}", ""]
        return "\n".join([*lines, *_told(self.summary)])


@functools.cache
def rules() -> tuple[Rule, ...]:
    """Returns every rule, by walking `checks/`."""
    names = sorted(entry.name for entry in pkgutil.iter_modules(checks.__path__) if not entry.name.startswith("_"))
    modules = [importlib.import_module(f"{checks.__name__}.{name}") for name in names]
    return tuple(
        Rule(name, module.SEVERITY, module.WHY, module.FIX, getattr(module, "NEEDS", ()), module)
        for name, module in zip(names, modules, strict=True)
    )


def load(
    path: str,
    *,
    model: str | None,
    template_name: str | None,
    max_length: int | None,
    against: Sequence[str],
    columns: dict[str, str] | None,
    progress: Callable[[], None],
    counted: Callable[[int, int], None],
) -> rows.DataFile:
    """Returns a data file with all that rules look at: token counts where there is a model, and evaluation files.

    `progress` is called for each row that is read, `counted` with how many of how many have their tokens counted.
    """
    if max_length is not None and max_length < 2:
        raise errors.UserError(f"--max-length {max_length} must be at least 2: one token to read and one to predict")
    data = rows.read(path, columns=columns, progress=progress)
    data.against = [rows.read(other, columns=columns) for other in against]
    scored.attach(data)
    if model is None:
        if max_length is not None or template_name is not None:
            raise errors.UserError("--max-length and --template count tokens, which needs --model")
        return data
    taken = [row.record for row in data.readable if row.record is not None]
    data.tokens = tokens_of_rows.count(taken, tokenizer.load(model), template_name=template_name, progress=counted)
    data.limit = max_length if max_length is not None else tokens_of_rows.context(model)
    return data


def run(data: rows.DataFile, *, progress: Callable[[str], None]) -> CheckReport:
    """Returns what the rules find; `progress` is called with the name of each before it runs."""
    have = {"model": data.tokens is not None, "limit": data.limit is not None, "against": bool(data.against)}
    findings: list[Finding] = []
    skipped: dict[str, str] = {}
    for rule in rules():
        lacking = [need for need in rule.needs if not have[need]]
        if lacking:
            skipped[rule.name] = f"needs {NEEDS[lacking[0]]}"
            continue
        progress(rule.name)
        findings += [
            Finding(rule.name, rule.severity, line, _hidden.printable(_hidden.hidden(message)), rule.fix)
            for line, message in rule.module.check(data)
        ]
    findings.sort(key=lambda one: (SEVERITIES.index(one.severity), one.line or 0, one.rule))
    progress("summary")
    return CheckReport(data.path, len(data.rows), findings, _summary(data, findings, skipped))


def _summary(data: rows.DataFile, findings: Sequence[Finding], skipped: dict[str, str]) -> dict[str, Any]:
    severities = Counter(finding.severity for finding in findings)
    made: dict[str, Any] = {
        "kind": "preferences" if data.of_preferences else "answers",
        "readable": len(data.readable),
        **{f"{name}s": severities[name] for name in SEVERITIES},
        "rules": dict(Counter(finding.rule for finding in findings).most_common()),
        "not_run": skipped,
    }
    if data.samples:
        made["characters"] = _lengths(np.array([len(text) for text in data.texts]))
        made["answer_characters"] = _lengths(np.array([sum(map(len, one.answers)) for one in data.samples]))
        made["diversity"] = {name: round(value, 4) for name, value in _diversity.distinct(data).items()}
        made["edge_cases"] = edge_cases_missing.covered(data)
    if data.tokens is not None:
        counted = data.tokens.total[data.tokens.total > 0]
        if len(counted):
            made["tokens"] = {"all": int(counted.sum()), "limit": data.limit, **_lengths(counted)}
    if data.topics is not None:
        found = data.topics
        made["clusters_by"] = "embeddings of the model" if found.by_model else "words (TF-IDF)"
        made["clusters"] = [
            {"words": name, "share": round(share, 4)} for name, share in zip(found.names, found.shares, strict=True)
        ]
        made["nearest_neighbour"] = {
            f"p{p}": round(float(np.percentile(found.distance, p)), 4) for p in (1, 10, 50, 90)
        }
    if data.scores is not None:
        made["scores"] = {"model": data.scores.manifest["model"], "told": scores_told.summary(data.scores)}
    if data.unscored is not None:
        made["scores"] = {"not_used": data.unscored}
    if data.pairs:
        longer, total = length_bias.counted(data)
        ends = length_bias.interval(longer, total) if total else (0.0, 1.0)
        made["longer_wins"] = {"pairs": total, "longer": longer, "interval": [round(end, 4) for end in ends]}
    made["verdict"] = _verdict(made)
    errors_ = [name for name in made["rules"] if name in _named("error")]
    made["guide"] = [line.as_dict() for line in guide.judged(data, made, errors_)]
    return made


def _lengths(found: np.ndarray) -> dict[str, Any]:
    return {
        "shortest": int(found.min()),
        "longest": int(found.max()),
        "mean": round(float(found.mean()), 1),
        **report.percentiles(found),
        "histogram": report.histogram(found),
    }


def _scored(said: dict[str, Any]) -> list[str]:
    first, *others = said["told"] or ["none"]
    return [f"scores     by {said['model']}: {first}", *(f"           {line}" for line in others)]


def _verdict(summary: dict[str, Any]) -> str:
    """Returns one sentence: whether to train on the file, and what is in the way."""
    bad = summary["errors"]
    if bad:
        worst = ", ".join(name for name in summary["rules"] if name in _named("error"))
        return f"Not ready: {_text.plural(bad, 'error')} ({worst}); training stops at them, or they spoil the result."
    if summary["readable"] < fewer_than_50.LEAST:
        return "Too small: collect at least 50 to 100 good examples before you train."
    if summary["warnings"]:
        most = ", ".join([name for name in summary["rules"] if name in _named("warning")][:3])
        return f"Can be trained on; look at {_text.plural(summary['warnings'], 'warning')} first ({most})."
    size = "; 500 to 5,000 rows are the range to aim at" if summary["readable"] < 500 else ""
    return f"Ready: nothing but notes{size}."


def _named(severity: str) -> set[str]:
    return {rule.name for rule in rules() if rule.severity == severity}


def _told(summary: dict[str, Any]) -> list[str]:
    counts = ", ".join(_text.plural(summary[f"{name}s"], name) for name in SEVERITIES)
    lines = [f"rows       {summary['readable']:,} can be trained on ({summary['kind']})", f"findings   {counts}"]
    for name in ("characters", "tokens"):
        if name in summary:
            one = summary[name]
            parts = ", ".join(f"{key} {one[key]:,}" for key in one if key.startswith("p"))
            limit = f", of {one['limit']:,} that fit" if one.get("limit") else ""
            lines.append(f"{name:<10} {one['shortest']:,} to {one['longest']:,}, mean {one['mean']:,}, {parts}{limit}")
    if "diversity" in summary:
        said = ", ".join(f"{name.replace('_', '-')} {value:.3f}" for name, value in summary["diversity"].items())
        lines.append(f"diversity  {said}")
    if "clusters" in summary:
        first = summary["clusters"][0]
        by = f", by {summary['clusters_by']}" if "told" in summary.get("scores", ()) else ""
        lines.append(f"topics     {len(summary['clusters'])}, the largest {first['share']:.0%} ({first['words']}){by}")
    if "scores" in summary:
        said = summary["scores"]
        lines += [f"scores     not used: {said['not_used']}"] if "not_used" in said else _scored(said)
    if "longer_wins" in summary and summary["longer_wins"]["pairs"]:
        one = summary["longer_wins"]
        low, high = one["interval"]
        lines.append(
            f"pairs      the longer one wins {one['longer'] / one['pairs']:.1%} of {one['pairs']:,} "
            f"(95 %: {low:.1%} to {high:.1%})"
        )
    if summary["not_run"]:
        wanted = ", ".join(sorted(set(summary["not_run"].values())))
        lines.append(f"not run    {', '.join(summary['not_run'])} ({wanted})")
    return [*lines, summary["verdict"]]
