"""Live against TRL: the loss functions of its trainers, run on random log-probabilities by a model that says them."""

import ast
import collections
import inspect
import re
import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ftjax.losses import divergence, preference, reduce, reference_free, reward, unpaired, weighting
from ftjax.losses.preference import PairLengths, PairLogps

with warnings.catch_warnings():  # while importing only: warnings are errors here, and PyTorch packages give some
    warnings.simplefilter("ignore")
    from trl.experimental.cpo import cpo_trainer
    from trl.experimental.orpo import orpo_trainer
    from trl.trainer import dpo_trainer, kto_trainer, reward_trainer

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
PAIRS, LENGTH, BETA = 6, 9, 0.3


class Tokens:
    """Random completions: log-probabilities of policy and reference and log sum p^2 [2 PAIRS, LENGTH], and a mask.

    The first half are chosen, the second rejected. Each row begins with a prompt of two tokens, as in TRL's batches.
    """

    def __init__(self, seed=0, lengths=None):
        rng = np.random.default_rng(seed)
        shape = (2 * PAIRS, LENGTH)
        count = rng.integers(1, LENGTH + 1, 2 * PAIRS) if lengths is None else np.full(2 * PAIRS, lengths)
        self.mask = (np.arange(LENGTH) < count[:, None]).astype(np.float32)
        draw = lambda low: -rng.uniform(0.05, low, shape).astype(np.float32) * self.mask
        self.policy, self.reference, self.log_squares = draw(3.0), draw(3.0), draw(2.0)
        self.completion_mask = torch.from_numpy(np.pad(self.mask, ((0, 0), (2, 0)))).long()

    def sums(self, per_token, weights=None):
        total = jnp.sum(per_token * (self.mask if weights is None else weights), axis=1)
        return PairLogps(total[:PAIRS], total[PAIRS:])

    @property
    def lengths(self):
        count = jnp.asarray(self.mask.sum(axis=1))
        return PairLengths(count[:PAIRS], count[PAIRS:])

    @property
    def beyond(self):
        count = self.mask.sum(axis=1).reshape(2, PAIRS)
        shorter = np.tile(count.min(axis=0), 2)
        return self.mask * (np.arange(LENGTH) >= shorter[:, None])


def accelerator():
    same = lambda x: x
    return types.SimpleNamespace(device=torch.device("cpu"), gather=same, gather_for_metrics=same)


def model(log_probs, log_squares=None):
    """A model of TRL's fused head: whatever it is given, it says these log-probabilities (of the tokens that count)."""
    padded = torch.nn.functional.pad(log_probs, (1, 0))
    rest = torch.zeros_like(padded.detach())
    squares = rest if log_squares is None else torch.nn.functional.pad(torch.from_numpy(log_squares), (1, 0))
    outputs = types.SimpleNamespace(
        log_probs=padded,
        log_sum_sq_probs=squares,
        entropy=rest,
        mean_logits=rest,
        is_top1=rest.bool(),
    )

    def call(**_):
        return outputs

    call.training = True
    return call


def dpo_of_trl(tokens, loss_type, **settings):
    """Returns TRL's loss, its gradient in each log-probability of the policy, and its metrics."""
    policy = torch.tensor(tokens.policy, requires_grad=True)
    saying = model(policy, tokens.log_squares)
    reference = torch.from_numpy(np.concatenate(settings.pop("reference", tokens.sums(tokens.reference))))
    trainer = types.SimpleNamespace(
        **{"ld_alpha": None, "f_divergence_type": "reverse_kl", "f_alpha_divergence_coef": 0.5, "use_weighting": False}
        | {"label_smoothing": 0.0, "beta": BETA}
        | settings,
        model=saying,
        accelerator=accelerator(),
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        loss_types=[loss_type],
        loss_weights=[1.0],
        args=types.SimpleNamespace(discopop_tau=0.05),
        _metrics={"train": collections.defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {
        "input_ids": torch.ones_like(tokens.completion_mask),
        "attention_mask": torch.ones_like(tokens.completion_mask),
        "completion_mask": tokens.completion_mask,
        "ref_chosen_logps": reference[:PAIRS],
        "ref_rejected_logps": reference[PAIRS:],
    }
    loss = dpo_trainer.DPOTrainer._compute_loss(trainer, saying, inputs, return_outputs=False)
    loss.backward()
    return loss.item(), policy.grad.numpy() * tokens.mask, {k: v[-1] for k, v in trainer._metrics["train"].items()}


def agree(tokens, ours, theirs):
    """Checks the mean of our values, and its gradient, which is the same for all tokens of a sum."""
    loss, grads = jax.value_and_grad(lambda policy: jnp.mean(ours(policy)))(jnp.asarray(tokens.policy))
    np.testing.assert_allclose(loss, theirs[0], rtol=1e-5)
    np.testing.assert_allclose(grads * tokens.mask, theirs[1], rtol=1e-5, atol=1e-6)


SMOOTHED = {"label_smoothing": 0.0}
OURS = {
    "sigmoid": lambda p, r, _: preference.dpo(p, r, beta=BETA, **SMOOTHED),
    "hinge": lambda p, r, _: preference.hinge(p, r, beta=BETA),
    "ipo": lambda p, r, n: preference.ipo(p, r, lengths=n, beta=BETA),
    "exo_pair": lambda p, r, _: preference.exo_pair(p, r, beta=BETA, label_smoothing=0.1),
    "nca_pair": lambda p, r, _: preference.nca_pair(p, r, beta=BETA),
    "robust": lambda p, r, _: preference.robust(p, r, beta=BETA, label_smoothing=0.1),
    "bco_pair": lambda p, r, _: preference.bco_pair(p, r, beta=BETA),
    "sppo_hard": lambda p, r, _: preference.sppo_hard(p, r, beta=BETA),
    "aot": lambda p, r, _: preference.aot(p, r, weights=jnp.ones(PAIRS), beta=BETA, label_smoothing=0.1),
    "aot_unpaired": lambda p, r, _: preference.aot_unpaired(
        p, r, weights=jnp.ones(PAIRS), beta=BETA, label_smoothing=0.1
    ),
    "apo_zero": lambda p, r, _: preference.apo_zero(p, r, beta=BETA),
    "apo_down": lambda p, r, _: preference.apo_down(p, r, beta=BETA),
    "discopop": lambda p, r, _: preference.discopop(p, r, beta=BETA, tau=0.05),
    "sigmoid_norm": lambda p, r, n: preference.sigmoid_norm(p, r, lengths=n, beta=BETA),
}
SMOOTHS = {"exo_pair", "robust", "aot", "aot_unpaired"}


@pytest.mark.parametrize("name", OURS)
def test_a_loss_its_gradient_and_its_metrics_are_those_of_trl(name):
    tokens = Tokens()
    theirs = dpo_of_trl(tokens, name, label_smoothing=0.1 if name in SMOOTHS else 0.0)
    reference = tokens.sums(tokens.reference)
    agree(tokens, lambda policy: OURS[name](tokens.sums(policy), reference, tokens.lengths)[0], theirs)
    _, metrics = OURS[name](tokens.sums(tokens.policy), reference, tokens.lengths)
    for metric, values in metrics.items():
        np.testing.assert_allclose(jnp.mean(values), theirs[2][metric], rtol=1e-5, atol=1e-6, err_msg=metric)


def test_the_sft_term_is_trls_where_completions_are_equally_long():
    tokens = Tokens(lengths=5)
    agree(tokens, lambda p: reference_free.sft(tokens.sums(p), lengths=tokens.lengths)[0], dpo_of_trl(tokens, "sft"))


F = {
    "forward_kl": divergence.forward_kl,
    "js_divergence": divergence.js_divergence,
    "alpha_divergence": lambda x: divergence.alpha_divergence(x, coefficient=0.5),
}


@pytest.mark.parametrize("divergent", F)
@pytest.mark.parametrize("name", ["sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop"])
def test_an_f_divergence_shapes_each_loss_as_trls(name, divergent):
    tokens = Tokens(seed=1)
    settings = {"f_divergence_type": divergent, "label_smoothing": 0.1 if name in SMOOTHS else 0.0}
    reference = tokens.sums(tokens.reference)
    shape = lambda policy: divergence.shaped(tokens.sums(policy), reference, F[divergent])
    ours = lambda policy: OURS[name](*shape(policy), tokens.lengths)[0]
    agree(tokens, ours, dpo_of_trl(tokens, name, **settings))


def test_the_losses_that_fit_an_f_divergence_are_those_that_trl_allows():
    """Its list is a variable of the constructor; `sft` is on it as a term of a sum, which no divergence changes."""
    listed = re.search(r"f_divergence_loss_types = (\{.*\})", inspect.getsource(dpo_trainer.DPOTrainer.__init__))
    assert {*divergence.DIFFERENCE_BASED, "sft"} - {"dpo"} == ast.literal_eval(listed[1])


def test_ld_alpha_weighs_tokens_as_trl_does():
    tokens = Tokens(seed=2)
    weights = weighting.length_desensitized(jnp.asarray(tokens.mask), jnp.asarray(tokens.beyond), ld_alpha=0.25)
    assert (np.asarray(weights) == 0.25).any()
    reference = tokens.sums(tokens.reference, weights)
    theirs = dpo_of_trl(tokens, "sigmoid", ld_alpha=0.25, reference=reference)
    agree(tokens, lambda p: OURS["sigmoid"](tokens.sums(p, weights), reference, None)[0], theirs)


def test_wpo_weighs_pairs_as_trl_does():
    tokens = Tokens(seed=3)
    reference, squares = tokens.sums(tokens.reference), tokens.sums(tokens.log_squares)

    def ours(policy):
        logps = tokens.sums(policy)
        return OURS["sigmoid"](logps, reference, None)[0] * weighting.wpo(logps, squares, lengths=tokens.lengths)

    agree(tokens, ours, dpo_of_trl(tokens, "sigmoid", use_weighting=True))


@pytest.mark.parametrize("name", ["kto", "apo_zero_unpaired"])
def test_an_unpaired_loss_its_gradient_and_its_metrics_are_those_of_trl(name):
    tokens, mismatched = Tokens(seed=4), Tokens(seed=5)
    label = np.arange(2 * PAIRS) % 3 != 0
    policy = torch.tensor(tokens.policy, requires_grad=True)
    total = lambda x: torch.from_numpy(x.sum(axis=1))
    kl_logps = total(mismatched.policy + 2.0 * mismatched.mask)  # so that their mean is above the reference's
    trainer = types.SimpleNamespace(
        **{"desirable_weight": 1.2, "undesirable_weight": 0.7, "beta": BETA, "loss_type": name},
        model=(saying := model(policy)),
        accelerator=accelerator(),
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        calculate_KL=name == "kto",
        _compute_kl_logps=lambda *_: kl_logps,
        _metrics={"train": collections.defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {
        "input_ids": torch.ones_like(tokens.completion_mask),
        "attention_mask": torch.ones_like(tokens.completion_mask),
        "completion_mask": tokens.completion_mask,
        "label": torch.from_numpy(label),
        "ref_logps": total(tokens.reference),
        "ref_KL_logps": total(mismatched.reference),
    }
    theirs = kto_trainer.KTOTrainer._compute_loss(trainer, saying, inputs, return_outputs=False)
    theirs.backward()

    flat = lambda x: jnp.asarray(x).sum(axis=1)
    given = {"desirable": jnp.asarray(label, jnp.float32), "beta": BETA}
    weights = jnp.ones(2 * PAIRS)
    if name == "kto":
        kl = unpaired.mismatched_kl(jnp.asarray(kl_logps.numpy()), flat(mismatched.reference), weights=weights)
        assert float(kl) > 0
        given["kl"] = kl
    loss = lambda policy: getattr(unpaired, name)(
        flat(policy), flat(tokens.reference), **given, desirable_weight=1.2, undesirable_weight=0.7
    )
    agree(tokens, lambda policy: loss(policy)[0], (theirs.item(), policy.grad.numpy() * tokens.mask))
    metrics = unpaired.metrics(
        flat(tokens.policy), flat(tokens.reference), desirable=given["desirable"], weights=weights, beta=BETA
    ) | {k: v for k, v in loss(jnp.asarray(tokens.policy))[1].items() if k == "kl"}
    for metric, value in reduce.means(reduce.totals(metrics, weights)).items():
        expected = trainer._metrics["train"][metric][-1]
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6, err_msg=metric)


@pytest.mark.parametrize("loss_type", ["sigmoid", "simpo"])
def test_cpo_and_simpo_are_those_of_trl(loss_type):
    tokens = Tokens(seed=6)
    logps = tokens.sums(tokens.policy)
    theirs_of = preference.per_token(logps, tokens.lengths) if loss_type == "simpo" else logps  # as its forward does
    trainer = types.SimpleNamespace(
        alpha=0.0, beta=2.0, simpo_gamma=0.8, label_smoothing=0.1, loss_type=loss_type, accelerator=accelerator()
    )
    theirs = cpo_trainer.CPOTrainer.cpo_loss(trainer, *(torch.from_numpy(np.array(x)) for x in theirs_of))
    given = {"lengths": tokens.lengths, "beta": 2.0, "label_smoothing": 0.1}
    if loss_type == "simpo":
        values, metrics = reference_free.simpo(logps, gamma=0.8, **given)
    else:
        values, metrics = reference_free.cpo(logps, cpo_alpha=0.0, **given)
    ours = (values, metrics["rewards/chosen"], metrics["rewards/rejected"])
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other.numpy(), rtol=1e-5, atol=1e-6)


def test_the_odds_of_orpo_are_those_of_trl():
    tokens = Tokens(seed=7)
    logps = tokens.sums(tokens.policy)
    means = preference.per_token(logps, tokens.lengths)
    trainer = types.SimpleNamespace(beta=BETA, accelerator=accelerator())
    theirs = orpo_trainer.ORPOTrainer.odds_ratio_loss(trainer, *(torch.from_numpy(np.array(x)) for x in means))
    ratio, chosen, rejected, mean_ratio, mean_odds = (np.asarray(x) for x in theirs)
    values, metrics = reference_free.orpo(logps, lengths=tokens.lengths, beta=BETA)
    np.testing.assert_allclose(values, metrics["nll_loss"] - ratio, rtol=1e-5)
    np.testing.assert_allclose(metrics["rewards/chosen"], chosen, rtol=1e-5)
    np.testing.assert_allclose(metrics["rewards/rejected"], rejected, rtol=1e-5)
    np.testing.assert_allclose(jnp.mean(metrics["log_odds_ratio"]), mean_ratio, rtol=1e-5)
    np.testing.assert_allclose(jnp.mean(metrics["log_odds_chosen"]), mean_odds, rtol=1e-5)


@pytest.mark.parametrize("margins", [False, True])
def test_bradley_terry_with_centring_is_that_of_trl(margins):
    rng = np.random.default_rng(8)
    scores = rng.standard_normal(2 * PAIRS).astype(np.float32)
    margin = rng.uniform(0, 1, PAIRS).astype(np.float32) * margins
    logits = torch.tensor(scores[:, None], requires_grad=True)
    saying = lambda **_: types.SimpleNamespace(logits=logits)
    trainer = types.SimpleNamespace(
        model=types.SimpleNamespace(training=True),
        args=types.SimpleNamespace(center_rewards_coefficient=0.05),
        accelerator=accelerator(),
        _metrics={"train": collections.defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {"attention_mask": torch.ones(2 * PAIRS, 3)} | ({"margin": torch.from_numpy(margin)} if margins else {})
    theirs = reward_trainer.RewardTrainer.compute_loss(trainer, saying, inputs)
    theirs.backward()

    def ours(scores):
        chosen, rejected = scores[:PAIRS], scores[PAIRS:]
        terry, metrics = reward.bradley_terry(chosen, rejected, margin=jnp.asarray(margin))
        return jnp.mean(terry + reward.centring(chosen, rejected, coefficient=0.05)[0]), metrics

    (loss, metrics), grads = jax.value_and_grad(ours, has_aux=True)(jnp.asarray(scores))
    np.testing.assert_allclose(loss, theirs.item(), rtol=1e-5)
    np.testing.assert_allclose(grads, logits.grad.numpy()[:, 0], rtol=1e-5, atol=1e-7)
    for metric in ("accuracy", "margin", "mean_reward"):
        np.testing.assert_allclose(jnp.mean(metrics[metric]), trainer._metrics["train"][metric][-1], rtol=1e-5)
