"""Normalisation layers with the statistics that pretrained models were trained with."""

import flax.linen as nn
import jax

#: The kinds of :func:`norm`.
NORMS = ("layer", "rms")


def norm(kind: str, eps: float, dtype: jax.typing.DTypeLike, name: str) -> nn.LayerNorm | nn.RMSNorm:
    """Returns a layer norm (Ba et al., 2016) or an RMS norm (Zhang and Sennrich, 2019) over the last axis.

    The statistics are float32 whatever the inputs are.

    Args:
      kind: "layer" for centred inputs, a scale and a bias; "rms" for a scale only.
      eps: added to the variance.
      dtype: dtype of the result.
      name: name of the module.

    Returns:
      The module, to be called inside a compact method.

    Raises:
      ValueError: if the kind is unknown.
    """
    if kind == "rms":
        return nn.RMSNorm(eps, dtype=dtype, name=name)
    if kind == "layer":
        # The fast variance E[x^2] - E[x]^2 cancels; the pretrained models were trained with the centred one.
        return nn.LayerNorm(eps, dtype=dtype, use_fast_variance=False, name=name)
    raise ValueError(f"kind must be one of {NORMS}, got {kind!r}")
