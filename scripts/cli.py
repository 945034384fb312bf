"""What the scripts share: one-line errors, exit codes, flags that are not abbreviated."""

import argparse
from collections.abc import Callable, Mapping
import json
import os
from pathlib import Path
import platform
import sys
import traceback
from typing import Any, NoReturn

from ftjax import lookup
from ftjax.errors import UserError


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        """Raises a UserError."""
        raise UserError(f"{message}; --help shows the flags")


def parser(description: str | None) -> Parser:
    """Returns a parser with --debug, whose wrong flags become one-line errors."""
    made = Parser(description=description, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False)
    made.add_argument("--debug", action="store_true", help="show the stack of an error")
    return made


def parse(made: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Returns the flags; one that the parser does not know is a UserError that names the nearest."""
    known = [option for action in made._actions for option in action.option_strings if option.startswith("--")]
    for word in argv:  # before the parser complains about what is missing because its name is wrong
        name = word.partition("=")[0]
        if name.startswith("--") and name not in known:
            raise UserError(f"unknown flag {name!r}.{lookup.suggestion(name, known)}")
    flags, unknown = made.parse_known_args(argv)
    if unknown:
        raise UserError(f"{unknown[0]!r} belongs to no flag.{lookup.suggestion(unknown[0], known)}")
    return flags


def append(file: Path | None, result: Mapping[str, Any]) -> None:
    """Appends a result to the file of --out as a JSON line; without one nothing happens."""
    if file is not None:
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(result) + "\n")


def refuse(mistakes: Mapping[str, object]) -> None:
    """Raises the first mistake that was made, as a UserError."""
    for mistake, made in mistakes.items():
        if made:
            raise UserError(mistake)


def huge_pages() -> None:
    """Starts this process again, in place, with an allocator that asks the kernel for huge pages (glibc on Linux).

    A step on CPU works through hundreds of MB of temporary arrays, and the first touch of every 4 KiB page is a fault:
    with pages of 2 MiB the step of `bench/step.py --shape S` takes 0.8 to 0.9 of the time, in the same memory. glibc
    reads its tunables when a process starts, and no function sets them later. FTJAX_HUGE_PAGES=0 leaves it.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    wanted = os.environ.get("FTJAX_HUGE_PAGES", "1") != "0" and "glibc.malloc.hugetlb" not in tunables
    ours = sys.orig_argv[-len(sys.argv) :] == sys.argv  # not where a test or a notebook runs the script in its process
    if not (wanted and ours and sys.executable and sys.platform == "linux" and platform.libc_ver()[0] == "glibc"):
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [tunables, "glibc.malloc.hugetlb=1"]))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def run(main: Callable[[list[str]], int]) -> int:
    """Returns main's exit status; a user's mistake is one line and status 2, Ctrl-C one line and 130."""
    huge_pages()
    try:
        return main(sys.argv[1:])
    except UserError as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if "--debug" in sys.argv:
            traceback.print_exc()
        print("interrupted", file=sys.stderr)
        return 130
