"""People rate the answers of models, blind: a page for raters, and files of what they said.

python scripts/human.py rate --runs base runs/A --prompts PROMPTS.jsonl [--raters Anna,Ben] [--ratings 2]
python scripts/human.py rate --answers a.jsonl b.jsonl [--checks CHECKS.jsonl] [--store FILE.sqlite]
python scripts/human.py status STORE
python scripts/human.py export STORE --out VOTES.jsonl [--preferences DPO.jsonl] [--pairs JUDGE.jsonl]
                               [--ratings RATINGS.jsonl] [--report REPORT.md] [--flagged drop]
"""

import argparse
from pathlib import Path
import sys

from scripts import cli


def main(argv: list[str]) -> int:
    """Returns the exit status."""
    made = cli.parser(__doc__)
    verbs = made.add_subparsers(dest="verb", required=True, parser_class=cli.Parser)
    rate = verbs.add_parser("rate", help="serves the page; the same command goes on after a stop", allow_abbrev=False)
    rate.add_argument("--runs", nargs="+", help="run folders; base: what the first of them began with")
    rate.add_argument("--prompts", help="with --runs: rows with messages or prompt")
    rate.add_argument("--answers", nargs="+", help="files of prompts with `answer`, one a model; or NAME=FILE")
    rate.add_argument("--store", type=Path, help="where answers are kept; default: beside the prompts")
    rate.add_argument("--ask", nargs="+", choices=("preference", "rating"), default=["preference", "rating"])
    rate.add_argument("--ratings", type=int, default=2, help="how many raters an item wants at least")
    rate.add_argument("--raters", help="NAME,...: only these, each by an address of their own")
    rate.add_argument("--checks", help="attention checks: items with a known answer")
    rate.add_argument("--guidelines", help="a text file in the place of the guidelines that come with it")
    rate.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    rate.add_argument("--port", type=int, default=8766, help="0 takes a free one")
    rate.add_argument("--max-new-tokens", type=int, default=128, help="with --runs")
    rate.add_argument("--temperature", type=float, default=0.0, help="with --runs; 0: the most likely token")
    rate.add_argument("--seed", type=int, default=0, help="with --runs and a temperature")
    rate.add_argument("--batch", type=int, default=16, help="with --runs: prompts at a time")
    status = verbs.add_parser("status", help="says how far it is", allow_abbrev=False)
    export = verbs.add_parser("export", help="writes what raters said", allow_abbrev=False)
    export.add_argument("--out", type=Path, help="votes, for scripts/compare.py --votes")
    export.add_argument("--preferences", type=Path, help="pairs on which most agree, for configs/dpo/jsonl.py")
    export.add_argument("--pairs", type=Path, help="pairs with votes, for configs/eval/judge.py")
    export.add_argument("--ratings", type=Path, help="a row a rating")
    export.add_argument("--report", type=Path, help="a Markdown file, or .json")
    for verb in (status, export):
        verb.add_argument("store", help="what `rate` printed")
        verb.add_argument("--flagged", choices=("keep", "drop"), default="keep", help="raters who failed a check")
    for verb in (rate, status, export):
        verb.add_argument("--debug", action="store_true", help="show the stack of an error")
    args = made.parse_args(argv)
    {"rate": _rate, "status": _status, "export": _export}[args.verb](args)
    return 0


def _rate(args: argparse.Namespace) -> None:
    from ftjax.data import files
    from ftjax.people import addresses, doors, rating, server, verdicts

    names = doors.named(args.raters)
    alone = doors.is_loopback(args.host)
    cli.refuse(
        {
            "give --runs RUN ... with --prompts FILE, or --answers FILE ...": bool(args.runs) == bool(args.answers),
            "--runs needs --prompts FILE, which they answer": args.runs and not args.prompts,
            "--prompts goes with --runs; files of --answers hold theirs": args.answers and args.prompts,
            f"--host {args.host}: others could read and answer; give --raters NAME,...": not (alone or names),
            f"--batch {args.batch} must be at least 1": args.batch < 1,
        }
    )
    store = args.store or Path(f"{args.prompts or args.answers[0].partition('=')[2] or args.answers[0]}.human.sqlite")
    known = rating.checks(args.checks) if args.checks else []
    guidelines = files.text(args.guidelines) if args.guidelines else ""
    # First the port: one that is taken, or a missing package, would waste the work.
    with server.interruptible(), addresses.listen(args.host, args.port) as listener:
        paths = _answered(args, store) if args.runs else rating.named(args.answers)
        asks = sorted(set(args.ask))
        with rating.opened(store, rating.read(paths), asks=asks, known=known, ratings=args.ratings) as kept:
            entrance, lines = doors.opened(kept, names, shared=None, host=args.host, listener=listener)
            print(*lines, sep="\n")
            page = rating.campaign(kept, guidelines=guidelines, news=verdicts.news, measured=verdicts.measured)
            page.joined()
            print(f"answers are kept in {store}; Ctrl-C stops, the same command goes on", flush=True)
            server.serve(page, entrance, listener)


def _answered(args: argparse.Namespace, store: Path) -> dict[str, Path]:
    from ftjax import answers_of_runs, experiment

    asked = answers_of_runs.systems(args.runs)
    experiment.use_compilation_cache()
    sampling = {"max_new_tokens": args.max_new_tokens, "temperature": args.temperature, "top_k": 0, "top_p": 1.0}
    how = {"sampling": sampling, "seed": args.seed, "batch_size": args.batch}
    say = lambda line: print(line, flush=True)
    return answers_of_runs.collect(asked, args.prompts, Path(f"{store}.answers"), say=say, **how)


def _status(args: argparse.Namespace) -> None:
    from ftjax.people import rating, rating_report, verdicts

    with rating.existing(args.store) as store:
        print(rating_report.markdown(verdicts.report(store, flagged=args.flagged)), end="")


def _export(args: argparse.Namespace) -> None:
    from ftjax.people import rating, rating_export

    names = ("out", "preferences", "pairs", "ratings", "report")
    places = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    cli.refuse({f"name a file to write: {', '.join(f'--{name}' for name in names)}": not places})
    with rating.existing(args.store) as store:
        print(*rating_export.write(store, places, flagged=args.flagged), sep="\n")


if __name__ == "__main__":
    sys.exit(cli.run(main))
