"""Intervals for any statistic: the bootstrap over examples, and Student's t over seeds.

A statistic is a function of arrays that share their first axis, the examples::

    interval = bootstrap_interval(metrics.accuracy, labels, predictions, key=key)

All arrays are resampled by the same rows, so that :func:`paired_difference_interval` compares two classifiers on the
same examples. Resamples are evaluated in vectorised chunks, which bounds the memory by ``batch_size`` copies of the
data. A statistic must be pure: one that is given again, the same object, is not compiled again.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Float

from zsml_jax.evaluate.validation import is_traced
from zsml_jax.typing import AnyArray, Array, Key

#: From arrays that share their first axis to an array of any shape; pure and hashable, as every function is.
Statistic = Callable[..., Array]


class Interval(NamedTuple):
    """An estimate with its confidence interval, a pytree.

    Attributes:
      estimate: the statistic of the data, or the mean over seeds.
      low: the lower end.
      high: the upper end.
      standard_error: the standard deviation of the estimate.
    """

    estimate: Float[Array, "*s"]
    low: Float[Array, "*s"]
    high: Float[Array, "*s"]
    standard_error: Float[Array, "*s"]


def bootstrap_interval(
    statistic: Statistic,
    *data: AnyArray,
    key: Key,
    n_resamples: int = 2000,
    level: float = 0.95,
    method: Literal["percentile", "bca"] = "percentile",
    batch_size: int = 64,
) -> Interval:
    """Returns a bootstrap confidence interval of a statistic over examples drawn with replacement.

    ``"percentile"`` takes quantiles of the resampled statistics; ``"bca"`` corrects their bias and skewness by the
    jackknife, which evaluates the statistic once more for every example (Efron and Tibshirani, 1993, chapters 13, 14).

    Args:
      statistic: a function of the data that ``vmap`` can map, such as :func:`zsml_jax.evaluate.accuracy`.
      *data: arrays that share their first axis, at least two examples.
      key: the random key of the resamples.
      n_resamples: the number of resamples.
      level: the confidence, between 0 and 1.
      method: ``"percentile"`` or ``"bca"``.
      batch_size: how many resamples are evaluated at once.

    Returns:
      The interval, of the statistic's own shape.

    Raises:
      ValueError: if the arrays share no first axis, an option is out of range, or the statistic of a resample is NaN.
    """
    if method not in ("percentile", "bca"):
        raise ValueError(f"method must be 'percentile' or 'bca', got {method!r}")
    _check_level(level)
    resampled = bootstrap_distribution(statistic, *data, key=key, n_resamples=n_resamples, batch_size=batch_size)
    if not is_traced(resampled) and (bad := int(np.isnan(resampled).any(axis=tuple(range(1, resampled.ndim))).sum())):
        raise ValueError(f"statistic must not be NaN, got NaN in {bad} of {n_resamples} resamples")
    arrays = tuple(jnp.asarray(a) for a in data)
    estimate = statistic(*arrays)
    tail = (1 - level) / 2
    probs = jnp.asarray([tail, 1 - tail], dtype=resampled.dtype).reshape(2, *(1,) * estimate.ndim)
    probs = jnp.broadcast_to(probs, (2, *estimate.shape))
    if method == "bca":
        probs = _bca_probs(probs, resampled, estimate, _jackknife(statistic, arrays, batch_size))
    low, high = _quantiles(resampled, probs)
    return Interval(estimate, low, high, resampled.std(axis=0, ddof=1))


def paired_difference_interval(
    statistic: Statistic,
    first: Sequence[AnyArray],
    second: Sequence[AnyArray],
    *,
    key: Key,
    n_resamples: int = 2000,
    level: float = 0.95,
    method: Literal["percentile", "bca"] = "percentile",
    batch_size: int = 64,
) -> Interval:
    """Returns the interval of ``statistic(*first) - statistic(*second)``, both on the same resampled examples.

    Pairing takes the luck of the draw of the examples out of a comparison of two classifiers on one test set::

        paired_difference_interval(metrics.accuracy, (labels, adapted), (labels, zero_shot), key=key)

    Args:
      statistic: a function of as many arrays as ``first`` and ``second`` hold each.
      first: the arrays of the first statistic.
      second: the arrays of the second, on the same examples in the same order.
      key: the random key of the resamples.
      n_resamples: the number of resamples.
      level: the confidence, between 0 and 1.
      method: as for :func:`bootstrap_interval`.
      batch_size: how many resamples are evaluated at once.

    Returns:
      The interval of the difference.

    Raises:
      ValueError: as :func:`bootstrap_interval`.
    """
    return bootstrap_interval(
        _Difference(statistic, len(first)),
        *first,
        *second,
        key=key,
        n_resamples=n_resamples,
        level=level,
        method=method,
        batch_size=batch_size,
    )


def bootstrap_distribution(
    statistic: Statistic, *data: AnyArray, key: Key, n_resamples: int = 2000, batch_size: int = 64
) -> Float[Array, "r ..."]:
    """Returns the statistic of each resample of the examples.

    Args:
      statistic: a function of the data.
      *data: arrays that share their first axis, at least two examples.
      key: the random key of the resamples.
      n_resamples: the number of resamples, at least two.
      batch_size: how many resamples are evaluated at once.

    Returns:
      One statistic per resample, along the first axis.

    Raises:
      ValueError: if the arrays share no first axis, or a number is out of range.
    """
    if n_resamples < 2 or batch_size < 1:
        raise ValueError(f"n_resamples must be >= 2 and batch_size >= 1, got {n_resamples} and {batch_size}")
    lengths = [np.shape(a)[0] if np.ndim(a) else None for a in data]
    if len(set(lengths)) != 1 or lengths[0] is None or lengths[0] < 2:
        raise ValueError(f"data must be arrays that share their first axis of at least two examples, got {lengths}")
    arrays = tuple(jnp.asarray(a) for a in data)
    return _resampled(statistic, key, arrays, n_resamples, min(batch_size, n_resamples))


def seed_interval(values: Float[AnyArray, "seeds ..."], *, level: float = 0.95) -> Interval:
    r"""Returns the mean over independent seeds with Student's interval.

    For s seeds it is :math:`\bar x \pm t_{s-1} \hat\sigma / \sqrt s`.

    Args:
      values: one result per seed, along the first axis; at least two seeds.
      level: the confidence, between 0 and 1.

    Returns:
      The mean, its interval and its standard error.

    Raises:
      ValueError: if there are fewer than two seeds, a value is not finite, or the level is not between 0 and 1.
    """
    _check_level(level)
    if np.ndim(values) == 0 or (seeds := np.shape(values)[0]) < 2:
        raise ValueError(f"values must hold at least two seeds along the first axis, got shape {np.shape(values)}")
    if not is_traced(values) and not np.isfinite(values).all():
        raise ValueError("values must be finite for every seed")
    values = jnp.asarray(values)
    mean = values.mean(axis=0)
    error = values.std(axis=0, ddof=1) / np.sqrt(seeds)
    reach = float(scipy.special.stdtrit(seeds - 1, (1 + level) / 2)) * error
    return Interval(mean, mean - reach, mean + reach, error)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")


@dataclasses.dataclass(frozen=True)
class _Difference:
    """The statistic of the first ``cut`` arrays less that of the others; equal ones share a compiled program."""

    statistic: Statistic
    cut: int

    def __call__(self, *arrays: Array) -> Array:
        return self.statistic(*arrays[: self.cut]) - self.statistic(*arrays[self.cut :])


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def _resampled(statistic: Statistic, key: Key, arrays: tuple[Array, ...], n_resamples: int, batch_size: int) -> Array:
    """The statistic of each resample, ``(r, *s)``."""
    n = arrays[0].shape[0]

    def resample(key: Key) -> Array:
        rows = jax.random.randint(key, (n,), 0, n)
        return statistic(*(a[rows] for a in arrays))

    return jax.lax.map(resample, jax.random.split(key, n_resamples), batch_size=batch_size)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _jackknife(statistic: Statistic, arrays: tuple[Array, ...], batch_size: int) -> Array:
    """The statistic without each example in turn, ``(n, *s)``."""
    n = arrays[0].shape[0]
    rows = jnp.arange(n - 1)

    def leave_out(i: Array) -> Array:
        kept = rows + (rows >= i)
        return statistic(*(a[kept] for a in arrays))

    return jax.lax.map(leave_out, jnp.arange(n), batch_size=min(batch_size, n))


def _bca_probs(probs: Array, resampled: Array, estimate: Array, left_out: Array) -> Array:
    """The quantile levels that correct bias (z0) and acceleration (a), ``(2, *s)``."""
    below = 0.5 * (1 + jnp.sign(estimate - resampled).mean(axis=0))
    # Where every resample lies on one side, the correction would be infinite; half a resample keeps it finite.
    half = 0.5 / resampled.shape[0]
    z0 = jax.scipy.special.ndtri(jnp.clip(below, half, 1 - half))
    deviation = left_out.mean(axis=0) - left_out
    spread = (deviation**2).sum(axis=0)
    a = (deviation**3).sum(axis=0) / (6 * jnp.where(spread > 0, spread, 1) ** 1.5)
    z = z0 + jax.scipy.special.ndtri(probs)
    return jax.scipy.special.ndtr(z0 + z / (1 - a * z))


def _quantiles(resampled: Array, probs: Array) -> Array:
    """Linear quantiles along the first axis at ``probs``, ``(2, *s)``, one pair per entry of the statistic."""
    shape = probs.shape
    flat, levels = resampled.reshape(resampled.shape[0], -1), probs.reshape(2, -1)
    return jax.vmap(jnp.quantile, in_axes=1, out_axes=1)(flat, levels).reshape(shape)
