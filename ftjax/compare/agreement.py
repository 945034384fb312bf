"""Whether systems may be compared: the same rows, checks, lengths of answers, template and version of the data."""

from collections.abc import Callable, Sequence
from typing import Any

from ftjax.compare import systems
from ftjax.compare.systems import System
from ftjax.errors import UserError

_BATCHES = ("batch_size", "layout", "buckets")  # of config.data: what does not change its hash


def agreed(found: Sequence[System], baseline: System, *, force: bool) -> list[str]:
    """Returns what is to be said of systems that differ; raises where they differ without `force`, or share no row."""
    notes: list[str] = []

    def differ(what: str, way_out: str) -> None:
        if not force:
            raise UserError(f"{what}; {way_out}")
        notes.append(what)

    for one in found:
        if one is not baseline:
            _rows(baseline, one, differ)
            _answers(baseline, one, differ)
            _templates(baseline, one, differ)
            _data(baseline, one, differ)
    if not shared(found, systems.HELD_OUT):
        raise UserError(
            "there is no held-out row that all of --runs have; measure each one on the same file: "
            "scripts/evaluate.py --config configs/eval/held_out.py:run=RUN,data=FILE"
        )
    if len({one.tokenizer.get("fingerprint") for one in found if one.tokenizer}) > 1:
        notes.append("the tokenizers differ, so a token is not the same everywhere: losses are those of a row")
    for name in dict.fromkeys(name for one in found for name in one.sets):
        lacking = [one.name for one in found if name not in one.sets]
        if lacking:
            notes.append(f"{', '.join(lacking)}: not measured on {name}")
    return notes


def shared(found: Sequence[System], name: str) -> list[systems.Key]:
    """Returns the rows that all systems which have the set share, sorted."""
    own = [one.sets[name] for one in found if name in one.sets]
    return sorted(set.intersection(*(set(rows) for rows in own))) if own else []


Differ = Callable[[str, str], None]


def _rows(a: System, b: System, differ: Differ) -> None:
    for name in dict.fromkeys((*a.sets, *b.sets)):
        one, two = a.sets.get(name), b.sets.get(name)
        if one is None or two is None or one.keys() == two.keys():
            continue
        same = len(one.keys() & two.keys())
        differ(
            f"{b.name} was measured on other {name} rows than {a.name} ({len(two):,} and {len(one):,} rows, {same:,} "
            "in both)",
            "measure both on one file with scripts/evaluate.py --config configs/eval/held_out.py:run=RUN,data=FILE and "
            "compare the folders of that, or compare the rows that they share with --force",
        )


_ASKED: dict[str, Callable[[Any], str]] = {
    "check": lambda value: f"the check {value}" if value else "no check",
    "max_new_tokens": lambda value: f"answers of up to {value} tokens",
    "chat": lambda value: "a chat template" if value else "no chat template",
    "new_tokens": lambda value: f"answers of up to {value} tokens" if value else "answers as long as the task says",
}


def _answers(a: System, b: System, differ: Differ) -> None:
    """Scores of two systems tell something where the answers were made and marked alike."""
    for name in dict.fromkeys((*a.asked, *b.asked)):
        one, two = a.asked.get(name, {}), b.asked.get(name, {})
        other = [key for key in _ASKED if key in one and key in two and one[key] != two[key]]
        if other:
            first, second = (" and ".join(_ASKED[key](asked[key]) for key in other) for asked in (one, two))
            differ(
                f"on {name} {b.name} was measured with {second} and {a.name} with {first}",
                "scores then mean different things; measure both alike with scripts/evaluate.py (check=NAME behind "
                "the config file, --config.eval.max_new_tokens=N), or give --force",
            )


def _templates(a: System, b: System, differ: Differ) -> None:
    if not (a.tokenizer and b.tokenizer):
        return
    one, two = (_shown(x.tokenizer.get("template")) for x in (a, b))
    texts = [x.data.get("template") for x in (a, b)]  # name and hash of the text
    if one != two or (all(texts) and texts[0] != texts[1]):
        differ(
            f"{b.name} was measured with {two} and {a.name} with {one}{' of another text' if one == two else ''}",
            "the same text then costs other tokens; measure both with one (config.data.template), or give --force",
        )


def _shown(template: Any) -> str:
    """Returns how a template is called; a run names its tokenizer's own one in brackets."""
    return f"the template {str(template).strip('()')}" if template else "no template"


def _data(a: System, b: System, differ: Differ) -> None:
    """Two runs that read files of the same names must have read the same rows in them."""
    versions = [{file["path"]: file["hash"] for file in one.data.get("files", ())} for one in (a, b)]
    changed = [path for path in versions[0] if versions[1].get(path, versions[0][path]) != versions[0][path]]
    if changed:
        hashes = [one[changed[0]][:12] for one in versions]
    elif all(versions) or not (a.data and b.data) or a.data.get("paths") != b.data.get("paths"):
        return
    else:  # runs of an older ftjax tell the hash of what they made of their files, and the number of rows
        rows = [one.data.get("report", {}).get("rows") for one in (a, b)]
        hashes = [str(one.data.get("hash"))[:12] for one in (a, b)]
        if rows[0] == rows[1] and (_encoding(a) != _encoding(b) or hashes[0] == hashes[1]):
            return
        changed = a.data["paths"]
    differ(
        f"{a.name} and {b.name} were trained on different versions of {', '.join(changed)} ({' and '.join(hashes)})",
        "train both on one version, or give --force",
    )


def _encoding(one: System) -> dict[str, Any]:
    """Returns all of a config that may change the hash of its data, and some more."""
    config, eval_ = one.config, one.config.get("eval", {})
    data = {name: value for name, value in config.get("data", {}).items() if name not in _BATCHES}
    seed = None if eval_.get("path") else config.get("seed")  # else it says which rows are held out
    return {"data": data, "eval": eval_, "algorithm": config.get("algorithm"), "seed": seed, **_tokens(one)}


def _tokens(one: System) -> dict[str, Any]:
    return {name: one.tokenizer.get(name) for name in ("fingerprint", "template")}
