"""The spaces that a parameter can live in, as typed pytrees with one interface: what optimizers and products ask for.

A space knows nothing of how many points there are. Its curvature is data: it may be traced, learned and vmapped. All
offer ``project``, ``gradient`` (the Riemannian one by the Euclidean), ``squares`` (what Adam averages), ``length``,
``exp`` and ``transport``.
"""

from typing import TypeAlias

import flax.struct
import jax.numpy as jnp
from jaxtyping import Float

from zsml_jax.curvature import ambient, stereographic
from zsml_jax.typing import Array, Scalar


class Euclidean(flax.struct.PyTreeNode):
    """Plain parameters: weights, biases, logits."""

    def project(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns x."""
        return x

    def gradient(self, x: Float[Array, "..."], gradient: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns the gradient."""
        return gradient

    def squares(self, x: Float[Array, "..."], v: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns the squared entries."""
        return v**2

    def length(self, x: Float[Array, "..."], v: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns the length along the last axis, kept; of a number, its absolute value."""
        return jnp.abs(v) if v.ndim == 0 else jnp.linalg.norm(v, axis=-1, keepdims=True)

    def exp(self, x: Float[Array, "..."], v: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns the sum."""
        return x + v

    def transport(self, x: Float[Array, "..."], y: Float[Array, "..."], v: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns v."""
        return v


class Ambient(flax.struct.PyTreeNode):
    """Hyperboloid, Euclidean space or sphere in ambient coordinates, see :mod:`.ambient`.

    Attributes:
      sign: the sign of the curvature, which broadcasts against the points' leading axes.
    """

    sign: Scalar

    def project(self, x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """Returns the points put onto the space."""
        return ambient.project(x, self.sign)

    def gradient(self, x: Float[Array, "*n d"], gradient: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """Returns the Riemannian gradient."""
        return ambient.riemannian_gradient(x, gradient, self.sign)

    def squares(self, x: Float[Array, "*n d"], v: Float[Array, "*n d"]) -> Float[Array, "*n 1"]:
        """Returns the squared length, which does not depend on the choice of axes."""
        return ambient.squared_length(x, v, self.sign)[..., None]

    def length(self, x: Float[Array, "*n d"], v: Float[Array, "*n d"]) -> Float[Array, "*n 1"]:
        """Returns the length."""
        return jnp.sqrt(self.squares(x, v))

    def exp(self, x: Float[Array, "*n d"], v: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """Returns the exponential map, put onto the space again."""
        return ambient.exp(x, v, self.sign)

    def transport(
        self, x: Float[Array, "*n d"], y: Float[Array, "*n d"], v: Float[Array, "*n d"]
    ) -> Float[Array, "*n d"]:
        """Returns the parallel transport, its rounding off the tangent space removed."""
        return ambient.tangent(y, ambient.transport(x, y, v, self.sign), self.sign)


class Stereographic(flax.struct.PyTreeNode):
    """The space of any curvature, see :mod:`.stereographic`.

    Attributes:
      kappa: the curvature, which broadcasts against the points' leading axes.
    """

    kappa: Scalar

    def project(self, x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """Returns the points, drawn back into the ball if need be."""
        return stereographic.project(x, self.kappa)

    def gradient(self, x: Float[Array, "*n d"], gradient: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """Returns the Riemannian gradient."""
        return stereographic.riemannian_gradient(x, gradient, self.kappa)

    def squares(self, x: Float[Array, "*n d"], v: Float[Array, "*n d"]) -> Float[Array, "*n 1"]:
        """Returns the squared length in the metric at x."""
        factor = stereographic.conformal_factor(x, self.kappa)
        return (factor**2 * jnp.sum(v**2, axis=-1))[..., None]

    def length(self, x: Float[Array, "*n d"], v: Float[Array, "*n d"]) -> Float[Array, "*n 1"]:
        """Returns the length in the metric at x."""
        return jnp.sqrt(self.squares(x, v))

    def exp(self, x: Float[Array, "*n d"], v: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """Returns the exponential map, kept off the boundary of the ball."""
        return stereographic.project(stereographic.exp(x, v, self.kappa), self.kappa)

    def transport(
        self, x: Float[Array, "*n d"], y: Float[Array, "*n d"], v: Float[Array, "*n d"]
    ) -> Float[Array, "*n d"]:
        """Returns the parallel transport."""
        return stereographic.transport(x, y, v, self.kappa)


Space: TypeAlias = Euclidean | Ambient | Stereographic


def is_space(value: object) -> bool:
    """Whether something is a space, as ``is_leaf`` of a tree of spaces asks."""
    return isinstance(value, Space)
