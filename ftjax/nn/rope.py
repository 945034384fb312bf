"""Rotary position embedding in Hugging Face's half-split layout (Su et al. 2021), and its stretched variants."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

KINDS = ("default", "none", "linear", "dynamic", "llama3", "yarn", "longrope")


def frequencies(
    *,
    dim: int,
    kind: str,
    theta: float,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original_max_position: int,
    beta_fast: float,
    beta_slow: float,
    truncate: bool,
    short_factors: tuple[float, ...],
    long_factors: tuple[float, ...],
    length: Int[Array, ""],
) -> Float[Array, " half"]:
    """Returns the angle per position of each pair of the `dim` features that are rotated.

    default: theta^(-2i/dim). none: 0. linear: / factor. dynamic (NTK-aware): theta grows once `length` exceeds the
    training context. llama3: wavelengths beyond context / low_freq_factor are divided by factor, those below
    context / high_freq_factor kept, the rest interpolated (Llama 3.1's `apply_scaling`). yarn: pairs that turn fewer
    than beta_slow times in the context are divided by factor, those that turn more than beta_fast times kept, the rest
    interpolated by index (Peng et al. 2023, section 3.2). longrope: / short_factors, or / long_factors once `length`
    exceeds the training context (Ding et al. 2024).
    """
    exponent = jnp.arange(0, dim, 2, dtype=jnp.float32) / dim
    if kind == "none":
        return jnp.zeros_like(exponent)
    if kind == "dynamic":
        stretch = factor * jnp.maximum(length, original_max_position) / original_max_position - (factor - 1)
        return 1.0 / (theta * stretch ** (dim / (dim - 2))) ** exponent
    if kind == "longrope":
        short, long = jnp.asarray(short_factors, jnp.float32), jnp.asarray(long_factors, jnp.float32)
        return 1.0 / (jnp.where(length > original_max_position, long, short) * theta**exponent)
    inverse = 1.0 / theta**exponent
    if kind == "linear":
        return inverse / factor
    if kind == "llama3":
        wavelength = 2 * math.pi / inverse
        smooth = (original_max_position / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor)
        blend = jnp.clip(smooth, 0.0, 1.0)
        return (1 - blend) * inverse / factor + blend * inverse
    if kind == "yarn":
        ramp = _yarn_ramp(dim, theta, original_max_position, beta_fast, beta_slow, truncate)
        return inverse / factor * ramp + inverse * (1 - ramp)
    if kind != "default":
        raise ValueError(f"rope kind {kind!r} is unknown; known are {', '.join(KINDS)}")
    return inverse


def _yarn_ramp(
    dim: int, theta: float, context: int, beta_fast: float, beta_slow: float, truncate: bool
) -> Float[np.ndarray, " half"]:
    """Returns how far each pair is interpolated: 0 up to the last that turns beta_fast times, 1 from beta_slow on."""
    at = lambda turns: dim * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(theta))
    low, high = at(beta_fast), at(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    width = high - low or 0.001  # as the reference: no division by zero
    return np.clip((np.arange(dim // 2, dtype=np.float32) - low) / width, 0, 1).astype(np.float32)


def angles(
    positions_BT: Int[Array, "B T"], inverse: Float[Array, " half"], *, factor: float
) -> tuple[Float[Array, "B T half"], Float[Array, "B T half"]]:
    """Returns cosine and sine of every position's angles, float32, times factor (yarn and longrope; else 1)."""
    angle_BTH = positions_BT[..., None].astype(jnp.float32) * inverse[None, None]
    cos_BTH, sin_BTH = jnp.cos(angle_BTH), jnp.sin(angle_BTH)
    return (cos_BTH, sin_BTH) if factor == 1 else (cos_BTH * factor, sin_BTH * factor)


def rotate(
    x_BTNH: Float[Array, "B T N H"], cos_BTH: Float[Array, "B T half"], sin_BTH: Float[Array, "B T half"]
) -> Float[Array, "B T N H"]:
    """Returns x with feature i and i + half rotated by the position's angle i, in float32 and then in the dtype of x.

    Features beyond 2 * half are left as they are.
    """
    turned, rest = x_BTNH[..., : 2 * cos_BTH.shape[-1]], x_BTNH[..., 2 * cos_BTH.shape[-1] :]
    first, second = jnp.split(turned.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos_BTH[:, :, None], sin_BTH[:, :, None]
    out = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x_BTNH.dtype)
    return jnp.concatenate([out, rest], axis=-1) if rest.shape[-1] else out
