r"""Rotary position embeddings: queries and keys turned by angles that grow with the position.

Su et al. (2021), section 3.2, in the layout that rotates the first half of a head's features against its second half.
Long-context variants change the frequencies: linear interpolation (Chen et al., 2023), the piecewise scheme of
Llama 3.1 (Grattafiori et al., 2024), and YaRN (Peng et al., 2023, section 3).
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Int

from zsml_jax.typing import AnyArray, Array

#: The schemes of :class:`Rotary`.
ROTARY_KINDS = ("default", "linear", "llama3", "yarn")


@dataclasses.dataclass(frozen=True)
class Rotary:
    """The static description of a rotary embedding.

    Attributes:
      width: how many features of each head are rotated, an even number; the rest passes through.
      theta: the base of the wavelengths.
      kind: a member of :data:`ROTARY_KINDS`.
      factor: by how much longer the context is than the original one; unused by "default".
      original_max_positions: the context before it was made longer, in tokens; "llama3" and "yarn".
      low_freq_factor: "llama3": wavelengths longer than the original context over this are divided by the factor.
      high_freq_factor: "llama3": wavelengths shorter than the original context over this are kept.
      beta_fast: "yarn": features that turn more often than this in the original context are kept.
      beta_slow: "yarn": features that turn less often than this are interpolated.
      truncate: "yarn": whether the bounds between the two are rounded to whole features.
      attention_factor: "yarn": a factor on cosines and sines, so that scores grow by its square.
    """

    width: int
    theta: float = 10_000.0
    kind: str = "default"
    factor: float = 1.0
    original_max_positions: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float = 1.0


def frequencies(rotary: Rotary) -> Float32[np.ndarray, " f"]:
    """Returns the angle per token of each pair of features, in radians.

    >>> frequencies(Rotary(width=4, theta=100.0)).tolist()
    [1.0, 0.10000000149011612]

    Args:
      rotary: the embedding.

    Returns:
      ``rotary.width / 2`` frequencies, computed in float32 as the pretrained models' code does.

    Raises:
      ValueError: if the kind is unknown or the width is odd.
    """
    if rotary.kind not in ROTARY_KINDS:
        raise ValueError(f"kind must be one of {ROTARY_KINDS}, got {rotary.kind!r}")
    if rotary.width < 2 or rotary.width % 2:
        raise ValueError(f"width must be an even number of features, got {rotary.width}")
    exponents = np.arange(0, rotary.width, 2, dtype=np.float32) / np.float32(rotary.width)
    plain = 1 / np.float32(rotary.theta) ** exponents
    if rotary.kind == "linear":
        return plain / np.float32(rotary.factor)
    if rotary.kind == "llama3":
        return _llama3(rotary, plain)
    if rotary.kind == "yarn":
        return _yarn(rotary, plain)
    return plain


def cos_sin(rotary: Rotary, positions_BxT: Int[AnyArray, "b t"]) -> tuple[Array, Array]:
    """Returns cosines and sines of the angles, float32 ``(b, t, width / 2)`` each.

    Args:
      rotary: the embedding.
      positions_BxT: position of each token.
    """
    angles_BxTxF = positions_BxT[..., None].astype(jnp.float32) * frequencies(rotary)
    scale = np.float32(rotary.attention_factor)
    return jnp.cos(angles_BxTxF) * scale, jnp.sin(angles_BxTxF) * scale


def rotate(
    x_BxTxHxK: Float[AnyArray, "b t h k"], cos_sin_BxTxF: tuple[Float[AnyArray, "#b t f"], Float[AnyArray, "#b t f"]]
) -> Float[Array, "b t h k"]:
    """Rotates the first ``2 f`` features of every head, in float32; the others pass through.

    Args:
      x_BxTxHxK: queries or keys.
      cos_sin_BxTxF: from :func:`cos_sin`.

    Returns:
      The rotated features, in the dtype of ``x_BxTxHxK``.
    """
    cos_BxTx1xF, sin_BxTx1xF = (part[:, :, None, :] for part in cos_sin_BxTxF)
    half = cos_BxTx1xF.shape[-1]
    first, second, rest = jnp.split(jnp.asarray(x_BxTxHxK), (half, 2 * half), axis=-1)
    turned = (first * cos_BxTx1xF - second * sin_BxTx1xF, second * cos_BxTx1xF + first * sin_BxTx1xF)
    return jnp.concatenate([*(part.astype(rest.dtype) for part in turned), rest], axis=-1)


def yarn_attention_factor(factor: float, mscale: float | None = None, mscale_all_dim: float | None = None) -> float:
    """Returns YaRN's factor on cosines and sines where a configuration gives none (Peng et al., section 3.4).

    Args:
      factor: by how much longer the context is than the original one.
      mscale: weight of the logarithm in the numerator, used if ``mscale_all_dim`` is given too.
      mscale_all_dim: weight of the logarithm in the denominator.
    """
    scaled = lambda weight: 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0
    return scaled(mscale) / scaled(mscale_all_dim) if mscale and mscale_all_dim else scaled(1.0)


def _llama3(rotary: Rotary, plain: np.ndarray) -> np.ndarray:
    turns = rotary.original_max_positions * plain / np.float32(2 * np.pi)  # within the original context
    blend = (turns - rotary.low_freq_factor) / (rotary.high_freq_factor - rotary.low_freq_factor)
    blend = np.clip(blend, 0, 1).astype(np.float32)
    return (1 - blend) * plain / np.float32(rotary.factor) + blend * plain


def _yarn(rotary: Rotary, plain: np.ndarray) -> np.ndarray:
    low, high = (
        rotary.width * math.log(rotary.original_max_positions / (turns * 2 * math.pi)) / (2 * math.log(rotary.theta))
        for turns in (rotary.beta_fast, rotary.beta_slow)
    )
    if rotary.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary.width - 1)
    if low == high:
        high += 0.001  # a step instead of a ramp of width zero
    ramp = np.clip((np.arange(len(plain), dtype=np.float32) - low) / (high - low), 0, 1).astype(np.float32)
    return plain / np.float32(rotary.factor) * ramp + plain * (1 - ramp)
