"""What the scripts share: one-line errors, exit codes, flags that are not abbreviated."""

import argparse
from collections.abc import Callable
import sys
import traceback

from ftjax import lookup
from ftjax.errors import UserError


def parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser with --debug, whose wrong flags become one-line errors."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False
    )
    made.add_argument("--debug", action="store_true", help="show the stack of an error")
    return made


def parse(made: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Returns the flags; one that the parser does not know is a UserError that names the nearest."""
    flags, unknown = made.parse_known_args(argv)
    if unknown:
        known = [option for action in made._actions for option in action.option_strings if option.startswith("--")]
        raise UserError(f"unknown flag {unknown[0]!r}.{lookup.suggestion(unknown[0].partition('=')[0], known)}")
    return flags


def run(main: Callable[[list[str]], int]) -> int:
    """Returns main's exit status; a user's mistake is one line and status 2."""
    try:
        return main(sys.argv[1:])
    except UserError as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 2
