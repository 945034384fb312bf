"""Arguments of tool calls that the tool's own schema refuses."""

from collections.abc import Iterator

from ftjax.data import rows
from ftjax.data.checks import _calls

SEVERITY = "warning"
WHY = "The model learns to write calls that fail."
FIX = "Mend the arguments, or the schema if it is the one that is wrong."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields calls whose arguments do not validate (JSON Schema), and schemas that are none."""
    import jsonschema

    for call in _calls.made(data):
        if not call.schema:
            continue
        try:
            jsonschema.validate(call.arguments, call.schema)
        except jsonschema.ValidationError as bad:
            place = f" at {bad.json_path}" if bad.path else ""
            reason = bad.message.splitlines()[0][:120]
            yield rows.Found(call.line, f"message {call.number} calls {call.name!r}{place}: {reason}")
        except jsonschema.SchemaError as bad:
            yield rows.Found(call.line, f"the schema of tool {call.name!r} is none: {bad.message[:120]}")
        except Exception as bad:  # a schema with a $ref that leads nowhere raises what `referencing` raises
            yield rows.Found(call.line, f"the schema of tool {call.name!r} cannot be used: {str(bad)[:120]}")
