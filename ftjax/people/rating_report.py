"""A human evaluation as text: who is preferred, the axes, agreement, who failed a check, what would settle it."""

from collections.abc import Iterator, Mapping
from typing import Any

from ftjax.people import verdicts


def markdown(told: Mapping[str, Any]) -> str:
    """Returns what `verdicts.report` found, as Markdown."""
    return "\n".join(_lines(told)) + "\n"


def _lines(told: Mapping[str, Any]) -> Iterator[str]:
    yield f"# What people say of {', '.join(told['systems'])}"
    flagged = [rater for rater, one in told["attention"].items() if one["flagged"]]
    if flagged:
        what = (
            "left out of all numbers" if told["flagged"] == "drop" else "in all numbers; --flagged drop leaves them out"
        )
        yield f"\nFailed an attention check: {', '.join(flagged)} ({what})."
    yield "\n## How far\n"
    for one in told["standings"]:
        yield f"- {verdicts.in_words(verdicts.Standing(**one))}"
    if told["preferences"]:
        yield "\n## Preferences\n\nA tie, and both bad, is half. The interval is over prompts, for one look at the end."
        yield "\n| a | b | a better | b better | tie | both bad | share of b |\n|---|---|---|---|---|---|---|"
        for one in told["preferences"]:
            counts = " | ".join(f"{one['choices'][name]:,}" for name in ("a", "b", "tie", "both_bad"))
            share = one["share_of_b"]
            yield (
                f"| {one['a']} | {one['b']} | {counts} | "
                f"{share['value']:.1%} ({share['low']:.1%} to {share['high']:.1%}) |"
            )
    if told["axes"]:
        yield "\n## Axes\n\nMeans over prompts, 1 to 5. Differences are over prompts that both have, p by Holm."
        yield f"\n| axis | {' | '.join(told['systems'])} | differences |\n|---|{'---|' * (len(told['systems']) + 1)}"
        for one in told["axes"]:
            means = " | ".join(
                f"{one['systems'][name]['mean']:.2f}" if name in one["systems"] else "-" for name in told["systems"]
            )
            yield f"| {one['axis']} | {means} | {'; '.join(map(_difference, one['differences']))} |"
    yield "\n## Agreement\n\nKrippendorff's alpha where two or more have answered: 1 is perfect, 0 is chance.\n"
    yield "| of | items | same | alpha |\n|---|---|---|---|"
    for one in told["agreement"]:
        same = "-" if one["same"] is None else f"{one['same']:.0%}"
        alpha = "-" if one["alpha"] is None else f"{one['alpha']:.2f}"
        yield f"| {one['label']} | {one['items']:,} | {same} | {alpha} |"
    checked = {rater: one for rater, one in told["attention"].items() if one["passed"] + one["failed"] + one["skipped"]}
    if checked:
        yield "\n## Attention checks\n\n| rater | passed | failed | skipped |\n|---|---|---|---|"
        for rater, one in checked.items():
            yield f"| {rater} | {one['passed']} | {one['failed']} | {one['skipped']} |"


def _difference(one: Mapping[str, Any]) -> str:
    ends = "" if one["low"] is None or one["high"] is None else f" ({one['low']:+.2f} to {one['high']:+.2f})"
    return f"{one['b']} - {one['a']}: {one['value']:+.2f}{ends}, p {one['p_corrected']:.3f}, {one['of']} prompts"
