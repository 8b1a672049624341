"""Bootstrap intervals for any estimator that takes sample weights."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from zsml_jax.typing import Array, Key


class LabelShiftEstimate(Protocol):
    """What every estimator of this package returns."""

    @property
    def label_distribution(self) -> Array:
        """The probability of each class, ``(k,)``."""
        ...

    @property
    def converged(self) -> Array:
        """Whether the estimator solved its problem."""
        ...


class BootstrapOutput(NamedTuple):
    """Percentile intervals of a label distribution, a pytree.

    Attributes:
      lower: lower ends, ``(k,)``.
      upper: upper ends, ``(k,)``.
      samples: the estimate on each resample, ``(resamples, k)``.
      sample_converged: whether the estimator converged on each resample, ``(resamples,)``.
      converged: whether it converged on all of them.
    """

    lower: Float[Array, " k"]
    upper: Float[Array, " k"]
    samples: Float[Array, "resamples k"]
    sample_converged: Bool[Array, " resamples"]
    converged: Bool[Array, ""]


def bootstrap(
    estimator: Callable[[Array, Array], LabelShiftEstimate],
    source_size: int,
    target_size: int,
    *,
    key: Key,
    resamples: int = 200,
    level: float = 0.95,
    batch_size: int = 16,
) -> BootstrapOutput:
    """Resamples source and target with replacement, as integer weights, and estimates anew each time.

    The data stay where they are; only the weights differ between the resamples of a batch (``vmap``). For instance::

        bootstrap(
            lambda source, target: bbse(p, y, q, source_weights=source, target_weights=target), len(p), len(q), key=key
        )

    Args:
      estimator: maps source weights ``(source_size,)`` and target weights ``(target_size,)`` to an estimate.
      source_size: the number of labelled source examples.
      target_size: the number of unlabelled target examples.
      key: draws the resamples.
      resamples: how many.
      level: the probability that an interval is meant to cover its class's true value with.
      batch_size: resamples estimated side by side; memory grows with it.

    Returns:
      The intervals and the resampled estimates.

    Raises:
      ValueError: if a size is not positive or the level lies outside of (0, 1).
    """
    for name, size in {
        "source_size": source_size,
        "target_size": target_size,
        "resamples": resamples,
        "batch_size": batch_size,
    }.items():
        if size < 1:
            raise ValueError(f"{name} must be positive, got {size}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")

    def resample(key: Key) -> tuple[Array, Array]:
        source_key, target_key = jax.random.split(key)
        output = estimator(_multiplicities(source_key, source_size), _multiplicities(target_key, target_size))
        return output.label_distribution, output.converged

    samples, converged = jax.lax.map(resample, jax.random.split(key, resamples), batch_size=batch_size)
    lower, upper = jnp.quantile(samples, jnp.asarray([(1 - level) / 2, (1 + level) / 2]), axis=0)
    return BootstrapOutput(lower, upper, samples, converged, converged.all())


def _multiplicities(key: Key, size: int) -> Array:
    """How often each example is drawn in ``size`` draws with replacement, as floats."""
    drawn = jax.random.randint(key, (size,), 0, size)
    return jnp.zeros(size).at[drawn].add(1)
