"""What a run of threshold-based auto-labelling knows between two rounds."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Bool, Float, Int

from zsml_jax.autolabel.config import Config
from zsml_jax.typing import AnyArray, Array, Key, PyTree


class Audit(NamedTuple):
    """What labelled points that nothing was fitted on say of the auto-labels.

    Attributes:
      errors: audit points that were labelled wrongly.
      count: audit points that were labelled.
      upper: the 95 % Clopper-Pearson upper bound of the error; 1 without any.
    """

    errors: int
    count: int
    upper: float


class TBALState(NamedTuple):
    """A run between two rounds, a pytree and one checkpoint.

    Attributes:
      key: the run's random key.
      round: rounds done.
      held: the points with roles, ``(n_held,)``, in the order of :class:`.Roles`.
      known: the label of each point as far as it was told, ``(n,)``; -1 where it was not.
      order: the points that are trained on, in the order they came, ``(budget,)``.
      count: how many those are.
      asked: the points whose labels are wanted now, ``(m,)``; -1 for none.
      labels: the auto-label of each point, ``(n,)``; -1 without. Points with roles have one where the rule gave it.
      labelled_in: the round of the auto-label, ``(n,)``; -1 without.
      scores: the confidence of the auto-label, ``(n,)``; 0 without.
      thresholds: of each round and class, ``(rounds, k)``; infinity before it and where there was none.
      bounds: the upper bound of the error above each, ``(rounds, k)``, see :class:`.Thresholds`.
      params: the last classifier.
      fitted: the last confidence function.
    """

    key: Key
    round: Int[Array, "*batch"]
    held: Int[Array, "*batch n_held"]
    known: Int[Array, "*batch n"]
    order: Int[Array, "*batch budget"]
    count: Int[Array, "*batch"]
    asked: Int[Array, "*batch m"]
    labels: Int[Array, "*batch n"]
    labelled_in: Int[Array, "*batch n"]
    scores: Float[Array, "*batch n"]
    thresholds: Float[Array, "*batch rounds k"]
    bounds: Float[Array, "*batch rounds k"]
    params: PyTree
    fitted: PyTree

    @property
    def in_pool(self) -> Bool[Array, "*batch n"]:
        """The points without roles, ``(n,)``: those that are to be labelled, by a human or automatically."""
        flag = lambda held, known: jnp.ones(known.shape, bool).at[held].set(False)
        for _ in range(self.held.ndim - 1):
            flag = jax.vmap(flag)
        return flag(self.held, self.known)

    @property
    def auto_mask(self) -> Bool[Array, "*batch n"]:
        """The points of the pool that were labelled automatically, ``(n,)``."""
        return self.in_pool & (self.labels >= 0)

    @property
    def auto_labels(self) -> Int[Array, "*batch n"]:
        """Their labels, ``(n,)``; -1 for all others."""
        return jnp.where(self.auto_mask, self.labels, -1)

    @property
    def coverage(self) -> Float[Array, "*batch"]:
        """The share of the pool that was labelled automatically; what a human labelled counts against it."""
        return self.auto_mask.sum(-1) / self.in_pool.sum(-1)

    @property
    def diverged(self) -> Bool[Array, "*batch"]:
        """Whether the last classifier's parameters are not finite."""
        finite = jnp.ones(self.round.shape, bool)
        for leaf in jax.tree.leaves(self.params):
            finite &= jnp.isfinite(leaf).all(axis=tuple(range(self.round.ndim, leaf.ndim)))
        return ~finite

    @property
    def spent(self) -> Int[Array, "*batch"]:
        """How many labels were told."""
        return (self.known >= 0).sum(-1)

    def error(self, labels: Int[AnyArray, " n"]) -> Float[Array, "*batch"]:
        """Returns the share of wrong auto-labels, for who knows all ``labels``; 0 without any auto-label."""
        wrong = (self.auto_mask & (self.labels != jnp.asarray(labels))).sum(-1)
        return wrong / jnp.maximum(self.auto_mask.sum(-1), 1)

    def audit(self, config: Config) -> Audit:
        """Returns what the audit points say of the error, without anyone else's labels."""
        rows = np.asarray(self.held)[config.roles.total - config.roles.audit :]
        given, known = np.asarray(self.labels)[rows], np.asarray(self.known)[rows]
        count, errors = int((given >= 0).sum()), int(((given >= 0) & (given != known)).sum())
        upper = 1.0 if errors == count else float(scipy.stats.beta.ppf(0.95, errors + 1, count - errors))
        return Audit(errors, count, upper)
