"""The one exception that means: the user can mend this. Scripts print its single line and exit with status 2."""


class UserError(ValueError):
    """A mistake in what the user gave us; its text names the value, the rule and the way out, in one line."""


def some(names: list[str], most: int) -> str:
    """Returns the first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
