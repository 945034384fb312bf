"""E2: what double quantisation saves, in bytes that are really there, and what it costs."""

import jax
import jax.numpy as jnp
import numpy as np

from ftjax import tree
from ftjax.checkpoint import hf_import
from ftjax.models import params
from ftjax.models.config import ModelConfig
from ftjax.models.families import llama
from ftjax.quant import convert
from scripts.repro.check import Check

SHAPE = (4096, 14336)
SEVENTY = 35_311_779_840  # bytes of the linears of a Llama of 70B


def nbytes(node: object) -> int:
    """Returns the allocated bytes."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(node))


def seventy() -> ModelConfig:
    """Returns the shape of Llama-3-70B."""
    return llama.config_from_hf(
        {
            "model_type": "llama",
            "vocab_size": 128_256,
            "hidden_size": 8192,
            "intermediate_size": 28_672,
            "num_hidden_layers": 80,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "rope_theta": 500_000.0,
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": False,
        }
    )


def linear_bytes() -> tuple[int, int]:
    """Returns the bytes of the linears of 70B in nf4-dq without the offsets, and those of the offsets."""
    dense = params.abstract(seventy(), "float32")
    base = convert.abstract_tree(dense, convert.plan_of(dense, "nf4-dq", leaves=hf_import.QUANTISED, group=0))
    found = {path: leaf for path, leaf in tree.paths(base).items() if "_proj" in path}
    sizes = {path: leaf.size * leaf.dtype.itemsize for path, leaf in found.items()}
    offsets = sum(size for path, size in sizes.items() if path.endswith(".offset"))
    return sum(sizes.values()) - offsets, offsets


def run() -> list[Check]:
    """Returns the checks of E2."""
    count = SHAPE[0] * SHAPE[1]
    wanted = 4.126953125 + 32 / count
    checks = []
    for name, most in (("normal", 1.001), ("t5", 1.005)):
        rng = np.random.default_rng(0)
        values = rng.standard_normal(SHAPE, np.float32) if name == "normal" else rng.standard_t(5, SHAPE)
        weight = jnp.asarray(values, jnp.float32)
        single, double = (
            convert.matrix(weight, convert.Few(kind, convert.group_of(kind, 0)), where="E2")
            for kind in ("nf4", "nf4-dq")
        )
        if name == "normal":
            got, plain = 8 * nbytes(double) / count, 8 * nbytes(single) / count
            checks.append(Check("bits with double quantisation", f"{wanted:.12f}", f"{got:.12f}", got == wanted))
            checks.append(Check("bits without", "4.5", f"{plain}", plain == 4.5))
            saved = 8 * (nbytes(single) - nbytes(double) + 4) / count
            checks.append(Check("saving, the offset aside", ".373046875", f"{saved:.9f}", saved == 0.373046875))
        loss = lambda node, weight=weight: float(jnp.mean(jnp.square(node.dequantize(jnp.float32) - weight)))
        ratio = loss(double) / loss(single)
        checks.append(Check(f"error, {name}: double over single", f"below {most}", f"{ratio:.6f}", ratio < most))
        off = np.abs(np.asarray(double.absmax()) / np.asarray(single.scales) - 1)
        shown = f"largest {off.max():.2%}, mean {off.mean():.2%}"
        rule = ("largest below 1%", bool(off.max() < 0.01)) if name == "normal" else ("about 5.3%, .5%", None)
        checks.append(Check(f"scales, {name}", rule[0], shown, rule[1]))
    found, offsets = linear_bytes()
    checks.append(Check("linears of 70B, bytes", f"{SEVENTY:,}", f"{found:,}, offsets {offsets:,}", found == SEVENTY))
    return checks
