"""`data.py check`: what is wrong with a data file, how it matters, and how to mend it."""

import argparse
import json
from pathlib import Path
import sys


def declare(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("file", help="jsonl, json, csv, parquet, a datasets folder, or world:TASK/split")
    parser.add_argument("--model", help="model folder: counts tokens with its tokenizer and chat template")
    parser.add_argument("--template", help="shipped chat template or path of a .jinja (default: the tokenizer's own)")
    parser.add_argument("--max-length", type=int, help="tokens that fit (default: the context of the model)")
    parser.add_argument("--against", nargs="+", default=[], metavar="FILE", help="evaluation files, looked for in FILE")
    parser.add_argument("--columns", help="names of columns, as prompt=question,completion=reply")
    parser.add_argument("--report", type=Path, metavar="DIR", help="also write DIR/index.html, a page to look at")
    parser.add_argument("--fix", action="store_true", help="write FILE.fixed.jsonl with what can be mended for certain")
    parser.add_argument("--save", metavar="NOTE", help="make a version of what the file holds, with what was found")
    parser.add_argument("--all", action="store_true", help="show every finding, not the first five of each rule")
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of text")
    parser.add_argument("--strict", action="store_true", help="exit with 1 for warnings too")


def run(arguments: argparse.Namespace) -> int:
    """Prints what is wrong with a file; exits with 0 (no error), 1 (errors; --strict: warnings too) or 2 (no row)."""
    from ftjax.data import check, files, guide, repair, rows, versions
    from scripts.verbs import _progress, _written

    columns = rows.parse_columns(arguments.columns) if arguments.columns else None
    place = repair.beside(arguments.file) if arguments.fix else None
    for taken in (place, arguments.report and arguments.report / "index.html"):  # known before the work is done
        if taken is not None:
            files.refuse_taken(taken)
    if place is not None:
        versions.history(str(place))  # of a copy that was moved away: they will be gone on with
    with _progress.bar(quiet=arguments.json) as tell:
        data = check.load(
            arguments.file,
            model=arguments.model,
            template_name=arguments.template,
            max_length=arguments.max_length,
            against=arguments.against,
            columns=columns,
            progress=tell.row,
            counted=tell.counted,
        )
        version = None if arguments.save is None else _written.begun(data, arguments.save)
        report = check.run(data, progress=tell.rule)
    said = None
    if version is not None:
        said = _written.noted(version, data, report)
        report.summary["guide"][-1] = guide.versioned(data).as_dict()
    if arguments.report is not None:
        from ftjax.data import page

        page.write(arguments.report, data, report)
    mended = None
    if place is not None:
        mended = repair.repaired(data)
        if mended.changes:
            kind, note = report.summary["kind"], f"fixed {', '.join(mended.changes)}"
            _written.put(place, mended.values, kind=kind, parents=[arguments.file], note=note)
    if arguments.json:
        print(json.dumps(report.as_dict(), ensure_ascii=False))
    else:
        print(report.as_text(every=arguments.all))
    say = sys.stderr if arguments.json else sys.stdout
    if arguments.report is not None:
        print(f"written: {arguments.report / 'index.html'}", file=say)
    if mended is not None:
        print(mended.told(place), file=say)
    if said is not None:
        print(said, file=say)
    if all(isinstance(row.refusal, files.BadRow) for row in data.rows):
        print(f"error: {arguments.file}: no row can be read; the findings say why", file=sys.stderr)
        return 2
    return int(report.failed(strict=arguments.strict))
