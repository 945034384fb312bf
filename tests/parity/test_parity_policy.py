"""Live against TRL: the loss, gradient and metrics of its GRPO trainer on random log-probabilities.

Its method computes from a trainer's settings and from log-probabilities that a model gives; both are given to it here.
"""

import collections
import types
from typing import Any
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ftjax.losses import normalise, policy, reduce
from ftjax.rl import groups

with warnings.catch_warnings():  # while importing only: warnings are errors here, and PyTorch packages give some
    warnings.simplefilter("ignore")
    from trl import GRPOTrainer
    from trl.trainer.utils import nanstd

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
LOW, HIGH, BETA, LONGEST = 0.2, 0.28, 0.04, 9
NORMALISERS = {
    "grpo": normalise.per_sequence,
    "bnpo": normalise.per_token,
    "dapo": normalise.per_token,
    "cispo": normalise.per_token,
    "dr_grpo": lambda *arrays: normalise.per_length(*arrays, max_completion_length=LONGEST),
}


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Returns log-probabilities of 4 completions of 1 to 7 tokens under four policies, a mask, advantages, weights."""
    rng = np.random.default_rng(seed)
    new = -rng.uniform(0.1, 3, (4, 7))
    near = lambda: new + 0.3 * rng.standard_normal((4, 7))
    mask = np.arange(7) < np.array([[7], [3], [1], [5]])
    found = {"new": new, "old": near(), "reference": near(), "sampler": near(), "mask": mask}
    return {name: x.astype(np.float32) for name, x in (found | {"advantages": rng.standard_normal(4)}).items()}


def theirs(
    x: dict[str, np.ndarray], *, loss_type: str, level: str = "token", beta: float = 0.0, delta: float | None = None,
    weights: np.ndarray | None = None,
) -> tuple[float, np.ndarray, dict[str, float]]:  # fmt: skip
    """Returns loss, gradient by the log-probabilities and metrics of TRL."""
    logps = torch.tensor(x["new"], requires_grad=True)
    given = {name: torch.tensor(value) for name, value in x.items()}
    trainer: Any = types.SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logps, torch.zeros_like(logps), None),
        accelerator=types.SimpleNamespace(gather=lambda y: y, reduce=lambda y, **_: y, num_processes=1),
        model=types.SimpleNamespace(training=True),
        args=types.SimpleNamespace(use_bias_correction_kl=False, delta=delta, steps_per_generation=1),
        _metrics={"train": collections.defaultdict(list)},
        **{"loss_type": loss_type, "importance_sampling_level": level, "beta": beta},
        **{"epsilon_low": LOW, "epsilon_high": 1 + HIGH if loss_type == "cispo" else HIGH},
        **{"max_completion_length": LONGEST, "current_gradient_accumulation_steps": 1},
        **{"top_entropy_quantile": 1.0, "off_policy_mask_threshold": None, "aux_loss_enabled": False},
        **{"use_vllm": weights is not None, "vllm_importance_sampling_correction": weights is not None},
        _entropy_bonus_enabled=False,
    )
    inputs = {
        "prompt_ids": torch.zeros(4, 1, dtype=torch.long),
        "prompt_mask": torch.ones(4, 1),
        "completion_ids": torch.zeros(4, 7, dtype=torch.long),
        "completion_mask": given["mask"],
        "advantages": given["advantages"],
        "old_per_token_logps": given["old"],
        "ref_per_token_logps": given["reference"],
        "num_items_in_batch": given["mask"].sum(),
        "importance_sampling_ratio": None if weights is None else torch.tensor(weights),
    }
    loss = GRPOTrainer._compute_loss(trainer, None, inputs)
    loss.backward()
    return float(loss), logps.grad.numpy(), {name: found[0] for name, found in trainer._metrics["train"].items()}


def ours(
    x: dict[str, np.ndarray], *, loss_type: str, level: str = "token", beta: float = 0.0, delta: float | None = None,
    weights: np.ndarray | None = None,
) -> tuple[float, np.ndarray, dict[str, float]]:  # fmt: skip
    """Returns loss, gradient and metrics of ours, after the step's division."""
    mask, rows, of = jnp.asarray(x["mask"]), jnp.ones(4), {name: jnp.asarray(value) for name, value in x.items()}
    advantages = jnp.broadcast_to(of["advantages"][:, None], mask.shape)
    advantages = advantages if weights is None else advantages * weights
    clips = {"clip_low": 1.0 if loss_type == "cispo" else LOW, "clip_high": HIGH}

    def total(logps: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        both = {"logps": logps, "old_logps": of["old"], **clips}
        if level == "sequence":
            losses, metrics = policy.gspo(**both, mask=mask, advantages=of["advantages"])
        else:
            function = policy.cispo if loss_type == "cispo" else policy.clipped_surrogate
            losses, metrics = function(**both, advantages=advantages)
        if delta is not None:
            losses, _ = policy.dual_clip(losses, advantages, bound=delta)
        penalty, nats = policy.kl_penalty(logps=logps, reference=of["reference"], beta=beta)
        found = NORMALISERS[loss_type](losses + penalty, mask, rows)
        metrics = metrics | (nats if beta else {})
        if level == "token":
            metrics = normalise.metrics_of_tokens(metrics, mask, rows)
        sums = reduce.totals(metrics, normalise.per_sequence(losses, mask, rows).weights)
        return reduce.masked_sum(found.losses, found.weights) / jnp.sum(found.weights), reduce.means(sums)

    (loss, metrics), gradient = jax.value_and_grad(total, has_aux=True)(of["new"])
    return float(loss), np.asarray(gradient), {name: float(value) for name, value in metrics.items()}


def check(x: dict[str, np.ndarray], **how: Any) -> dict[str, float]:
    (loss, gradient, metrics), (wanted, slopes, others) = ours(x, **how), theirs(x, **how)
    np.testing.assert_allclose(loss, wanted, atol=1e-6)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-4, atol=1e-7)
    for name, value in metrics.items():
        np.testing.assert_allclose(value, others[name], atol=1e-6, err_msg=name)
    assert np.abs(gradient).max() > 1e-4
    return metrics


@pytest.mark.parametrize("beta", [0.0, BETA])
@pytest.mark.parametrize("loss_type", NORMALISERS)
def test_loss_gradient_and_metrics_are_those_of_its_loss_types(loss_type, beta):
    metrics = check(arrays(), loss_type=loss_type, beta=beta)
    assert ("kl" in metrics) == (beta > 0)


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo"])
def test_a_ratio_of_whole_sequences_is_its_sequence_level(loss_type):
    x = arrays(1)
    metrics = check(x | {"old": x["new"] + 2 * (x["old"] - x["new"])}, loss_type=loss_type, level="sequence")
    assert metrics["clip_ratio/region_mean"] > 0


@pytest.mark.parametrize("delta", [1.4, 3.0])
def test_dual_clip_is_its_delta(delta):
    check(arrays(2), loss_type="dapo", delta=delta)


def test_an_importance_weight_in_the_advantages_is_its_correction_and_leaves_the_penalty_alone():
    x = arrays(3)
    weights = policy.truncated_importance(jnp.asarray(x["old"]), jnp.asarray(x["sampler"]), cap=1.3)
    assert float(weights.max()) == np.float32(1.3)
    check(x, loss_type="dapo", beta=BETA, weights=np.asarray(weights))


def test_advantages_of_groups_with_failed_rewards_are_its_own():
    """The lines of `_generate_and_score_completions`, which no method of the trainer has alone."""
    rng = np.random.default_rng(4)
    scores = rng.standard_normal((5, 4)).astype(np.float32)
    scores[0, 2] = scores[1, 0] = scores[1, 3] = np.nan
    rewards = torch.tensor(scores)
    centred = rewards - torch.nanmean(rewards, dim=1, keepdim=True)
    wanted = torch.nan_to_num(centred / (nanstd(rewards, dim=1, keepdim=True) + 1e-4), nan=0.0)
    valid = jnp.asarray(~np.isnan(scores), jnp.float32)
    np.testing.assert_allclose(groups.grpo(jnp.asarray(scores), valid, eps=1e-4), wanted, atol=1e-5)
    count = (~torch.isnan(rewards)).sum(dim=1, keepdim=True)
    baseline = (torch.nansum(rewards, dim=1, keepdim=True) - rewards) / (count - 1)
    wanted = torch.nan_to_num(rewards - baseline, nan=0.0)
    np.testing.assert_allclose(groups.rloo(jnp.asarray(scores), valid), wanted, atol=1e-5)
