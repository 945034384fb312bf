"""KTO and its kin: completions that are labelled desirable or not, one by one.

KTO's reference point is a KL estimated on completions of other prompts, which the data put beside a row's own as
branches of the same prompt (`mismatched`). It is one number for the whole batch, so a batch is not cut into
microbatches.
"""

from collections.abc import Callable
from typing import Any

import jax

from ftjax.adapters import attach
from ftjax.algorithms import completions, dpo
from ftjax.algorithms.algorithm import Algorithm, Metrics
from ftjax.losses import unpaired
from ftjax.models.config import ModelConfig


def make(
    init: dpo.Init,
    config: ModelConfig,
    *,
    loss_of: Callable[..., unpaired.Loss],
    needs: frozenset[str],
    beta: float,
    reference: str,
    sync: dpo.Sync,
) -> Algorithm:
    """Returns the algorithm of a loss of `losses.unpaired` with its hyper-parameters; `needs` may name `kl`.

    `reference` and `sync` as in `dpo.make`; it cannot be "none".
    """
    against = dpo.Reference(reference, sync)

    def loss(trainable: Any, frozen: Any, batch: Any, key: jax.Array | None) -> tuple[jax.Array, jax.Array, Metrics]:
        del key
        ask = lambda params: completions.of(params, batch, config, ld_alpha=1.0, squares=False)
        policy = ask(attach.attach(against.base(frozen), trainable)).logps.reshape(-1)
        held = batch.reference if reference == "cached" else jax.lax.stop_gradient(ask(against.weights(frozen)).logps)
        held, weights = held.reshape(-1), batch.label_weights.reshape(-1)
        desirable = (batch.labels.reshape(-1) > 0.5).astype(policy.dtype)
        given = {"policy": policy, "reference": held, "desirable": desirable}
        if "kl" in needs:
            given["kl"] = unpaired.mismatched_kl(policy, held, weights=batch.mismatched.reshape(-1))
        values, told = loss_of(**{name: given[name] for name in needs})
        metrics: Metrics = dict(unpaired.metrics(policy, held, desirable=desirable, weights=weights, beta=beta))
        metrics |= {name: told[name] for name in ("kl",) if name in told}
        shape = batch.label_weights.shape
        return values.reshape(shape), batch.label_weights, jax.tree.map(lambda x: x.reshape(shape), metrics)

    return against.algorithm(init, loss)
