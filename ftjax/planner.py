"""How much memory a train step takes, by role, from shapes alone: no weight is read and nothing is compiled.

`predict` counts what must be there (arrays of base and state to the byte, what the backward pass keeps) and adds the
widest moment of the step. It knows SFT of adapters on dense decoders, on one device. `scripts/bench/memory.py` sets it
beside what XLA allocates; the table is in docs/bench/.
"""

from typing import Any

import jax
import jax.numpy as jnp

from ftjax import tree
from ftjax.models import params
from ftjax.models.config import ModelConfig
from ftjax.nn import attention, token_logps

# Arrays of one kind alive at the widest moment, set by what XLA allocates for S, M and 8B (CPU, jax 0.10.2).
LOGITS, MLP, SCORES, ROWS = 5, 6, 5, 10


def predict(config: ModelConfig, base: Any, state: Any, *, rows: int, length: int) -> dict[str, int]:
    """Returns bytes by role for a step over `rows` rows of `length` tokens; base and state may be of shapes.

    codes, scales, dense (embedding, norms, head and what else is not in few bits), adapters, moments: as allocated.
    gradients: of the adapters. residuals: what the backward pass keeps of every layer (config.remat). copies: dense
    matrices in the dtype of the activations, where the base has another: XLA makes them ahead of its loops. working:
    temporaries of the widest moment, which is the loss over one chunk of logits, the MLP of one layer, or its
    attention. Raises ValueError for mixtures of experts.
    """
    if config.n_experts:
        raise ValueError(f"the planner does not know mixtures of experts ({config.n_experts} experts)")
    weights = [leaf for leaf in jax.tree.leaves(base, is_leaf=tree.stands_for_weight) if tree.stands_for_weight(leaf)]
    codes = sum(tree.nbytes(weight.codes) for weight in weights)
    packed = sum(tree.nbytes(weight) for weight in weights)
    adapters = tree.nbytes(state.trainable)
    tokens, ranks = rows * length, _ranks(state.trainable)
    again = _dots(config, ranks) if config.remat == "full" else 0
    moments = (
        _logits(config, tokens),
        _mlp(config, tokens, base.blocks.gate_proj),
        _attention(config, rows, length, again),
    )
    return {
        "codes": codes,
        "scales": packed - codes,
        "dense": tree.nbytes(base) - packed,
        "adapters": adapters,
        "moments": tree.nbytes(state.opt_state),
        "gradients": adapters,
        "residuals": tokens * config.n_layers * _kept(config, ranks) * _width(config),
        "copies": _copies(config, base),
        "working": max(moments),
    }


def _width(config: ModelConfig) -> int:
    return jnp.dtype(config.dtype).itemsize


def _ranks(trainable: Any) -> int:
    """Returns how many numbers a token has between the A and B of one layer's adapters."""
    named = tree.paths(trainable)
    return sum(leaf.shape[-1] for name, leaf in named.items() if name.startswith("blocks.") and name.endswith(".a"))


def _kept(config: ModelConfig, ranks: int) -> int:
    """Returns the numbers a token that one layer keeps for the backward pass."""
    if config.remat == "full":
        return config.d_model  # the input
    # Without remat also attended in a second layout, and what autodiff wants of the gated product and of the norms.
    more = config.q_dim + 4 * config.d_ff + 4 * config.d_model if config.remat == "none" else 0
    return _dots(config, ranks) + more


def _dots(config: ModelConfig, ranks: int) -> int:
    c = config
    # block.SAVED: input and middle, q and attended, k and v, gate and up, A's outputs, a logsum a head
    dots = 2 * c.d_model + 2 * c.q_dim + 2 * c.kv_dim + 2 * c.d_ff + ranks + c.n_heads
    return dots + (2 * c.d_model if c.post_norms else 0)


def _copies(config: ModelConfig, base: Any) -> int:
    projections = [getattr(base.blocks, name) for name in params.PROJECTIONS]
    matrices = [*projections, base.embed_tokens if base.lm_head is None else base.lm_head]
    cast = [w for w in matrices if not tree.stands_for_weight(w) and w.dtype != jnp.dtype(config.dtype)]
    return tree.count(cast) * _width(config)


def _logits(config: ModelConfig, positions: int) -> int:
    """Returns the bytes of one chunk of float32 logits and of what is computed from it."""
    chunk = token_logps.chunk_rows(positions, config.vocab_size)
    return LOGITS * chunk * config.vocab_size * 4


def _mlp(config: ModelConfig, tokens: int, gate: Any) -> int:
    """Returns the bytes of the MLP's backward pass, for which a weight in few bits is dequantised, levels beside it."""
    weight = 2 * config.d_model * config.d_ff if tree.stands_for_weight(gate) else 0
    return (MLP * tokens * config.d_ff + weight) * _width(config)


def _attention(config: ModelConfig, rows: int, length: int, kept: int) -> int:
    """Returns the bytes of the attention's backward pass, whose blocks XLA computes side by side, in float32.

    `kept` numbers a token were recomputed for this layer.
    """
    blocks = len(list(attention.blocks(length)))
    scores = rows * config.n_heads * length * length * (blocks + 1) // (2 * blocks)
    return SCORES * scores * 4 + rows * length * (ROWS * config.q_dim + kept) * _width(config)
