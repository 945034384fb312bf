"""Learning-rate schedules and optimizers by name, out of optax, over whatever tree trains.

Moments and updates have the trainables' dtype (float32), moments of adamw8bit 8 bits. To add an optimizer: its name in
`OPTIMIZERS` and an entry in `scalers` of `build`.
"""

from collections.abc import Callable
from typing import Any

import jax
import optax
from optax import contrib

from ftjax import lookup, tree
from ftjax.adapters import adapter
from ftjax.errors import UserError
from ftjax.train import adam, adam8

SCHEDULES = ("constant", "linear", "cosine", "wsd")
OPTIMIZERS = ("adamw", "adamw8bit", "adam_tf", "sgd", "adafactor", "lion", "muon")
LORA_PLUS = r"(?!(.*\.)?embed_tokens\.).*\.(b|m|lambda_b|lambda_d)"  # what LoRA+ gives the higher rate


def schedule(
    *, schedule: str, learning_rate: float, steps: int, warmup_steps: int, end_ratio: float, decay_share: float
) -> optax.Schedule:
    """Returns the learning rate as a function of the updates done: linear warm-up from 0, then the named shape.

    constant: stays. linear, cosine: falls to end_ratio * learning_rate at `steps`. wsd (warm-up, stable, decay): stays,
    and falls linearly over the last decay_share of the steps.
    """
    if schedule not in SCHEDULES:
        raise UserError(f"there is no schedule {schedule!r}.{lookup.suggestion(schedule, list(SCHEDULES))}")
    if not 0 <= warmup_steps < max(steps, 1):
        raise UserError(
            f"optimizer.warmup_steps {warmup_steps} must be at least 0 and below the {steps} steps of the run"
        )
    end, rest = end_ratio * learning_rate, steps - warmup_steps
    if schedule == "constant":
        body = optax.constant_schedule(learning_rate)
    elif schedule == "linear":
        body = optax.linear_schedule(learning_rate, end, rest)
    elif schedule == "cosine":
        body = optax.cosine_decay_schedule(learning_rate, rest, alpha=end_ratio)
    else:
        decay = max(1, round(decay_share * steps))
        stable = max(0, rest - decay)
        falling = optax.linear_schedule(learning_rate, end, rest - stable)
        body = optax.join_schedules([optax.constant_schedule(learning_rate), falling], [stable])
    if warmup_steps == 0:
        return body
    # The first update already moves: at update i of the warm-up the rate is (i + 1) / warmup_steps of the peak.
    warm = lambda count: learning_rate * (count + 1) / warmup_steps
    return optax.join_schedules([warm, body], [warmup_steps])


def build(
    rate: optax.Schedule,
    *,
    name: str,
    b1: float,
    b2: float,
    eps: float,
    momentum: float,
    weight_decay: float,
    decay: str,
    clip_norm: float,
    lora_plus_ratio: float,
) -> optax.GradientTransformation:
    """Returns clip -> scale -> decoupled weight decay -> learning rate, as one optax transformation.

    adamw: b1, b2, eps (PyTorch's form). adamw8bit: the same, moments in 8 bits. adam_tf: the same, eps where TensorFlow
    has it, as in lm-human-preferences. lion: b1, b2. sgd: momentum.
    muon: momentum on matrices, AdamW on the rest. adafactor: factored second moments. `decay` is a regex of the paths
    that weight_decay shrinks. clip_norm 0: none. lora_plus_ratio multiplies the learning rate of every LoRA B
    (LoRA+, Hayou et al. 2024, section 4) and, as in PEFT, of the vectors of DoRA and VeRA, not on the embedding; 1 is
    plain LoRA. The constants of adapters get no moments and no update.
    """
    if name not in OPTIMIZERS:
        raise UserError(f"there is no optimizer {name!r}.{lookup.suggestion(name, list(OPTIMIZERS))}")
    scalers: dict[str, Callable[[], optax.GradientTransformation]] = {
        "adamw": lambda: adam.scale_by_adam(b1=b1, b2=b2, eps=eps),
        "adamw8bit": lambda: adam8.scale_by_adam8(b1=b1, b2=b2, eps=eps),
        "adam_tf": lambda: adam.scale_by_adam_tf(b1=b1, b2=b2, eps=eps),
        "sgd": lambda: optax.trace(decay=momentum) if momentum > 0 else optax.identity(),
        "adafactor": lambda: optax.chain(
            optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0), optax.scale_by_param_block_rms()
        ),
        "lion": lambda: optax.scale_by_lion(b1=b1, b2=b2),
        "muon": lambda: _muon(momentum=momentum, b1=b1, b2=b2, eps=eps),
    }
    parts = [optax.clip_by_global_norm(clip_norm)] if clip_norm > 0 else []
    parts.append(scalers[name]())
    if weight_decay > 0:
        parts.append(optax.add_decayed_weights(weight_decay, mask=lambda params: _masked(params, decay)))
    parts.append(optax.scale_by_learning_rate(rate))
    if lora_plus_ratio != 1:
        parts.append(optax.masked(optax.scale(lora_plus_ratio), lambda params: _masked(params, LORA_PLUS)))
    return _of_trained(optax.chain(*parts))


def with_embedding_rate(chain: optax.GradientTransformation, ratio: float) -> optax.GradientTransformation:
    """Returns the optimizer with `ratio` times the learning rate for a LoRA on the embedding, its A and B alike.

    PEFT's loraplus_lr_embedding over the learning rate: LoRA+ leaves the embedding out of its higher rate.
    """
    return with_rate_of(chain, r"(.*\.)?embed_tokens\.(a|b|m)", ratio)


def with_rate_of(chain: optax.GradientTransformation, paths: str, ratio: float) -> optax.GradientTransformation:
    """Returns the optimizer with `ratio` times the learning rate for the leaves whose paths match the regex `paths`."""
    scale = optax.masked(optax.scale(ratio), lambda params: _masked(params, paths))
    return optax.chain(chain, _of_trained(scale))


def _of_trained(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns the optimizer without the constants of adapters: it never sees them, and their update is zero."""

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        trained = None if params is None else adapter.trained(params)
        updates, state = inner.update(adapter.trained(grads), state, trained)
        return adapter.with_zeros(updates, grads), state

    return optax.GradientTransformation(lambda params: inner.init(adapter.trained(params)), update)


def _masked(params: Any, pattern: str) -> Any:
    """Returns True for every leaf whose path the pattern matches."""
    return jax.tree_util.tree_map_with_path(lambda path, _: tree.matches(tree.name(path), pattern), params)


def _muon(*, momentum: float, b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024) for the matrices of a stacked tree, Adam for embeddings, head, norms and biases."""

    def dimensions(params: Any) -> Any:
        def one(path: tuple[Any, ...], leaf: Any) -> Any:
            name = tree.name(path)
            matrix = "_proj" in name and "bias" not in name and leaf.ndim >= 3  # [L, out] are vectors: IA3, DoRA, VeRA
            return contrib.MuonDimensionNumbers(reduction_axis=-2, output_axis=-1) if matrix else None

        return jax.tree_util.tree_map_with_path(one, params)

    # Its own learning rate is 1 with the sign of an ascent direction undone: ours is applied after weight decay.
    inner = contrib.muon(
        1.0, beta=momentum, adam_b1=b1, adam_b2=b2, eps=eps, muon_weight_dimension_numbers=dimensions
    )  # fmt: skip
    return optax.chain(inner, optax.scale(-1.0))
