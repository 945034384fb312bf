"""The report of `data.py check` as one HTML page: no script, no outside asset, private data masked."""

from collections.abc import Iterable, Sequence
import html
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from ftjax.data import check, files, html_parts, plots_svg, rows
from ftjax.data.checks import edge_cases_missing

_FINDINGS = 20  # of a rule on the page
_PLACES = 4  # lines of one message
_PAIRS = 8  # of nearly equal rows, side by side
_ROWS = 3  # longest and shortest


def write(folder: Path, data: rows.DataFile, report: check.CheckReport) -> None:
    """Writes index.html into a folder, which is made; a page that is there is refused."""
    place = folder / "index.html"
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
    files.write_new(place, [render(data, report)])


def render(data: rows.DataFile, report: check.CheckReport) -> str:
    """Returns the page."""
    parts = [_head(report), _findings(report), _lengths(report), _topics(data, report), _edge_cases(report)]
    parts += [_scores(data, report), _near(data), _extremes(data), _preferences(report)]
    return html_parts.document(f"Check of {html_parts.safe(report.path)}", "".join(parts))


def _head(report: check.CheckReport) -> str:
    said = report.summary
    kind = "error" if said["errors"] else "warning" if said["warnings"] or said["readable"] < 50 else "good"
    tiles = {
        "rows": f"{report.rows:,}",
        "can be trained on": f"{said['readable']:,}",
        "errors": f"{said['errors']:,}",
        "warnings": f"{said['warnings']:,}",
        "notes": f"{said['notes']:,}",
    }
    if "tokens" in said:
        tiles["tokens"] = f"{said['tokens']['all']:,}"
    if "diversity" in said:
        tiles["distinct-2"] = f"{said['diversity']['distinct_2']:.2f}"
    shown = "".join(f'<div class="tile"><b class="number">{value}</b>{name}</div>' for name, value in tiles.items())
    what = "preferences" if said["kind"] == "preferences" else "answers to learn from"
    skipped = ""
    for why in sorted(set(said["not_run"].values())):
        names = ", ".join(name for name, own in said["not_run"].items() if own == why)
        flag = html.escape(why.removeprefix("needs "))
        skipped += f" {html.escape(names)}: <span class='flag'>{flag}</span>."
    return (
        f"<h1>{html_parts.safe(Path(report.path).name)}</h1>\n"
        f"<p class='soft'>{html_parts.safe(report.path)}, a file of {what}.</p>\n"
        f'<p class="verdict {kind}">{html.escape(said["verdict"])}</p>\n<div class="tiles">{shown}</div>\n'
        + _guide(said["guide"])
        + (f'<p class="soft">Not run, for want of a flag:{skipped}</p>\n' if skipped else "")
    )


def _guide(lines: Sequence[dict[str, Any]]) -> str:
    words = {True: ("yes", "good"), False: ("no", "bad"), None: ("not known", "soft")}
    shown = "".join(
        f"<tr><td class='{words[line['kept']][1]}'>{words[line['kept']][0]}</td>"
        f"<td>{html_parts.safe(line['rule'])}</td>"
        f"<td>{html_parts.safe(line['found']).replace('_', '_<wbr>')}</td></tr>"
        for line in lines
    )
    return f"<table class='guide'><tr><th>kept</th><th>rule</th><th>found</th></tr>{shown}</table>\n"


def _findings(report: check.CheckReport) -> str:
    known = {rule.name: rule for rule in check.rules()}
    parts = []
    for name, found in report.by_rule().items():
        rule = known[name]
        alike: dict[str, list[int | None]] = {}
        for one in found:
            alike.setdefault(one.message, []).append(one.line)
        lines = [
            f"<tr><td class='number'>{_lines(places)}</td><td>{html_parts.safe(message)}</td></tr>"
            for message, places in itertools.islice(alike.items(), _FINDINGS)
        ]
        more = f"<p class='soft'>{len(alike) - _FINDINGS:,} more; data.py check --all names them.</p>"
        parts.append(
            f'<details class="{rule.severity}"{" open" if rule.severity == "error" else ""}>'
            f"<summary><b>{name}</b> {rule.severity}, {len(found):,} found</summary>\n"
            f"<p>{html.escape(rule.why)}</p><p><b>What to do:</b> {html.escape(rule.fix)}</p>\n"
            f"<table>{''.join(lines)}</table>{more if len(alike) > _FINDINGS else ''}</details>\n"
        )
    return f"<h2>Findings</h2>\n{''.join(parts) or '<p>None.</p>'}"


def _lines(places: Sequence[int | None]) -> str:
    """Returns where a message was found: the line, or the first lines of several, one below the other."""
    if places[0] is None:
        return "file"
    shown = "<br>".join(f"line {place:,}" for place in places[:_PLACES])
    return shown + (f"<br>and {len(places) - _PLACES:,} more" if len(places) > _PLACES else "")


def _lengths(report: check.CheckReport) -> str:
    names = {
        "tokens": "tokens of a row",
        "characters": "characters of a row",
        "answer_characters": "characters of the answers",
    }
    parts = []
    for name, title in names.items():
        if name in report.summary:
            one = report.summary[name]
            shares = ", ".join(f"{key} {one[key]:,}" for key in one if key.startswith("p"))
            limit = one.get("limit")
            parts.append(
                f"<div><h3>{title}</h3>{plots_svg.histogram(one['histogram'], limit=limit)}"
                f"<p class='soft number'>{one['shortest']:,} to {one['longest']:,}, mean {one['mean']:,}; {shares}"
                f"{f'; {limit:,} fit' if limit else ''}</p></div>"
            )
    return f"<h2>Lengths</h2>\n<div class='columns'>{''.join(parts)}</div>\n" if parts else ""


def _topics(data: rows.DataFile, report: check.CheckReport) -> str:
    found = data.topics
    if found is None:
        return ""
    lines = [
        f"<tr><td>{plots_svg.dot(rank)}</td><td>{html_parts.safe(name) or '(no word of its own)'}</td>"
        f"<td class='number'>{share:.1%}</td></tr>"
        for rank, (name, share) in enumerate(zip(found.names, found.shares, strict=True))
    ]
    labels = [data.samples[n].asked or data.samples[n].answer for n in found.looked_at]
    like = "that the model takes for alike (its embeddings)" if found.by_model else "with like words (TF-IDF)"
    near = ", ".join(f"{key} {value:.2f}" for key, value in report.summary["nearest_neighbour"].items())
    shown = plots_svg.scatter(found.place, found.cluster, [html_parts.safe(label[:80]) for label in labels])
    return (
        f"<h2>Topics</h2>\n<div class='columns'><div>{shown}<p class='soft'>A row is a point; rows {like} "
        f"are close. Distance to the nearest row (0 is equal): {near}.</p></div>"
        "<div><table><tr><th></th><th>words of the cluster</th><th>rows</th></tr>"
        f"{''.join(lines[:12])}</table></div></div>\n"
    )


def _edge_cases(report: check.CheckReport) -> str:
    if "edge_cases" not in report.summary:
        return ""
    lines = [
        f"<tr><td class='number'>{count:,}</td><td>{edge_cases_missing.CASES[name]}"
        f"{'' if count else ' <b>(missing)</b>'}</td></tr>"
        for name, count in report.summary["edge_cases"].items()
    ]
    return f"<h2>Edge cases</h2>\n<table><tr><th>rows</th><th>kind</th></tr>{''.join(lines)}</table>\n"


def _scores(data: rows.DataFile, report: check.CheckReport) -> str:
    """Returns what a model says of the rows: sentences, how likely the answers are, the hardest and the easiest."""
    if "scores" not in report.summary:
        return ""
    said = report.summary["scores"]
    if "not_used" in said:
        return f"<h2>Scores</h2>\n<p>Not used: {html_parts.safe(said['not_used'])}</p>\n"
    own = np.flatnonzero([row.record is not None for row in data.rows])
    nll = data.scores.values["nll_per_token"][own]
    order = [n for n in np.argsort(-nll, kind="stable").tolist() if np.isfinite(nll[n])]
    lines = "".join(f"<li>{html_parts.safe(line)}</li>" for line in said["told"])
    if not order:
        return f"<h2>Scores</h2>\n<ul>{lines}</ul>\n"
    few = min(_ROWS, max(len(order) // 2, 1))
    return (
        f"<h2>Scores</h2>\n<p class='soft'>By {html_parts.safe(str(said['model']))}.</p>"
        f"<div class='columns'><ul>{lines}</ul>"
        f"<div><h3>NLL of the answers, nats a token</h3>{plots_svg.numbers(nll)}</div></div>\n"
        f"<div class='columns'><div><h3>the hardest</h3>{_texts(data, order[:few], nll)}</div>"
        f"<div><h3>the easiest</h3>{_texts(data, order[: -few - 1 : -1], nll)}</div></div>\n"
    )


def _near(data: rows.DataFile) -> str:
    pairs = [one for one in data.near if one.jaccard < 1][:_PAIRS] or data.near[:_PAIRS]
    parts = []
    for one in pairs:
        first, second = html_parts.marked(html_parts.cut(data.texts[one.like]), html_parts.cut(data.texts[one.row]))
        lines = [data.readable[n].line for n in (one.like, one.row)]
        parts.append(
            f"<div class='columns'><div><p class='soft'>line {lines[0]:,}</p><pre>{first}</pre></div>"
            f"<div><p class='soft'>line {lines[1]:,}, Jaccard {one.jaccard:.2f}</p><pre>{second}</pre></div></div>\n"
        )
    return (
        f"<h2>Nearly equal rows</h2>\n<p class='soft'>{len(data.near):,} in all.</p>{''.join(parts)}" if parts else ""
    )


def _extremes(data: rows.DataFile) -> str:
    order = sorted(range(len(data.texts)), key=lambda n: len(data.texts[n]))
    if len(order) < 2 * _ROWS:
        return ""
    longest, shortest = (_texts(data, chosen, None) for chosen in (order[: -_ROWS - 1 : -1], order[:_ROWS]))
    return (
        f"<h2>Rows</h2>\n<div class='columns'><div><h3>the longest</h3>{longest}</div>"
        f"<div><h3>the shortest</h3>{shortest}</div></div>\n"
    )


def _texts(data: rows.DataFile, chosen: Iterable[int], nll: np.ndarray | None) -> str:
    size = lambda n: f"{len(data.texts[n]):,} characters" if nll is None else f"{nll[n]:.3f} nats a token"
    return "".join(
        f"<p class='soft'>line {data.readable[n].line:,}, {size(n)}</p>"
        f"<pre>{html_parts.safe(html_parts.cut(data.texts[n]))}</pre>"
        for n in chosen
    )


def _preferences(report: check.CheckReport) -> str:
    said: dict[str, Any] | None = report.summary.get("longer_wins")
    if not said or not said["pairs"]:
        return ""
    ends: Sequence[float] = said["interval"]
    return (
        f"<h2>Preferences</h2>\n<p>The longer completion wins {said['longer'] / said['pairs']:.1%} of "
        f"{said['pairs']:,} pairs of two lengths (95 % interval: {ends[0]:.1%} to {ends[1]:.1%}).</p>\n"
    )
