"""A comparison as one HTML page: no script, no outside asset; private data in answers masked."""

from collections.abc import Mapping, Sequence
import math
from typing import Any

from ftjax.compare import tables, words
from ftjax.data import html_parts, plots_svg
from ftjax.runs import plots

Told = Mapping[str, Any]
safe = html_parts.safe

_ENDS = ("value", "low", "high")
_CURVES = {"loss": "training loss", "eval_loss": "held-out loss", "eval_score": "held-out score"}
_SHORT = 40  # characters of a cell that stays on one line


def render(told: Told) -> str:
    """Returns the page."""
    parts = [_head(told), _main(told), _section("Metrics", tables.metrics(told)), _frontier(told), _slices(told)]
    parts += [_changed(told), _section("Judges", tables.judges(told)), _section("People", tables.people(told))]
    parts += [_section("Cost", tables.costs(told)), _curves(told)]
    parts += [_section("Configs, where they differ", tables.configs(told)), _section("Data", tables.data(told))]
    parts += [_data_differences(told)]
    names = ", ".join(one["name"] for one in told["systems"])
    return html_parts.document(f"Comparison of {safe(names)}", "".join(parts))


def _head(told: Told) -> str:
    names = [one["name"] for one in told["systems"] if one["name"] != told["baseline"]]
    first, *rest = told["verdict"] or ["nothing that has a better side was measured on all"]
    items = "".join(f"<li>{safe(_sentence(line, told))}</li>" for line in rest)
    main = words.main_of(told)
    decided = [entry["value"] * main["better"] for entry in main["against"].values() if entry["decided"]]
    kind = "warning" if not decided else "error" if min(decided) < 0 else "good"
    notes = "".join(f"<li>{safe(_sentence(note, told))}</li>" for note in told["notes"])
    rows = f"{main['rows']:,} {safe(main['set'])} rows"
    return (
        f"<h1>{safe(', '.join(names))} against {safe(told['baseline'])}</h1>\n"
        f"<p class='soft'>{rows} that all have; intervals at {told['level']:.0%}; p corrected by Holm over "
        f"{_family(told)} tests.</p>\n"
        f'<div class="verdict {kind}"><p>{safe(_sentence(first, told))}</p>'
        + f"{f'<ul>{items}</ul>' if items else ''}</div>\n"
        + (f"<h3>To know before you read on</h3><ul class='soft'>{notes}</ul>\n" if notes else "")
    )


def _family(told: Told) -> int:
    return max((entry["family"] for one in told["metrics"] for entry in one["against"].values()), default=0)


def _sentence(text: str, told: Told) -> str:
    """Returns a line as a sentence: it begins with a capital, unless with the name of a run."""
    named = any(text.startswith(one["name"]) for one in told["systems"])
    for sign in "=<":
        text = text.replace(f"p {sign} ", f"p\N{NO-BREAK SPACE}{sign}\N{NO-BREAK SPACE}")
    return f"{text if named else text[:1].upper() + text[1:]}."


def _main(told: Told) -> str:
    main = words.main_of(told)
    if not main["against"]:
        return ""
    scale = 100 if main["unit"] == "%" else 1
    ranks = _ranks(told)
    shown = {
        f"{safe(name)}: {words.signed(main, entry)}": (
            ranks[name], scale * entry["value"], scale * entry["low"], scale * entry["high"]
        )
        for name, entry in main["against"].items()
    }  # fmt: skip
    unit = "points" if main["unit"] == "%" else main["unit"]
    side = "right of 0 is better" if main["better"] > 0 else "left of 0 is better"
    return (
        f"<h2>{safe(main['label'].capitalize())}, difference to {safe(told['baseline'])}</h2>\n"
        f"<div class='narrow'>{plots_svg.intervals(shown)}</div>"
        f"<p class='soft'>{unit + '; ' if unit else ''}{side if main['better'] else ''}</p>\n"
    )


def _ranks(told: Told) -> dict[str, int]:
    """Returns the colour of each system, which is the same in every picture."""
    return {one["name"]: rank for rank, one in enumerate(told["systems"])}


def _frontier(told: Told) -> str:
    main, ranks, parts = words.main_of(told), _ranks(told), []
    scale = 100 if main["unit"] == "%" else 1
    for one in told["frontier"]:
        price = words.PRICES[one["price"]]
        points = {
            safe(point["name"]): (ranks[point["name"]], point["price"], *(scale * point[end] for end in _ENDS))
            for point in one["points"]
        }
        rows = [
            (plots_svg.dot(ranks[point["name"]]), safe(point["name"]), tables.number(point["price"]),
             words.value(main, point["value"]), "on the front" if point["name"] in one["front"] else "")
            for point in one["points"]
        ]  # fmt: skip
        table = _table(("", "run", price, main["label"], ""), rows, raw=True)
        parts.append(
            f"<div><h3>{safe(main['label'])}{' in %' if scale == 100 else ''} by {price}</h3>"
            f"{plots_svg.plane(points, across=price)}{table}</div>"
        )
    if not parts:
        return ""
    return (
        "<h2>The smallest capable model</h2>\n<p class='soft'>On the front is who is beaten by nobody that costs no "
        f"more.</p><div class='columns'>{''.join(parts)}</div>\n"
    )


def _slices(told: Told) -> str:
    if not told["slices"]:
        return ""
    main = words.main_of(told)
    return (
        f"<h2>Parts of the rows</h2>\n<p class='soft'>{safe(main['label'])}, difference to {safe(told['baseline'])}; * "
        "marks those that are sure after Holm's correction over all parts.</p>\n" + _table(*tables.slices(told))
    )


def _changed(told: Told) -> str:
    main = words.main_of(told)
    parts: list[str] = []
    for name, found in told["changed"].items():
        for kind in ("won", "lost"):
            if not found[kind]:
                continue
            count = found[f"{kind}_count"]
            shown = "".join(_sample(one, told["baseline"], name, main) for one in found[kind])
            parts.append(
                f"<details{'' if parts else ' open'}><summary><b>{safe(name)}</b> {kind} {count:,} rows against "
                f"{safe(told['baseline'])}, {min(count, len(found[kind]))} shown</summary>{shown}</details>\n"
            )
    return f"<h2>Rows that changed</h2>\n{''.join(parts)}" if parts else ""


def _sample(one: Told, base: str, name: str, main: Told) -> str:
    given = [answer if answer is not None else "(no answer was kept)" for answer in one["answers"]]
    texts = html_parts.marked(*map(html_parts.cut, given))
    numbers = [_marks(main, number) for number in one["numbers"]]
    known = html_parts.cut(one["reference"] or "")
    columns = "".join(
        f"<div><p class='soft'>{safe(who)}: {number}</p><pre>{text}</pre></div>"
        for who, number, text in zip((base, name), numbers, texts, strict=True)
    )
    return (
        f"<h3>{safe(html_parts.cut(one['prompt']) or one['id'])}</h3>"
        + (f"<p class='soft'>reference</p><pre>{safe(known)}</pre>" if known else "")
        + f"<div class='columns'>{columns}</div>"
    )


def _marks(main: Told, number: float) -> str:
    return ("wrong", "right")[int(number)] if main["unit"] == "%" else words.value(main, number)


def _curves(told: Told) -> str:
    ranks = _ranks(told)
    drawn_of = [name for name in ranks if any(name in lines for lines in told["curves"].values())]
    parts = []
    for metric, lines in told["curves"].items():
        smooth = metric in plots.NOISY
        shown = [(ranks[name], _line(line, smooth=smooth)) for name, line in lines.items()]
        picture = plots_svg.curves(shown, across=plots.STEP)
        title = f"{_CURVES.get(metric, metric)}{', running median' if smooth else ''}"
        parts.append(f"<div><h3>{safe(title)}</h3>{picture}</div>" if picture else "")
    legend = " ".join(f"{plots_svg.dot(ranks[name])} {safe(name)}&ensp;" for name in drawn_of)
    return f"<h2>Curves</h2>\n<p>{legend}</p><div class='columns'>{''.join(parts)}</div>\n" if parts else ""


def _line(points: Sequence[Sequence[float]], *, smooth: bool) -> list[tuple[float, float]]:
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    values = plots.smooth([value for _, value in finite]) if smooth else [value for _, value in finite]
    return [(step, value) for (step, _), value in zip(finite, values, strict=True)]


def _data_differences(told: Told) -> str:
    said = "".join(f"<li>{safe(line)}</li>" for line in told["data_differences"])
    return f"<ul>{said}</ul>\n" if said else ""


def _section(title: str, table: tables.Table) -> str:
    """Returns a table under its title; nothing of a table without rows."""
    head, rows = table
    return f"<h2>{title}</h2>\n{_table(head, rows)}" if rows else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, raw: bool = False) -> str:
    """Returns a table that scrolls by itself where the page is narrow; `raw` cells are markup already."""
    form = (lambda text: text) if raw else safe
    kind = lambda text: " class='number'" if len(text) <= _SHORT or raw else " class='text'"
    first = "".join(f"<th>{safe(name)}</th>" for name in head)
    lines = "".join(f"<tr>{''.join(f'<td{kind(cell)}>{form(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    return f"<div class='wide'><table><tr>{first}</tr>\n{lines}</table></div>\n"
