"""How a reward function is called, and what its answer is worth: TRL's convention, `fn(prompts=, completions=, ...)`.

Standard library alone, since a process that runs nothing but reward functions imports it.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import inspect
import math
import numbers
import traceback
from typing import Any, NamedTuple

LARGEST = 3.4028234e38  # of float32
OF_SAMPLES = ("prompts", "completions", "ended", "tokens")  # what a function is offered besides the columns of the rows


class Outcome(NamedTuple):
    """What a function says of one row: a number, NaN where it does not apply, or why there is none."""

    value: float
    why: str  # empty where nothing went wrong


class Takes(NamedTuple):
    """Which arguments a function can be given by name."""

    needed: frozenset[str]
    optional: frozenset[str]
    everything: bool  # it has **kwargs

    def wants(self, name: str) -> bool:
        """Returns whether an argument of this name is passed where there is one."""
        return self.everything or name in self.needed or name in self.optional


def takes(function: Callable[..., Any]) -> Takes:
    """Returns which arguments a function takes by name; what `functools.partial` has filled in is none of them."""
    bound = set(function.keywords) if isinstance(function, functools.partial) else set()
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in bound]
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return Takes(
        frozenset(p.name for p in named if p.default is p.empty),
        frozenset(p.name for p in named if p.default is not p.empty),
        any(p.kind is p.VAR_KEYWORD for p in parameters),
    )


def inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function inside of `functools.partial`, which does not pass on its attributes."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def label(function: Callable[..., Any]) -> str:
    """Returns `module:name` of a function."""
    found: Any = inner(function)
    found = found if hasattr(found, "__qualname__") else type(found)
    return f"{found.__module__}:{found.__qualname__}"


def arguments(
    function: Callable[..., Any], offered: Mapping[str, list[Any]], rows: Sequence[Mapping[str, Any]]
) -> dict[str, list[Any]]:
    """Returns what a function is called with: of what is offered and of the columns of the rows that which it takes.

    A row without a column has None there; a column that it needs and no row has is all None, one that it can do
    without is left out.
    """
    wanted = takes(function)
    columns = sorted({key for row in rows for key in row} | (wanted.needed - set(offered)))
    found = {key: [row.get(key) for row in rows] for key in columns}
    return {key: values for key, values in {**found, **offered}.items() if wanted.wants(key)}


def one(function: Callable[..., Any], given: Mapping[str, list[Any]]) -> Outcome:
    """Returns the outcome of a call with lists of one row; never raises an Exception."""
    try:
        found = function(**given)
    except Exception as error:
        return Outcome(math.nan, said(error))
    if not is_list(found) or len(found) != 1:
        return Outcome(math.nan, f"returned {found!r:.60} for one row; it must return a list of one score")
    return outcome(found[0])


def outcome(found: Any) -> Outcome:
    """Returns what one entry of an answer is worth: a finite number in float32, or None, which means not applicable."""
    if found is None:
        return Outcome(math.nan, "")
    try:
        found = found.item() if hasattr(found, "item") else found  # of NumPy, JAX or PyTorch
        value = float(found) if isinstance(found, numbers.Real) else math.nan
    except (TypeError, ValueError, OverflowError) as error:
        return Outcome(math.nan, f"returned a {type(found).__name__} that is no number ({said(error)})")
    if not isinstance(found, numbers.Real):
        return Outcome(math.nan, f"returned {found!r:.60}, a {type(found).__name__}; a score is a number or None")
    if not abs(value) <= LARGEST:
        return Outcome(math.nan, f"returned {found!r:.60}; a score must be finite in float32")
    return Outcome(value, "")


def is_list(found: Any) -> bool:
    """Returns whether an answer is a list of scores: a list, a tuple, an array of one axis."""
    return isinstance(found, list | tuple) or len(getattr(found, "shape", ())) == 1


def said(error: BaseException) -> str:
    """Returns an exception in one line of at most 300 characters; one that cannot be printed does not raise."""
    return " ".join("".join(traceback.format_exception_only(error)).split())[:300]
