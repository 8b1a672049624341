"""Confidence by counting in bins: top-label histogram binning and scaling-binning."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from zsml_jax.autolabel.confidence.confidence import usable
from zsml_jax.autolabel.confidence.unfitted import Softmax, log_odds
from zsml_jax.autolabel.outputs import Outputs
from zsml_jax.evaluate.newton import minimize
from zsml_jax.typing import Array, Key


class Bins(NamedTuple):
    """Bins of scores, a pytree; there may be several rows of them, such as one for each class.

    Attributes:
      edges: the upper edge of each bin, ``(rows, bins)``; infinity for the last bin that is used and those after it.
      values: the confidence that stands for each bin, ``(rows, bins)``.
      used: how many bins a row has, ``(rows,)``; scores of a row without bins stay as they are.
    """

    edges: Float[Array, "rows bins"]
    values: Float[Array, "rows bins"]
    used: Int[Array, " rows"]

    def look_up(self, scores: Float[Array, " n"], row: Int[Array, " n"]) -> Float[Array, " n"]:
        """Returns the value of the bin that each score falls into, upper edges included."""
        place = jax.vmap(functools.partial(jnp.searchsorted, side="left"))(self.edges[row], scores)
        place = jnp.minimum(place, jnp.maximum(self.used[row] - 1, 0))
        return jnp.where(self.used[row] > 0, self.values[row, place], scores)


@functools.partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["points_per_bin"])
@dataclasses.dataclass(frozen=True)
class TopLabelHistogram:
    """Top-label histogram binning (Gupta and Ramdas, 2022, algorithm 4).

    The points that are predicted as one class are put into bins of equal mass by their softmax probability, and the
    share of right ones in a bin is the confidence of what falls into it. A class with fewer points than a bin needs
    keeps its softmax.

    Attributes:
      points_per_bin: the least number of points of a bin.
    """

    points_per_bin: int = 25

    def __post_init__(self):
        if self.points_per_bin < 1:
            raise ValueError(f"points_per_bin must be at least 1, got {self.points_per_bin}")

    def fit(self, outputs: Outputs, labels: Int[Array, " n"], *, weights: Float[Array, " n"], key: Key) -> Bins:
        """Counts; weights are taken as 0 or 1."""
        del key
        k = outputs.logits.shape[1]
        weights = (usable(weights) > 0).astype(outputs.logits.dtype)
        scores, correct = Softmax().score((), outputs), (outputs.predicted == labels).astype(weights.dtype)
        most = max(len(labels) // self.points_per_bin, 1)
        counts = jax.ops.segment_sum(weights, outputs.predicted, k).astype(int)
        return equal_mass(scores, outputs.predicted, correct, weights, counts // self.points_per_bin, most)

    def score(self, fitted: Bins, outputs: Outputs) -> Float[Array, " n"]:
        """Returns the share of right points in the bin of each point, in [0, 1]."""
        return fitted.look_up(Softmax().score((), outputs), outputs.predicted)


class PlattBins(NamedTuple):
    """A fitted scaling-binning, a pytree: the scale and the bias of the log-odds, and the bins after it."""

    scale: Float[Array, ""]
    bias: Float[Array, ""]
    bins: Bins


@functools.partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["bins"])
@dataclasses.dataclass(frozen=True)
class ScalingBinning:
    """The scaling-binning calibrator (Kumar, Liang and Ma, 2019, section 4).

    Of three random thirds of the points, the first fits Platt's sigmoid on the log-odds of the predicted class, the
    second makes bins of equal mass of its values, and the third says what the mean of those values is in each bin.

    Attributes:
      bins: the number of bins.
    """

    bins: int = 15

    def __post_init__(self):
        if self.bins < 1:
            raise ValueError(f"bins must be at least 1, got {self.bins}")

    def fit(self, outputs: Outputs, labels: Int[Array, " n"], *, weights: Float[Array, " n"], key: Key) -> PlattBins:
        """Fits on three disjoint thirds of the points that count."""
        weights = usable(weights)
        order = jnp.argsort(jnp.where(weights > 0, jax.random.uniform(key, weights.shape), jnp.inf))
        rank = jnp.zeros(len(weights), int).at[order].set(jnp.arange(len(weights)))
        third = rank * 3 // jnp.maximum((weights > 0).sum(), 1)
        parts = [usable(jnp.where(third == i, weights, 0.0)) for i in range(3)]
        correct = (outputs.predicted == labels).astype(weights.dtype)
        odds = log_odds(outputs.logits, outputs.predicted)
        scale, bias = platt(odds, correct, parts[0])
        values = jax.nn.sigmoid(scale * odds + bias)
        row = jnp.zeros(len(labels), int)
        wanted = jnp.minimum(self.bins, (parts[1] > 0).sum())[None]
        edges = equal_mass(values, row, values, (parts[1] > 0).astype(values.dtype), wanted, self.bins)
        place = jnp.minimum(jnp.searchsorted(edges.edges[0], values, side="left"), self.bins - 1)
        mass = jax.ops.segment_sum(parts[2], place, self.bins)
        mean = jax.ops.segment_sum(parts[2] * values, place, self.bins) / jnp.where(mass > 0, mass, 1)
        # A bin that no point of the last third fell into keeps the mean of the second third.
        return PlattBins(scale, bias, edges._replace(values=jnp.where(mass > 0, mean, edges.values)))

    def score(self, fitted: PlattBins, outputs: Outputs) -> Float[Array, " n"]:
        """Returns the mean probability of each point's bin."""
        odds = log_odds(outputs.logits, outputs.predicted)
        values = jax.nn.sigmoid(fitted.scale * odds + fitted.bias)
        return fitted.bins.look_up(values, jnp.zeros(len(values), int))


def equal_mass(
    scores: Float[Array, " n"],
    row: Int[Array, " n"],
    targets: Float[Array, " n"],
    weights: Float[Array, " n"],
    wanted: Int[Array, " rows"],
    most: int,
) -> Bins:
    """Makes bins of equal mass within each row; the first bins are one point larger where the mass does not divide.

    Args:
      scores: what is put into bins.
      row: which row of bins each point belongs to.
      targets: what is averaged in each bin.
      weights: 1 for points that count, 0 for others.
      wanted: the number of bins of each row; a row of 0 stays without.
      most: the largest number of bins of any row.
    """
    rows = len(wanted)
    group = jnp.where(weights > 0, row, rows)
    order = jnp.lexsort((scores, group))
    group, score, target = group[order], scores[order], targets[order]
    first = jnp.searchsorted(group, jnp.arange(rows + 1), side="left")
    rank, count = jnp.arange(len(scores)) - first[group], jnp.diff(jnp.append(first, len(scores)))
    used = jnp.minimum(wanted, most)
    small, larger = jnp.divmod(count[:rows], jnp.maximum(used, 1))
    small, larger = jnp.append(small, 1)[group], jnp.append(larger, 0)[group]
    early = rank < larger * (small + 1)
    place = jnp.where(early, rank // (small + 1), larger + (rank - larger * (small + 1)) // jnp.maximum(small, 1))
    binned = (group < rows) & (jnp.append(used, 0)[group] > 0)
    cell = jnp.where(binned, group * most + jnp.clip(place, 0, most - 1), rows * most)
    total = jax.ops.segment_sum(jnp.ones_like(score), cell, rows * most + 1)[:-1]
    mean = jax.ops.segment_sum(target, cell, rows * most + 1)[:-1] / jnp.maximum(total, 1)
    highest = jax.ops.segment_max(score, cell, rows * most + 1)[:-1].reshape(rows, most)
    open_ended = jnp.arange(most) >= used[:, None] - 1
    return Bins(jnp.where(open_ended, jnp.inf, highest), mean.reshape(rows, most), used)


@jax.default_matmul_precision("highest")
def platt(
    odds: Float[Array, " n"], correct: Float[Array, " n"], weights: Float[Array, " n"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns the scale and the bias of the sigmoid of least negative log-likelihood (Platt, 1999).

    Targets are drawn in by his rule, ``(hits + 1) / (hits + 2)`` and ``1 / (misses + 2)``, so that separable points
    have a finite fit.

    Args:
      odds: the scores.
      correct: 1 for right points, 0 for wrong ones.
      weights: of the points, summing to one.
    """
    present = weights > 0
    hits, misses = (present * correct).sum(), (present * (1 - correct)).sum()
    target = jnp.where(correct > 0, (hits + 1) / (hits + 2), 1 / (misses + 2))
    x = jnp.stack([odds, jnp.ones_like(odds)], axis=1)

    def loss(a: Array) -> tuple[Array, Array, Array]:
        z = x @ a
        value = (weights * (jax.nn.softplus(z) - target * z)).sum()
        p = jax.nn.sigmoid(z)
        return value, x.T @ (weights * (p - target)), (x * (weights * p * (1 - p))[:, None]).T @ x

    fitted = minimize(
        loss, jnp.array([1.0, 0.0], odds.dtype), tolerance=jnp.asarray(1e-5), max_iterations=100, max_step=5.0
    )
    return fitted.x[0], fitted.x[1]
