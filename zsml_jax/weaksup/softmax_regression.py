r"""Softmax regression on hard or soft labels, by L-BFGS: the few-shot baseline, and a linear end model.

.. math:: \min_{W, b} \; C \sum_i w_i \Big( - \sum_y q_{iy} \log p_{iy} \Big) + \tfrac12 \lVert W \rVert^2 ,

whose intercept is free, as in scikit-learn; with two classes the penalty is that of its binary form. With soft labels q
the loss is the noise-aware one: its expectation over the class that is not known (Ratner et al., NeurIPS 2016).
"""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, Float, Int

from zsml_jax.typing import AnyArray, Array, Key, Scalar
from zsml_jax.weaksup.partly_labelled import checked_examples, hidden_folds
from zsml_jax.weaksup.vote_matrix import checked_features, checked_weights

#: The inverse penalties that :func:`tune` chooses from, the strongest penalty first.
INVERSE_PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)


@flax.struct.dataclass
class SoftmaxRegression:
    """A fitted regression, a pytree.

    Attributes:
      weights: ``(d, k)``.
      bias: ``(k,)``.
      converged: whether the largest entry of the gradient is within the tolerance.
      iterations: L-BFGS steps.
    """

    weights: Float[AnyArray, "*batch d k"]
    bias: Float[AnyArray, "*batch k"]
    converged: Bool[AnyArray, "*batch"]
    iterations: Int[AnyArray, "*batch"]

    def posterior(self, features: Float[AnyArray, "n d"]) -> Float[Array, "n k"]:
        """Returns the probability of each class.

        Raises:
          ValueError: if the features are not finite, or have other columns than those of the fit.
        """
        x = checked_features(features, d=self.weights.shape[0])
        return jax.nn.softmax(jnp.dot(x, self.weights, precision="highest") + self.bias, axis=1)


def fit_labelled(
    features: Float[AnyArray, "n d"],
    labels: Int[AnyArray, " n"],
    *,
    inverse_penalty: Scalar = 1.0,
    tolerance: Scalar = 1e-4,
    max_iterations: int = 500,
) -> SoftmaxRegression:
    """Fits the examples that have a label.

    Args:
      features: one row an example.
      labels: class indices, and -1 for the examples without a label.
      inverse_penalty: C.
      tolerance: of the largest entry of the gradient.
      max_iterations: L-BFGS steps at most.

    Raises:
      ValueError: if features or labels are not sound, or a class has no label.
    """
    x, rows, truth, k = checked_examples(features, labels)
    options = (inverse_penalty, tolerance, max_iterations)
    return _fit(x[rows], jax.nn.one_hot(truth, k), jnp.ones(len(rows)), *options)


def tune(
    features: Float[AnyArray, "n d"],
    labels: Int[AnyArray, " n"],
    *,
    key: Key,
    inverse_penalties: Sequence[float] = INVERSE_PENALTIES,
    folds: int = 5,
    tolerance: Scalar = 1e-4,
    max_iterations: int = 500,
) -> float:
    """Returns the C with the best accuracy on labels that were hidden, fold by fold; the first of equals.

    All penalties and folds are fitted side by side.

    Args:
      features: one row an example.
      labels: class indices, and -1 for the examples without a label.
      key: the random key of the folds.
      inverse_penalties: what to choose from.
      folds: parts of the labelled examples, each hidden once.
      tolerance: of the largest entry of the gradient, and C times it where C is above 1.
      max_iterations: L-BFGS steps at most.

    Raises:
      ValueError: as :func:`fit_labelled`, or if there are fewer labels than folds.
    """
    x, rows, truth, k = checked_examples(features, labels)
    hidden = hidden_folds(len(rows), folds, key=key)
    x, q = x[rows], jax.nn.one_hot(truth, k)
    # The gradient grows with C, and so does what rounding leaves of it.
    fit = lambda c, given: _fit(x, q, given, c, tolerance * jnp.maximum(c, 1), max_iterations)
    given = jnp.asarray(~hidden, x.dtype)
    fitted = jax.vmap(jax.vmap(fit, (None, 0)), (0, None))(jnp.asarray(inverse_penalties, x.dtype), given)
    scores = jnp.einsum("nd,cfdk->cfnk", x, fitted.weights, precision="highest") + fitted.bias[:, :, None]
    right = jnp.sum((scores.argmax(axis=-1) == truth) & hidden, axis=(1, 2))
    return float(inverse_penalties[int(right.argmax())])


def fit_soft(
    features: Float[AnyArray, "n d"],
    posteriors: Float[AnyArray, "n k"],
    weights: Float[AnyArray, " n"] | None = None,
    *,
    inverse_penalty: Scalar = 1.0,
    tolerance: Scalar = 1e-2,
    max_iterations: int = 200,
) -> SoftmaxRegression:
    """Fits the posteriors of a label model.

    Args:
      features: one row an example.
      posteriors: the probability of each class.
      weights: of each example; zero leaves out one that no function votes on.
      inverse_penalty: C.
      tolerance: of the largest entry of the gradient, which grows with the number of examples.
      max_iterations: L-BFGS steps at most.

    Raises:
      ValueError: if features or weights are not sound, or the posteriors are no distributions of as many examples.
    """
    x = checked_features(features)
    q = checked_posteriors(posteriors, len(x))
    return _fit(x, q, checked_weights(weights, len(x)), inverse_penalty, tolerance, max_iterations)


def checked_posteriors(posteriors: Float[AnyArray, "n k"], n: int) -> Float[Array, "n k"]:
    """Returns the posteriors as a JAX array.

    Raises:
      ValueError: if there are not n rows of at least two entries, or one is negative or does not sum to one within
      1e-2.
    """
    shape = np.shape(posteriors)
    if len(shape) != 2 or shape[0] != n or shape[1] < 2:
        raise ValueError(f"posteriors must have shape ({n}, k) with k >= 2, got shape {shape}")
    if not isinstance(posteriors, jax.core.Tracer):
        values = np.asarray(posteriors)
        bad = ~(np.abs(values.sum(axis=1) - 1) <= 1e-2) | (values < 0).any(axis=1)
        if bad.any():
            raise ValueError(f"posteriors must hold distributions; row {int(bad.argmax())} is {values[bad.argmax()]}")
    return jnp.asarray(posteriors, jnp.result_type(float))


@jax.jit
@jax.default_matmul_precision("highest")
def _fit(x: Array, q: Array, given: Array, c: Array, tolerance: Array, max_iterations: Array) -> SoftmaxRegression:
    (n, d), k = x.shape, q.shape[1]
    ridge = 1.0 if k == 2 else 0.5
    # The intercept is free, so that only the steps are others about the mean, and far fewer where that is large.
    centre = x.mean(axis=0)
    x = x - centre
    # The penalised weights lie in the span of the rows. Fewer rows than columns are turned into it, which changes no
    # product and no length, and leaves as many columns as rows.
    basis = jnp.linalg.qr(x.T)[0] if n < d else None
    x = x if basis is None else x @ basis

    def loss(params: tuple[Array, Array]) -> Array:
        weights, bias = params
        nll = -(q * jax.nn.log_softmax(x @ weights + bias, axis=1)).sum(axis=1)
        return c * (given * nll).sum() + ridge * (weights**2).sum()

    optimizer = optax.lbfgs(memory_size=10)
    value_and_grad = optax.value_and_grad_from_state(loss)

    def unfinished(state: tuple) -> Array:
        _, _, size, iterations = state
        return (size > tolerance) & (iterations < max_iterations)

    def step(state: tuple) -> tuple:
        params, opt_state, _, iterations = state
        value, slope = value_and_grad(params, state=opt_state)
        updates, opt_state = optimizer.update(slope, opt_state, params, value=value, grad=slope, value_fn=loss)
        params = optax.apply_updates(params, updates)
        ahead = optax.tree.get(opt_state, "grad")
        size = jnp.stack([jnp.abs(leaf).max() for leaf in jax.tree.leaves(ahead)]).max()
        return params, opt_state, size, iterations + 1

    start = (jnp.zeros((x.shape[1], k), x.dtype), jnp.zeros(k, x.dtype))
    state = (start, optimizer.init(start), jnp.asarray(jnp.inf, x.dtype), jnp.asarray(0))
    (weights, bias), _, size, iterations = jax.lax.while_loop(unfinished, step, state)
    weights = weights if basis is None else basis @ weights
    return SoftmaxRegression(weights, bias - centre @ weights, converged=size <= tolerance, iterations=iterations)
