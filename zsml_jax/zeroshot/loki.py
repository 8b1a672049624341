r"""Loki: predictions that respect a metric over the classes, including classes that were never observed.

Roberts, Li, Adila, Cromp, Huang, Zhao and Sala, "Geometry-Aware Adaptation for Pretrained Models", NeurIPS 2023.
The argmax is replaced by the weighted Frechet mean

.. math:: \hat y \in \arg\min_{y \in \mathcal Y} \sum_{i} P(\lambda_i \mid x) \, d^2(y, \lambda_i),

over all classes :math:`\mathcal Y`, of which only the :math:`\lambda_i` have scores: the decision of least expected
squared distance. With all classes at distance one it is the argmax again; with unit-norm class embeddings it is the
nearest class to the mean embedding, as in ConSE. Which classes can be reached at all is what :mod:`.locus` finds out.
"""

import functools
from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from zsml_jax.evaluate.calibration import expected_calibration_error, negative_log_likelihood
from zsml_jax.typing import AnyArray, Array, Scalar
from zsml_jax.zeroshot.metric_base import Metric
from zsml_jax.zeroshot.metric_space import TreeMetric

_BLOCK_ENTRIES = 2**22
_LARGEST_COST_TABLE = 2**28


def decode(
    probs: Float[AnyArray, "n m"],
    metric: Metric,
    *,
    observed: Sequence[Hashable] | None = None,
    exponent: float = 2.0,
) -> Int[Array, " n"]:
    """Returns the class of least expected ``distance ** exponent`` for each example.

    >>> import numpy as np
    >>> from zsml_jax.zeroshot.metric_space import TreeMetric
    >>> tree = TreeMetric([("root", "cat", 1.0), ("root", "dog", 1.0), ("root", "car", 3.0)])
    >>> probs = np.array([[0.5, 0.5], [0.95, 0.05]])
    >>> [tree.classes[i] for i in decode(probs, tree, observed=("cat", "dog"))]
    ['root', 'cat']

    Args:
      probs: the probabilities of the observed classes, ``(n, m)``. Rows need not sum to one.
      metric: the metric over all classes.
      observed: the class id of each column; by default all of ``metric.classes`` in their order.
      exponent: the power of the distance that a mistake costs, positive. The paper's is 2.

    Returns:
      Indices into ``metric.classes``, ``(n,)``; the first class on ties.

    Raises:
      ValueError: if the probabilities are negative, not finite or all zero in a row, their columns do not fit the
        observed ids, an id is unknown or stands twice, or the exponent is not positive.
    """
    probs, columns = _checked(probs, metric, observed, exponent)
    return metric.frechet_mean(probs, columns, float(exponent))


def expected_cost(
    probs: Float[AnyArray, "n m"],
    metric: Metric,
    predictions: Int[AnyArray, " n"] | None = None,
    *,
    observed: Sequence[Hashable] | None = None,
    exponent: float = 2.0,
) -> Float[Array, " n"] | Float[Array, "n k"]:
    """Returns the expected ``distance ** exponent`` of predictions, or of every class; differentiable in ``probs``.

    Args:
      probs: the probabilities of the observed classes, ``(n, m)``.
      metric: the metric over all classes.
      predictions: class indices, ``(n,)``; without them all classes are evaluated.
      observed: the class id of each column; by default all of ``metric.classes`` in their order.
      exponent: the power of the distance that a mistake costs.

    Returns:
      The cost of the predictions, ``(n,)``, or the costs of all classes, ``(n, k)``.

    Raises:
      ValueError: as :func:`decode`, or if the costs of all classes would fill more than 2**28 numbers.
    """
    probs, columns = _checked(probs, metric, observed, exponent)
    if predictions is not None:
        return _cost_of(probs, metric, columns, jnp.asarray(predictions), float(exponent))
    n, k = probs.shape[0], len(metric.class_ids)
    if n * k > _LARGEST_COST_TABLE:
        raise ValueError(f"the costs of {k} classes for {n} examples are too many to hold; pass predictions or batches")
    if isinstance(metric, TreeMetric) and exponent in (1, 2):
        return metric.expected_powers(probs, columns, int(exponent))
    return _costs_of_all(probs, metric, columns, float(exponent))


class DecodingReport(NamedTuple):
    """How predictions do in a metric space.

    Attributes:
      squared_distance: the mean squared distance from the truth, E[d^2].
      normalized: that over the squared diameter.
      accuracy: the share of exact hits.
    """

    squared_distance: Float[Array, ""]
    normalized: Float[Array, ""]
    accuracy: Float[Array, ""]


def report(labels: Int[AnyArray, " n"], predictions: Int[AnyArray, " n"], metric: Metric) -> DecodingReport:
    """Returns E[d^2] with the accuracy that it costs.

    Args:
      labels: true class indices, ``(n,)``.
      predictions: predicted class indices, ``(n,)``.
      metric: the metric over the classes.

    Returns:
      The three figures.
    """
    squared = jnp.mean(metric.distances(labels, predictions) ** 2)
    accuracy = jnp.mean(jnp.equal(jnp.asarray(labels), jnp.asarray(predictions)))
    return DecodingReport(squared, squared / metric.diameter**2, accuracy)


class TemperatureOutput(NamedTuple):
    """A tuned temperature.

    Attributes:
      temperature: the best of the grid.
      values: the criterion at each temperature, ``(t,)``.
    """

    temperature: Float[Array, ""]
    values: Float[Array, " t"]


def tune_temperature(
    logits: Float[AnyArray, "n m"],
    labels: Int[AnyArray, " n"],
    metric: Metric,
    *,
    temperatures: Float[AnyArray, " t"],
    criterion: Literal["ece", "nll", "expected_cost"] = "expected_cost",
    observed: Sequence[Hashable] | None = None,
) -> TemperatureOutput:
    """Chooses the temperature of ``softmax(logits / temperature)`` on labelled examples (section 5.5 of the paper).

    Args:
      logits: scores of the observed classes, ``(n, m)``.
      labels: true class indices in ``metric.classes``, ``(n,)``. The calibration error and the likelihood count the
        examples of observed classes only.
      metric: the metric over all classes.
      temperatures: the candidates, ``(t,)``, positive.
      criterion: what to minimise: the expected calibration error, the negative log-likelihood, or the mean squared
        distance of the decoded classes from the truth.
      observed: the class id of each column; by default all of ``metric.classes`` in their order.

    Returns:
      The best temperature, the first on ties, and all values.

    Raises:
      ValueError: if a temperature is not positive, the criterion is unknown, or no example has an observed class.
    """
    logits, labels, temperatures = jnp.asarray(logits), np.asarray(labels), jnp.asarray(temperatures)
    if not bool(jnp.all(temperatures > 0)):
        raise ValueError("temperatures must be positive")
    _, columns = _checked(jax.nn.softmax(logits, axis=1), metric, observed, 2.0)
    column_of = np.full(len(metric.class_ids), -1)
    column_of[columns] = np.arange(len(columns))
    known = column_of[labels] >= 0
    if criterion in ("ece", "nll"):
        if not known.any():
            raise ValueError(f"labels must hold an observed class for the criterion {criterion!r}")
        targets, scores = column_of[labels][known], logits[known]

    def value(temperature: Scalar) -> Array:
        if criterion == "ece":
            return expected_calibration_error(targets, jax.nn.softmax(scores / temperature, axis=1))
        if criterion == "nll":
            return negative_log_likelihood(targets, jax.nn.log_softmax(scores / temperature, axis=1))
        predictions = metric.frechet_mean(jax.nn.softmax(logits / temperature, axis=1), columns, 2.0)
        return jnp.mean(metric.distances(labels, predictions) ** 2)

    if criterion not in ("ece", "nll", "expected_cost"):
        raise ValueError(f"criterion must be 'ece', 'nll' or 'expected_cost', got {criterion!r}")
    values = jax.lax.map(value, temperatures)
    return TemperatureOutput(temperatures[jnp.argmin(values)], values)


def _checked(
    probs: AnyArray, metric: Metric, observed: Sequence[Hashable] | None, exponent: float
) -> tuple[Array, np.ndarray]:
    if not exponent > 0:
        raise ValueError(f"exponent must be positive, got {exponent}")
    if np.ndim(probs) != 2 or 0 in np.shape(probs):
        raise ValueError(f"probs must have shape (n, m) with n >= 1 and m >= 1, got {np.shape(probs)}")
    probs = jnp.asarray(probs, jnp.promote_types(jnp.result_type(probs), jnp.float32))
    if observed is None:
        columns = np.arange(len(metric.class_ids), dtype=np.int32)
    else:
        columns = metric.class_ids.indices(observed, "observed")
    if len(np.unique(columns)) != len(columns):
        raise ValueError("observed must not name a class twice")
    if probs.shape[1] != len(columns):
        raise ValueError(f"probs has {probs.shape[1]} columns, but {len(columns)} classes are observed")
    if not isinstance(probs, jax.core.Tracer):
        values = np.asarray(probs)  # numpy, so that known values are checked inside another function's trace too
        low, mass = values.min(axis=1), values.sum(axis=1)
        bad = ~((low >= 0) & (mass > 0) & (mass < np.inf))
        if bad.any():
            raise ValueError(
                "probs must be finite and not negative, with a positive sum in every row; "
                f"row {int(bad.argmax())} is not"
            )
    return probs, columns


@functools.partial(jax.jit, static_argnames="exponent")
def _costs_of_all(probs: Array, metric: Metric, columns: AnyArray, exponent: float) -> Array:
    powers = metric.distances(np.arange(len(metric.class_ids))[:, None], columns[None, :]) ** exponent
    return jnp.matmul(probs, powers.T.astype(probs.dtype), precision=jax.lax.Precision.HIGHEST)


@functools.partial(jax.jit, static_argnames="exponent")
def _cost_of(probs: Array, metric: Metric, columns: AnyArray, predictions: Array, exponent: float) -> Array:
    def cost(row: tuple[Array, Array]) -> Array:
        weights, prediction = row
        return jnp.sum(weights * metric.distances(prediction, columns).astype(weights.dtype) ** exponent)

    batch = max(1, _BLOCK_ENTRIES // len(columns))
    return jax.lax.map(cost, (probs, predictions), batch_size=batch)
