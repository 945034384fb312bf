"""Losses of pairs that need no reference policy: SimPO, CPO, ORPO and the SFT term.

Their reward is beta log pi. To add one, write it as in `preference.py`, without the parameter `reference`.
"""

import jax
import jax.numpy as jnp

from ftjax.losses import preference
from ftjax.losses.preference import Loss, Metrics, PairLengths, PairLogps

HIGHEST = -1e-7  # an average log-probability above this is p = 1 to float32, whose odds are infinite


def sft(policy: PairLogps, *, lengths: PairLengths) -> Loss:
    """Returns the mean over tokens of -log p of each chosen completion, as in RPO (Pang et al. 2024, eq. 2).

    TRL's is one mean over all chosen tokens of the batch; the two are equal where lengths are. This one is the paper's,
    and couples no pair to its batch. With it the chosen completion cannot lose probability for the margin's sake.
    """
    loss = -preference.per_token(policy, lengths).chosen
    return loss, {"nll_loss": jax.lax.stop_gradient(loss), "logps/chosen": jax.lax.stop_gradient(policy.chosen)}


def simpo(policy: PairLogps, *, lengths: PairLengths, beta: float, gamma: float, label_smoothing: float) -> Loss:
    """Returns -log sigma(beta (log pi(chosen) / |chosen| - log pi(rejected) / |rejected|) - gamma) of each pair.

    Meng et al. 2024, eq. 6, who take beta 2 to 2.5 and gamma 0.3 to 0.8 of it; label smoothing as in `dpo`. The metrics
    are of means over tokens, as TRL's.
    """
    means = preference.per_token(policy, lengths)
    loss = preference.smoothed(beta * (means.chosen - means.rejected) - gamma, label_smoothing)
    return loss, _metrics(means, beta)


def cpo(policy: PairLogps, *, lengths: PairLengths, beta: float, label_smoothing: float, cpo_alpha: float) -> Loss:
    """Returns -log sigma(beta (log pi(chosen) - log pi(rejected))) + alpha nll of each pair (Xu et al. 2024, eq. 3).

    DPO with a uniform reference; nll, which keeps the chosen completion likely, is `sft`. Label smoothing as in `dpo`.
    """
    nll, _ = sft(policy, lengths=lengths)
    loss = preference.smoothed(beta * (policy.chosen - policy.rejected), label_smoothing)
    return loss + cpo_alpha * nll, _metrics(policy, beta) | {"nll_loss": jax.lax.stop_gradient(nll)}


def orpo(policy: PairLogps, *, lengths: PairLengths, beta: float) -> Loss:
    """Returns nll - beta log sigma(log odds(chosen) - log odds(rejected)) of each pair (Hong et al. 2024, eq. 6 and 7).

    odds = p / (1 - p) with log p the mean over tokens; beta is their lambda; nll is `sft`, as in the paper, where TRL
    has one mean over the batch's tokens, those of the prompts too. The metrics are of means over tokens, as TRL's.
    """
    means = preference.per_token(policy, lengths)
    chosen, rejected = (jnp.minimum(x, HIGHEST) for x in means)
    odds = (chosen - jax.nn.log1mexp(-chosen)) - (rejected - jax.nn.log1mexp(-rejected))
    ratio = jax.nn.log_sigmoid(odds)
    more = {"nll_loss": -means.chosen, "log_odds_ratio": ratio, "log_odds_chosen": odds}
    return -means.chosen - beta * ratio, _metrics(means, beta) | jax.lax.stop_gradient(more)


def _metrics(logps: PairLogps, beta: float) -> Metrics:
    """Returns TRL's metrics where rewards are beta log pi."""
    return preference.metrics(logps, PairLogps(*map(jnp.zeros_like, logps)), beta=beta)
