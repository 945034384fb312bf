"""A comparison as Markdown: what the page says, without pictures and samples."""

from collections.abc import Mapping
from typing import Any

from ftjax.compare import tables

Told = Mapping[str, Any]


def render(told: Told) -> str:
    """Returns the text."""
    names = ", ".join(one["name"] for one in told["systems"] if one["name"] != told["baseline"])
    lines = [f"# {names} against {told['baseline']}", "", *(f"- {line}" for line in told["verdict"]), ""]
    lines += [*(f"> {note}" for note in told["notes"]), ""] if told["notes"] else []
    parts = {
        "Metrics": (tables.metrics, True),
        "Parts of the rows": (tables.slices, told["slices"]),
        "Judges": (tables.judges, told["judges"]),
        "People": (tables.people, told["people"]),
        "Cost": (tables.costs, True),
        "Configs, where they differ": (tables.configs, told["configs"]),
        "Data": (tables.data, told["data"]),
    }
    for title, (made, there) in parts.items():
        if there:
            lines += [f"## {title}", "", *tables.markdown(made(told)), ""]
    lines += [f"- {line}" for line in told["data_differences"]]
    return "\n".join(lines).rstrip() + "\n"
