"""From predictions under one label distribution to predictions under another."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from zsml_jax.evaluate.score_checks import check_label_distribution, checked_log_probs
from zsml_jax.typing import AnyArray, Array


def reweight(
    log_probs: Float[AnyArray, "n k"],
    source_distribution: Float[AnyArray, " k"],
    target_distribution: Float[AnyArray, " k"],
) -> Float[Array, "n k"]:
    """Returns ``log p_ij + log(target_j / source_j)``, normalised: Bayes' rule where only class frequencies differ.

    Args:
      log_probs: class scores under the source, ``(n, k)``, in nats; calibrated ones give calibrated results.
      source_distribution: the label distribution that they refer to, ``(k,)``.
      target_distribution: the label distribution to predict under, ``(k,)``.

    Returns:
      The log-probabilities under the target, ``(n, k)``, in nats.

    Raises:
      ValueError: if an argument has a wrong shape or is no distribution, a class has probability zero in the source
        but not in the target, or no class of a row remains possible.
    """
    log_probs = checked_log_probs(log_probs)
    k = log_probs.shape[1]
    check_label_distribution(source_distribution, k, "source_distribution")
    check_label_distribution(target_distribution, k, "target_distribution")
    source, target = (jnp.asarray(x, log_probs.dtype) for x in (source_distribution, target_distribution))
    possible = (log_probs > -jnp.inf) & (target > 0)
    if not any(isinstance(x, jax.core.Tracer) for x in (log_probs, source, target)):
        _check_possible(np.asarray(source), np.asarray(target), np.asarray(possible.any(axis=1)))
    return jax.nn.log_softmax(jnp.where(possible, log_probs + jnp.log(target) - jnp.log(source), -jnp.inf), axis=1)


def _check_possible(source: np.ndarray, target: np.ndarray, row_possible: np.ndarray) -> None:
    unseen = (source == 0) & (target > 0)
    if unseen.any():
        index = int(unseen.argmax())
        raise ValueError(f"source_distribution must be positive where target_distribution is; class {index} has 0")
    if not row_possible.all():
        row = int((~row_possible).argmax())
        raise ValueError(f"log_probs must leave each row a class of the target_distribution; row {row} has none")
