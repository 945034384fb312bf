"""Small experiments on preferences in memory: rows, batches of them in every layout, algorithms and jitted steps."""

import functools
import inspect
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.adapters import init, lora
from ftjax.algorithms import dpo, kto, reward_model
from ftjax.data import candidates, preference_batch
from ftjax.losses import preference, reference_free, unpaired
from ftjax.train import state, step
from tests.cases import adamw

VALUES = {
    "beta": 0.1,
    "label_smoothing": 0.1,
    "tau": 0.05,
    "gamma": 0.5,
    "cpo_alpha": 1.0,
    "desirable_weight": 1.0,
    "undesirable_weight": 1.5,
}  # of a loss's hyper-parameters
NEVER = dpo.Sync(every=0, alpha=0.0)


def term(name, weight=1.0, **hyper):
    """Returns a summand of the loss, as `objective` makes it of a config."""
    function = getattr(preference, name, None) or getattr(reference_free, name)
    taken = inspect.signature(function).parameters
    chosen = {word: value for word, value in (VALUES | hyper).items() if word in taken}
    return dpo.Term(name, functools.partial(function, **chosen), frozenset(taken) - set(chosen), weight)


DPO = term("dpo", label_smoothing=0.0)


def make_dpo(init_adapters, config, **changes):
    """Returns plain DPO with these settings changed."""
    plain = {"terms": (DPO,), "beta": 0.1, "divergence": None, "ld_alpha": 1.0, "wpo": False, "reference": "base"}
    return dpo.make(init_adapters, config, **({**plain, "sync": NEVER} | changes))


def make_kto(init_adapters, config, *, name="kto", **changes):
    """Returns KTO with these settings changed."""
    function = getattr(unpaired, name)
    taken = inspect.signature(function).parameters
    chosen = {word: value for word, value in VALUES.items() if word in taken}
    plain = {"loss_of": functools.partial(function, **chosen), "needs": frozenset(taken) - set(chosen), "beta": 0.1}
    return kto.make(init_adapters, config, **({**plain, "reference": "base", "sync": NEVER} | changes))


def make_reward(init_adapters, config, **changes):
    """Returns a reward model on pairs with these settings changed."""
    return reward_model.make(init_adapters, config, **({"margin_scale": 0.5, "centring": 0.01} | changes))


@pytest.fixture(scope="session")
def preference_case(tiny_params, tiny_config):
    """Returns a function: one of the above, its changes, those of the model's config -> state, jitted step, base."""
    make = functools.partial(lora.init_one, dropout=0.0, rslora=False)
    init_adapters = functools.partial(
        init.init, make=make, targets=("q_proj", "down_proj"), rank=4, alpha=8.0, rank_pattern={}, alpha_pattern={}
    )
    chain, rate = adamw(2e-2)

    def build(make, *, microbatches=1, full=False, params=tiny_params, config=None, **changes):
        whole = lambda _, base: jax.tree.map(jnp.copy, base)
        algorithm = make(whole if full else init_adapters, tiny_config(**(config or {})), **changes)
        start = state.begin(algorithm, params, chain, jax.random.key(2))
        run = jax.jit(step.make(algorithm, chain, rate, microbatches=microbatches))
        base = jax.tree.map(lambda _: None, params) if full else params
        return types.SimpleNamespace(algorithm=algorithm, state=start, step=run, base=base, params=params)

    return build


@pytest.fixture(scope="session")
def preference_rows():
    """Returns `rows`."""
    return rows()


def rows():
    """16 prompts with two completions and a pair; completions of a pair differ in length, and some tokens of one in
    four do not count.
    """
    rng = np.random.default_rng(0)
    take = lambda n: rng.integers(1, 61, n).astype(np.int32)
    found = []
    for number in range(16):
        lengths = rng.choice(np.arange(3, 10), 2, replace=False).tolist()
        masks = [np.ones(n, np.uint8) for n in lengths]
        if number % 4 == 0:
            masks[1][0] = 0
        found.append(
            candidates.Candidates(
                prompt=take(int(rng.integers(2, 7))),
                completions=tuple(take(n) for n in lengths),
                masks=tuple(masks),
                pairs=((0, 1),),
                margins=(float(rng.integers(0, 3)),),
                labels=(1.0, 0.0),
                where=f"test:{number + 1}",
            )
        )
    return found


def with_mismatched(rows):
    """Returns rows with the completions of the next row beside their own, as KTO's estimate of the KL wants them."""
    return [
        row._replace(mismatched=other.completions, mismatched_masks=other.masks)
        for row, other in zip(rows, [*rows[1:], rows[0]], strict=True)
    ]


def batch_of(rows, *, each=2, prefix="shared"):
    """Returns the batch of rows with `each` prompts in one; 1: the padded layout."""
    groups = [rows[i : i + each] for i in range(0, len(rows), each)]
    length = max(sum(row.size(prefix) for row in group) for group in groups)
    most = lambda count: max(sum(count(row) for row in group) for group in groups)
    return preference_batch.pack_candidates(
        groups,
        length=-(-length // 8) * 8,
        completions=most(lambda row: len(row.completions) + len(row.mismatched)),
        pairs=most(lambda row: len(row.pairs)),
        prefix=prefix,
    )


@pytest.fixture(scope="session")
def preference_batch_of_8(preference_rows):
    """Returns 8 rows of two prompts each, prefixes shared."""
    return batch_of(preference_rows)


def trained(case, batch, steps=5):
    """Returns the losses of some steps on one batch, the metrics of each step and the last state."""
    now, found = case.state, []
    for _ in range(steps):
        now, metrics = case.step(now, case.base, batch, jnp.float32(jnp.inf))
        found.append({name: float(value) for name, value in metrics.items()})
    return [metrics["loss"] for metrics in found], found, now


def same_metrics(mine, theirs):
    """The same losses to 1e-5, and all other metrics nearly so; which of two rewards of 0 is higher is noise."""
    np.testing.assert_allclose([told["loss"] for told in mine], [told["loss"] for told in theirs], atol=1e-5)
    for number, (one, other) in enumerate(zip(mine, theirs, strict=True)):
        assert one.keys() == other.keys()
        for name in one.keys() - ({"rewards/accuracies"} if number == 0 else set()):
            np.testing.assert_allclose(one[name], other[name], rtol=2e-4, atol=2e-5, err_msg=name)
