r"""Label propagation over a graph of all examples (Zhu and Ghahramani, 2002).

With :math:`P_{ij} \propto \exp(-\gamma \lVert x_i - x_j \rVert^2)`, rows scaled to one, :math:`F \leftarrow P F` is
repeated, labelled rows held at their class. The graph is dense: n examples take n^2 numbers.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from zsml_jax.typing import AnyArray, Array, Key, Scalar
from zsml_jax.weaksup.partly_labelled import checked_examples, hidden_folds

#: The widths that the benchmark chooses from.
GAMMAS = (0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 20.0)


class PropagationOutput(NamedTuple):
    """Where the labels came to rest, a pytree.

    Attributes:
      posterior: of every example, ``(n, k)``; equal shares where no label reaches.
      converged: whether the total change of the last step is within the tolerance.
      iterations: steps taken.
    """

    posterior: Float[Array, "*batch n k"]
    converged: Bool[Array, "*batch"]
    iterations: Int[Array, "*batch"]


def propagate(
    features: Float[AnyArray, "n d"],
    labels: Int[AnyArray, " n"],
    *,
    gamma: Scalar,
    tolerance: Scalar = 1e-3,
    max_iterations: int = 1000,
) -> PropagationOutput:
    """Propagates labels.

    Args:
      features: one row an example.
      labels: class indices, and -1 for the examples without a label.
      gamma: the inverse squared width of the kernel.
      tolerance: of the sum of all changes in a step.
      max_iterations: steps at most.

    Raises:
      ValueError: if features or labels are not sound, or a class has no label.
    """
    x, rows, truth, k = checked_examples(features, labels)
    return _propagate(x, rows, truth, jnp.asarray(gamma), tolerance, max_iterations, k=k)


def tune(
    features: Float[AnyArray, "n d"],
    labels: Int[AnyArray, " n"],
    *,
    key: Key,
    gammas: Sequence[float] = GAMMAS,
    folds: int = 5,
    max_iterations: int = 1000,
) -> float:
    """Returns the width with the best accuracy on labels that were hidden, fold by fold; the first of equals.

    Args:
      features: one row an example.
      labels: class indices, and -1 for the examples without a label.
      key: the random key of the folds.
      gammas: the widths to choose from.
      folds: parts of the labelled examples, each hidden once.
      max_iterations: steps at most.

    Raises:
      ValueError: as :func:`propagate`, or if there are fewer labels than folds.
    """
    x, rows, truth, k = checked_examples(features, labels)
    right = np.zeros(len(gammas))
    for hidden in hidden_folds(len(rows), folds, key=key):
        seen = ~hidden
        for i, gamma in enumerate(gammas):
            output = _propagate(x, rows[seen], truth[seen], jnp.asarray(gamma), 1e-3, max_iterations, k=k)
            right[i] += float((output.posterior[rows[hidden]].argmax(axis=1) == truth[hidden]).sum())
    return float(gammas[int(right.argmax())])


@functools.partial(jax.jit, static_argnames="k")
@jax.default_matmul_precision("highest")
def _propagate(
    x: Array, rows: Array, labels: Array, gamma: Array, tolerance: Array, max_iterations: Array, *, k: int
) -> PropagationOutput:
    # Squares about the mean, lest their difference be lost in float32.
    x = x - x.mean(axis=0)
    norms = (x**2).sum(axis=1)
    squares = jnp.maximum(norms[:, None] - 2 * x @ x.T + norms, 0)
    kernel = jnp.exp(-gamma * squares)
    kernel = kernel / kernel.sum(axis=1, keepdims=True)
    clamped = jax.nn.one_hot(labels, k, dtype=x.dtype)
    start = jnp.zeros((len(x), k), x.dtype).at[rows].set(clamped)

    def unfinished(state: tuple) -> Array:
        _, change, iterations = state
        return (change > tolerance) & (iterations < max_iterations)

    def step(state: tuple) -> tuple:
        f, _, iterations = state
        following = kernel @ f
        total = following.sum(axis=1, keepdims=True)
        following = (following / jnp.where(total > 0, total, 1)).at[rows].set(clamped)
        return following, jnp.abs(following - f).sum(), iterations + 1

    state = (start, jnp.asarray(jnp.inf, x.dtype), jnp.asarray(0))
    f, change, iterations = jax.lax.while_loop(unfinished, step, state)
    reached = f.sum(axis=1, keepdims=True) > 0
    return PropagationOutput(jnp.where(reached, f, 1 / k), change <= tolerance, iterations)
