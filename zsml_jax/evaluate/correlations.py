"""Correlations that benchmarks report: Matthews's of two classes' predictions (CoLA), Pearson's of scores (STS-B)."""

import jax.numpy as jnp
from jaxtyping import Float, Int

from zsml_jax.evaluate.metrics import confusion_matrix
from zsml_jax.typing import AnyArray, Array


def matthews_correlation(labels: Int[AnyArray, " n"], predictions: Int[AnyArray, " n"]) -> Float[Array, ""]:
    r"""Returns Matthews's correlation of two classes, 0 where one of the two sides has one class only.

    .. math:: \frac{TP \cdot TN - FP \cdot FN}{\sqrt{(TP + FP)(TP + FN)(TN + FP)(TN + FN)}}

    Matthews (1975), "Comparison of the predicted and observed secondary structure of T4 phage lysozyme".

    >>> float(matthews_correlation(jnp.array([1, 1, 0, 0]), jnp.array([1, 1, 0, 0])))
    1.0

    Args:
      labels: 0 or 1.
      predictions: 0 or 1.

    Raises:
      ValueError: if the lengths differ, there is no example, or a number is neither 0 nor 1.
    """
    counts = confusion_matrix(labels, predictions, n_classes=2)
    # Shares, since the product of four counts does not fit into float32.
    shares = counts / counts.sum()
    margins = shares.sum(axis=0).prod() * shares.sum(axis=1).prod()
    covariance = shares[0, 0] * shares[1, 1] - shares[0, 1] * shares[1, 0]
    return jnp.where(margins > 0, covariance / jnp.sqrt(jnp.where(margins > 0, margins, 1)), 0.0)


def pearson_correlation(targets: Float[AnyArray, " n"], predictions: Float[AnyArray, " n"]) -> Float[Array, ""]:
    """Returns Pearson's correlation; NaN where one of the two sides is constant.

    >>> float(pearson_correlation(jnp.array([1.0, 2.0, 3.0]), jnp.array([3.0, 2.0, 1.0])))
    -1.0

    Args:
      targets: what was rated.
      predictions: what was predicted.

    Raises:
      ValueError: if the lengths differ or there are fewer than two examples.
    """
    if len(targets) != len(predictions) or len(targets) < 2:
        raise ValueError(
            f"targets and predictions must have one length, at least 2, got {len(targets)} and {len(predictions)}"
        )
    x, y = (jnp.asarray(values, jnp.float32) - jnp.mean(values) for values in (targets, predictions))
    return jnp.sum(x * y) / jnp.sqrt(jnp.sum(x**2) * jnp.sum(y**2))
