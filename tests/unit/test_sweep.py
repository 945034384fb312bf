"""A sweep runs what is missing, goes on past a failure, and puts everything into one table."""

import functools
import json
import shutil

import pytest

from ftjax import config as configs
from ftjax import sweep, training_data
from ftjax.data import used, versions
from ftjax.errors import UserError
from ftjax.runs import folder as folders
from ftjax.runs import sweeps
from tests import bases

CONFIG = """
from configs.sft import jsonl
from ftjax import config as args

def get_config(arg=""):
    return jsonl.get_config(arg)

def get_sweep(arg=""):
    return {runs}
"""
RUNS = 'args.grid({"adapter.rank": (2, 4), "seed": (0, 1)})'


def config_file(folder, runs=RUNS):
    file = folder / "some.py"
    file.write_text(CONFIG.replace("{runs}", runs))
    return str(file)


def finish(path, changes, *, loss=1.0, spec=None):
    """What a run of these changes leaves behind, as far as a sweep looks at it."""
    path.mkdir(parents=True, exist_ok=True)
    made = configs.override(configs.load(spec), changes).to_dict() if spec else {}
    (path / "config.json").write_text(json.dumps(made))
    (path / "code.json").write_text("{}")
    numbers = {"before": {"eval_loss": 2.0}, "after": {"eval_loss": loss}, "trainable_share": 0.01, "reason": "done"}
    held = {"score": {"value": 0.5, "p": "NaN"}, "flips": {"ids": {"won": ["a"]}}, "words": "score: higher"}
    (path / "summary.json").write_text(json.dumps(numbers | {"change": {"held_out": held}}))
    (path / "DONE").write_text("now\n")


class Launches:
    """Stands for training: writes what a run leaves behind, and fails or stops where it is told to."""

    def __init__(self, *, fails=(), stops=()):
        self.fails, self.stops, self.calls = fails, stops, []

    def __call__(self, job):
        path, changes = job.path, job.changes
        assert job.spec.endswith("some.py")
        self.calls.append((path.name, folders.started(path)))
        if path.name in self.stops:
            path.mkdir(parents=True)
            for name in ("config.json", "code.json"):
                shutil.copy(__file__, path / name)
            return
        if path.name in self.fails:
            raise self.fails[path.name]
        finish(path, changes, loss=changes["adapter.rank"] + changes["seed"])


def swept(tmp_path, launch, said=None, **more):
    spec = config_file(tmp_path)
    say = (said if said is not None else []).append
    settings = {"common": {}, "metric": "no such number, no plot"} | more
    train = functools.partial(sweep.here, launch=launch)
    return sweep.sweep(tmp_path / "runs", spec, sweep.plan(spec, {}), train=train, say=say, **settings)


NAMES = [f"rank={rank}+seed={seed}" for rank in (2, 4) for seed in (0, 1)]


def test_a_grid_is_every_combination_and_the_last_axis_varies_fastest():
    assert configs.grid({"a.b": (1, 2), "c": "xy"}) == [
        {"a.b": 1, "c": "x"},
        {"a.b": 1, "c": "y"},
        {"a.b": 2, "c": "x"},
        {"a.b": 2, "c": "y"},
    ]


def test_a_name_tells_runs_apart_and_is_safe_in_a_path_and_in_a_config_argument():
    assert sweeps.name_of({"adapter.rank": 4, "optimizer.learning_rate": 3e-3}) == "rank=4+learning_rate=0.003"
    assert sweeps.name_of({"adapter.name": "none", "optimizer.name": "sgd"}) == "adapter.name=none+optimizer.name=sgd"
    assert sweeps.name_of({"adapter.targets": "q_proj,v_proj", "data.paths": ("a/b.jsonl",)}) == (
        "targets=q_proj-v_proj+paths=-a-b.jsonl-"
    )
    assert sweeps.name_of({}) == "base"


def test_a_name_that_no_file_system_takes_is_cut_and_marked_and_one_that_fits_stays():
    paths = [tuple(f"data/{'long' * 8}/{letter}/part-{n}.jsonl" for n in range(6)) for letter in "ab"]
    names = [sweeps.name_of({"data.paths": one}) for one in paths]
    assert len(set(names)) == 2
    assert all(len(f"{name}.log") <= 255 and name.startswith("paths=-data-long") for name in names)
    assert names == [sweeps.name_of({"data.paths": list(one)}) for one in paths], "the same in sweep.json"
    assert sweeps.name_of({"x": "y" * 249}) == "x=" + "y" * 249
    wide = sweeps.name_of({"x": "ü" * 200})
    assert len(wide.encode()) <= 251
    assert wide.startswith("x=üü")


def test_other_values_that_clean_to_one_name_are_two_runs(tmp_path):
    runs = '[{"adapter.targets": "q_proj,v_proj"}, {"adapter.targets": "q_proj-v_proj"}]'
    first, second = sweep.plan(config_file(tmp_path, runs), {})
    assert first == "targets=q_proj-v_proj"
    assert second.startswith(f"{first}+")
    assert list(sweep.plan(config_file(tmp_path, runs), {})) == [first, second]


def test_every_run_is_trained_once_and_a_second_call_trains_nothing(tmp_path):
    first, second = Launches(), Launches()
    rows = swept(tmp_path, first)
    assert first.calls == [(name, False) for name in NAMES]
    assert [row.status for row in rows] == ["done"] * 4
    for name in NAMES:
        changes = sweep.plan(config_file(tmp_path), {})[name]
        finish(tmp_path / "runs" / name, changes, spec=config_file(tmp_path))
    swept(tmp_path, second)
    assert second.calls == []


def test_a_run_that_was_killed_is_resumed_and_the_rest_follows(tmp_path):
    spec = config_file(tmp_path)
    changes = sweep.plan(spec, {})[NAMES[1]]
    finish(tmp_path / "runs" / NAMES[1], changes, spec=spec)
    (tmp_path / "runs" / NAMES[1] / "DONE").unlink()
    (tmp_path / "runs" / "sweep.json").write_text("{}")
    launch = Launches()
    swept(tmp_path, launch)
    assert launch.calls == [(name, name == NAMES[1]) for name in NAMES]


@pytest.mark.parametrize("error", [UserError("the loss is not finite"), MemoryError("too much")])
def test_a_run_that_fails_is_reported_and_the_others_are_trained(tmp_path, error):
    said = []
    rows = swept(tmp_path, Launches(fails={NAMES[0]: error}), said)
    assert [row.status for row in rows] == ["failed", "done", "done", "done"]
    assert [line for line in said if "failed" in line] == [
        f"{NAMES[0]} failed: {'' if isinstance(error, UserError) else 'MemoryError: '}{error}"
    ]
    table = (tmp_path / "runs" / "table.md").read_text()
    assert f"- {NAMES[0]}: failed, {'' if isinstance(error, UserError) else 'MemoryError: '}{error}" in table
    assert "| rank=2 | 1 of 2 |" in table


def test_an_earlier_failure_is_read_from_the_folder_of_the_run(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "FAILED").write_text("now\nTraceback ...\nUserError: the loss is not finite\n")
    assert sweeps.read(tmp_path, "one", {}) == sweeps.Row("one", {}, "failed", {}, "UserError: the loss is not finite")


def test_a_run_that_was_saved_after_a_signal_ends_the_sweep(tmp_path):
    launch = Launches(stops=(NAMES[1],))
    with pytest.raises(sweep.InterruptedSweepError):
        swept(tmp_path, launch)
    assert [name for name, _ in launch.calls] == NAMES[:2]


def test_the_table_has_means_over_seeds_and_the_files_every_number(tmp_path):
    swept(tmp_path, Launches(), metric="after.eval_loss")
    lines = (tmp_path / "runs" / "table.md").read_text().splitlines()
    assert lines[0] == "| run | seeds | loss before | loss after | trainable |"
    assert lines[2:] == [
        "| rank=2 | 2 | 2 ± 0 | 2.5 ± 0.7 | 1.00% |",
        "| rank=4 | 2 | 2 ± 0 | 4.5 ± 0.7 | 1.00% |",
    ]
    whole = json.loads((tmp_path / "runs" / "table.json").read_text())
    assert [row["numbers"]["after.eval_loss"] for row in whole] == [2, 3, 4, 5]
    cells = (tmp_path / "runs" / "table.csv").read_text().splitlines()
    change = ",".join(f"change.held_out.score.{name}" for name in ("p", "value"))
    assert cells[0] == f"run,status,adapter.rank,seed,after.eval_loss,before.eval_loss,{change},trainable_share,note"
    assert cells[1] == "rank=2+seed=0,done,2,0,2.0,2.0,nan,0.5,0.01,"
    assert (tmp_path / "runs" / "plot.png").read_bytes()[:4] == b"\x89PNG"


def test_the_plot_runs_over_the_number_that_varies_most():
    row = lambda **changes: sweeps.Row("", changes, "done", {"after.eval_loss": 1.0})
    rows = [row(rank=rank, rate=rate, name="x") for rank in (1, 2) for rate in (1e-3, 1e-2, 1e-1)]
    assert sweeps.varied(sweeps.group(rows)) == "rate"
    assert sweeps.varied(sweeps.group([row(name="x", seed=seed) for seed in (0, 1)])) is None


@pytest.mark.parametrize(
    ("runs", "common", "says"),
    [
        ("[]", {}, "the sweep has no runs"),
        ('[{"seed": 1}, {"seed": 1}]', {}, "has seed=1 twice"),
        ('[{"adapter.rnk": 1}]', {}, "Did you mean 'adapter.rank'"),
        ('[{"adapter.rank": "many"}]', {}, "'many' is no int"),
        (RUNS, {"stepps": "4"}, "Did you mean 'steps'"),
    ],
)
def test_what_is_wrong_with_a_sweep_is_said_before_anything_runs(tmp_path, runs, common, says):
    with pytest.raises(UserError, match=says):
        sweep.plan(config_file(tmp_path, runs), common)


def test_a_config_without_a_sweep_is_refused():
    with pytest.raises(UserError, match="defines no get_sweep"):
        configs.sweep(str(bases.ROOT / "configs/quickstart.py"))


def test_a_folder_with_other_files_or_another_config_is_left_alone(tmp_path):
    spec = config_file(tmp_path)
    entries = sweep.plan(spec, {})
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "thesis.txt").touch()
    with pytest.raises(UserError, match="holds files that are no sweep"):
        sweep.check(tmp_path / "runs", spec, entries, {})
    (tmp_path / "runs" / "sweep.json").write_text("{}")
    finish(tmp_path / "runs" / NAMES[0], entries[NAMES[0]], spec=spec)
    sweep.check(tmp_path / "runs", spec, entries, {})
    file = tmp_path / "runs" / NAMES[0] / "config.json"
    older = json.loads(file.read_text())
    del older["optimizer"]["offload"]  # a run of an older ftjax
    file.write_text(json.dumps(older))
    sweep.check(tmp_path / "runs", spec, entries, {})
    with pytest.raises(UserError, match=r"was run with another config \(steps: 200, now 7\)"):
        sweep.check(tmp_path / "runs", spec, entries, {"steps": "7"})


class Epochs:
    """Stands for training on files whose epoch has 25 steps."""

    def __init__(self):
        self.calls = []

    def __call__(self, job):
        self.calls.append(job.path.name)
        finish(job.path, job.changes)
        made = configs.override(configs.load(job.spec), job.changes).to_dict()
        made = made if made["steps"] else training_data.of_one_epoch(made, 25)
        (job.path / "config.json").write_text(json.dumps(made))


@pytest.mark.parametrize("older", [False, True])
def test_a_sweep_over_one_epoch_goes_on_and_is_told_from_one_over_so_many_steps(tmp_path, older):
    first, second, third = Epochs(), Epochs(), Epochs()
    swept(tmp_path, first, common={"steps": "0"})
    assert first.calls == NAMES
    shutil.rmtree(tmp_path / "runs" / NAMES[2])
    file = tmp_path / "runs" / "sweep.json"
    told = json.loads(file.read_text())
    assert told.pop("one_epoch") == NAMES
    if older:
        file.write_text(json.dumps(told))
    swept(tmp_path, second, common={"steps": "0"})
    assert second.calls == [NAMES[2]]
    assert json.loads(file.read_text())["one_epoch"] == NAMES
    with pytest.raises(UserError, match=r"\(steps: 25, now 26\)"):
        swept(tmp_path, Epochs(), common={"steps": "26", "optimizer.warmup_steps": "2"})
    shutil.rmtree(tmp_path / "runs")
    swept(tmp_path, third, common={"steps": "25", "optimizer.warmup_steps": "2"})
    with pytest.raises(UserError, match=r"\(steps: 25, now 0\)"):
        swept(tmp_path, Epochs(), common={"steps": "0", "optimizer.warmup_steps": "2"})


def test_a_run_is_not_taken_as_done_after_a_file_that_it_read_has_changed(tmp_path):
    data = bases.write_rows(tmp_path / "mine.jsonl", bases.rows(4))
    facts = {"files": used.seen([used.Source(str(data), {}, used.TRAINED)])[0]}
    gone = facts["files"][0] | {"path": str(tmp_path / "gone.jsonl")}
    swept(tmp_path, Epochs())
    run = tmp_path / "runs" / NAMES[3]
    (run / used.FACTS).write_text(json.dumps({"files": [*facts["files"], gone]}))
    swept(tmp_path, Epochs())
    then, _ = versions.now(str(data)), bases.write_rows(data, bases.rows(5))
    with pytest.raises(UserError) as raised:
        swept(tmp_path, Epochs())
    assert str(raised.value) == (
        f"{data} has changed since {run} read it (version {then[:12]}, now {versions.now(str(data))[:12]}); put back "
        f"what it was, give another --workdir, or move {run} away to have it trained anew"
    )
    run.rename(tmp_path / "old")
    again = Epochs()
    swept(tmp_path, again)
    assert again.calls == [NAMES[3]]


def test_the_command_of_a_run_makes_its_config_again(tmp_path):
    spec = config_file(tmp_path)
    paths = ("a.jsonl", "/tmp/a, b.jsonl", "/x/it's a file.jsonl", '"quoted".jsonl', "back\\slash, 😀.jsonl", "7")
    changes = {"adapter.rank": 4, "adapter.targets": "q_proj,v_proj", "data.paths": paths}
    words = sweep.words(spec, changes, tmp_path / "one", True)
    flags, rest = configs.overrides(words)
    again = configs.override(configs.load(spec), flags)
    assert configs.difference(again, configs.override(configs.load(spec), changes)) == {}
    assert rest == ["scripts/train.py", "--config", spec, "--workdir", str(tmp_path / "one"), "--resume"]
