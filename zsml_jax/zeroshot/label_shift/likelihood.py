"""Maximum likelihood label shift by EM, on calibrated predictions."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from zsml_jax.evaluate.calibrators import (
    Calibration,
    fit_bias_corrected_temperature,
    fit_temperature,
    fit_vector_scaling,
)
from zsml_jax.evaluate.score_checks import check_labels, checked_log_probs, checked_sample_weights, checked_scalar
from zsml_jax.typing import AnyArray, Array, Scalar
from zsml_jax.zeroshot.label_shift.moments import check_same_classes, mean_prediction

_CALIBRATIONS = {
    "temperature": fit_temperature,
    "bias_corrected": fit_bias_corrected_temperature,
    "vector": fit_vector_scaling,
}


class MllsOutput(NamedTuple):
    """An estimate by :func:`mlls`, a pytree.

    Attributes:
      label_distribution: the probability of each class on the target, ``(k,)``.
      importance_weights: its ratio to the source distribution, ``(k,)``; zero for a class that has none there.
      converged: whether ``likelihood_gap`` is within the tolerance, and the calibration has converged too.
      iterations: EM steps taken.
      log_likelihood: the mean over the target of ``log sum_j p_ij w_j``, in nats: zero without shift.
      likelihood_gap: a bound on how far ``log_likelihood`` lies below its maximum over all label distributions.
      source_distribution: what the weights refer to, ``(k,)``.
      calibration: what was fitted on the source; ``None`` if nothing was. Apply it before :func:`.reweight`.
    """

    label_distribution: Float[Array, " k"]
    importance_weights: Float[Array, " k"]
    converged: Bool[Array, ""]
    iterations: Int[Array, ""]
    log_likelihood: Float[Array, ""]
    likelihood_gap: Float[Array, ""]
    source_distribution: Float[Array, " k"]
    calibration: Calibration | None


def mlls(
    source_log_probs: Float[AnyArray, "n k"],
    source_labels: Int[AnyArray, " n"] | None,
    target_log_probs: Float[AnyArray, "n_target k"],
    *,
    calibration: Literal["none", "temperature", "bias_corrected", "vector"] = "bias_corrected",
    prior: Literal["predicted", "labels"] = "predicted",
    source_weights: Float[AnyArray, " n"] | None = None,
    target_weights: Float[AnyArray, " n_target"] | None = None,
    tolerance: Scalar = 1e-6,
    max_iterations: Scalar = 10_000,
) -> MllsOutput:
    """Maximises ``mean_i log sum_j p_ij q_j / s_j`` over label distributions q (Saerens et al., 2002, section 2).

    EM repeats ``q_j <- q_j mean_i (p_ij / s_j) / sum_l (p_il q_l / s_l)``. The function is concave, and the largest
    of those factors less one bounds the likelihood still to gain, which is what the tolerance refers to. Calibrated
    predictions make the estimate consistent, a bias per class included (Alexandari et al., 2020, section 3).

    Args:
      source_log_probs: class scores of the labelled source, ``(n, k)``, in nats.
      source_labels: its class indices, ``(n,)``; may be ``None`` with ``calibration="none"`` and a predicted prior.
      target_log_probs: class scores of the unlabelled target, ``(n_target, k)``, in nats.
      calibration: what to fit on the source and apply to both: nothing, a temperature, a temperature and a bias per
        class, or a scale and a bias per class.
      prior: the source distribution s: the mean (calibrated) prediction, or the label frequencies. With the first,
        a target equal to the source has no shift exactly; bias correction makes the two agree.
      source_weights: the weight of each source example, ``(n,)``; equal when not given.
      target_weights: the weight of each target example, ``(n_target,)``; equal when not given.
      tolerance: the largest likelihood gap that counts as converged, in nats an example; never less than sixteen
        times the rounding of the dtype, which is 2e-6 for float32.
      max_iterations: the largest number of EM steps.

    Returns:
      The estimate. A class of probability zero in the source distribution stays there. With a predicted prior, a class
      without labelled examples is still estimated, from its scores alone.

    Raises:
      ValueError: if shapes disagree, a label is out of range or needed and not given, scores or weights are not sound,
        or an option is unknown.
    """
    source = checked_log_probs(source_log_probs, "source_log_probs")
    target = checked_log_probs(target_log_probs, "target_log_probs")
    check_same_classes(source, target)
    n, k = source.shape
    if calibration not in ("none", *_CALIBRATIONS):
        raise ValueError(f"calibration must be one of {['none', *_CALIBRATIONS]}, got {calibration!r}")
    if prior not in ("predicted", "labels"):
        raise ValueError(f"prior must be 'predicted' or 'labels', got {prior!r}")
    if source_labels is not None:
        check_labels(source_labels, n, k, "source_labels")
    elif calibration != "none" or prior == "labels":
        raise ValueError(f"source_labels must be given for calibration={calibration!r} with prior={prior!r}, got None")
    source_weights = checked_sample_weights(source_weights, n, source.dtype, "source_weights")
    target_weights = checked_sample_weights(target_weights, target.shape[0], target.dtype, "target_weights")
    tolerance = checked_scalar(tolerance, "tolerance", source.dtype)
    max_iterations = checked_scalar(max_iterations, "max_iterations", jnp.int32)

    fitted = None
    if calibration != "none" and source_labels is not None:
        fitted = _CALIBRATIONS[calibration](source, source_labels, sample_weights=source_weights)
        source, target = fitted.log_probs(source), fitted.log_probs(target)
    if prior == "labels":
        source_distribution = jnp.zeros(k, source.dtype).at[jnp.asarray(source_labels)].add(source_weights)
    else:
        source_distribution = mean_prediction(source, source_weights, soft=True)
    output = _maximize(target, source_distribution, target_weights, tolerance, max_iterations)
    if fitted is None:
        return output
    return output._replace(calibration=fitted, converged=output.converged & fitted.converged)


@jax.jit
@jax.default_matmul_precision("highest")
def _maximize(log_probs: Array, source: Array, weights: Array, tolerance: Array, max_iterations: Array) -> MllsOutput:
    tolerance = jnp.maximum(tolerance, 16 * jnp.finfo(log_probs.dtype).eps)
    present = source > 0
    log_ratios = jax.nn.log_softmax(log_probs, axis=1) - jnp.log(jnp.where(present, source, 1))
    log_ratios = jnp.where(present, log_ratios, -jnp.inf)
    # Each row in units of its largest ratio: a factor of a row changes neither EM nor the gap.
    row_units = log_ratios.max(axis=1)
    explained = row_units > -jnp.inf
    ratios = jnp.where(explained[:, None], jnp.exp(log_ratios - jnp.where(explained, row_units, 0)[:, None]), 0)

    def factors(q: Array) -> tuple[Array, Array]:
        evidence = ratios @ q
        share = jnp.where(explained, weights / jnp.where(explained, evidence, 1), 0)
        return (share[:, None] * ratios).sum(axis=0), evidence

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        _, growth, iterations = state
        return (growth.max() - 1 > tolerance) & (iterations < max_iterations)

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        q, growth, iterations = state
        q = q * growth
        q = q / q.sum()
        return q, factors(q)[0], iterations + 1

    start = jnp.where(present, source, 0) / source.sum()
    q, growth, iterations = jax.lax.while_loop(unfinished, step, (start, factors(start)[0], jnp.asarray(0)))
    _, evidence = factors(q)
    log_evidence = jnp.log(jnp.where(explained, evidence, 1)) + jnp.where(explained, row_units, -jnp.inf)
    gap = jnp.maximum(growth.max() - 1, 0)
    weighted = weights > 0
    return MllsOutput(
        label_distribution=q,
        importance_weights=jnp.where(present, q / jnp.where(present, source, 1), 0),
        converged=(gap <= tolerance) & (explained | ~weighted).all(),
        iterations=iterations,
        log_likelihood=jnp.where(weighted, weights * log_evidence, 0).sum(),
        likelihood_gap=gap,
        source_distribution=source,
        calibration=None,
    )
