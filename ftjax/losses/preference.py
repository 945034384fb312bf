"""Losses of pairs against a reference policy: DPO and what descends from it, under TRL's names.

With c = log pi(chosen) - log ref(chosen) and r the same of the rejected completion, summed over completion tokens,
beta c and beta r are the implicit rewards (Rafailov et al. 2023, eq. 5), and most losses here are of D = c - r. All are
written so that no log-probability, however low, makes a loss or a gradient infinite. `aot` and `aot_unpaired` couple
the pairs of a batch, so a microbatch is a batch of its own for them; no other loss does.

To add one, write a function `name(policy, reference, *, arrays and hyper-parameters)` that returns a loss and metrics
one a pair; what it asks for by name is given to it, and the contract tests find it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class PairLogps(NamedTuple):
    """Log-probabilities of both completions of each pair, summed over their tokens."""

    chosen: Float[Array, " pairs"]
    rejected: Float[Array, " pairs"]


class PairLengths(NamedTuple):
    """Numbers of tokens that `PairLogps` sums over, in float32; 0 at places of padding."""

    chosen: Float[Array, " pairs"]
    rejected: Float[Array, " pairs"]


Metrics = dict[str, Float[Array, " pairs"]]
Loss = tuple[Float[Array, " pairs"], Metrics]


def metrics(policy: PairLogps, reference: PairLogps, *, beta: float) -> Metrics:
    """Returns TRL's metrics of each pair: implicit rewards, their margin and whether they agree, absolute logps.

    A reward is beta (log pi - log ref) whatever the loss is. They carry no gradient. Where a loss was given shaped
    log-probabilities (`divergence.shaped`) or is a term of a sum, these of what the policy itself said are the ones to
    report.
    """
    policy, reference = jax.lax.stop_gradient((policy, reference))
    chosen, rejected = (beta * x for x in ratios(policy, reference))
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/accuracies": (chosen > rejected).astype(jnp.float32),
        "rewards/margins": chosen - rejected,
        "logps/chosen": policy.chosen,
        "logps/rejected": policy.rejected,
    }


def ratios(policy: PairLogps, reference: PairLogps) -> PairLogps:
    """Returns log pi - log ref of both completions."""
    return PairLogps(policy.chosen - reference.chosen, policy.rejected - reference.rejected)


def per_token(logps: PairLogps, lengths: PairLengths) -> PairLogps:
    """Returns means over tokens in place of sums; a length of 0 (padding) counts as 1."""
    return PairLogps(*(x / jnp.maximum(n, 1.0) for x, n in zip(logps, lengths, strict=True)))


def _difference(policy: PairLogps, reference: PairLogps) -> jax.Array:
    chosen, rejected = ratios(policy, reference)
    return chosen - rejected


def smoothed(z: Float[Array, "*shape"], label_smoothing: float) -> Float[Array, "*shape"]:
    """Returns the cross entropy -(1 - e) log sigma(z) - e log sigma(-z) of a label that is wrong with probability e."""
    return -(1 - label_smoothing) * jax.nn.log_sigmoid(z) - label_smoothing * jax.nn.log_sigmoid(-z)


def dpo(policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float) -> Loss:
    """Returns -(1 - e) log sigma(beta D) - e log sigma(-beta D) of each pair, with e the label smoothing.

    Rafailov et al. 2023, eq. 7; with e > 0 the conservative DPO of Mitchell 2023, which TRL's `sigmoid` no longer has.
    The gradient of a pair is weighed by beta sigma(beta (r - c)); appendix A.4 of the paper swaps the sign, section 4
    is right. It is log 2 where policy and reference are equal.
    """
    loss = smoothed(beta * _difference(policy, reference), label_smoothing)
    return loss, metrics(policy, reference, beta=beta)


sigmoid = dpo  # TRL's name


def hinge(policy: PairLogps, reference: PairLogps, *, beta: float) -> Loss:
    """Returns max(0, 1 - beta D) of each pair (SLiC, Zhao et al. 2023; normalised as in RSO, Liu et al. 2023)."""
    return jax.nn.relu(1 - beta * _difference(policy, reference)), metrics(policy, reference, beta=beta)


def ipo(policy: PairLogps, reference: PairLogps, *, lengths: PairLengths, beta: float) -> Loss:
    """Returns (c / |chosen| - r / |rejected| - 1 / (2 beta))^2 of each pair, with beta the tau of Azar et al. 2023.

    Their eq. 17 prints (D - 1 / (2 tau))^2 with sums over tokens. This is TRL's form, with means: its authors confirmed
    to TRL that they measured with it, and it does not pull harder on longer completions. So beta is in other units
    than that of DPO: the target 1 / (2 beta) is a margin per token.
    """
    chosen, rejected = per_token(ratios(policy, reference), lengths)
    return jnp.square(chosen - rejected - 0.5 / beta), metrics(policy, reference, beta=beta)


def robust(policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float) -> Loss:
    """Returns [-(1 - e) log sigma(beta D) + e log sigma(-beta D)] / (1 - 2 e) of each pair.

    The unbiased estimate of the DPO loss on true labels where a share e of labels is flipped (Chowdhury et al. 2024).
    Not bounded from below for e > 0: -e beta D / (1 - 2 e) for large D. Raises ValueError unless 0 <= e < 0.5.
    """
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing {label_smoothing} of robust is not in [0, 0.5): half flipped tells nothing")
    z = beta * _difference(policy, reference)
    clean, flipped = jax.nn.log_sigmoid(z), jax.nn.log_sigmoid(-z)
    loss = (label_smoothing * flipped - (1 - label_smoothing) * clean) / (1 - 2 * label_smoothing)
    return loss, metrics(policy, reference, beta=beta)


def exo_pair(policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float) -> Loss:
    """Returns KL((sigma(beta D), sigma(-beta D)) || (1 - e, e)) of each pair (Ji et al. 2024, eq. 16): a reverse KL.

    The e keeps it finite; the paper recommends 1e-3. Raises ValueError unless 0 < e < 0.5.
    """
    if not 0 < label_smoothing < 0.5:
        raise ValueError(f"label_smoothing {label_smoothing} of exo_pair is not in (0, 0.5); the paper takes 1e-3")
    z = beta * _difference(policy, reference)
    better = jax.nn.sigmoid(z) * (jax.nn.log_sigmoid(z) - jnp.log1p(-label_smoothing))
    worse = jax.nn.sigmoid(-z) * (jax.nn.log_sigmoid(-z) - jnp.log(label_smoothing))
    return better + worse, metrics(policy, reference, beta=beta)


def nca_pair(policy: PairLogps, reference: PairLogps, *, beta: float) -> Loss:
    """Returns -log sigma(beta c) - [log sigma(-beta c) + log sigma(-beta r)] / 2 of each pair (Chen et al. 2024)."""
    chosen, rejected = (beta * x for x in ratios(policy, reference))
    noise = jax.nn.log_sigmoid(-chosen) + jax.nn.log_sigmoid(-rejected)
    return -jax.nn.log_sigmoid(chosen) - 0.5 * noise, metrics(policy, reference, beta=beta)


def bco_pair(policy: PairLogps, reference: PairLogps, *, beta: float) -> Loss:
    """Returns -log sigma(beta c) - log sigma(-beta r) of each pair: a classifier of chosen against rejected.

    Jung et al. 2024 without their running shift of the reward, as in TRL.
    """
    chosen, rejected = (beta * x for x in ratios(policy, reference))
    return -jax.nn.log_sigmoid(chosen) - jax.nn.log_sigmoid(-rejected), metrics(policy, reference, beta=beta)


def sppo_hard(policy: PairLogps, reference: PairLogps, *, beta: float) -> Loss:
    """Returns (c - 1 / (2 beta))^2 + (r + 1 / (2 beta))^2 of each pair.

    Wu et al. 2024, eq. 4.7 with probabilities of 1 and 0 that chosen and rejected win, and eta = 1 / beta.
    """
    chosen, rejected = ratios(policy, reference)
    loss = jnp.square(chosen - 0.5 / beta) + jnp.square(rejected + 0.5 / beta)
    return loss, metrics(policy, reference, beta=beta)


def aot(
    policy: PairLogps, reference: PairLogps, *, weights: Float[Array, " pairs"], beta: float, label_smoothing: float
) -> Loss:
    """Returns `dpo` of sorted margins: the policy's k-th log pi(chosen) - log pi(rejected) less the reference's k-th.

    Melnyk et al. 2024, paired: the distribution of the policy's margins is to dominate that of the reference's. Sorted
    are the pairs whose `weights` are not 0; what stands elsewhere has no influence and gets log 2. The k-th value lies
    at the place of the pair that has the k-th of the policy's margins, so it lies where a weight is.
    """
    mine, theirs = policy.chosen - policy.rejected, reference.chosen - reference.rejected
    loss = smoothed(beta * _above_same_rank(mine, theirs, weights), label_smoothing)
    return loss, metrics(policy, reference, beta=beta)


def aot_unpaired(
    policy: PairLogps, reference: PairLogps, *, weights: Float[Array, " pairs"], beta: float, label_smoothing: float
) -> Loss:
    """Returns `dpo` of sorted ratios: the k-th of c less the k-th of r, whichever pairs they come from.

    Melnyk et al. 2024, unpaired: the distribution of c is to dominate that of r. The k-th value lies at the pair
    that has the k-th of c; `weights` as in `aot`.
    """
    loss = smoothed(beta * _above_same_rank(*ratios(policy, reference), weights), label_smoothing)
    return loss, metrics(policy, reference, beta=beta)


def _above_same_rank(x: jax.Array, y: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns x less the element of y that has the same rank, among those with weight; 0 elsewhere."""
    live = weights != 0
    last = lambda values: jnp.where(live, values, jnp.inf)
    rank = jnp.argsort(jnp.argsort(last(jax.lax.stop_gradient(x))))
    return jnp.where(live, x - jnp.sort(last(y))[rank], 0.0)


def apo_zero(policy: PairLogps, reference: PairLogps, *, beta: float) -> Loss:
    """Returns 1 - sigma(beta c) + sigma(beta r) of each pair (D'Oosterlinck et al. 2024, eq. 7): c up, r down.

    For chosen completions that are better than what the policy writes by itself.
    """
    chosen, rejected = (beta * x for x in ratios(policy, reference))
    return jax.nn.sigmoid(-chosen) + jax.nn.sigmoid(rejected), metrics(policy, reference, beta=beta)


def apo_down(policy: PairLogps, reference: PairLogps, *, beta: float) -> Loss:
    """Returns sigma(beta c) + 1 - sigma(beta D) of each pair (D'Oosterlinck et al. 2024, eq. 8): both down, r further.

    For chosen completions that are worse than what the policy writes by itself.
    """
    chosen, rejected = (beta * x for x in ratios(policy, reference))
    return jax.nn.sigmoid(chosen) + jax.nn.sigmoid(rejected - chosen), metrics(policy, reference, beta=beta)


def discopop(policy: PairLogps, reference: PairLogps, *, beta: float, tau: float) -> Loss:
    """Returns -log sigma(z) (1 - m) + exp(-z) m of each pair, with z = beta D and m = sigma(z / tau).

    Lu et al. 2024, eq. 5, found by a language model; tau is 0.05 there. It is not convex: with that tau its slope at
    D = 0 is upward. For tau < 1, exp(-z) m goes to 0 at both ends; it is one exponential, as the product overflows.
    """
    z = beta * _difference(policy, reference)
    logistic = -jax.nn.log_sigmoid(z) * jax.nn.sigmoid(-z / tau)
    return logistic + jnp.exp(jax.nn.log_sigmoid(z / tau) - z), metrics(policy, reference, beta=beta)


def sigmoid_norm(policy: PairLogps, reference: PairLogps, *, lengths: PairLengths, beta: float) -> Loss:
    """Returns -log sigma(beta (c / |chosen| - r / |rejected|)) of each pair: DPO per token (Lambert et al. 2024).

    A beta of DPO is too small for it: means are as many times smaller as completions are long.
    """
    chosen, rejected = per_token(ratios(policy, reference), lengths)
    return -jax.nn.log_sigmoid(beta * (chosen - rejected)), metrics(policy, reference, beta=beta)
