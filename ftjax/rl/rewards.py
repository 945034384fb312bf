"""Reward functions over the completions of a rollout: what each says, their weighted sum, and which rows failed.

A function is called as TRL calls it, `fn(prompts=[...], completions=[...], **columns) -> list[float | None]`, with
those columns of the data that it takes, and with `tokens` and `ended` if it asks for them. One that is marked
`fn.each = True` is called for one row at a time, in processes, with a time limit. A reward of ours is a file in
`rl/scores/`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
import importlib
import inspect
import math
import pickle
from typing import Any, NamedTuple

import numpy as np

from ftjax import config, lookup
from ftjax.errors import UserError, some
from ftjax.rl import calls, processes

_SCORES = "ftjax.rl.scores"


class Sample(NamedTuple):
    """One completion, and what it is judged by."""

    prompt: str
    completion: str
    ended: bool
    tokens: int
    row: Mapping[str, Any]  # the data line of the prompt


class Term(NamedTuple):
    """One reward of a weighted sum."""

    name: str
    function: Callable[..., Any]
    weight: float


class Failure(NamedTuple):
    """A row that a reward could not score."""

    row: int
    term: str
    why: str
    prompt: str


class Scored(NamedTuple):
    """The rewards of a rollout."""

    scores: np.ndarray  # float32 [B], the weighted sum of the terms that apply, 0 where not valid
    valid: np.ndarray  # bool [B]: False where a term failed or none applies; such a row is left out of the step
    parts: dict[str, np.ndarray]  # float32 [B] by term, before weights; NaN where it failed or does not apply
    failures: list[Failure]  # by term, then by row


class Scorer:
    """Calls the functions of a weighted sum. Close it, or use it in a `with`, to end its processes."""

    def __init__(self, terms: Sequence[Term], *, timeout: float, workers: int) -> None:
        """Starts nothing. `timeout` is seconds a row, of functions called for each row, and `workers` their processes.

        Raises UserError where such a function cannot be sent to a process.
        """
        if not terms or len({term.name for term in terms}) < len(terms):
            raise ValueError(f"terms are {[term.name for term in terms]}; give at least one, each with its own name")
        if not (timeout > 0 and workers > 0 and all(math.isfinite(term.weight) for term in terms)):
            raise ValueError(f"timeout {timeout}, workers {workers} must be positive, and weights finite")
        for term in terms:
            if _each(term):
                _check_can_be_sent(term)
        self._terms, self._timeout = tuple(terms), timeout
        self._pool = processes.Pool(workers)

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the processes; the next call would start new ones."""
        self._pool.close()

    def __call__(self, samples: Sequence[Sample]) -> Scored:
        """Returns the rewards of a rollout.

        A row for which a function raises, takes too long, or returns something else than a finite number or None, is
        masked and named. Raises UserError where a function does so for every row, or returns another number of scores
        than it was given completions.
        """
        total, valid = np.zeros(len(samples)), np.zeros(len(samples), bool)
        failed = np.zeros(len(samples), bool)
        parts: dict[str, np.ndarray] = {}
        failures: list[Failure] = []
        for term in self._terms:
            found = self._outcomes(term, samples)
            values = np.array([outcome.value for outcome in found], np.float64)
            wrong = np.array([bool(outcome.why) for outcome in found], bool)
            if samples and wrong.all():
                raise UserError(
                    f"the reward {term.name!r} ({calls.label(term.function)}) fails for all {len(samples)} rows, the "
                    f"first with: {found[0].why}; mend it, or take it out of the rewards"
                )
            applies = ~np.isnan(values)
            total += np.where(applies, term.weight * np.where(applies, values, 0.0), 0.0)
            valid |= applies
            failed |= wrong
            parts[term.name] = values.astype(np.float32)
            failures += [
                Failure(row, term.name, outcome.why, samples[row].prompt)
                for row, outcome in enumerate(found)
                if outcome.why
            ]
        for row in np.flatnonzero(np.abs(total) > calls.LARGEST).tolist():
            failed[row] = True
            failures.append(Failure(row, "sum", f"is {total[row]:g}, beyond float32", samples[row].prompt))
        valid &= ~failed
        return Scored(np.where(valid, total, 0.0).astype(np.float32), valid, parts, failures)

    def _outcomes(self, term: Term, samples: Sequence[Sample]) -> list[calls.Outcome]:
        if not samples:
            return []
        rows = [sample.row for sample in samples]
        _check_names(term, {key for row in rows for key in row})
        given = calls.arguments(term.function, _offered(samples), rows)
        alone = [{key: [values[row]] for key, values in given.items()} for row in range(len(samples))]
        if _each(term):
            return self._pool.run(term.function, alone, timeout=self._timeout)
        try:
            found = term.function(**given)
        except Exception:  # of which row, only calls of one row can tell
            return [calls.one(term.function, row) for row in alone]
        if not calls.is_list(found) or len(found) != len(samples):
            got = f"{len(found)} scores" if calls.is_list(found) else f"a {type(found).__name__}"
            raise UserError(
                f"the reward {term.name!r} ({calls.label(term.function)}) returned {got} for {len(samples)} "
                "completions; it must return a list with one number, or None, for each"
            )
        return [calls.outcome(one) for one in found]


def names() -> list[str]:
    """Returns the names of the rewards of `rl/scores/`, sorted."""
    return lookup.modules(_SCORES)


def terms(names: Sequence[str], weights: Sequence[float], hyper: Mapping[str, Any]) -> tuple[Term, ...]:
    """Returns the terms of a weighted sum; names are files of `rl/scores/` or a user's own `package.module:function`.

    No weights mean 1 each. `hyper` holds the hyper-parameters of all of them, each by its own name: keyword-only
    parameters annotated bool, int, float, str, tuple or Literal, which a user's function may give a default.
    """
    if not names or len(set(names)) < len(names):
        raise UserError(f"rewards are {tuple(names)}; name at least one, and each once")
    if weights and len(weights) != len(names):
        raise UserError(f"weights of rewards are {tuple(weights)}; give one for each of {tuple(names)}, or none")
    if not all(math.isfinite(weight) for weight in weights):
        raise UserError(f"weights of rewards are {tuple(weights)}; give finite numbers")
    return tuple(
        Term(name, _function(name, hyper), float(weight))
        for name, weight in zip(names, weights or (1.0,) * len(names), strict=True)
    )


def check_columns(terms: Sequence[Term], columns: Collection[str]) -> None:
    """Raises UserError where a reward needs a column that no row of the data has, or one has the name of ours."""
    shown = some(sorted(columns), 12) or "none"
    for term in terms:
        _check_names(term, columns)
        missing = sorted(calls.takes(term.function).needed - {*columns, *calls.OF_SAMPLES})
        one_of = tuple(getattr(calls.inner(term.function), "one_of", ()))
        if missing or (one_of and not set(one_of) & set(columns)):
            wanted = ", ".join(missing) or " or ".join(one_of)
            raise UserError(f"the reward {term.name!r} needs a column {wanted}; the data has {shown}: add or rename it")


def _check_names(term: Term, columns: Collection[str]) -> None:
    takes = calls.takes(term.function)
    twice = [name for name in calls.OF_SAMPLES if name in columns and takes.wants(name)]
    if twice:
        raise UserError(
            f"the reward {term.name!r} takes {twice[0]!r}, which a column of the data and the completions both have; "
            "rename the column"
        )


def _offered(samples: Sequence[Sample]) -> dict[str, list[Any]]:
    return {
        "prompts": [sample.prompt for sample in samples],
        "completions": [sample.completion for sample in samples],
        "ended": [sample.ended for sample in samples],
        "tokens": [sample.tokens for sample in samples],
    }


def _each(term: Term) -> bool:
    return bool(getattr(calls.inner(term.function), "each", False))


def _check_can_be_sent(term: Term) -> None:
    try:
        pickle.dumps(term.function)
    except Exception as error:
        raise UserError(
            f"the reward {term.name!r} is called in processes of its own, but {calls.label(term.function)} cannot be "
            f"sent there ({calls.said(error)}); define it with `def` at the top of a module"
        ) from None


def _function(name: str, hyper: Mapping[str, Any]) -> Callable[..., Any]:
    """Returns the function of a name, with those hyper-parameters filled in that it takes."""
    if ":" in name:
        function = lookup.lookup(_SCORES, name)
        if not callable(function) or inspect.isclass(function):
            raise UserError(f"the reward {name!r} is {function!r:.60}; name a function, or an instance with __call__")
        try:
            inspect.signature(function)
        except ValueError:
            raise UserError(
                f"the reward {name!r} does not say what it takes; wrap it in a function of Python"
            ) from None
        return _bound(name, function, hyper)
    if name not in names():
        raise UserError(f"no reward {name!r}.{lookup.suggestion(name, [*names(), 'package.module:function'])}")
    module = importlib.import_module(f"{_SCORES}.{name}")
    if hasattr(module, "check"):  # what is wrong with a hyper-parameter is said now, and not after the first rollout
        _bound(name, module.check, hyper)()
    return _bound(name, module.score, hyper)


def _bound(name: str, function: Callable[..., Any], hyper: Mapping[str, Any]) -> Callable[..., Any]:
    defaults = {key: p.default for key, p in inspect.signature(function).parameters.items() if p.default is not p.empty}
    wanted = config.hyper_parameters(function)
    values = {key: value for key, value in {**defaults, **hyper}.items() if key in wanted}
    missing = sorted(set(wanted) - set(values))
    if missing:
        raise UserError(f"the reward {name!r} takes {', '.join(missing)}, which the rewards' section does not hold")
    return config.bind(function, values)
