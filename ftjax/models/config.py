"""What a decoder looks like: everything that decides shapes and maths, as one frozen, hashable value.

To add a mechanism: one field here, one branch in `decoder.py`, and its reading in the families that have it.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Rope:
    """Rotary position embedding and how its frequencies are stretched beyond the training context.

    kind: "default", "none" (no rotation), "linear" (positions / factor), "dynamic" (NTK: theta grows with the length),
    "llama3" (long wavelengths / factor, short ones kept, smooth in between), "yarn" (the same, with bounds by numbers
    of rotations) or "longrope" (a divisor for each frequency, another set beyond original_max_position).
    `nn/rope.py` says which fields a kind reads; the rest keep their neutral values.
    """

    kind: str
    theta: float
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 1.0
    original_max_position: int = 0
    beta_fast: float = 0.0
    beta_slow: float = 0.0
    truncate: bool = True
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()
    attention_factor: float = 1.0  # multiplies cosine and sine
    partial: float = 1.0  # share of a head's features that is rotated, the first ones


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer. Widths count scalars; what differs between layers is a tuple with one entry a layer.

    Fields with a default are mechanisms that most families lack; the default is their absence.
    """

    family: str
    vocab_size: int
    d_model: int
    d_ff: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    rope: Rope
    norm_eps: float
    max_position: int
    tie_embeddings: bool
    activation: str  # "silu" or "gelu_pytorch_tanh"
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    qk_norm: bool
    windows: tuple[int, ...]  # how far back each layer sees; 0: everything
    second_rope: Rope | None = None  # for the layers that `second_rope_layers` marks
    second_rope_layers: tuple[bool, ...] = ()
    query_scale: float = 0.0  # of the scores; 0: head_dim ** -0.5
    attention_softcap: float = 0.0  # scores become cap * tanh(scores / cap); 0: no cap
    logit_softcap: float = 0.0  # the same for logits
    qk_norm_whole: bool = False  # qk_norm over all heads at once, not over each
    pre_norms: bool = True  # of the inputs of attention and MLP
    post_norms: bool = False  # of their outputs, before they are added
    norm_offset: float = 0.0  # norms multiply by offset + weight
    embed_scale: float = 1.0  # of embeddings, rounded to the dtype of activations
    n_experts: int = 0  # 0: one MLP a layer; d_ff is the width of one expert
    top_k: int = 0  # experts a token
    normalize_top_k: bool = False  # the weights of a token's experts add up to 1
    # How it is run; these do not change the function beyond rounding.
    dtype: str = "float32"  # of activations; norms, softmax and logits are float32 whatever this says
    remat: str = "none"  # what the backward pass recomputes: "none", "full" (each block), "dots" (all but matmuls)
    unroll: int = 1  # layers in one iteration of the scan

    @property
    def context(self) -> int:
        """Tokens that the model can read; dynamic and yarn rope go beyond what it was trained on."""
        if self.rope.kind == "yarn":
            return max(self.max_position, int(self.rope.original_max_position * self.rope.factor))
        return int(self.max_position * (self.rope.factor if self.rope.kind == "dynamic" else 1))

    @property
    def score_scale(self) -> float:
        """What the products of queries and keys are multiplied by."""
        return self.query_scale or self.head_dim**-0.5

    @property
    def rotary_dim(self) -> int:
        """Features of a head that are rotated."""
        return int(self.head_dim * self.rope.partial)

    @property
    def q_dim(self) -> int:
        """Width of the merged query heads."""
        return self.n_heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        """Width of the merged key (or value) heads."""
        return self.n_kv_heads * self.head_dim
