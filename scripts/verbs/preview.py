"""`data.py preview`: rows as the model will see them."""

import argparse
from pathlib import Path

from ftjax import errors


def declare(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("file", help="jsonl, json, csv, parquet, a datasets folder, or world:TASK/split")
    parser.add_argument("--model", required=True, help="model folder with the tokenizer")
    parser.add_argument("--rows", type=int, default=3, help="how many rows to show (default 3)")
    parser.add_argument("--template", help="shipped chat template or path of a .jinja (default: the tokenizer's own)")
    parser.add_argument("--train-on", default="assistant", help="assistant, last_assistant or all (default assistant)")
    parser.add_argument("--max-length", type=int, help="tokens a row may have (default: any)")
    parser.add_argument("--truncation", default="drop", help="drop, truncate or error (default drop)")
    parser.add_argument("--equal", default="drop", help="equal completions of a pair: drop or error (default drop)")
    parser.add_argument("--html", type=Path, help="also write a page there")


def run(arguments: argparse.Namespace) -> None:
    """Prints rows with their trained tokens marked, then what encoding does to the whole file.

    A file of preferences is known by its first row; its prompts are shown once, with their completions below.
    """
    import rich.console

    from ftjax.data import candidates, encode, preferences, preview, tokenizer

    if arguments.html is not None and (arguments.html.suffix != ".html" or not arguments.html.parent.is_dir()):
        raise errors.UserError(f"--html {arguments.html}: name a file that ends in .html in a folder that exists")
    if arguments.rows < 0:
        raise errors.UserError(f"--rows {arguments.rows} must not be negative")
    tok = tokenizer.load(arguments.model)
    settings = {
        "template_name": arguments.template,
        "max_length": arguments.max_length,
        "truncation": arguments.truncation,
    }
    if preferences.recognised(arguments.file):
        if arguments.train_on != "assistant":
            raise errors.UserError(f"--train-on {arguments.train_on} is for supervised training; preferences have none")
        examples, report = candidates.encode_preferences_file(
            arguments.file, tok, equal=arguments.equal, mismatched=False, **settings
        )
    else:
        examples, report = encode.encode_file(arguments.file, tok, train_on=arguments.train_on, **settings)
    console = rich.console.Console(highlight=False, soft_wrap=True)
    for example in examples[: arguments.rows]:
        console.print(f"── {preview.heading(example)}", style="bold", markup=False)
        console.print(
            preview.coloured(example, tok) if console.is_terminal else preview.bracketed(example, tok), markup=False
        )
        console.print()
    console.print(report.as_text(), markup=False)
    if arguments.html is not None:
        page = preview.page(examples[: arguments.rows], tok, title=arguments.file, summary=report)
        arguments.html.write_text(page, encoding="utf-8")
        console.print(f"\nwritten: {arguments.html}", markup=False)
