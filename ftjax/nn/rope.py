"""Rotary position embedding in Hugging Face's half-split layout (Su et al. 2021), and its stretched variants."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def frequencies(
    *,
    head_dim: int,
    kind: str,
    theta: float,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original_max_position: int,
    length: Int[Array, ""],
) -> Float[Array, " half"]:
    """Returns the angle per position of each pair of features.

    default: theta^(-2i/H). linear: / factor. dynamic (NTK-aware): theta grows once `length` exceeds the training
    context. llama3: wavelengths beyond context / low_freq_factor are divided by factor, those below
    context / high_freq_factor kept, the rest interpolated (Llama 3.1's `apply_scaling`).
    """
    exponent = jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim
    if kind == "dynamic":
        stretch = factor * jnp.maximum(length, original_max_position) / original_max_position - (factor - 1)
        return 1.0 / (theta * stretch ** (head_dim / (head_dim - 2))) ** exponent
    inverse = 1.0 / theta**exponent
    if kind == "linear":
        return inverse / factor
    if kind == "llama3":
        wavelength = 2 * math.pi / inverse
        smooth = (original_max_position / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor)
        blend = jnp.clip(smooth, 0.0, 1.0)
        return (1 - blend) * inverse / factor + blend * inverse
    if kind != "default":
        raise ValueError(f"rope kind {kind!r} is unknown; known are default, linear, dynamic, llama3")
    return inverse


def angles(
    positions_BT: Int[Array, "B T"], inverse: Float[Array, " half"]
) -> tuple[Float[Array, "B T half"], Float[Array, "B T half"]]:
    """Returns cosine and sine of every position's angles, float32."""
    angle_BTH = positions_BT[..., None].astype(jnp.float32) * inverse[None, None]
    return jnp.cos(angle_BTH), jnp.sin(angle_BTH)


def rotate(
    x_BTNH: Float[Array, "B T N H"], cos_BTH: Float[Array, "B T half"], sin_BTH: Float[Array, "B T half"]
) -> Float[Array, "B T N H"]:
    """Returns x with feature i and i + H/2 rotated by the position's angle i, in float32 and then in the dtype of x."""
    first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos_BTH[:, :, None], sin_BTH[:, :, None]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x_BTNH.dtype)
