"""Direct preference optimisation and its family: a sum of losses of pairs, on one copy of the weights.

The policy is the base with what trains; the reference is the base with nothing attached, what training started from,
or nothing. Chosen and rejected completions go through the model together. Dropout is off (TRL does the same): a ratio
of two models must not be noise.

To add a loss, write it in `losses/preference.py` or `losses/reference_free.py`: it is given what it
asks for by name.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ftjax.adapters import attach
from ftjax.algorithms import algorithm, completions
from ftjax.algorithms.algorithm import Algorithm, Metrics
from ftjax.losses import divergence as divergences
from ftjax.losses import preference, weighting
from ftjax.losses.preference import PairLogps
from ftjax.models.config import ModelConfig

Init = Callable[[jax.Array, Any], Any]


class Term(NamedTuple):
    """One summand of the loss (MPO sums several)."""

    name: str
    loss: Callable[..., preference.Loss]  # with its hyper-parameters
    needs: frozenset[str]  # of policy, reference, lengths, weights: what it takes
    weight: float
    hyper: frozenset[str] = frozenset()  # names of its hyper-parameters


class Sync(NamedTuple):
    """The reference becomes (1 - alpha) reference + alpha policy after every `every` steps (TR-DPO); every 0: never."""

    every: int
    alpha: float


class Reference(NamedTuple):
    """Where the reference comes from: "base", "start" (a copy, moved by `sync`), "cached" (in the batch), or "none"."""

    kind: str
    sync: Sync

    def base(self, frozen: Any) -> Any:
        """Returns the base that the policy's trainables are attached to, of what the loss gets."""
        return frozen.base if self.kind == "start" else frozen

    def weights(self, frozen: Any) -> Any:
        """Returns the weights of the reference: the base's, or those with what trained as it began."""
        return attach.attach(frozen.base, frozen.extra) if self.kind == "start" else frozen

    def algorithm(self, init: Init, loss: Callable[..., tuple[jax.Array, jax.Array, Metrics]]) -> Algorithm:
        """Returns the algorithm of a loss that is held against it."""
        return Algorithm(
            init=init,
            experience=algorithm.as_it_is,
            loss=loss,
            extra=started(self.sync) if self.kind == "start" else None,
            reference=self.weights if self.kind in ("base", "start") else None,
        )


def make(
    init: Init,
    config: ModelConfig,
    *,
    terms: tuple[Term, ...],
    beta: float,
    divergence: Callable[[jax.Array], jax.Array] | None,
    ld_alpha: float,
    wpo: bool,
    reference: str,
    sync: Sync,
) -> Algorithm:
    """Returns the algorithm of a weighted sum of `terms`.

    `beta` scales the implicit rewards of the metrics. `divergence` shapes the log-ratios of all terms, which must then
    be `losses.divergence.DIFFERENCE_BASED`. `reference`: "base" is the base alone, "start" a copy of what trains as it
    began (full fine-tuning, or adapters that were trained before), "cached" what the batch holds, "none" nothing.
    """
    against = Reference(reference, sync)

    def loss(trainable: Any, frozen: Any, batch: Any, key: jax.Array | None) -> tuple[jax.Array, jax.Array, Metrics]:
        del key
        params = attach.attach(against.base(frozen), trainable)
        mine = completions.of(params, batch, config, ld_alpha=ld_alpha, squares=wpo)
        policy, lengths = completions.pairs(mine.logps, batch), completions.pair_lengths(mine, batch)
        weights = batch.pair_weights.reshape(-1)
        held = PairLogps(jnp.zeros_like(policy.chosen), jnp.zeros_like(policy.rejected))
        if reference == "cached":
            held = completions.pairs(batch.reference, batch)
        elif reference != "none":
            theirs = completions.of(against.weights(frozen), batch, config, ld_alpha=ld_alpha, squares=False)
            held = completions.pairs(jax.lax.stop_gradient(theirs.logps), batch)
        shaped = (policy, held) if divergence is None else divergences.shaped(policy, held, divergence)
        given = {"policy": shaped[0], "reference": shaped[1], "lengths": lengths, "weights": weights}
        total, metrics = jnp.zeros_like(weights), _of_tokens(mine, batch)
        for term in terms:
            values, told = term.loss(**{name: given[name] for name in term.needs})
            total += term.weight * values
            metrics = told | metrics  # those of the first term stay
            if len(terms) > 1:
                metrics[f"loss/{term.name}"] = jax.lax.stop_gradient(values)
        if reference != "none":
            metrics |= preference.metrics(policy, held, beta=beta)
        if wpo:
            assert mine.log_sum_squares is not None
            whole, squares = (completions.pairs(x, batch) for x in (mine.whole, mine.log_sum_squares))
            total *= weighting.wpo(whole, squares, lengths=lengths)
        shape = batch.pair_weights.shape
        return total.reshape(shape), batch.pair_weights, {name: x.reshape(shape) for name, x in metrics.items()}

    return against.algorithm(init, loss)


def started(sync: Sync) -> algorithm.Extra:
    """Returns the extra that is a copy of what trains as it began, moved towards it as `sync` says."""

    def update(extra: Any, trainable: Any, step: jax.Array, metrics: Metrics) -> Any:
        del metrics
        if not sync.every:
            return extra
        alpha = jnp.where(step % sync.every == 0, sync.alpha, 0.0)
        return jax.tree.map(lambda old, new: old + (alpha * (new - old)).astype(old.dtype), extra, trainable)

    return algorithm.Extra(init=lambda trainable, _: trainable, update=update)


def _of_tokens(found: completions.Completions, batch: Any) -> Metrics:
    """Returns entropy and top-1 accuracy a token of the chosen completions."""
    means = lambda values: completions.pairs(values / jnp.maximum(found.lengths, 1.0), batch).chosen
    return jax.lax.stop_gradient({"entropy": means(found.entropy), "mean_token_accuracy": means(found.correct)})
