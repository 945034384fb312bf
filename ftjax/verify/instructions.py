"""Which of its instructions a response keeps, strictly and loosely, and the four accuracies of IFEval.

An instruction is a name (`keywords:existence`) and arguments, as a row of the data has them in `instruction_id_list`
and `kwargs`; arguments that are None are left out, so rows of `google/IFEval` can be used as they are.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import inspect
from typing import Any

from ftjax import lookup
from ftjax.errors import UserError

_PACKAGE = "ftjax.verify.constraints"


@functools.cache
def names() -> tuple[str, ...]:
    """Returns the names of all instructions, sorted."""
    return tuple(name.replace(".", ":") for name in lookup.catalogue(_PACKAGE))


def strictly(text: str, ids: Sequence[str], arguments: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Returns for each instruction whether a response keeps it; an empty response keeps none."""
    return [bool(text.strip()) and check(text) for check in _checks(ids, arguments)]


def loosely(text: str, ids: Sequence[str], arguments: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Returns for each instruction whether one of eight forms of a response keeps it.

    They are the response, without its first line, without its last, without both; and each without asterisks.
    """
    lines = text.split("\n")
    forms = [text, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    forms = [form for form in (*forms, *(form.replace("*", "") for form in forms)) if form.strip()]
    return [any(map(check, forms)) for check in _checks(ids, arguments)]


READINGS = {"strict": strictly, "loose": loosely}


def accuracy(kept: Sequence[Sequence[bool]]) -> dict[str, float]:
    """Returns the share of responses that keep all of their instructions, and the share of instructions kept."""
    each = [one for row in kept for one in row]
    return {"prompt": sum(map(all, kept)) / len(kept), "instruction": sum(each) / len(each)}


def _checks(ids: Sequence[str], arguments: Sequence[Mapping[str, Any]]) -> list[Callable[[str], bool]]:
    if len(ids) != len(arguments):
        raise UserError(
            f"{len(ids)} names in instruction_id_list, but {len(arguments)} in kwargs; give one for each, {{}} where "
            "there is nothing to say"
        )
    return [_check(name, given) for name, given in zip(ids, arguments, strict=True)]


def _check(name: str, arguments: Mapping[str, Any]) -> Callable[[str], bool]:
    if name not in names():
        raise UserError(f"no instruction {name!r}.{lookup.suggestion(name, list(names()))}")
    function = _function(name)
    given = {key: value for key, value in arguments.items() if value is not None}
    wanted = set(inspect.signature(function).parameters) - {"text"}
    if set(given) != wanted:
        raise UserError(f"{name} takes {sorted(wanted) or 'no arguments'}, but kwargs holds {sorted(given)}")
    return functools.partial(function, **given)


@functools.cache
def _function(name: str) -> Callable[..., bool]:
    found: Callable[..., bool] = lookup.lookup(_PACKAGE, name.replace(":", "."))
    return found
