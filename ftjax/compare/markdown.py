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
        "Metrics": tables.metrics(told),
        "Parts of the rows": tables.slices(told),
        "Judges": tables.judges(told),
        "People": tables.people(told),
        "Cost": tables.costs(told),
        "Configs, where they differ": tables.configs(told),
        "Data": tables.data(told),
    }
    for title, table in parts.items():
        if table[1]:
            lines += [f"## {title}", "", *tables.markdown(table), ""]
    lines += [f"- {line}" for line in told["data_differences"]]
    return "\n".join(lines).rstrip() + "\n"
