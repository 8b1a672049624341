"""Prior matching as OTTER's authors released it: learned multipliers of the class *probabilities*.

A baseline, kept to its published form so that its figures can be compared. The multipliers act on probabilities
instead of log-probabilities, which is badly conditioned; :mod:`.prior_matching` solves the same task in log space.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Bool, Float, Int

from zsml_jax.evaluate.score_checks import check_label_distribution, check_labels, checked_log_probs, checked_scalar
from zsml_jax.typing import AnyArray, Array, Key, Scalar


class ReleasedPriorMatchingOutput(NamedTuple):
    """Fitted multipliers of class probabilities, a pytree.

    Attributes:
      multipliers: one factor for each class, ``(k,)``; they may be negative.
      loss: the mean squared error between the mean prediction and the label distribution.
      iterations: AdamW steps taken.
      converged: whether the loss is below the tolerance.
    """

    multipliers: Float[Array, " k"]
    loss: Float[Array, ""]
    iterations: Int[Array, ""]
    converged: Bool[Array, ""]

    def predict(self, log_probs: Float[AnyArray, "n k"]) -> Int[Array, " n"]:
        """Returns the class index of the largest multiplied probability, the first one on ties."""
        return jnp.argmax(self.multipliers * _probabilities(checked_log_probs(log_probs)), axis=-1)


class TunedPriorMatchingOutput(NamedTuple):
    """The fit with the best validation accuracy of a grid, a pytree.

    Attributes:
      fitted: the best fit, the first one on ties.
      temperature: its temperature.
      learning_rate: its learning rate.
      validation_accuracy: the accuracy of each fit, ``(temperatures, learning_rates)``.
    """

    fitted: ReleasedPriorMatchingOutput
    temperature: Float[Array, ""]
    learning_rate: Float[Array, ""]
    validation_accuracy: Float[Array, "temperatures learning_rates"]


def initial_multipliers(key: Key, k: int) -> Float[Array, " k"]:
    """Draws the first multipliers: uniform on (0, 1), scaled to sum to one."""
    draws = jax.random.uniform(key, (k,))
    return draws / draws.sum()


def match_as_released(
    log_probs: Float[AnyArray, "n k"],
    label_distribution: Float[AnyArray, " k"],
    *,
    key: Key,
    temperature: Scalar = 1e-5,
    learning_rate: Scalar = 1e-5,
    weight_decay: Scalar = 0.01,
    tolerance: Scalar = 1e-12,
    max_iterations: Scalar = 10_000,
) -> ReleasedPriorMatchingOutput:
    """Fits multipliers ``w`` by full-batch AdamW: ``mean_i softmax(w * p_i / temperature) = label_distribution``.

    The loss is the mean squared error over the classes; the defaults are those of the released code. The result
    depends on them and on ``key``, often more than on the data: tune them by :func:`tune_as_released`.

    Args:
      log_probs: class scores ``(n, k)``, in nats; their softmax is ``p``.
      label_distribution: the probability of each class, ``(k,)``.
      key: draws the first multipliers.
      temperature: divides the multiplied probabilities.
      learning_rate: AdamW's.
      weight_decay: AdamW's, decoupled.
      tolerance: the loss to stop at.
      max_iterations: the largest number of steps.

    Returns:
      The last multipliers, their loss, and whether it fell below the tolerance.

    Raises:
      ValueError: if an argument has a wrong shape, the scores hold a NaN, the label distribution is none, or
        ``temperature`` is not positive.
    """
    log_probs = checked_log_probs(log_probs)
    check_label_distribution(label_distribution, log_probs.shape[1])
    temperature = checked_scalar(temperature, "temperature", log_probs.dtype, positive=True)
    learning_rate = checked_scalar(learning_rate, "learning_rate", log_probs.dtype, positive=True)
    weight_decay = checked_scalar(weight_decay, "weight_decay", log_probs.dtype)
    tolerance = checked_scalar(tolerance, "tolerance", log_probs.dtype)
    max_iterations = checked_scalar(max_iterations, "max_iterations", jnp.int32)
    target = jnp.asarray(label_distribution, log_probs.dtype)
    return _match(log_probs, target, key, temperature, learning_rate, weight_decay, tolerance, max_iterations)


def tune_as_released(
    log_probs: Float[AnyArray, "n k"],
    label_distribution: Float[AnyArray, " k"],
    validation_log_probs: Float[AnyArray, "n_validation k"],
    validation_labels: Int[AnyArray, " n_validation"],
    *,
    key: Key,
    temperatures: Float[AnyArray, " temperatures"],
    learning_rates: Float[AnyArray, " learning_rates"],
    weight_decay: Scalar = 0.01,
    tolerance: Scalar = 1e-12,
    max_iterations: Scalar = 10_000,
) -> TunedPriorMatchingOutput:
    """Fits the whole grid of temperatures and learning rates, and selects by accuracy on labelled examples.

    The fits of one temperature run side by side (``vmap``), from the same first multipliers.

    Args:
      log_probs: unlabelled class scores to fit, ``(n, k)``, in nats.
      label_distribution: the probability of each class, ``(k,)``.
      validation_log_probs: class scores of the labelled examples, ``(n_validation, k)``, in nats.
      validation_labels: their class indices, ``(n_validation,)``.
      key: draws the first multipliers.
      temperatures: the temperatures to try.
      learning_rates: the learning rates to try.
      weight_decay: AdamW's, decoupled.
      tolerance: the loss to stop at.
      max_iterations: the largest number of steps of one fit.

    Returns:
      The best fit, where it lies on the grid, and the accuracy of every fit.

    Raises:
      ValueError: as :func:`match_as_released`, or if the validation set does not fit the scores.
    """
    log_probs = checked_log_probs(log_probs)
    n_validation, k = jnp.shape(validation_log_probs)
    check_label_distribution(label_distribution, log_probs.shape[1])
    validation_log_probs = checked_log_probs(validation_log_probs, "validation_log_probs")
    if k != log_probs.shape[1]:
        raise ValueError(f"validation_log_probs must have {log_probs.shape[1]} columns as log_probs, got {k}")
    check_labels(validation_labels, n_validation, k, "validation_labels")
    weight_decay = checked_scalar(weight_decay, "weight_decay", log_probs.dtype)
    tolerance = checked_scalar(tolerance, "tolerance", log_probs.dtype)
    max_iterations = checked_scalar(max_iterations, "max_iterations", jnp.int32)
    target = jnp.asarray(label_distribution, log_probs.dtype)
    temperatures = checked_scalar(temperatures, "temperatures", log_probs.dtype, positive=True)
    learning_rates = checked_scalar(learning_rates, "learning_rates", log_probs.dtype, positive=True)

    def fit(temperature: Array, learning_rate: Array) -> tuple[ReleasedPriorMatchingOutput, Array]:
        fitted = _match(log_probs, target, key, temperature, learning_rate, weight_decay, tolerance, max_iterations)
        return fitted, (fitted.predict(validation_log_probs) == validation_labels).mean()

    fits, accuracy = jax.lax.map(
        lambda temperature: jax.vmap(fit, (None, 0))(temperature, learning_rates), temperatures
    )
    row, column = jnp.unravel_index(jnp.argmax(accuracy), accuracy.shape)
    best = jax.tree.map(lambda leaf: leaf[row, column], fits)
    return TunedPriorMatchingOutput(best, temperatures[row], learning_rates[column], accuracy)


@jax.jit
def _match(
    log_probs: Array,
    target: Array,
    key: Key,
    temperature: Array,
    learning_rate: Array,
    weight_decay: Array,
    tolerance: Array,
    max_iterations: Array,
) -> ReleasedPriorMatchingOutput:
    probabilities = _probabilities(log_probs)
    optimizer = optax.adamw(learning_rate, weight_decay=weight_decay)

    def loss(multipliers: Array) -> Array:
        predictions = jax.nn.softmax(multipliers * probabilities / temperature, axis=1)
        return jnp.square(predictions.mean(axis=0) - target).mean()

    def unfinished(state: tuple) -> Array:
        _, _, value, _, iterations = state
        return (value >= tolerance) & (iterations < max_iterations)

    def step(state: tuple) -> tuple:
        multipliers, optimizer_state, _, gradient, iterations = state
        updates, optimizer_state = optimizer.update(gradient, optimizer_state, multipliers)
        multipliers = optax.apply_updates(multipliers, updates)
        return multipliers, optimizer_state, *jax.value_and_grad(loss)(multipliers), iterations + 1

    multipliers = initial_multipliers(key, log_probs.shape[1]).astype(log_probs.dtype)
    state = (multipliers, optimizer.init(multipliers), *jax.value_and_grad(loss)(multipliers), jnp.asarray(0))
    multipliers, _, value, _, iterations = jax.lax.while_loop(unfinished, step, state)
    return ReleasedPriorMatchingOutput(multipliers, value, iterations, value < tolerance)


def _probabilities(log_probs: Array) -> Array:
    return jax.nn.softmax(log_probs, axis=-1)
