"""The tree of a decoder's weights: one dataclass for arrays, abstract shapes, axis letters, shardings and adapters.

Projections are stored `[layers, in, out]` with heads merged into `out`, so a projection is a matrix whether it is
dense, quantised or adapted, and Hugging Face's weight is its transpose. Axis letters (see README) name every axis.
"""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from ftjax.models.config import ModelConfig

# Axes of the projections: of inputs and of outputs.
PROJECTIONS = {
    "q_proj": ("D", "KGH"),
    "k_proj": ("D", "KH"),
    "v_proj": ("D", "KH"),
    "o_proj": ("KGH", "D"),
    "gate_proj": ("D", "F"),
    "up_proj": ("D", "F"),
    "down_proj": ("F", "D"),
}


class Block(struct.PyTreeNode):
    """All transformer blocks at once; the first axis of every leaf is the layer. Absent mechanisms are None."""

    input_norm: Any  # [L, D]; None without pre_norms
    q_proj: Any  # [L, D, K*G*H]
    k_proj: Any  # [L, D, K*H]
    v_proj: Any  # [L, D, K*H]
    o_proj: Any  # [L, K*G*H, D]
    post_norm: Any  # [L, D], of the input of the MLP (Llama's post_attention_layernorm); None without pre_norms
    gate_proj: Any  # [L, D, F], or [L, E, D, F] with experts
    up_proj: Any  # as gate_proj
    down_proj: Any  # [L, F, D] or [L, E, F, D]
    q_bias: Any = None  # [L, K*G*H]
    k_bias: Any = None  # [L, K*H]
    v_bias: Any = None  # [L, K*H]
    o_bias: Any = None  # [L, D]
    q_norm: Any = None  # [L, H], or [L, K*G*H] where it spans all heads
    k_norm: Any = None  # [L, H] or [L, K*H]
    gate_bias: Any = None  # [L, F]
    up_bias: Any = None  # [L, F]
    down_bias: Any = None  # [L, D]
    attention_out_norm: Any = None  # [L, D], of what attention adds
    mlp_out_norm: Any = None  # [L, D], of what the MLP adds
    router: Any = None  # [L, D, E]


class Decoder(struct.PyTreeNode):
    """A whole model."""

    embed_tokens: Any  # [V, D]
    blocks: Any  # Block
    norm: Any  # [D]
    lm_head: Any = None  # [D, V]; None where the embedding serves as head
    score: Any = None  # [D, 1], float32: the head of a reward model, beside the adapters; no base has it


def _layout(config: ModelConfig) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """Returns axis letters and shape of every leaf that this config has, by path."""
    c = config
    sizes = {"V": c.vocab_size, "D": c.d_model, "F": c.d_ff, "KGH": c.q_dim, "KH": c.kv_dim, "H": c.head_dim}
    sizes |= {"L": c.n_layers, "E": c.n_experts}
    experts = lambda axes: ("E", *axes) if c.n_experts and "F" in axes else axes
    block = {name: " ".join(("L", *experts(axes))) for name, axes in PROJECTIONS.items()}
    if c.pre_norms:
        block |= {"input_norm": "L D", "post_norm": "L D"}
    if c.post_norms:
        block |= {"attention_out_norm": "L D", "mlp_out_norm": "L D"}
    if c.n_experts:
        block |= {"router": "L D E"}
    if c.qkv_bias:
        block |= {"q_bias": "L KGH", "k_bias": "L KH", "v_bias": "L KH"}
    if c.o_bias:
        block |= {"o_bias": "L D"}
    if c.qk_norm and c.qk_norm_whole:
        block |= {"q_norm": "L KGH", "k_norm": "L KH"}
    elif c.qk_norm:
        block |= {"q_norm": "L H", "k_norm": "L H"}
    if c.mlp_bias:
        block |= {"gate_bias": "L F", "up_bias": "L F", "down_bias": "L D"}
    letters = {"embed_tokens": "V D", "norm": "D"} | {f"blocks.{name}": axes for name, axes in block.items()}
    if not c.tie_embeddings:
        letters["lm_head"] = "D V"
    split = {path: tuple(axes.split()) for path, axes in letters.items()}
    return {path: (axes, tuple(sizes[a] for a in axes)) for path, axes in split.items()}


def from_paths(leaves: dict[str, Any]) -> Decoder:
    """Returns the Decoder whose leaves are given by dotted path; the rest is None."""
    block = {path.removeprefix("blocks."): leaf for path, leaf in leaves.items() if path.startswith("blocks.")}
    required = [name for name, field in Block.__dataclass_fields__.items() if field.default is not None]
    blocks = Block(**({name: None for name in required} | block))
    top = {path: leaf for path, leaf in leaves.items() if "." not in path}
    return Decoder(**({"embed_tokens": None, "norm": None} | top), blocks=blocks)


def axes(config: ModelConfig) -> Decoder:
    """Returns the tree of axis letters, a tuple such as ("L", "D", "F") for each leaf."""
    return from_paths({path: letters for path, (letters, _) in _layout(config).items()})


def abstract(config: ModelConfig, dtype: jax.typing.DTypeLike) -> Decoder:
    """Returns the tree of shapes, without memory."""
    return from_paths({path: jax.ShapeDtypeStruct(shape, dtype) for path, (_, shape) in _layout(config).items()})


def init(key: jax.Array, config: ModelConfig, dtype: jax.typing.DTypeLike) -> Decoder:
    """Returns random weights: N(0, 1/in) projections, with o_proj and down_proj scaled down by sqrt(2 L) (GPT-2, 2.3).

    Embeddings are N(0, 0.02^2) (tied ones serve as head, so their size sets the first logits), norms multiply by one,
    biases are zero.
    """

    def leaf(path: str, shape: tuple[int, ...], key: jax.Array) -> jax.Array:
        name = path.rsplit(".", 1)[-1]
        if name.endswith("norm"):
            return jnp.full(shape, 1 - config.norm_offset, dtype)
        if name.endswith("bias"):
            return jnp.zeros(shape, dtype)
        std = 0.02 if name == "embed_tokens" else shape[-2] ** -0.5
        if name in ("o_proj", "down_proj"):
            std /= (2 * config.n_layers) ** 0.5
        return (std * jax.random.normal(key, shape, jnp.float32)).astype(dtype)

    layout = _layout(config)
    keys = jax.random.split(key, len(layout))
    return from_paths({p: leaf(p, shape, k) for (p, (_, shape)), k in zip(sorted(layout.items()), keys, strict=True)})
