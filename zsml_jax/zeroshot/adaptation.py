r"""Label-free adaptation: an edit of embeddings learned on unlabelled examples, bounded by construction.

RoboShot's label-free adaptation (Adila et al., ICLR 2024) learns a map :math:`\Pi` that lowers the alignment of
embeddings with harmful insights v and raises that with helpful ones u. Its loss, the mean of
:math:`\langle \Pi x, v\rangle - \langle \Pi x, u\rangle`, is linear in :math:`\Pi` and has no minimum. Here the
alignment is squared, as an insight's sign means nothing, the map stays near the identity on the data, and it is
bounded:

.. math:: \min_{\Pi} \; \mathbb{E}_x\Big[ \tfrac1m \sum_j \langle \Pi x, v_j\rangle^2
    - \tfrac{\beta}{p} \sum_k \langle \Pi x, u_k\rangle^2 + \lambda \lVert \Pi x - x \rVert^2 \Big]
    \quad \text{with} \quad 0 \preceq \Pi \preceq \rho I \;\text{ or }\; \Pi^\top \Pi = I.

A symmetric map with eigenvalues in :math:`[0, \rho]` shrinks and stretches along orthogonal directions. Two ways to a
lower loss ruin predictions, and are shut: a bound on the norm alone admits maps that turn other directions into helpful
ones, and x is taken relative to its mean, as else even symmetric maps lean what all embeddings share towards a helpful
direction. (Four-domain sentiment by MiniLM, accuracy: without adaptation .73, RoboShot .76, symmetric .77 centred and
not, norm-bounded .58 centred and .49 not.)

Let M be the mean of :math:`v v^\top` minus :math:`\beta` times the mean of :math:`u u^\top`. Where the bound is not
active and :math:`M + \lambda I` is positive definite, the solution is :math:`\Pi = \lambda (M + \lambda I)^{-1}`: a
soft RoboShot, which becomes the removal of the harmful span as :math:`\lambda \to 0`. It differs from the identity only
within the span of the insights, so the search is over r x r matrices A there, by accelerated projected gradient
descent whose objective never rises. Orthogonal maps at :math:`\lambda = 0` attain von Neumann's trace bound.
"""

import dataclasses
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from zsml_jax.typing import AnyArray, Array, Scalar
from zsml_jax.zeroshot.head import ClassHead
from zsml_jax.zeroshot.subspace import (
    at_least_float32,
    changed_within,
    check_insights,
    check_vectors,
    orthonormal_basis,
    unit_rows,
)


@flax.struct.dataclass
class AdaptationOutput:
    r"""The map :math:`\Pi = I + B^\top (A - I) B`, a pytree.

    Attributes:
      basis: the orthonormal basis B of the span of all insights, ``(r, d)``; zero rows where they are dependent.
      transform: the learned A, ``(r, r)``.
      objective: the objective after each step, in squared length of an embedding, ``(n_steps,)``; it never rises.
      residual: the root mean square change that one more plain gradient step would make to A.
      converged: whether the residual is within the tolerance.
    """

    basis: Float[AnyArray, "*batch r d"]
    transform: Float[AnyArray, "*batch r r"]
    objective: Float[AnyArray, "*batch steps"]
    residual: Float[AnyArray, "*batch"]
    converged: Bool[AnyArray, "*batch"]

    def edit_embeddings(self, x: Float[AnyArray, "*n d"], *, renormalize: bool = True) -> Float[Array, "*n d"]:
        """Returns the adapted embeddings, divided by their length unless told otherwise."""
        check_vectors(x, "x", self.basis.shape[-1])
        x = changed_within(x, self.basis, self._change.T)
        return unit_rows(x) if renormalize else x

    def edit_head(self, head: ClassHead) -> ClassHead:
        """Returns the head with the map folded into its class vectors; logit scale and bias are kept.

        It gives unadapted embeddings the logits that ``head`` gives those adapted with ``renormalize=False``.
        """
        check_vectors(head.vectors, "head.vectors", self.basis.shape[-1])
        return dataclasses.replace(head, vectors=changed_within(head.vectors, self.basis, self._change))

    @property
    def _change(self) -> Array:
        return jnp.asarray(self.transform) - jnp.eye(self.transform.shape[-1], dtype=self.transform.dtype)


def fit(
    x: Float[AnyArray, "n d"],
    *,
    harmful: Float[AnyArray, "m d"] | None = None,
    helpful: Float[AnyArray, "p d"] | None = None,
    helpful_weight: Scalar = 1.0,
    proximity: Scalar = 0.01,
    max_norm: Scalar = 2.0,
    constraint: Literal["symmetric", "orthogonal"] = "symmetric",
    centered: bool = True,
    n_steps: int = 500,
    tolerance: Scalar = 1e-5,
) -> AdaptationOutput:
    r"""Learns a bounded map of embeddings from unlabelled ones.

    All numbers but ``n_steps`` are traced: ``vmap`` over them for a study, and select by the
    accuracy on a hundred or so labelled examples, as the paper does.

    Args:
      x: unlabelled embeddings.
      harmful: insight vectors whose alignment is lowered; they are scaled to unit length.
      helpful: insight vectors whose alignment is raised, likewise.
      helpful_weight: the weight :math:`\beta` of the helpful alignment.
      proximity: the weight :math:`\lambda` of the mean squared change of an embedding.
      max_norm: the bound :math:`\rho` of a symmetric map, at least 1; 2 is the norm of RoboShot's boost.
      constraint: ``"symmetric"``, or ``"orthogonal"`` for a rotation within the span of the insights, which is of use
        only where ``proximity`` keeps it small.
      centered: takes the embeddings relative to their mean; the paper does not.
      n_steps: the number of gradient steps.
      tolerance: the residual at which the output counts as converged.

    Returns:
      The map, with the course of its objective and whether it converged.

    Raises:
      ValueError: if no insights are given, an array is not finite, empty or of another dimension, or a hyperparameter
        is out of range.
    """
    if harmful is None and helpful is None:
        raise ValueError("harmful or helpful must be given; both are None")
    d = check_insights(harmful, helpful)
    if np.ndim(x) != 2 or np.shape(x)[0] == 0:
        raise ValueError(f"x must have shape (n, d) with n >= 1, got shape {np.shape(x)}")
    check_vectors(x, "x", d)
    if constraint not in ("symmetric", "orthogonal"):
        raise ValueError(f"constraint must be 'symmetric' or 'orthogonal', got {constraint!r}")
    if n_steps < 1:
        raise ValueError(f"n_steps must be at least 1, got {n_steps}")
    for name, value, least in (
        ("helpful_weight", helpful_weight, 0),
        ("proximity", proximity, 0),
        ("max_norm", max_norm, 1),
        ("tolerance", tolerance, 0),
    ):
        if not isinstance(value, jax.core.Tracer) and not least <= float(value) < np.inf:
            raise ValueError(f"{name} must be finite and at least {least}, got {value}")
    return _fit(
        x,
        harmful,
        helpful,
        helpful_weight,
        proximity,
        max_norm,
        tolerance,
        orthogonal=constraint == "orthogonal",
        centered=centered,
        n_steps=n_steps,
    )


@jax.default_matmul_precision("highest")
def alignment(x: Float[AnyArray, "n d"], insights: Float[AnyArray, "m d"]) -> Float[Array, ""]:
    """Returns the mean squared inner product of the embeddings with the unit insights.

    Args:
      x: embeddings.
      insights: insight vectors, any length but zero.

    Returns:
      The alignment, in squared length of an embedding.

    Raises:
      ValueError: if an array is not finite, an insight is zero, or the dimensions differ.
    """
    check_vectors(x, "x", check_insights(insights, None))
    return jnp.mean((at_least_float32(x) @ unit_rows(at_least_float32(insights)).T) ** 2)


@jax.jit(static_argnames=("orthogonal", "centered", "n_steps"))
@jax.default_matmul_precision("highest")
def _fit(
    x: Array,
    harmful: Array | None,
    helpful: Array | None,
    helpful_weight: Array,
    proximity: Array,
    max_norm: Array,
    tolerance: Array,
    *,
    orthogonal: bool,
    centered: bool,
    n_steps: int,
) -> AdaptationOutput:
    given = [unit_rows(at_least_float32(a)) for a in (harmful, helpful) if a is not None]
    basis = orthonormal_basis(jnp.concatenate(given))
    within = at_least_float32(x) @ basis.T
    within = within - within.mean(axis=0) if centered else within
    moment = within.T @ within / within.shape[0]
    eye = jnp.eye(basis.shape[0], dtype=moment.dtype)
    target = jnp.zeros_like(moment)
    for insights, sign in ((harmful, 1.0), (helpful, -helpful_weight)):
        if insights is not None:
            directions = unit_rows(at_least_float32(insights)) @ basis.T
            target += sign * (directions.T @ directions) / directions.shape[0]

    def objective(a: Array) -> Array:
        return jnp.sum((a @ moment) * (target @ a + proximity * (a - 2 * eye))) + proximity * jnp.trace(moment)

    def project(a: Array) -> Array:
        if orthogonal:
            u, _, vt = jnp.linalg.svd(a, full_matrices=False)
            return u @ vt
        eigenvalues, q = jnp.linalg.eigh((a + a.T) / 2)
        return (q * jnp.clip(eigenvalues, 0, max_norm)) @ q.T

    # One over the Lipschitz constant of the gradient: a step of this length lowers the objective on any closed set.
    top = lambda symmetric: jnp.max(jnp.abs(jnp.linalg.eigvalsh(symmetric)))
    curvature = 2 * (top(target) + proximity) * top(moment)
    step_size = 1 / jnp.where(curvature > 0, curvature, 1)

    def descend(a: Array) -> Array:
        return project(a - step_size * 2 * ((target @ a + proximity * (a - eye)) @ moment))

    def step(state: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], Array]:
        a, previous, age = state
        ahead = descend(a + age / (age + 3) * (a - previous))
        plain = descend(a)
        better = objective(ahead) <= objective(plain)
        following = jnp.where(better, ahead, plain)
        return (following, a, jnp.where(better, age + 1, 0.0)), objective(following)

    (a, _, _), course = jax.lax.scan(step, (eye, eye, jnp.zeros((), moment.dtype)), None, length=n_steps)
    residual = jnp.sqrt(jnp.mean((descend(a) - a) ** 2))
    return AdaptationOutput(
        basis=basis, transform=a, objective=course, residual=residual, converged=residual <= tolerance
    )
