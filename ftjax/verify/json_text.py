"""Is this JSON, and does it follow a schema."""

import functools
import json
from typing import Any

from ftjax.errors import UserError

_FENCE = "```"


def unfenced(text: str) -> str:
    """Returns what stands between the fences of a text that is one Markdown block of code, else the text."""
    text = text.strip()
    if not (text.startswith(_FENCE) and text.endswith(_FENCE) and len(text) >= 2 * len(_FENCE)):
        return text
    inner = text[len(_FENCE) : -len(_FENCE)]
    return inner.removeprefix("json").removeprefix("Json").removeprefix("JSON").strip()


def parse(text: str) -> Any:
    """Returns the value of a text that is JSON, fenced or not; raises ValueError where it is not, as `strictly`."""
    return strictly(unfenced(text))


def strictly(text: str) -> Any:
    """Returns the value of a text that is JSON and nothing else (RFC 8259); raises ValueError where it is not.

    NaN and Infinity, which Python reads, are not JSON. JSON too deep for Python's stack counts as none.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def follows(value: Any, schema: str) -> bool:
    """Returns whether a parsed value follows a JSON Schema, given as JSON text (2020-12 unless `$schema` says another).

    `format` is a remark, as the standard has it, and references are never fetched. A number that no float holds follows
    no schema that divides it. Raises UserError on a bad schema.
    """
    import referencing.exceptions

    try:
        return bool(_validator(schema).is_valid(value))
    except (RecursionError, OverflowError):
        return False
    except referencing.exceptions.Unresolvable as error:
        raise UserError(
            f"the JSON schema refers to {error.ref!r}, which it does not hold; put it under $defs"
        ) from None


@functools.lru_cache(maxsize=256)  # a schema a row is common, and compiling one takes longer than using it
def _validator(schema: str) -> Any:
    import jsonschema
    import jsonschema_specifications

    try:
        parsed = json.loads(schema)
        kind = jsonschema.validators.validator_for(parsed, default=jsonschema.Draft202012Validator)
        kind.check_schema(parsed)
    except json.JSONDecodeError as error:
        raise UserError(f"the JSON schema {schema!r:.60} is no JSON ({error}); give an object as JSON text") from None
    except jsonschema.SchemaError as error:
        raise UserError(f"the JSON schema is wrong at {error.json_path}: {error.message:.120}; mend it") from None
    # Without a registry of its own, jsonschema would fetch references from the network.
    return kind(parsed, registry=jsonschema_specifications.REGISTRY)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
