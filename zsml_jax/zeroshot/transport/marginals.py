r"""What is known of the label distribution: exactly, within an interval, or about.

Each class is the column side of the optimal-transport problem of :mod:`.otter`. Write :math:`q_j` for the mass that a
plan gives class j, and :math:`g_j` for the dual variable (the reward) of that class. A marginal is a pytree that knows

* ``dual_value(g)``, the concave part of the semi-dual that it contributes,
* ``sinkhorn_update(g, q, epsilon)``, the block-coordinate ascent step on g when the row potentials are held fixed,
* ``error(g, q)``, how far the pair is from optimal, in total mass, and ``duality_gap(g, q)``, in nats,
* ``residual(g, q)`` and ``residual_jacobian(h, g)``, the optimality conditions and their derivative, given the
  Hessian h of the row part: what implicit differentiation needs.
"""

from typing import TypeAlias

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from zsml_jax.evaluate import score_checks
from zsml_jax.typing import AnyArray, Array, Scalar


@flax.struct.dataclass
class Exactly:
    """The mass of each class equals ``label_distribution``, ``(k,)``. A class of zero mass is never predicted."""

    label_distribution: Float[AnyArray, "*batch k"]

    @property
    def center(self) -> Array:
        """A typical label distribution, ``(k,)``."""
        return jnp.asarray(self.label_distribution)

    @property
    def active(self) -> Bool[Array, " k"]:
        """The classes that may have mass."""
        return self.center > 0

    def dual_value(self, g: Float[Array, " k"]) -> Float[Array, ""]:
        r"""Returns :math:`\langle \nu, g \rangle`."""
        return jnp.sum(self.center * g)

    def sinkhorn_update(self, g: Array, q: Array, epsilon: Scalar) -> Float[Array, " k"]:
        """Returns the dual after one Sinkhorn step, with mean zero over the active classes."""
        g = jnp.where(self.active, g + epsilon * (_log(self.center) - _log(q)), 0.0)
        return jnp.where(self.active, g - g.sum() / self.active.sum(), 0.0)

    def error(self, g: Array, q: Array) -> Float[Array, ""]:
        """Returns the L1 distance of q from the label distribution."""
        del g
        return jnp.abs(q - self.center).sum()

    def duality_gap(self, g: Array, q: Array) -> Float[Array, ""]:
        """Returns how far primal and dual are apart at a plan with class masses q, nats."""
        return jnp.abs(jnp.sum(g * q) - self.dual_value(g))

    def residual(self, g: Array, q: Array) -> Float[Array, " k"]:
        """Returns the mass that is wrong, plus the mean dual, which fixes the free constant."""
        mean = jnp.where(self.active, g, 0.0).sum() / self.active.sum()
        return jnp.where(self.active, q - self.center + mean, g)

    def residual_jacobian(self, h: Array, g: Array) -> Float[Array, "k k"]:
        """Returns the derivative of :meth:`residual` in g."""
        both = self.active[:, None] & self.active
        return jnp.where(both, h + 1.0 / self.active.sum(), jnp.eye(g.shape[0], dtype=h.dtype))

    def validate(self, k: int) -> None:
        """Raises a ValueError unless this is a distribution over k classes."""
        score_checks.check_label_distribution(self.label_distribution, k)

    def astype(self, dtype: jax.typing.DTypeLike) -> "Exactly":
        """Returns the marginal in another float type, rescaled to sum to one."""
        nu = jnp.asarray(self.label_distribution, dtype)
        return Exactly(nu / nu.sum())


@flax.struct.dataclass
class Between:
    """The mass of each class lies in ``[lower, upper]``, both ``(k,)``: an interval estimate of the distribution."""

    lower: Float[AnyArray, "*batch k"]
    upper: Float[AnyArray, "*batch k"]

    @property
    def center(self) -> Array:
        """A typical label distribution, ``(k,)``."""
        middle = jnp.asarray(self.lower) + self.upper
        return middle / middle.sum()

    @property
    def active(self) -> Bool[Array, " k"]:
        """The classes that may have mass."""
        return jnp.asarray(self.upper) > 0

    def dual_value(self, g: Float[Array, " k"]) -> Float[Array, ""]:
        r"""Returns :math:`\sum_j l_j [g_j]_+ - u_j [-g_j]_+`: the least reward that a mass in the interval can have."""
        return jnp.sum(jnp.where(g > 0, self.lower, self.upper) * g)

    def sinkhorn_update(self, g: Array, q: Array, epsilon: Scalar) -> Float[Array, " k"]:
        """Returns the dual that moves the mass, at fixed row potentials, into the interval, and no further."""
        free = _log(q) - g / epsilon
        bounded = jnp.clip(free, _log(self.lower), _log(self.upper))
        return jnp.where(self.active, epsilon * (bounded - free), 0.0)

    def error(self, g: Array, q: Array) -> Float[Array, ""]:
        """Returns the mass outside of the interval, plus the mass that a non-zero dual leaves off its bound."""
        outside = jnp.maximum(self.lower - q, 0.0) + jnp.maximum(q - self.upper, 0.0)
        slack = jnp.where(g > 0, q - self.lower, jnp.where(g < 0, self.upper - q, 0.0))
        return jnp.maximum(outside, slack).sum()

    def duality_gap(self, g: Array, q: Array) -> Float[Array, ""]:
        """Returns how far primal and dual are apart at a plan with class masses q, nats."""
        return jnp.abs(jnp.sum(g * q) - self.dual_value(g))

    def residual(self, g: Array, q: Array) -> Float[Array, " k"]:
        """Returns q minus its bound where the bound is active, else the dual itself, which must be zero."""
        bound = jnp.where(g > 0, self.lower, self.upper)
        mean = jnp.where(self._floating(g), g.mean(), 0.0)
        return jnp.where(g != 0, q - bound + mean, g)

    def residual_jacobian(self, h: Array, g: Array) -> Float[Array, "k k"]:
        """Returns the derivative of :meth:`residual` in g."""
        gauge = jnp.where(self._floating(g), 1.0 / g.shape[0], 0.0)
        return jnp.where((g != 0)[:, None], h + gauge, jnp.eye(g.shape[0], dtype=h.dtype))

    def _floating(self, g: Array) -> Array:
        return (g != 0).all()

    def validate(self, k: int) -> None:
        """Raises a ValueError unless some distribution over k classes lies between the bounds."""
        for name, bound in (("lower", self.lower), ("upper", self.upper)):
            if np.shape(bound) != (k,):
                raise ValueError(f"{name} must have shape ({k},), one bound for each class; got {np.shape(bound)}")
        if isinstance(self.lower, jax.core.Tracer) or isinstance(self.upper, jax.core.Tracer):
            return
        lower, upper = np.asarray(self.lower, np.float64), np.asarray(self.upper, np.float64)
        if not (np.isfinite(lower).all() and np.isfinite(upper).all() and (lower >= 0).all()):
            raise ValueError("lower and upper must be finite and not negative")
        if (crossed := np.flatnonzero(lower > upper)).size:
            j = crossed[0]
            raise ValueError(f"lower must not exceed upper, but does at class {j}: {lower[j]:.6g} > {upper[j]:.6g}")
        slack = score_checks.SUM_TOLERANCE
        if lower.sum() > 1 + slack or upper.sum() < 1 - slack:
            raise ValueError(
                "the sum of lower must be at most 1 and that of upper at least 1, "
                f"got {lower.sum():.6g} and {upper.sum():.6g}"
            )

    def astype(self, dtype: jax.typing.DTypeLike) -> "Between":
        """Returns the marginal in another float type."""
        return Between(jnp.asarray(self.lower, dtype), jnp.asarray(self.upper, dtype))


@flax.struct.dataclass
class Near:
    r"""The mass of each class costs ``penalty`` :math:`\cdot \mathrm{KL}(q \| \nu)`: a distribution only half believed.

    As ``penalty`` (nats) grows this becomes :class:`Exactly`; at zero the label distribution is ignored.
    """

    label_distribution: Float[AnyArray, "*batch k"]
    penalty: Float[AnyArray, "*batch"] | float

    @property
    def center(self) -> Array:
        """A typical label distribution, ``(k,)``."""
        return jnp.asarray(self.label_distribution)

    @property
    def active(self) -> Bool[Array, " k"]:
        """The classes that may have mass."""
        return self.center > 0

    def dual_value(self, g: Float[Array, " k"]) -> Float[Array, ""]:
        r"""Returns :math:`-\rho \sum_j \nu_j (e^{-g_j / \rho} - 1)`."""
        return -jnp.sum(self.penalty * self.center * jnp.expm1(-g / self.penalty))

    def sinkhorn_update(self, g: Array, q: Array, epsilon: Scalar) -> Float[Array, " k"]:
        """Returns the dual after one step, then moved by the best constant, which Sinkhorn alone finds slowly."""
        rate = epsilon * self.penalty / (epsilon + self.penalty)
        g = jnp.where(self.active, rate * (_log(self.center) - _log(q) + g / epsilon), 0.0)
        shift = self.penalty * jax.nn.logsumexp(_log(self.center) - g / self.penalty, where=self.active)
        return jnp.where(self.active, g + shift, 0.0)

    def error(self, g: Array, q: Array) -> Float[Array, ""]:
        """Returns the L1 distance of q from the mass that its dual asks for."""
        return jnp.abs(q - self._wanted(g)).sum()

    def duality_gap(self, g: Array, q: Array) -> Float[Array, ""]:
        """Returns how far primal and dual are apart at a plan with class masses q, nats."""
        divergence = jnp.sum(jnp.where(q > 0, q * (_log(q) - _log(self.center)), 0.0)) + self.center.sum() - q.sum()
        return jnp.abs(jnp.sum(g * q) + self.penalty * divergence - self.dual_value(g))

    def residual(self, g: Array, q: Array) -> Float[Array, " k"]:
        """Returns q minus the mass that its dual asks for."""
        return jnp.where(self.active, q - self._wanted(g), g)

    def residual_jacobian(self, h: Array, g: Array) -> Float[Array, "k k"]:
        """Returns the derivative of :meth:`residual` in g."""
        both = self.active[:, None] & self.active
        jacobian = h + jnp.diag(self._wanted(g) / self.penalty)
        return jnp.where(both, jacobian, jnp.eye(g.shape[0], dtype=h.dtype))

    def _wanted(self, g: Array) -> Array:
        return self.center * jnp.exp(-g / self.penalty)

    def validate(self, k: int) -> None:
        """Raises a ValueError unless this is a distribution over k classes with a positive penalty."""
        score_checks.check_label_distribution(self.label_distribution, k)
        if not isinstance(self.penalty, jax.core.Tracer) and not 0 < float(self.penalty) < np.inf:
            raise ValueError(f"penalty must be positive and finite, got {float(self.penalty):.6g}")

    def astype(self, dtype: jax.typing.DTypeLike) -> "Near":
        """Returns the marginal in another float type, its distribution rescaled to sum to one."""
        nu = jnp.asarray(self.label_distribution, dtype)
        return Near(nu / nu.sum(), jnp.asarray(self.penalty, dtype))


Marginal: TypeAlias = Exactly | Between | Near


def as_marginal(label_distribution: AnyArray | Marginal) -> Marginal:
    """Returns the argument if it is a marginal, else ``Exactly`` of it."""
    return label_distribution if isinstance(label_distribution, Marginal) else Exactly(label_distribution)


def _log(mass: AnyArray) -> Array:
    mass = jnp.asarray(mass)
    return jnp.log(jnp.maximum(mass, jnp.finfo(mass.dtype).tiny))
