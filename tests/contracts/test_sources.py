"""Every module of ftjax/data/sources: finds its files, yields (where, row), the same rows each time."""

import importlib
import json
from pathlib import Path
import pkgutil
import re

import pytest

from ftjax.data import records, rows, sources

NAMES = [entry.name for entry in pkgutil.iter_modules(sources.__path__)]
ROWS = [
    {"messages": [{"role": "user", "content": f"How much is {i}?"}, {"role": "assistant", "content": str(i)}]}
    for i in range(3)
]


def _jsonl(folder: Path) -> Path:
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return folder / "rows.jsonl"


def _json(folder: Path) -> Path:
    (folder / "rows.json").write_text(json.dumps(ROWS))
    return folder / "rows.json"


def _csv(folder: Path) -> Path:
    cells = [json.dumps(row["messages"]).replace('"', '""') for row in ROWS]
    (folder / "rows.csv").write_text("messages\n" + "".join(f'"{cell}"\n' for cell in cells))
    return folder / "rows.csv"


def _parquet(folder: Path) -> Path:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), folder / "rows.parquet")
    return folder / "rows.parquet"


def _datasets(folder: Path) -> Path:
    import datasets

    datasets.Dataset.from_list(ROWS).save_to_disk(str(folder / "rows"))
    return folder / "rows"


def _world(_: Path) -> str:
    world = pytest.importorskip("ftjax.assets.world")
    return f"world:{world.TASKS[0]}/train?size=3&seed=5"


# A new source needs a line here: a function that makes three chats in its format.
SAMPLES = {
    "jsonl": _jsonl,
    "json_file": _json,
    "csv_file": _csv,
    "parquet": _parquet,
    "hf_folder": _datasets,
    "world": _world,
}


@pytest.fixture(params=NAMES)
def sample(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """The name of a source and the path of a sample of three rows."""
    assert request.param in SAMPLES, f"add a sample of source {request.param} to this test"
    return request.param, str(SAMPLES[request.param](tmp_path))


def test_a_sample_is_claimed_by_its_own_source_alone(sample):
    name, path = sample
    modules = {other: importlib.import_module(f"{sources.__name__}.{other}") for other in NAMES}
    assert [other for other, module in modules.items() if module.accepts(path)] == [name]
    assert records.source(path) is modules[name]
    assert modules[name].SUFFIXES


def test_rows_are_dicts_with_a_place_that_names_file_and_number(sample):
    _, path = sample
    found = list(records.source(path).read(path))
    assert len(found) == 3
    for where, row in found:
        assert isinstance(row, dict)
        assert re.fullmatch(rf"{re.escape(path)}:\d+( \((data\[\d+\]|row \d+)\))?", where)
    assert len({where for where, _ in found}) == 3
    assert len({rows.number(where) for where, _ in found}) == 3


def test_rows_are_trainable_records_and_the_same_every_time(sample):
    _, path = sample
    found = records.read(path)
    assert found == records.read(path)
    for record in found:
        assert isinstance(record, records.Record)
        assert any(message.role == "assistant" and message.weight for message in record.messages)
