"""Calibration of class scores on labelled examples: temperature, bias-corrected temperature and vector scaling.

Each is ``softmax(scale * scores + bias)`` with the scale and the bias of least negative log-likelihood, a convex fit.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from zsml_jax.evaluate.newton import minimize
from zsml_jax.evaluate.score_checks import check_labels, checked_log_probs, checked_sample_weights, checked_scalar
from zsml_jax.typing import AnyArray, Array, Scalar

#: The largest change of one parameter in one step: in nats for the bias, in standard deviations for the scale.
_LARGEST_STEP = 5.0


class Calibration(NamedTuple):
    """A fitted calibration, a pytree.

    Attributes:
      scale: the inverse temperature, a scalar or ``(k,)``; it multiplies the scores less their row's mean.
      bias: added to the scaled scores, ``(k,)``, in nats, with mean zero.
      nll: the mean negative log-likelihood of the labels, in nats.
      iterations: Newton steps taken.
      converged: whether the gradient vanished within the tolerance, at a positive scale.
    """

    scale: Float[Array, "*scale"]
    bias: Float[Array, " k"]
    nll: Float[Array, ""]
    iterations: Int[Array, ""]
    converged: Bool[Array, ""]

    @property
    def temperature(self) -> Float[Array, "*scale"]:
        """The inverse of the scale."""
        return 1 / self.scale

    def log_probs(self, log_probs: Float[AnyArray, "n k"]) -> Float[Array, "n k"]:
        """Returns the calibrated and normalised log-probabilities of new examples, in nats."""
        scores, possible = _centred(checked_log_probs(log_probs))
        return jax.nn.log_softmax(jnp.where(possible, self.scale * scores + self.bias, -jnp.inf), axis=1)


def fit_temperature(
    log_probs: Float[AnyArray, "n k"],
    labels: Int[AnyArray, " n"],
    *,
    sample_weights: Float[AnyArray, " n"] | None = None,
    tolerance: Scalar = 1e-5,
    max_iterations: Scalar = 100,
) -> Calibration:
    """Fits one temperature: ``softmax(scores / temperature)`` (Guo et al., 2017, section 4.2).

    Args:
      log_probs: class scores of the labelled examples, ``(n, k)``, in nats.
      labels: their class indices, ``(n,)``.
      sample_weights: the weight of each example, ``(n,)``; equal when not given.
      tolerance: the L1 norm of the gradient to stop at, the scores taken in units of their root mean square.
      max_iterations: the largest number of Newton steps.

    Returns:
      The calibration, with a scalar scale and a bias of zero. Scores that point away from the labels have no positive
      temperature: ``converged`` is then False.

    Raises:
      ValueError: if an argument has a wrong shape, the scores hold a NaN, a label is out of range or has probability
        zero, or the penalty is negative.
    """
    return _fit(log_probs, labels, sample_weights, 0.0, tolerance, max_iterations, shared_scale=True, with_bias=False)


def fit_bias_corrected_temperature(
    log_probs: Float[AnyArray, "n k"],
    labels: Int[AnyArray, " n"],
    *,
    sample_weights: Float[AnyArray, " n"] | None = None,
    penalty: Scalar = 0.0,
    tolerance: Scalar = 1e-5,
    max_iterations: Scalar = 100,
) -> Calibration:
    """Fits one temperature and a bias per class: ``softmax(scores / temperature + bias)``, known as BCTS.

    At the optimum without a penalty, the mean calibrated prediction equals the label frequencies, which makes the
    estimate of a label shift consistent (Alexandari et al., 2020, section 3).

    Args:
      log_probs: class scores of the labelled examples, ``(n, k)``, in nats.
      labels: their class indices, ``(n,)``.
      sample_weights: the weight of each example, ``(n,)``; equal when not given.
      penalty: adds ``penalty / 2 * sum(bias ** 2)`` to the mean negative log-likelihood. Without it, the bias of a
        class that has no labelled example falls until the tolerance is met, which leaves it a probability near zero.
      tolerance: the L1 norm of the gradient to stop at, the scores taken in units of their root mean square.
      max_iterations: the largest number of Newton steps.

    Returns:
      The calibration, with a scalar scale.

    Raises:
      ValueError: as :func:`fit_temperature`.
    """
    return _fit(
        log_probs, labels, sample_weights, penalty, tolerance, max_iterations, shared_scale=True, with_bias=True
    )


def fit_vector_scaling(
    log_probs: Float[AnyArray, "n k"],
    labels: Int[AnyArray, " n"],
    *,
    sample_weights: Float[AnyArray, " n"] | None = None,
    penalty: Scalar = 0.0,
    tolerance: Scalar = 1e-5,
    max_iterations: Scalar = 100,
) -> Calibration:
    """Fits a scale and a bias per class: ``softmax(scale * scores + bias)`` (Guo et al., 2017, section 4.2).

    The mean of each row of scores is taken off first, as the result would depend on it.

    Args:
      log_probs: class scores of the labelled examples, ``(n, k)``, in nats.
      labels: their class indices, ``(n,)``.
      sample_weights: the weight of each example, ``(n,)``; equal when not given.
      penalty: adds ``penalty / 2 * sum(bias ** 2)`` to the mean negative log-likelihood.
      tolerance: the L1 norm of the gradient to stop at, the scores taken in units of their root mean square.
      max_iterations: the largest number of Newton steps.

    Returns:
      The calibration, with a scale ``(k,)``. A scale may be negative, as the paper sets no bound; ``converged`` asks
      for positive ones.

    Raises:
      ValueError: as :func:`fit_temperature`.
    """
    return _fit(
        log_probs, labels, sample_weights, penalty, tolerance, max_iterations, shared_scale=False, with_bias=True
    )


def _fit(
    log_probs: AnyArray,
    labels: AnyArray,
    sample_weights: AnyArray | None,
    penalty: Scalar,
    tolerance: Scalar,
    max_iterations: Scalar,
    *,
    shared_scale: bool,
    with_bias: bool,
) -> Calibration:
    log_probs = checked_log_probs(log_probs)
    n, k = log_probs.shape
    check_labels(labels, n, k)
    weights = checked_sample_weights(sample_weights, n, log_probs.dtype)
    labels = jnp.asarray(labels)
    penalty = checked_scalar(penalty, "penalty", log_probs.dtype)
    tolerance = checked_scalar(tolerance, "tolerance", log_probs.dtype)
    max_iterations = checked_scalar(max_iterations, "max_iterations", jnp.int32)
    _check_possible(log_probs, labels)
    return _minimize_nll(
        log_probs, labels, weights, penalty, tolerance, max_iterations, shared_scale=shared_scale, with_bias=with_bias
    )


def _check_possible(log_probs: Array, labels: Array) -> None:
    if isinstance(log_probs, jax.core.Tracer) or isinstance(labels, jax.core.Tracer):
        return
    impossible = np.isneginf(np.asarray(jnp.take_along_axis(log_probs, labels[:, None], axis=1)[:, 0]))
    if impossible.any():
        row = int(impossible.argmax())
        raise ValueError(f"log_probs must leave each row's label possible; row {row}, label {labels[row]}, is -inf")


@jax.jit(static_argnames=("shared_scale", "with_bias"))
@jax.default_matmul_precision("highest")
def _minimize_nll(
    log_probs: Array,
    labels: Array,
    weights: Array,
    penalty: Array,
    tolerance: Array,
    max_iterations: Array,
    *,
    shared_scale: bool,
    with_bias: bool,
) -> Calibration:
    k = log_probs.shape[1]
    scores, possible = _centred(log_probs)
    unit = jnp.sqrt((weights[:, None] * scores**2).sum() / k)
    unit = jnp.where(unit > 0, unit, 1)
    scores = scores / unit
    targets = jax.nn.one_hot(labels, k, dtype=scores.dtype)
    n_scales = 1 if shared_scale else k

    def unpack(x: Array) -> tuple[Array, Array]:
        scale = x[0] if shared_scale else x[:k]
        return scale, x[n_scales:] if with_bias else jnp.zeros(k, x.dtype)

    def penalized_nll(x: Array) -> tuple[Array, Array, Array]:
        scale, bias = unpack(x)
        logits = jnp.where(possible, scale * scores + bias, -jnp.inf)
        log_q = jax.nn.log_softmax(logits, axis=1)
        q = jnp.exp(log_q)
        nll = -(weights * jnp.take_along_axis(log_q, labels[:, None], axis=1)[:, 0]).sum()
        excess = weights[:, None] * (q - targets)
        by_scale = (excess * scores).sum(axis=0)
        by_bias = excess.sum(axis=0) + penalty * bias
        gradient = [by_scale.sum(keepdims=True) if shared_scale else by_scale, *([by_bias] if with_bias else [])]
        hessian = _hessian(scores, q, weights, penalty, shared_scale=shared_scale, with_bias=with_bias)
        return nll + penalty / 2 * (bias**2).sum(), jnp.concatenate(gradient), hessian

    start = jnp.concatenate([jnp.full(n_scales, unit), jnp.zeros(k if with_bias else 0, unit.dtype)])
    fitted = minimize(penalized_nll, start, tolerance=tolerance, max_iterations=max_iterations, max_step=_LARGEST_STEP)
    scale, bias = unpack(fitted.x)
    return Calibration(
        scale=scale / unit,
        bias=bias - bias.mean(),
        nll=fitted.value - penalty / 2 * (bias**2).sum(),
        iterations=fitted.iterations,
        converged=fitted.converged & (scale > 0).all(),
    )


def _hessian(scores: Array, q: Array, weights: Array, penalty: Array, *, shared_scale: bool, with_bias: bool) -> Array:
    """Mean covariance, under the predictions ``q``, of what the scales and the biases add to the logits."""
    wq = weights[:, None] * q
    qz = q * scores
    if shared_scale:
        deviation = scores - qz.sum(axis=1, keepdims=True)
        scale_scale = (wq * deviation**2).sum(keepdims=True)
        scale_bias = (wq * deviation).sum(axis=0)[None, :]
    else:
        scale_scale = jnp.diag((wq * scores**2).sum(axis=0)) - (weights[:, None] * qz).T @ qz
        scale_bias = jnp.diag((wq * scores).sum(axis=0)) - (weights[:, None] * qz).T @ q
    if not with_bias:
        return scale_scale
    bias_bias = jnp.diag(wq.sum(axis=0) + penalty) - wq.T @ q
    return jnp.block([[scale_scale, scale_bias], [scale_bias.T, bias_bias]])


def _centred(log_probs: Array) -> tuple[Array, Array]:
    """The scores less the mean of their row's finite ones, zero where -inf; and which are finite."""
    possible = log_probs > -jnp.inf
    finite = jnp.where(possible, log_probs, 0)
    mean = finite.sum(axis=1, keepdims=True) / possible.sum(axis=1, keepdims=True)
    return jnp.where(possible, finite - mean, 0), possible
