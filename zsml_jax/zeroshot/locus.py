r"""Which classes Loki can predict from a set of observed ones, and which to observe next.

The locus of observed classes :math:`\Lambda` is
:math:`\Pi(\Lambda) = \bigcup_w \arg\min_y \sum_i w_i d^2(y, \lambda_i)` over all weights w of the simplex (Roberts et
al., 2023, section 4). The paper's generic algorithm B.3 tries a grid of weights, exponential in the number of observed
classes, and grids of step 1/diameter miss reachable classes. Membership is a small linear programme instead:

.. math:: y \in \Pi(\Lambda) \iff \max_w \min_{y' \ne y} \sum_i w_i [d^2(y', \lambda_i) - d^2(y, \lambda_i)] \ge 0,

and y is identified, that is the unique minimiser for some weights, where the maximum is positive. On a tree whose
nodes are all classes the locus is the Steiner tree of the observed nodes (lemma A.5); lemma A.7, which says the like
of pairs in trees whose classes are leaves, is false, and the linear programme is used there.
"""

import itertools
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import scipy.optimize
from jaxtyping import Float

from zsml_jax.zeroshot.metric_base import Metric
from zsml_jax.zeroshot.metric_space import TreeMetric

_TOLERANCE = 1e-7  # of squared distances, relative to the largest


def locus(metric: Metric, observed: Iterable[Hashable]) -> frozenset[Hashable]:
    """Returns the classes that are a weighted Frechet mean of the observed ones.

    Args:
      metric: the metric over all classes.
      observed: ids of the observed classes.

    Returns:
      The class ids of the locus: by the Steiner tree where all nodes of a tree are classes, else one linear programme
      for each class, exact up to 1e-7 of the largest squared distance.

    Raises:
      ValueError: if an id is unknown, or none is given.
    """
    chosen = _indices(metric, observed)
    if isinstance(metric, TreeMetric) and metric.all_nodes:
        return frozenset(metric.classes[i] for i in metric.steiner_tree(chosen))
    margins = reachability(metric, observed)
    return frozenset(name for name, margin in zip(metric.classes, margins, strict=True) if margin >= -_TOLERANCE)


def is_identifying(metric: Metric, observed: Iterable[Hashable]) -> bool:
    """Returns whether every class is the only Frechet mean for some weights of the observed classes."""
    return bool((reachability(metric, observed) > _TOLERANCE).all())


def is_cover(metric: Metric, observed: Iterable[Hashable]) -> bool:
    """Returns whether every class is in the locus of the observed ones."""
    return len(locus(metric, observed)) == len(metric.classes)


def reachability(metric: Metric, observed: Iterable[Hashable]) -> Float[np.ndarray, " k"]:
    """Returns by how much each class can be made better than all others: the value of its linear programme.

    Args:
      metric: the metric over all classes.
      observed: ids of the observed classes.

    Returns:
      ``(k,)``, in units of the largest squared distance: negative outside of the locus, positive where identified.
    """
    costs = _squared_distances(metric, _indices(metric, observed))
    return np.array([_largest_margin(costs, y) for y in range(len(costs))])


def pairwise_locus(metric: Metric, observed: Iterable[Hashable]) -> frozenset[Hashable]:
    """Returns the union of the loci of all pairs of observed classes; a subset of :func:`locus`, and often all of it.

    Exact: for a pair the cost of each class is linear in the weight, so that its locus is the lower envelope of k
    lines (in place of algorithm B.2's grid of weights).
    """
    costs = _squared_distances(metric, _indices(metric, observed))
    reached = np.zeros(len(costs), bool)
    for i, j in itertools.combinations(range(costs.shape[1]), 2):
        reached |= _on_lower_envelope(costs[:, i], costs[:, j])
    reached |= (costs <= _TOLERANCE).any(axis=1)
    return frozenset(metric.classes[y] for y in np.flatnonzero(reached))


def next_class(metric: Metric, observed: Iterable[Hashable]) -> Hashable:
    """Returns the class to observe next: the one farthest from the locus (theorem 4.8 on trees).

    Args:
      metric: the metric over all classes.
      observed: ids of the observed classes.

    Returns:
      A class id outside of the locus; the first in the order of the classes on ties.

    Raises:
      ValueError: if the locus already holds every class.
    """
    inside = metric.class_ids.indices(list(locus(metric, observed)), "observed")
    if len(inside) == len(metric.classes):
        raise ValueError("the observed classes already reach every class; there is none to observe next")
    return metric.classes[int(np.argmax(_distance_to_set(metric, np.sort(inside))))]


def minimum_tree_cover(metric: TreeMetric) -> tuple[Hashable, ...]:
    """Returns the leaves of a tree whose nodes are all classes: its only minimum cover (lemma A.4).

    Raises:
      ValueError: if only some nodes are classes.
    """
    if not metric.all_nodes:
        raise ValueError("the leaves cover a tree only if all its nodes are classes; see greedy_leaf_cover")
    return tuple(metric.classes[i] for i in metric.leaves())


def minimum_grid_cover(shape: Sequence[int], *, identifying: bool = False) -> tuple[tuple[int, ...], ...]:
    """Returns corners of a city-block grid that reach every point (lemmas A.8 to A.10).

    Args:
      shape: the number of points along each axis.
      identifying: whether every point must be the only minimiser for some weights. Two opposite corners reach every
        point of a grid; all corners identify them.

    Returns:
      Class ids of :func:`.metric_space.grid_metric`.
    """
    ends = [sorted({0, size - 1}) for size in shape]
    if identifying:
        return tuple(itertools.product(*ends))
    return tuple(dict.fromkeys((tuple(end[0] for end in ends), tuple(end[-1] for end in ends))))


def greedy_leaf_cover(metric: Metric) -> tuple[Hashable, ...]:
    """Returns a cover of classes that are the leaves of a tree (algorithm B.1), pruned to what it needs.

    Pairs of classes are added from the farthest on until the locus, found exactly, holds all classes; then every class
    that the cover can do without is dropped, the last added first. The paper's own check relies on lemma A.7, which is
    false, so that it may add more than needed; this one is minimal, if not minimum.
    """
    k = len(metric.classes)
    distances = np.asarray(metric.distances(np.arange(k)[:, None], np.arange(k)[None, :]))
    first, second = np.triu_indices(k, 1)
    order = np.argsort(-distances[first, second], kind="stable")
    cover: dict[Hashable, None] = {}
    for pair in order:
        ends = [metric.classes[first[pair]], metric.classes[second[pair]]]
        if set(ends) <= cover.keys():
            continue
        cover.update(dict.fromkeys(ends))
        if is_cover(metric, cover):
            break
    for name in reversed(list(cover)):
        rest = [other for other in cover if other != name]
        if rest and is_cover(metric, rest):
            del cover[name]
    return tuple(cover)


def _indices(metric: Metric, observed: Iterable[Hashable]) -> np.ndarray:
    chosen = np.unique(metric.class_ids.indices(list(observed), "observed"))
    if not len(chosen):
        raise ValueError("observed must name at least one class")
    return chosen


def _squared_distances(metric: Metric, observed: np.ndarray) -> np.ndarray:
    k = len(metric.classes)
    squared = np.asarray(metric.distances(np.arange(k)[:, None], observed[None, :]), np.float64) ** 2
    return squared / max(squared.max(), np.finfo(float).tiny)


def _largest_margin(costs: np.ndarray, y: int) -> float:
    """Returns ``max_w min_{y'} sum_i w_i (costs[y', i] - costs[y, i])``, infinity if y is the only class."""
    others = np.delete(costs, y, axis=0) - costs[y]
    if not len(others):
        return np.inf
    m = costs.shape[1]
    result = scipy.optimize.linprog(
        np.append(np.zeros(m), -1.0),
        A_ub=np.hstack([-others, np.ones((len(others), 1))]),
        b_ub=np.zeros(len(others)),
        A_eq=np.append(np.ones(m), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, None)] * m + [(None, None)],
        method="highs",
    )
    if not result.success:
        raise RuntimeError(f"the linear programme of class {y} failed: {result.message}")
    return float(-result.fun)


def _on_lower_envelope(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns which of the lines ``(1 - s) a + s b`` are least, ties counted, for some s between 0 and 1."""
    reached = np.zeros(len(a), bool)
    for y in range(len(a)):
        # y must be at most each other line: gap + s * slope >= 0.
        gap, slope = a - a[y] + _TOLERANCE, (b - a) - (b[y] - a[y])
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = -gap / slope
        low = crossing[slope > 0].max(initial=0.0)
        high = crossing[slope < 0].min(initial=1.0)
        reached[y] = low <= high and (gap[slope == 0] >= 0).all()
    return reached


def _distance_to_set(metric: Metric, inside: np.ndarray) -> np.ndarray:
    if isinstance(metric, TreeMetric):
        return metric.distances_to_set(inside)
    k = len(metric.classes)
    return np.asarray(metric.distances(np.arange(k)[:, None], inside[None, :])).min(axis=1)
