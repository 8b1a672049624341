"""Confidence by scaled logits: one temperature, a scale and a bias for each class, or a full matrix."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Bool, Float, Int

from zsml_jax.autolabel.confidence.confidence import usable
from zsml_jax.autolabel.outputs import Outputs, own
from zsml_jax.evaluate import calibrators
from zsml_jax.evaluate.calibrators import Calibration
from zsml_jax.typing import Array, Key, Scalar


@functools.partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class TemperatureScaling:
    """The softmax at the temperature of least negative log-likelihood (Guo et al., 2017, section 4.2)."""

    def fit(self, outputs: Outputs, labels: Int[Array, " n"], *, weights: Float[Array, " n"], key: Key) -> Calibration:
        """Fits by Newton's method."""
        del key
        return calibrators.fit_temperature(outputs.logits, labels, sample_weights=usable(weights))

    def score(self, fitted: Calibration, outputs: Outputs) -> Float[Array, " n"]:
        """Returns probabilities of the predicted class."""
        return own(jnp.exp(fitted.log_probs(outputs.logits)), outputs.predicted)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["penalty"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class VectorScaling:
    """A scale and a bias for each class (Guo et al., 2017, section 4.2).

    Attributes:
      penalty: on the squared bias, see :func:`zsml_jax.evaluate.calibrators.fit_vector_scaling`.
    """

    penalty: Scalar = 1e-3

    def fit(self, outputs: Outputs, labels: Int[Array, " n"], *, weights: Float[Array, " n"], key: Key) -> Calibration:
        """Fits by Newton's method."""
        del key
        return calibrators.fit_vector_scaling(
            outputs.logits, labels, sample_weights=usable(weights), penalty=self.penalty
        )

    def score(self, fitted: Calibration, outputs: Outputs) -> Float[Array, " n"]:
        """Returns calibrated probabilities of the class that the classifier predicted."""
        return own(jnp.exp(fitted.log_probs(outputs.logits)), outputs.predicted)


class DirichletMap(NamedTuple):
    """A fitted Dirichlet calibration, a pytree.

    Attributes:
      matrix: what log-probabilities are multiplied with, ``(k, k)``, columns are what comes out.
      bias: ``(k,)``, nats.
      converged: whether the gradient vanished within the tolerance.
    """

    matrix: Float[Array, "k k"]
    bias: Float[Array, " k"]
    converged: Bool[Array, ""]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["penalty", "tolerance"], meta_fields=["max_iterations"]
)
@dataclasses.dataclass(frozen=True)
class Dirichlet:
    r"""Dirichlet calibration, :math:`\mathrm{softmax}(\log p \, W + b)` (Kull et al., 2019, section 3).

    The penalty is their ODIR: on the mean square of the off-diagonal entries of W, and on that of b.

    Attributes:
      penalty: of both mean squares, not negative; where it is 0, separable points have no finite optimum.
      tolerance: the norm of the gradient to stop at.
      max_iterations: of L-BFGS.
    """

    penalty: Scalar = 1e-2
    tolerance: Scalar = 1e-4
    max_iterations: int = 300

    @jax.default_matmul_precision("highest")
    def fit(self, outputs: Outputs, labels: Int[Array, " n"], *, weights: Float[Array, " n"], key: Key) -> DirichletMap:
        """Fits by L-BFGS from the identity; the problem is convex."""
        del key
        log_p, weights = jax.nn.log_softmax(outputs.logits, axis=1), usable(weights)
        k = log_p.shape[1]
        off = 1 - jnp.eye(k, dtype=log_p.dtype)

        def loss(x: tuple[Array, Array]) -> Array:
            matrix, bias = x
            log_q = jax.nn.log_softmax(log_p @ matrix + bias, axis=1)
            ridge = (off * matrix**2).sum() / max(k * (k - 1), 1) + (bias**2).mean()
            return -(weights * own(log_q, labels)).sum() + self.penalty * ridge

        solver, value_and_grad = optax.lbfgs(), optax.value_and_grad_from_state(loss)

        def unfinished(carry: tuple) -> Array:
            _, state, norm = carry
            return (norm > self.tolerance) & (optax.tree.get(state, "count") < self.max_iterations)

        def step(carry: tuple) -> tuple:
            x, state, _ = carry
            value, grad = value_and_grad(x, state=state)
            updates, state = solver.update(grad, state, x, value=value, grad=grad, value_fn=loss)
            x = optax.apply_updates(x, updates)
            return x, state, optax.tree.norm(optax.tree.get(state, "grad"))

        start = (jnp.eye(k, dtype=log_p.dtype), jnp.zeros(k, log_p.dtype))
        carry = (start, solver.init(start), jnp.asarray(jnp.inf, log_p.dtype))
        (matrix, bias), _, norm = jax.lax.while_loop(unfinished, step, carry)
        return DirichletMap(matrix, bias, norm <= self.tolerance)

    @jax.default_matmul_precision("highest")
    def score(self, fitted: DirichletMap, outputs: Outputs) -> Float[Array, " n"]:
        """Returns calibrated probabilities of the class that the classifier predicted."""
        log_p = jax.nn.log_softmax(outputs.logits, axis=1)
        return own(jax.nn.softmax(log_p @ fitted.matrix + fitted.bias, axis=1), outputs.predicted)
