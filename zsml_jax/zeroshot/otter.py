r"""OTTER: predictions that follow a label distribution, by optimal transport.

Shin, Zhao, Cromp, Vishwakarma and Sala, "OTTER: Effortless Label Distribution Adaptation of Zero-shot Models",
NeurIPS 2024. Rows are examples of mass 1/n, columns are classes of mass :math:`\nu`, the cost is
:math:`C_{ij} = -\log p_{ij}`, and an example is given the class that gets most of its mass:

.. math:: \min_{\pi \ge 0} \langle \pi, C \rangle \quad \text{with} \quad \pi 1 = 1/n, \; \pi^\top 1 = \nu .

The k dual numbers of the classes are all that new points need: ``argmax(log_probs + dual)`` repeats the assignment on
the fitted points, up to ties, and is what the paper calls R-OTTER elsewhere. Adding a constant to a row or a column of
``log_probs``, or scaling it, does not change the result at ``epsilon = 0``, so that it needs no calibration.

With ``epsilon > 0`` the plan is entropic. At ``epsilon = 1`` nat and calibrated source posteriors the dual is
:math:`\log(P_t / P_s)`, which is Bayes' rule under label shift; at 0 it is OTTER.

Small batches hurt: fitted separately on batches of 16, 32, 64, 128, 512 and 4,000 of the same 50-class problem the
accuracy was .237, .287, .322, .343, .363 and .367. Fit on all you have, or carry a dual along (:mod:`.online_otter`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from zsml_jax.evaluate import score_checks
from zsml_jax.typing import AnyArray, Array, Scalar
from zsml_jax.zeroshot.transport import chunked_semidual, exact, semidual
from zsml_jax.zeroshot.transport.marginals import Between, Exactly, Marginal, Near, as_marginal
from zsml_jax.zeroshot.transport.row_chunks import ChunkSource, RowChunks

__all__ = ["Between", "Exactly", "Near", "OtterOutput", "solve", "solve_stream"]


class OtterOutput(NamedTuple):
    """A fitted label-distribution adaptation, a pytree.

    Attributes:
      dual: the reward of each class, ``(k,)``, nats; -inf for a class that may have no mass.
      assignment: the class of each fitted example, ``(n,)``. At ``epsilon = 0`` without sample weights, class j has
        ``n * label_distribution[j]`` examples where that is whole, else one of the two whole numbers beside it.
      cost: the mean transport cost of ``-log_probs`` under the plan, nats.
      duality_gap: primal minus dual objective, nats: zero certifies the optimum.
      marginal_error: L1 distance between the plan's class masses and what was asked for.
      n_iterations: passes over the examples.
      converged: whether the solver met its tolerance.
    """

    dual: Float[Array, "*batch k"]
    assignment: Int[Array, "*batch n"]
    cost: Float[Array, "*batch"]
    duality_gap: Float[Array, "*batch"]
    marginal_error: Float[Array, "*batch"]
    n_iterations: Int[Array, "*batch"]
    converged: Bool[Array, "*batch"]

    def log_probs(self, log_probs: Float[AnyArray, "m k"]) -> Float[Array, "m k"]:
        """Returns adapted log-probabilities of any points, ``log_softmax(log_probs + dual)``, nats."""
        return jax.nn.log_softmax(jnp.asarray(log_probs) + self.dual, axis=-1)

    def predict(self, log_probs: Float[AnyArray, "m k"]) -> Int[Array, " m"]:
        """Returns the class of any points, ``argmax(log_probs + dual)``; the first on ties."""
        return jnp.argmax(jnp.asarray(log_probs) + self.dual, axis=-1)


def solve(
    log_probs: Float[AnyArray, "n k"],
    label_distribution: Float[AnyArray, " k"] | Marginal,
    *,
    epsilon: Scalar = 0.0,
    sample_weights: Float[AnyArray, " n"] | None = None,
    initial_dual: Float[AnyArray, " k"] | None = None,
    tolerance: float = 1e-5,
    max_iterations: int = 2000,
) -> OtterOutput:
    """Adapts predictions to a label distribution.

    ``epsilon = 0`` solves the linear programme exactly, in float64 on the host's side of a few jitted passes; it
    cannot be called inside ``jit``. ``epsilon > 0`` is pure: jit, vmap over label distributions, temperatures or
    problems, and derivatives of ``dual`` and ``cost`` in all float arguments by the implicit function theorem.

    >>> import numpy as np
    >>> log_probs = np.log([[0.6, 0.4], [0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    >>> solve(log_probs, np.array([0.5, 0.5])).assignment.tolist()
    [1, 0, 0, 1]

    Args:
      log_probs: class scores in nats, ``(n, k)``: log-probabilities of any source, or scaled logits.
      label_distribution: the mass of each class, ``(k,)``, or :class:`Between` two bounds, or :class:`Near` a guess.
      epsilon: the temperature of the entropy term, nats. Zero is exact.
      sample_weights: the weight of each example, ``(n,)``, scaled to sum to one; equal by default.
      initial_dual: where to begin if ``epsilon > 0``, ``(k,)``: an earlier dual of a similar problem saves passes.
      tolerance: the L1 error of the class masses at which to stop if ``epsilon > 0``.
      max_iterations: passes over the examples at most if ``epsilon > 0``.

    Returns:
      The fitted adaptation.

    Raises:
      ValueError: on NaN or +inf scores, a row of only -inf, a label distribution that is not one, weights that do not
        fit, a negative epsilon, traced arguments with ``epsilon = 0``, or an exact problem that only zero
        probabilities could solve.
    """
    if np.ndim(log_probs) != 2 or 0 in np.shape(log_probs):
        raise ValueError(f"log_probs must have shape (n, k) with n >= 1 and k >= 1, got shape {np.shape(log_probs)}")
    marginal = _checked(label_distribution, epsilon, log_probs.shape[1])
    if not _is_zero(epsilon):
        log_probs = score_checks.checked_log_probs(log_probs)
        dtype = log_probs.dtype
        weights = score_checks.checked_sample_weights(sample_weights, log_probs.shape[0], dtype)
        first = None if initial_dual is None else _finite(jnp.asarray(initial_dual, dtype))
        marginal, epsilon = marginal.astype(dtype), jnp.asarray(epsilon, dtype)
        solution = semidual.solve(
            log_probs, marginal, epsilon, weights, first, tolerance=tolerance, max_iterations=max_iterations
        )
        return _entropic_output(log_probs, marginal, epsilon, weights, solution, tolerance)
    traced = (log_probs, sample_weights, *jax.tree.leaves(marginal))
    if any(isinstance(x, jax.core.Tracer) for x in traced):
        raise ValueError("epsilon = 0 is solved outside of jit, vmap and grad; call it there, or use epsilon > 0")
    return _exact_output(RowChunks.of_array(log_probs, sample_weights), marginal, in_memory=True)


def solve_stream(
    chunks: ChunkSource,
    label_distribution: Float[AnyArray, " k"] | Marginal,
    *,
    epsilon: float = 0.0,
    sample_weights: Float[AnyArray, " n"] | None = None,
    tolerance: float = 1e-5,
    max_iterations: int = 2000,
) -> OtterOutput:
    """Adapts predictions whose scores do not fit into memory: they are read chunk by chunk, some dozens of times.

    The result is that of :func:`solve` on the concatenated chunks. Neither the scores nor the plan are ever held as a
    whole; memory grows by a few numbers for each row, and by k x k.

    Args:
      chunks: arrays ``(rows, k)`` of scores in nats, as a sequence or as a function that starts a new iteration over
        the same rows, for example over memory-mapped files. Equal sizes save compilations.
      label_distribution: as in :func:`solve`.
      epsilon: as in :func:`solve`.
      sample_weights: the weight of each row of all chunks, ``(n,)``.
      tolerance: as in :func:`solve`.
      max_iterations: as in :func:`solve`.

    Returns:
      The fitted adaptation.

    Raises:
      ValueError: as :func:`solve`, or if the chunks change between two passes.
    """
    source = RowChunks(chunks, sample_weights)
    marginal = _checked(label_distribution, epsilon, source.k)
    if _is_zero(epsilon):
        return _exact_output(source, marginal, in_memory=False)
    return _solve_entropic_stream(source, marginal, epsilon, tolerance, max_iterations)


def _checked(label_distribution: AnyArray | Marginal, epsilon: Scalar, k: int) -> Marginal:
    marginal = as_marginal(label_distribution)
    marginal.validate(k)
    if not isinstance(epsilon, jax.core.Tracer) and (np.ndim(epsilon) != 0 or not 0 <= float(epsilon) < np.inf):
        raise ValueError(f"epsilon must be a finite number that is not negative, got {epsilon}")
    return marginal


def _is_zero(epsilon: Scalar) -> bool:
    return not isinstance(epsilon, jax.core.Tracer) and float(epsilon) == 0


def _entropic_output(
    log_probs: Array, marginal: Marginal, epsilon: Array, weights: Array, solution: semidual.Solution, tolerance: float
) -> OtterOutput:
    sums = semidual.evaluate(log_probs, weights, solution.dual, epsilon, marginal.active)
    dual = jnp.where(marginal.active, solution.dual, -jnp.inf)
    return OtterOutput(
        dual=dual,
        assignment=jnp.argmax(log_probs + dual, axis=1),
        cost=sums.cost,
        duality_gap=marginal.duality_gap(solution.dual, sums.mass),
        marginal_error=solution.error,
        n_iterations=solution.n_iterations,
        converged=solution.error <= tolerance,
    )


def _exact_output(chunks: RowChunks, marginal: Marginal, *, in_memory: bool) -> OtterOutput:
    if isinstance(marginal, Near):
        raise ValueError("Near needs epsilon > 0: with a divergence penalty the exact problem is no linear programme")
    solution = exact.solve(chunks, marginal, in_memory=in_memory)
    return OtterOutput(
        dual=jnp.asarray(solution.dual),
        assignment=jnp.asarray(solution.assignment),
        cost=jnp.asarray(solution.cost),
        duality_gap=jnp.asarray(solution.duality_gap),
        marginal_error=jnp.asarray(solution.marginal_error),
        n_iterations=jnp.asarray(solution.n_iterations),
        converged=jnp.asarray(solution.converged),
    )


def _solve_entropic_stream(
    chunks: RowChunks, marginal: Marginal, epsilon: float, tolerance: float, max_iterations: int
) -> OtterOutput:
    dtype = jnp.promote_types(jnp.result_type(float), jnp.float32)
    marginal = marginal.astype(dtype)
    scale = chunked_semidual.mean_margin(chunks, marginal.active)
    state = chunked_semidual.anneal(
        chunks, marginal, epsilon, scale=scale, tolerance=tolerance, max_iterations=max_iterations
    )
    sums = chunked_semidual.evaluate(chunks, state.dual, epsilon, marginal.active)
    dual = jnp.where(marginal.active, state.dual, -jnp.inf)
    return OtterOutput(
        dual=dual,
        assignment=jnp.concatenate([jnp.argmax(rows + dual, axis=1) for rows, _ in chunks]),
        cost=sums.cost,
        duality_gap=marginal.duality_gap(state.dual, sums.mass),
        marginal_error=state.error,
        n_iterations=state.iteration,
        converged=state.done,
    )


def _finite(dual: Array) -> Array:
    return jnp.where(jnp.isfinite(dual), dual, 0.0)
