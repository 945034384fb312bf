import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.checkpoint.store import Store
from ftjax.errors import UserError
from ftjax.runs import jsonl
from ftjax.runs.writers import Several
from ftjax.train import loop

CADENCE = loop.Cadence(steps=6, log=1, evaluate=2, checkpoint=2, keep_best=False, patience=0, spike_factor=0.0)
SAME = ("loss", "grad_norm", "learning_rate", "entropy", "mean_token_accuracy", "num_tokens", "epoch", "eval_loss")


class Machine:
    """A run folder, and everything around the loop that a process has."""

    def __init__(self, folder, case, batch, *, cadence=CADENCE, evals=None):
        self.folder, self.case, self.batch, self.cadence = folder, case, batch, cadence
        self.evals = evals or (lambda step: 1.0 / (1 + step))
        self.said, self.asked_at, self.spoiled_at, self.bad = [], None, None, None
        self.made, self.fails_at, self.seen = 0, None, []
        self.interrupt = loop.Interrupt(self.said.append)
        folder.mkdir(exist_ok=True)

    def batches(self, start):
        """Batch k is a roll of the rows by k; the signal and the spoiled batch come while batch k is made."""
        for k in range(start, 100):
            if k == self.asked_at:
                self.interrupt._handle(15, None)
            rolled = type(self.batch)(*(np.roll(x, k, axis=0)[: 8 - k % 3 * 2] for x in self.batch))
            filled = type(rolled)(
                *(np.concatenate([x, 0 * y[len(x) :]]) for x, y in zip(rolled, self.batch, strict=True))
            )
            if k == self.spoiled_at:
                filled = filled._replace(weights=np.where(filled.weights > 0, np.float32(self.bad), np.float32(0)))
            yield filled

    def experience(self, state, batch):
        """The batch itself; notes the step that it was made for, and may refuse one."""
        self.made = int(state.step) + 1
        if self.made == self.fails_at:
            raise UserError("no completion of this step has a score")
        return (batch,)

    def run(self):
        lines = jsonl.Jsonl(self.folder)
        store = Store(self.folder / "checkpoints", 2, (loop.MONITOR, "min"))
        progress, state = loop.Progress(), self.case.state
        if store.latest() is not None:
            state, facts = store.restore(None, state)
            progress = loop.Progress(**facts["progress"])
            lines.truncate(facts["metrics"])
        self.progress = progress
        out = Several([lines], process=0)
        try:
            return loop.run(
                state=state, base=self.case.base, progress=progress, step=self.case.step, batches=self.batches,
                place=lambda b: jax.tree.map(jnp.asarray, b),
                experience=self.experience, beside=lambda: self.made,
                watch=lambda *seen: self.seen.append((seen[0], seen[1]["loss"], seen[2])),
                evaluate=lambda _: {"eval_loss": self.evals(progress.step)},
                sample=lambda _: [], epoch=lambda k: k / 4, store=store, writers=out, position=lines.position,
                cadence=self.cadence, folder=self.folder, interrupt=self.interrupt,
            )  # fmt: skip
        finally:
            out.close({})

    def metrics(self):
        rows = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in row.items() if k in (*SAME, "step")} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, sft_case, tiny_batch):
    machine = Machine(tmp_path_factory.mktemp("whole"), sft_case(), tiny_batch)
    return machine, machine.run()


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one.trainable), jax.tree.leaves(other.trainable), strict=True):
        np.testing.assert_array_equal(a, b)


def test_every_step_is_logged_and_evaluations_come_at_their_steps_and_at_the_end(whole):
    machine, outcome = whole
    rows = machine.metrics()
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "eval_loss" in row] == [2, 4, 6]
    assert outcome.reason == "done"
    assert int(outcome.state.step) == 6
    assert Store(machine.folder / "checkpoints", 2).steps() == [4, 6]


@pytest.mark.parametrize("at", [1, 2, 3, 5])
def test_a_run_that_a_signal_stopped_continues_to_the_bit(tmp_path, sft_case, tiny_batch, whole, at):
    """The signal falls on an evaluation step (at = 1: during step 2), beside one, on a checkpoint, on the last step."""
    machine = Machine(tmp_path / "run", sft_case(), tiny_batch)
    machine.asked_at = at
    stopped = machine.run()
    assert stopped.reason == "interrupted"
    assert stopped.progress.step == at + 1
    again = Machine(tmp_path / "run", sft_case(), tiny_batch)
    outcome = again.run()
    assert again.metrics() == whole[0].metrics()
    assert_same(outcome.state, whole[1].state)
    assert outcome.progress.best_step == whole[1].progress.best_step


def test_a_run_that_was_killed_after_any_checkpoint_continues_to_the_bit(tmp_path, sft_case, tiny_batch, whole):
    """Killed while step 4 is logged: the lines after the checkpoint of step 2 are cut and written again."""
    machine = Machine(tmp_path / "run", sft_case(), tiny_batch)
    machine.evals = lambda step: 1 / 0 if step == 4 else 1.0 / (1 + step)
    with pytest.raises(ZeroDivisionError):
        machine.run()
    assert [row["step"] for row in machine.metrics() if "loss" in row] == [1, 2, 3, 4]
    again = Machine(tmp_path / "run", sft_case(), tiny_batch)
    outcome = again.run()
    assert again.metrics() == whole[0].metrics()
    assert_same(outcome.state, whole[1].state)


def test_resuming_a_finished_run_does_nothing(tmp_path, sft_case, tiny_batch):
    machine = Machine(tmp_path / "run", sft_case(), tiny_batch)
    first = machine.run()
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    again = Machine(tmp_path / "run", sft_case(), tiny_batch)
    outcome = again.run()
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    assert_same(outcome.state, first.state)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(tmp_path, sft_case, tiny_batch, bad):
    machine = Machine(tmp_path / "run", sft_case(), tiny_batch)
    machine.spoiled_at, machine.bad = 3, bad
    with pytest.raises(UserError, match=r"step 4: .* not finite .*bad_batch_3\.npz.*lower optimizer\.learning_rate"):
        machine.run()
    store = Store(tmp_path / "run" / "checkpoints", 2)
    assert store.latest() == 3
    kept, _ = store.restore(None, sft_case().state)
    assert int(kept.step) == 3
    with np.load(tmp_path / "run" / "bad_batch_3.npz") as dumped:
        assert sorted(dumped) == ["positions", "segments", "targets", "tokens", "weights"]
    good = Machine(tmp_path / "good", sft_case(), tiny_batch, cadence=dataclasses.replace(CADENCE, steps=3))
    assert_same(kept, good.run().state)


def seen(*losses):
    progress = loop.Progress()
    for loss in losses:
        progress.see_loss(loss)
    return progress


def test_nothing_is_a_spike_before_there_are_losses_to_compare_with_or_where_the_factor_is_0():
    for count in range(loop.SPIKE_MINIMUM):
        assert seen(*[2.0] * count).limit(1, 3.0) == math.inf
    assert seen(*[2.0] * loop.SPIKE_MINIMUM).limit(1, 3.0) == loop.SPIKE_ALONE
    assert seen(*[2.0] * loop.SPIKE_MINIMUM).limit(1, 0.0) == math.inf


def test_a_loss_that_no_sound_model_has_is_a_spike_at_once_and_the_median_says_where_losses_are_high():
    assert seen(*[0.5] * 60).limit(1, 10.0) == 20.0
    assert seen(*[5.0] * 60).limit(1, 10.0) == 50.0
    assert seen(*[5.0] * 60, *[2.5] * 50).limit(1, 10.0) == 25.0


def test_a_loss_that_stays_high_is_a_spike_and_one_odd_batch_after_another_is_not():
    """What diverges stays up; a model that knows its rows by heart is at 12.7 nats on a rare one, and back at once."""
    sure = [7.184e-05] * 48
    assert seen(*sure).limit(48, 10.0) > 12.7371
    odd = [12.7371, 7e-05, 9.1, 8.3, 0.4] * 8
    assert all(seen(*sure, *odd[:number]).limit(1, 10.0) == 20.0 for number in range(len(odd)))
    for number in range(15):
        limit = seen(*[0.3] * 40, *[7.5] * number).limit(1, 10.0)
        assert (limit < 7.5) == (number >= loop.SPIKE_LASTING)
    low = seen(*sure, *[0.01] * 20).limit(1, 10.0)
    assert low == 20.0, "a hundred times the median, but nothing to stop for"


@pytest.mark.parametrize(
    ("loss", "limit", "says"),
    [
        (12.5, 3.0, r"step 4: the loss spikes \(loss 12.5; above 3 counts; the median of the last steps is 0.3\); .*"
            r"bad_batch_3\.npz; if the loss .*lower optimizer\.learning_rate; .*--config\.stop\.spike_factor=0"),
        (2.5, 3.0, r"step 4: the loss or its gradient is not finite \(loss 2.5; .*lower optimizer\.learning_rate$"),
        (math.inf, 3.0, r"step 4: the loss or its gradient is not finite \(loss inf; "),
    ],
)  # fmt: skip
def test_what_ends_a_run_is_told_with_what_helps(tmp_path, tiny_batch, loss, limit, says):
    saved = []
    with pytest.raises(UserError, match=says):
        loop._stop(3, tiny_batch, loss, limit, seen(0.3), tmp_path, lambda: saved.append(True))
    assert saved == [True]


def test_patience_counts_evaluations_without_improvement(tmp_path, sft_case, tiny_batch):
    falling = {2: 1.0, 4: 0.5}
    cadence = dataclasses.replace(CADENCE, steps=40, patience=2)
    machine = Machine(tmp_path / "run", sft_case(), tiny_batch, cadence=cadence, evals=lambda s: falling.get(s, 0.7))
    outcome = machine.run()
    assert outcome.reason == "patience"
    assert outcome.progress.step == 8
    assert Store(tmp_path / "run" / "checkpoints", 2, (loop.MONITOR, "min")).best() == 4
    assert Store(tmp_path / "run" / "checkpoints", 2).steps() == [4, 6, 8]


def test_the_first_signal_asks_and_the_second_ends(monkeypatch):
    codes, said = [], []
    monkeypatch.setattr(loop.os, "_exit", codes.append)
    interrupt = loop.Interrupt(said.append)
    interrupt._handle(2, None)
    assert interrupt.asked
    assert "SIGINT: saving after this step" in said[0]
    interrupt._handle(2, None)
    assert codes == [130]


def test_the_limit_of_a_step_does_not_depend_on_whether_the_step_before_it_is_known_already():
    """It is after an evaluation and after a resume, and is not in between."""
    losses = [2.0 + 0.1 * (number % 7) for number in range(2 * loop.SPIKE_WINDOW)]
    for number in range(2, len(losses)):
        late, early = loop.Progress(), loop.Progress()
        for loss in losses[: number - 1]:
            late.see_loss(loss)
        for loss in losses[:number]:
            early.see_loss(loss)
        late.step, early.step = number - 1, number
        assert late.limit(number, 3.0) == early.limit(number, 3.0)


def test_the_best_evaluation_is_saved_when_it_is_to_be_kept_also_between_checkpoints(tmp_path, sft_case, tiny_batch):
    falling = {1: 1.0, 2: 0.9, 3: 0.2}
    cadence = dataclasses.replace(CADENCE, evaluate=1, checkpoint=4, keep_best=True)
    machine = Machine(tmp_path / "run", sft_case(), tiny_batch, cadence=cadence, evals=lambda s: falling.get(s, 0.7))
    machine.run()
    store = Store(tmp_path / "run" / "checkpoints", 2, (loop.MONITOR, "min"))
    assert store.best() == 3
    assert store.steps() == [3, 4, 6]


def test_a_signal_on_the_best_evaluation_does_not_lose_it(tmp_path, sft_case, tiny_batch):
    """The signal's checkpoint is saved without the evaluation, which the resumed run makes first."""
    cadence = dataclasses.replace(CADENCE, evaluate=1, checkpoint=0, keep_best=True)
    best_at_3 = {"cadence": cadence, "evals": lambda step: 0.2 if step == 3 else 0.7}
    machine = Machine(tmp_path / "run", sft_case(), tiny_batch, **best_at_3)
    machine.asked_at = 2
    assert machine.run().progress.step == 3
    assert Store(tmp_path / "run" / "checkpoints", 2, (loop.MONITOR, "min")).best() != 3
    Machine(tmp_path / "run", sft_case(), tiny_batch, **best_at_3).run()
    assert Store(tmp_path / "run" / "checkpoints", 2, (loop.MONITOR, "min")).best() == 3


def test_what_an_experience_left_is_seen_with_the_numbers_of_its_own_step(whole):
    """The numbers of a step come after the next experience is made, but at a checkpoint."""
    assert [(number, made) for number, _, made in whole[0].seen] == [(n, n) for n in range(1, 7)]


@pytest.mark.parametrize("at", [1, 2, 4, 5])
def test_an_experience_that_cannot_be_made_ends_the_run_with_the_state_before_it(
    tmp_path, sft_case, tiny_batch, whole, at
):
    """On the first step, between checkpoints, and right behind one; the run goes on to the bit."""
    machine = Machine(tmp_path / "run", sft_case(), tiny_batch)
    machine.fails_at = at
    with pytest.raises(UserError, match="no completion of this step has a score"):
        machine.run()
    store = Store(tmp_path / "run" / "checkpoints", 2)
    assert store.latest() == at - 1
    assert [row["step"] for row in machine.metrics() if "loss" in row] == [*range(1, at)]
    again = Machine(tmp_path / "run", sft_case(), tiny_batch)
    outcome = again.run()
    assert again.metrics() == whole[0].metrics()
    assert_same(outcome.state, whole[1].state)
