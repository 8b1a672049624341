r"""GOGGLES: classes inferred from affinities (Das et al., SIGMOD 2020), as published and as the benchmark ran it.

Each affinity matrix holds how alike n examples are to p anchors. A base model, a Gaussian mixture of k components with
diagonal covariance, turns each matrix into k responsibilities; their one-hot maxima, of all matrices side by side, go
into a mixture of Bernoullis, whose responsibilities are the posterior.

* ``"clamped"`` is the published algorithm: in every E-step the labelled examples keep their class, in both kinds of
  model, so that components are classes from the start.
* ``"unclamped"`` is what AutoWS-Bench-101 ran: both kinds of model see the labelled examples only, without their
labels,
  begin with k-means, and are matched with the classes once, by the labels.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from optax import assignment

from zsml_jax.typing import AnyArray, Array, Key
from zsml_jax.weaksup import kmeans, mixtures
from zsml_jax.weaksup.mixtures import Bernoullis, Gaussians
from zsml_jax.weaksup.partly_labelled import labelled_rows


@dataclasses.dataclass(frozen=True)
class Config:
    """What is static in GOGGLES.

    Attributes:
      variant: the published algorithm, or the benchmark's.
      steps: EM steps of each mixture.
      restarts: of k-means, where it is used.
    """

    variant: Literal["clamped", "unclamped"] = "clamped"
    steps: int = 100
    restarts: int = 10

    def __post_init__(self):
        if self.variant not in ("clamped", "unclamped"):
            raise ValueError(f"variant must be 'clamped' or 'unclamped', got {self.variant!r}")
        if self.steps < 1 or self.restarts < 1:
            raise ValueError(f"steps and restarts must be at least 1, got {self.steps} and {self.restarts}")


class GogglesOutput(NamedTuple):
    """A fitted GOGGLES, a pytree.

    Attributes:
      bases: one Gaussian mixture for each affinity matrix, stacked; component i is class i.
      ensemble: the mixture over their one-hot maxima.
      converged: whether all mixtures met their tolerance.
    """

    bases: Gaussians
    ensemble: Bernoullis
    converged: Bool[Array, ""]

    def posterior(self, affinities: Float[AnyArray, "a n p"]) -> Float[Array, "n k"]:
        """Returns the probability of each class, for the fitted examples and for others.

        Raises:
          ValueError: if the affinities are not to the anchors of the fit.
        """
        expected = (self.bases.means.shape[0], self.bases.means.shape[2])
        shape = np.shape(affinities)
        if len(shape) != 3 or (shape[0], shape[2]) != expected:
            raise ValueError(f"affinities must have shape ({expected[0]}, n, {expected[1]}), got shape {shape}")
        return _posterior(self, jnp.asarray(affinities, jnp.float32))


def fit(
    affinities: Float[AnyArray, "a n p"], labels: Int[AnyArray, " n"], config: Config | None = None, *, key: Key
) -> GogglesOutput:
    """Fits the mixtures.

    Args:
      affinities: of each of n examples to each of p anchors, by each of a affinity functions (:mod:`.affinity`).
      labels: class indices, and -1 for the examples without a label. They decide shapes, and cannot be traced.
      config: what is static.
      key: the random key of k-means, which the clamped variant does not need.

    Raises:
      ValueError: if affinities or labels are not sound, or a class has no label.
    """
    config = config or Config()
    shape = np.shape(affinities)
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"affinities must have shape (a, n, p), none of them zero, got shape {shape}")
    if not isinstance(affinities, jax.core.Tracer) and not np.isfinite(affinities).all():
        raise ValueError("affinities must be finite")
    rows, truth, k = labelled_rows(labels, shape[1])
    return _fit(jnp.asarray(affinities, jnp.float32), rows, truth, key, k=k, config=config)


@functools.partial(jax.jit, static_argnames=("k", "config"))
def _fit(affinities: Array, rows: Array, labels: Array, key: Key, *, k: int, config: Config) -> GogglesOutput:
    base_key, ensemble_key = jax.random.split(key)
    classes = jax.nn.one_hot(labels, k)
    if config.variant == "clamped":
        clamped = jnp.zeros(affinities.shape[1], bool).at[rows].set(True)
        start = jnp.full((affinities.shape[1], k), 1 / k).at[rows].set(classes)
        # The first components are those of the labelled examples alone.
        weighted = jnp.where(clamped[:, None], start, 1e-6)
        base = lambda x: mixtures.fit_gaussians(x, _begin(x, weighted, start, clamped), clamped=clamped,
                                                steps=config.steps)  # fmt: skip
        fits = jax.lax.map(base, affinities)
        stacked = _one_hot_maxima(fits.mixture, affinities)
        ensemble = mixtures.fit_bernoullis(stacked, start, clamped=clamped, steps=config.steps)
    else:
        affinities = affinities[:, rows]
        free = jnp.zeros(len(labels), bool)

        def base(each: tuple[Array, Key]) -> mixtures.MixtureFit:
            x, key = each
            start = kmeans.assignments(x, k, key=key, restarts=config.restarts)
            found = mixtures.fit_gaussians(x, start, clamped=free, steps=config.steps)
            order = matching(found.responsibilities, classes)
            return found._replace(mixture=jax.tree.map(lambda leaf: leaf[order], found.mixture))

        fits = jax.lax.map(base, (affinities, jax.random.split(base_key, affinities.shape[0])))
        stacked = _one_hot_maxima(fits.mixture, affinities)
        start = kmeans.assignments(stacked, k, key=ensemble_key, restarts=config.restarts)
        ensemble = mixtures.fit_bernoullis(stacked, start, clamped=free, steps=config.steps)
        order = matching(ensemble.responsibilities, classes)
        ensemble = ensemble._replace(mixture=jax.tree.map(lambda leaf: leaf[order], ensemble.mixture))
    mixture: Any = ensemble.mixture
    return GogglesOutput(fits.mixture, mixture, fits.converged.all() & ensemble.converged)


def matching(responsibilities: Float[Array, "n k"], classes: Float[Array, "n k"]) -> Int[Array, " k"]:
    """Returns the component of each class: the one-to-one map under which most labelled examples are right."""
    together = jnp.dot(classes.T, responsibilities, precision="highest")
    of_class, component = assignment.hungarian_algorithm(-together)
    return jnp.zeros_like(component).at[of_class].set(component)


def _begin(x: Array, weighted: Array, start: Array, clamped: Array) -> Array:
    labelled_only = mixtures.fit_gaussians(x, weighted, clamped=jnp.ones_like(clamped), steps=1, floor=1e-3).mixture
    free = jax.nn.softmax(labelled_only.log_joint(x), axis=1)
    return jnp.where(clamped[:, None], start, free)


def _one_hot_maxima(bases: Gaussians, affinities: Array) -> Array:
    """The most probable component by each base model, one-hot, side by side, ``(n, a k)``."""
    joint = jax.vmap(lambda base, x: base.log_joint(x))(bases, affinities)
    one_hot = jax.nn.one_hot(jnp.argmax(joint, axis=-1), joint.shape[-1])
    return jnp.moveaxis(one_hot, 0, 1).reshape(joint.shape[1], -1)


@jax.jit
def _posterior(fitted: GogglesOutput, affinities: Array) -> Array:
    return jax.nn.softmax(fitted.ensemble.log_joint(_one_hot_maxima(fitted.bases, affinities)), axis=1)
