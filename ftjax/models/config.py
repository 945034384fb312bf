"""What a decoder looks like: everything that decides shapes and maths, as one frozen, hashable value.

To add a mechanism: one field here, one branch in `decoder.py`, and its reading in the families that have it.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Rope:
    """Rotary position embedding and how its frequencies are stretched beyond the training context.

    kind: "default", "linear" (positions / factor), "dynamic" (NTK: theta grows with the length) or "llama3"
    (long wavelengths / factor, short ones kept, smooth in between). The last three fields are used by "llama3"
    ("dynamic" uses original_max_position too).
    """

    kind: str
    theta: float
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 1.0
    original_max_position: int = 0


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer. Widths count scalars; `windows` has one entry a layer (0: full attention)."""

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
    activation: str
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    qk_norm: bool
    windows: tuple[int, ...]
    # How it is run; these do not change the function beyond rounding.
    dtype: str = "float32"  # of activations; norms, softmax and logits are float32 whatever this says
    remat: str = "none"  # what the backward pass recomputes: "none", "full" (each block), "dots" (all but matmuls)
    unroll: int = 1  # layers in one iteration of the scan

    @property
    def context(self) -> int:
        """Tokens that the model can read; dynamic rope goes beyond what it was trained on."""
        return int(self.max_position * (self.rope.factor if self.rope.kind == "dynamic" else 1))

    @property
    def q_dim(self) -> int:
        """Width of the merged query heads."""
        return self.n_heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        """Width of the merged key (or value) heads."""
        return self.n_kv_heads * self.head_dim
