"""json_schema: the completion is JSON, and follows a schema."""

from collections.abc import Sequence
import functools
import json
from pathlib import Path
from typing import Any

from ftjax.errors import UserError
from ftjax.verify import json_text


def check(*, schema_path: str, json_credit: float) -> None:
    """Raises where the file holds no schema, or the credit is not from 0 to 1."""
    if not 0.0 <= json_credit <= 1.0:
        raise UserError(f"the reward 'json_schema': json_credit is {json_credit}; give 0 to 1")
    json_text.follows(None, _read(schema_path))


def score(
    *, completions: Sequence[str], schema: Sequence[Any] | None = None, schema_path: str, json_credit: float
) -> list[float | None]:
    """Returns 1 where the completion is JSON that follows the schema, json_credit where it is JSON alone, else 0.

    The schema is the column `schema` (an object, or JSON text), or where a row has none, the file `schema_path`; with
    neither, all JSON follows. One Markdown fence around the JSON is taken off.
    """
    return [
        _score(text, given, schema_path=schema_path, json_credit=json_credit)
        for text, given in zip(completions, schema or [None] * len(completions), strict=True)
    ]


def _score(text: str, given: Any, *, schema_path: str, json_credit: float) -> float:
    schema = _read(schema_path) if given is None else given if isinstance(given, str) else json.dumps(given)
    try:
        value = json_text.parse(text)
    except ValueError:
        return 0.0
    return 1.0 if json_text.follows(value, schema) else json_credit


@functools.lru_cache
def _read(path: str) -> str:
    if not path:
        return "true"  # the schema that everything follows
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the reward 'json_schema': schema_path {path!r} cannot be read ({error})") from None


score.each = True  # type: ignore[attr-defined]  # a schema may hold a regular expression, and a policy finds its worst
