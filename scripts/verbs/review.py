"""`data.py review`: a page on which experts accept, edit or reject every row."""

import argparse
import contextlib
from pathlib import Path
import secrets

from ftjax import errors


def declare(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("file", help="data file of any kind that training reads")
    parser.add_argument("--flags", metavar="FILE", help="what `data.py check --json` printed (default: check now)")
    parser.add_argument("--guidelines", metavar="FILE", help="text file that reviewers can open beside a row")
    parser.add_argument("--second-opinions", type=float, metavar="SHARE", help="share of rows that two see, blind")
    parser.add_argument("--columns", help="names of columns, as prompt=question,completion=reply")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8765, help="port (default 8765; 0 takes a free one)")
    parser.add_argument("--token", nargs="?", const="", metavar="SECRET", help="needed to come in (none given: made)")
    parser.add_argument("--reviewers", metavar="NAME,...", help="only these, each by a link of their own")
    parser.add_argument("--export", type=Path, metavar="OUT.jsonl", help="serve nothing; write the reviewed file")
    parser.add_argument("--undecided", choices=("keep", "drop"), help="of --export: rows that nobody has decided on")


def run(arguments: argparse.Namespace) -> None:
    """Serves a page on which several reviewers decide on every row, or writes what they decided (--export)."""
    from ftjax.data import rows

    columns = rows.parse_columns(arguments.columns) if arguments.columns else None
    if arguments.undecided and arguments.export is None:
        raise errors.UserError("--undecided says what --export does; give that too")
    if arguments.export is not None:
        _export(arguments, columns)
    else:
        _serve(arguments, columns)


def _export(arguments: argparse.Namespace, columns: dict[str, str] | None) -> None:
    from ftjax.data import files, rows
    from ftjax.people import review
    from scripts.verbs import _written

    beside = arguments.export.with_suffix(".decisions.jsonl")
    _written.free(arguments.export, beside)
    if not review.place(arguments.file).exists():
        raise errors.UserError(f"{arguments.file}: has no review yet; data.py review {arguments.file} begins one")
    data = rows.read(arguments.file, columns=columns)
    with review.opened(data, columns=columns, second_opinions=None) as store:
        decisions = review.decided(data, store)
    values = review.kept(decisions, undecided=arguments.undecided)
    files.write_rows(beside, review.told(decisions, undecided=arguments.undecided))
    kind, note = _written.kind_of(data), review.note(decisions)
    _written.write(arguments.export, values, kind=kind, parents=[arguments.file], note=note)
    print(f"written: {beside} (who decided what)")
    print(note)
    unreadable = review.unreadable(data)
    for row in unreadable[: review.FEW]:
        print(f"left out: {row.refusal}")
    if len(unreadable) > review.FEW:
        print(f"left out: {len(unreadable) - review.FEW:,} lines more; {beside} names them all")


def _serve(arguments: argparse.Namespace, columns: dict[str, str] | None) -> None:
    from ftjax.data import check, files, rows
    from ftjax.people import addresses, doors, review, server
    from scripts.verbs import _progress

    names = doors.named(arguments.reviewers)
    if not doors.is_loopback(arguments.host) and arguments.token is None and not names:
        raise errors.UserError(
            f"--host {arguments.host}: others could read and answer; give --token as well, or --reviewers NAME,..."
        )
    guidelines = files.text(arguments.guidelines) if arguments.guidelines else ""
    with contextlib.ExitStack() as held:
        held.enter_context(server.interruptible())
        # Before the work, which a taken port or a missing package would waste.
        listener = held.enter_context(addresses.listen(arguments.host, arguments.port))
        with _progress.bar(quiet=False) as tell:
            data = rows.read(arguments.file, columns=columns, progress=tell.row)
            findings = review.flags(arguments.flags, data) if arguments.flags else None
            store = held.enter_context(review.opened(data, columns=columns, second_opinions=arguments.second_opinions))
            if findings is None:
                findings = [one.as_dict() for one in check.run(data, progress=tell.rule).findings]
        page = review.campaign(data, store, findings=findings, guidelines=guidelines)
        shared = secrets.token_urlsafe(24) if arguments.token == "" else arguments.token
        entrance, lines = doors.opened(store, names, shared=shared, host=arguments.host, listener=listener)
        print(*lines, sep="\n")
        print(f"answers are kept in {store.path}; Ctrl-C stops, the same command goes on", flush=True)
        server.serve(page, entrance, listener)
