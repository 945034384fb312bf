"""Which rows to keep: an expression over what is known of each, the largest of one column, or rows unlike each other.

An expression is Python's: names of columns, numbers, `and or not`, comparisons (also chained), `+ - * /`, `abs`, and
`is None`. It is read by `ast` and never run: what is not listed here is refused. A value that a row has not got makes
what is said of it unknown, and a row is kept where the whole is known and true, as in SQL.
"""

import ast
from collections.abc import Callable, Mapping, Sequence
import heapq
import operator
from typing import Any, NamedTuple

import numpy as np

from ftjax import errors
from ftjax.data import files

METHODS = ("facility_location", "k_centre")
DEEPEST = 100  # of an expression within expressions: far below what Python's own stack allows
_SHOWN = 80  # characters of an expression in a message
_BLOCK = 1024  # rows whose similarity to all others is in memory at a time
_COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip
_COMPUTE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: np.true_divide,
}  # fmt: skip


class _Value(NamedTuple):
    """A value of each row, and where it is known."""

    value: np.ndarray  # float64, or bool
    known: np.ndarray  # bool


class Expression:
    """An expression over columns and rules, checked: `names` are those that it reads."""

    def __init__(self, text: str, columns: Sequence[str], rules: Sequence[str]) -> None:
        self.text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as bad:
            raise errors.UserError(
                f"--keep {self.text!r}: {bad.args[0] if bad.args else 'too deep'}; write for example: not handled and "
                "ifd < 1"
            ) from None
        if _depth(self._tree) > DEEPEST:
            raise errors.UserError(
                f"--keep {self.text!r}: more than {DEEPEST} operations one within another; write a shorter expression, "
                "or select in several steps, each from the file of the last"
            )
        self.names = sorted({node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name)} - {"abs"})
        for name in self.names:
            if name not in columns and name not in rules:
                near = files.close_to(name, [*columns, *rules])
                raise errors.UserError(
                    f"--keep {self.text!r}: there is no column {name!r}{near}; known: {', '.join(columns)}, and the "
                    f"{len(rules)} rules of data.py check that look at FILE alone"
                )
        self.kept({name: np.zeros(1) for name in self.names}, count=1)  # what is not allowed is found now

    def kept(self, columns: Mapping[str, np.ndarray], *, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns which of `count` rows are kept, and of which it cannot be said; columns are float64 or bool.

        NaN stands where a row has no value.
        """
        found = self._truth(self._tree, columns, count)
        return found.value.astype(bool) & found.known, ~found.known

    def _truth(self, node: ast.AST, columns: Mapping[str, np.ndarray], count: int) -> _Value:
        """Returns what is true or false; a number is true where it is not 0."""
        found = self._of(node, columns, count)
        return _Value(np.nan_to_num(found.value) != 0, found.known)

    def _of(self, node: ast.AST, columns: Mapping[str, np.ndarray], count: int) -> _Value:
        of = lambda inner: self._of(inner, columns, count)
        if isinstance(node, ast.BoolOp):
            parts = [self._truth(inner, columns, count) for inner in node.values]
            return _either(parts) if isinstance(node.op, ast.Or) else _not(_either([_not(part) for part in parts]))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return _not(self._truth(node.operand, columns, count))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            inner = of(node.operand)
            return _Value(-inner.value.astype(float), inner.known)
        if isinstance(node, ast.BinOp) and type(node.op) in _COMPUTE:
            return _both(_COMPUTE[type(node.op)], of(node.left), of(node.right))
        if isinstance(node, ast.Compare):
            return self._compare(node, columns, count)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "abs" and len(node.args) == 1 and not node.keywords:
            inner = of(node.args[0])
            return _Value(np.abs(inner.value.astype(float)), inner.known)
        if isinstance(node, ast.Name):
            column = columns[node.id] if node.id in columns else self._refuse(node)
            known = ~np.isnan(column) if column.dtype.kind == "f" else np.ones(len(column), bool)
            return _Value(column, known)
        if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float) and abs(node.value) < 1e300:
            return _Value(np.full(count, float(node.value)), np.ones(count, bool))
        return self._refuse(node)

    def _compare(self, node: ast.Compare, columns: Mapping[str, np.ndarray], count: int) -> _Value:
        values = [node.left, *node.comparators]
        parts = []
        for left, how, right in zip(values, node.ops, values[1:], strict=False):
            if isinstance(how, ast.Is | ast.IsNot) and isinstance(right, ast.Constant) and right.value is None:
                known = self._of(left, columns, count).known
                parts.append(_Value(known if isinstance(how, ast.IsNot) else ~known, np.ones(count, bool)))
            elif type(how) in _COMPARE:
                sides = (self._of(side, columns, count) for side in (left, right))
                parts.append(_both(_COMPARE[type(how)], *sides))
            else:
                self._refuse(node)
        return _not(_either([_not(part) for part in parts]))

    def _refuse(self, node: ast.AST) -> Any:
        shown = ast.unparse(node)
        raise errors.UserError(
            f"--keep {self.text!r}: {shown!r} is not allowed; an expression has columns, numbers, and, or, not, "
            "comparisons, + - * /, abs(), is None"
        )


def _depth(tree: ast.AST) -> int:
    """Returns how many expressions stand one within another, without recursion: it may be any number."""
    level, found = [tree], 0
    while level:
        level, found = [inner for node in level for inner in ast.iter_child_nodes(node)], found + 1
    return found


def _not(one: _Value) -> _Value:
    return _Value(~one.value.astype(bool), one.known)


def _either(parts: Sequence[_Value]) -> _Value:
    """Returns Kleene's or: true where one is known and true, known also where all are known."""
    true = np.any([part.known & part.value.astype(bool) for part in parts], axis=0)
    return _Value(true, true | np.all([part.known for part in parts], axis=0))


def _both(compute: Callable[[Any, Any], Any], a: _Value, b: _Value) -> _Value:
    with np.errstate(all="ignore"):
        found = compute(a.value.astype(float), b.value.astype(float))
    known = a.known & b.known
    return _Value(found, known & ~np.isnan(found) if found.dtype.kind == "f" else known)


def largest(values: np.ndarray, count: int) -> np.ndarray:
    """Returns the places of the largest values, in the order of the file; of equals the first; NaN is never one."""
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")
    return np.sort([place for place in order[:count] if not np.isnan(values[place])]).astype(int)


def diverse(unit: np.ndarray, count: int, *, method: str, seed: int) -> np.ndarray:
    """Returns the places of `count` rows that stand for all, in the order in which they were chosen.

    `unit` holds vectors of length 1. The same seed gives the same rows: it decides between equals, and where k-centre
    begins.
    """
    if method not in METHODS:
        raise errors.UserError(
            f"--method {method!r}{files.close_to(method, list(METHODS))}; known: {', '.join(METHODS)}"
        )
    if not 1 <= count <= len(unit):
        raise errors.UserError(f"--diverse {count}: {len(unit):,} rows are left to choose from; give 1 to {len(unit)}")
    order = np.random.default_rng(seed).permutation(len(unit))
    chosen = facility_location(unit[order], count) if method == "facility_location" else k_centre(unit[order], count)
    return order[chosen]


def similarity(unit: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Returns (1 + cosine) / 2 of every row to some, [n, columns]: 0 to 1."""
    return (1 + unit @ columns.T) / 2


def covered(unit: np.ndarray, chosen: Sequence[int]) -> float:
    """Returns how well some rows stand for all: sum_i max_{j in chosen} s(i, j), which facility location maximises."""
    return float(similarity(unit, unit[list(chosen)]).max(axis=1).sum(dtype=np.float64))


def facility_location(unit: np.ndarray, count: int) -> list[int]:
    """Returns the rows that the greedy algorithm chooses for `covered`, of equals the first.

    The sum is monotone and submodular, so the greedy choice has at least 1 - 1/e of the best (Nemhauser, Wolsey and
    Fisher 1978). A gain never grows, so one that was computed earlier bounds it: the row at the top of the queue is
    looked at again, and taken if it stays there (Minoux 1978), which chooses the same rows in far less time.
    """
    unit = unit.astype(np.float32)
    best = np.zeros(len(unit), np.float32)  # similarity of each row to the nearest that is chosen
    gains = np.zeros(len(unit))
    for first in range(0, len(unit), _BLOCK):
        gains[first : first + _BLOCK] = similarity(unit, unit[first : first + _BLOCK]).sum(axis=0, dtype=np.float64)
    queue = [(-gain, place) for place, gain in enumerate(gains.tolist())]
    heapq.heapify(queue)
    chosen: list[int] = []
    while len(chosen) < count:
        _, place = heapq.heappop(queue)
        own = similarity(unit, unit[place : place + 1])[:, 0]
        gain = float(np.maximum(own - best, 0).sum(dtype=np.float64))
        if not queue or (-gain, place) <= queue[0]:
            chosen.append(place)
            best = np.maximum(best, own)
        else:
            heapq.heappush(queue, (-gain, place))
    return chosen


def k_centre(unit: np.ndarray, count: int) -> list[int]:
    """Returns rows of which each is the farthest from those before it, beginning with the first.

    The largest distance of a row to the nearest chosen one is at most twice the least possible (Gonzalez 1985);
    distances are Euclidean, between vectors of length 1.
    """
    unit = unit.astype(np.float32)
    chosen = [0]
    distance = np.linalg.norm(unit - unit[0], axis=1)
    while len(chosen) < count:
        distance[chosen] = -1  # a row that is there already is not taken again, whatever it equals
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(unit - unit[chosen[-1]], axis=1))
    return chosen
