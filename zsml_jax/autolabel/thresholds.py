r"""Thresholds of auto-labelling: above which score, class by class, predictions may stand as labels.

Vishwakarma, Lin, Sala and Vinayak, "Promises and Pitfalls of Threshold-based Auto-labeling", NeurIPS 2023, and
Vishwakarma et al., "Pearls from Pebbles", NeurIPS 2024, algorithm 2. Of the labelled points that are predicted as class
y, let :math:`n_t` be those with a score of at least t and :math:`e_t` their share of errors. The threshold of y is the
smallest candidate t that is admissible, infinity if none is. With ``error`` as :math:`\epsilon`, t is admissible by

* ``sigma``: :math:`n_t > n_0` and :math:`e_t + C \sqrt{e_t (1 - e_t)} \le \epsilon`, the papers' rule;
* ``hoeffding``: :math:`n_t > n_0` and :math:`e_t + C / \sqrt{n_t} \le \epsilon`, their other rule;
* ``none``: :math:`n_t > n_0` and :math:`e_t \le \epsilon`;
* ``certified``: it and all stricter candidates reject "the error above t exceeds epsilon" at level
  :math:`\delta / (\text{classes} \cdot \text{looks})`, by the exact binomial (Clopper-Pearson) test.

The first three guarantee nothing: the deviation of ``sigma`` does not shrink with n and is zero where no error was
seen, and the smallest of many candidates is taken without a correction. Fixed-sequence testing (Angelopoulos et al.,
"Learn then Test", 2021, section 2.4) goes from the strictest threshold down and stops at the first failure, so that it
pays for one test and not for all candidates; classes and looks are paid for by a union bound. With candidates that were
fixed before the labels were seen, such as scores of unlabelled points, the certified error of every class is then at
most epsilon with probability :math:`1 - \delta`. With the scores of the labelled points themselves as candidates, which
is the default, the same holds where the error does not fall as the threshold falls. This error is the probability that
an auto-label is wrong; the share of wrong ones among m auto-labels scatters around it by
:math:`\sqrt{\epsilon (1 - \epsilon) / m}`, which is little where the pool is much larger than the labelled set.
"""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from zsml_jax.evaluate.score_checks import checked_scalar
from zsml_jax.evaluate.validation import check_indices, is_traced
from zsml_jax.typing import AnyArray, Array, Scalar

#: How a threshold is admitted.
Method = Literal["certified", "sigma", "hoeffding", "none"]

#: Up to this count the binomial test is exact; beyond it float32 could not tell its terms apart.
_LARGEST_EXACT = 4096


class Thresholds(NamedTuple):
    """What was estimated, a pytree.

    Attributes:
      values: the least score of an auto-label of each class, ``(k,)``; infinity where nothing is admissible.
      counts: labelled points of the class at or above it, ``(k,)``.
      errors: how many of those are wrong, ``(k,)``.
      bound: an upper bound of the error above it that holds with probability ``1 - failure / (classes * looks)`` for
        the threshold as if it had been fixed, ``(k,)``; 1 where nothing is admissible.
    """

    values: Float[Array, "*batch k"]
    counts: Int[Array, "*batch k"]
    errors: Int[Array, "*batch k"]
    bound: Float[Array, "*batch k"]

    def accepts(self, scores: Float[AnyArray, " n"], predicted: Int[AnyArray, " n"]) -> Bool[Array, " n"]:
        """Returns which points are labelled by their predicted class; none whose class has no threshold here."""
        values = self.values.at[jnp.asarray(predicted)].get(mode="fill", fill_value=jnp.inf)
        return (jnp.asarray(scores) >= values) & (values < jnp.inf)


def estimate(
    scores: Float[AnyArray, " n"],
    predicted: Int[AnyArray, " n"],
    correct: Bool[AnyArray, " n"],
    *,
    error: Scalar,
    n_classes: int | None = None,
    method: Method = "certified",
    weights: Bool[AnyArray, " n"] | None = None,
    candidates: Float[AnyArray, " m"] | None = None,
    failure: Scalar = 0.1,
    looks: Scalar = 1,
    deviations: Scalar = 0.25,
    min_count: Scalar = 10,
    shared: bool = False,
) -> Thresholds:
    """Estimates the threshold of each class from labelled points, in one sort.

    >>> import numpy as np
    >>> right = np.array([False, True, True, True])
    >>> found = estimate(np.array([0.2, 0.4, 0.6, 0.8]), np.zeros(4, int), right, error=0.0, n_classes=1,
    ...                  method="none", min_count=0)
    >>> found.values.tolist(), found.counts.tolist()
    ([0.4000000059604645], [3])

    Args:
      scores: the confidence of each labelled point in its predicted class, ``(n,)``; a large one is sure.
      predicted: the predicted classes, ``(n,)``.
      correct: whether they are right, ``(n,)``.
      error: the largest error of auto-labels, epsilon, in [0, 1].
      n_classes: the number of classes k; if None, as many as ``predicted`` shows, whose values must be known then. A
        class that is not predicted here would get no threshold anyway, but counts in the correction of ``certified``.
      method: how a threshold is admitted, as above.
      weights: which points count, ``(n,)``; all if None. It lets rows of one shape stand for sets of any size.
      candidates: the thresholds to choose from, ``(m,)``, for all classes; the scores of all counted points if None.
      failure: the probability delta of exceeding ``error`` somewhere, of ``certified``.
      looks: how often thresholds are estimated, the rounds of a run: ``failure`` is divided by it.
      deviations: the constant C of ``sigma`` and ``hoeffding``.
      min_count: the number of points that must be exceeded, n_0, of the other methods than ``certified``.
      shared: one threshold for all classes; ``certified`` then bounds the error of all auto-labels together, and needs
        far fewer points.

    Returns:
      The thresholds.

    Raises:
      ValueError: if shapes differ, a score is NaN, a class is out of range, ``correct`` is not boolean, or a number is
        not as above.
    """
    if n_classes is None:
        n_classes = _classes_of(predicted)
    _check(scores, predicted, correct, n_classes, method, weights, candidates, error, failure, looks)
    scores = jnp.asarray(scores)
    dtype = jnp.promote_types(scores.dtype, jnp.float32)
    number = lambda value, name: checked_scalar(value, name, dtype)
    return _estimate(
        scores.astype(dtype),
        jnp.zeros_like(jnp.asarray(predicted)) if shared else jnp.asarray(predicted),
        jnp.asarray(correct),
        jnp.ones(len(scores), bool) if weights is None else jnp.asarray(weights, bool),
        None if candidates is None else jnp.asarray(candidates, dtype),
        number(error, "error"),
        number(failure, "failure"),
        number(looks, "looks"),
        number(deviations, "deviations"),
        number(min_count, "min_count"),
        k=n_classes,
        method=method,
        shared=shared,
    )


def fewest_to_certify(*, error: float, n_classes: int, failure: float = 0.1, looks: int = 1) -> int:
    """Returns how many labelled points without an error a class needs above a threshold that is to be certified.

    >>> fewest_to_certify(error=0.05, n_classes=10)
    90

    Args:
      error: the largest error of auto-labels, in (0, 1).
      n_classes: the number of classes; 1 for a shared threshold.
      failure: as in :func:`estimate`.
      looks: as in :func:`estimate`.

    Raises:
      ValueError: if ``error`` or ``failure`` does not lie between 0 and 1.
    """
    for name, value in {"error": error, "failure": failure}.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} must lie between 0 and 1, got {value}")
    return int(np.ceil(np.log(failure / (n_classes * looks)) / np.log1p(-error)))


def binomial_tail(errors: Float[Array, "*s"], count: Float[Array, "*s"], share: Array) -> Float[Array, "*s"]:
    """Returns the probability of at most so many errors in so many draws that each fail with a given probability.

    Exact up to 4,096 draws; Chernoff's upper bound ``exp(-count * KL)`` beyond, which float32 can still compute.

    Args:
      errors: counts of errors.
      count: draws, at least one.
      share: the probability of an error.
    """
    inside = jnp.where(errors < count, errors, 0)
    exact = jax.scipy.special.betainc(jnp.minimum(count, _LARGEST_EXACT) - inside, inside + 1, 1 - share)
    seen = errors / count
    # By the difference of both shares, since a ratio that is nearly one has lost it.
    less = seen - share
    failing = jnp.where(errors > 0, seen * jnp.log1p(jnp.where(errors > 0, less, 0) / share), 0)
    divergence = failing + (1 - seen) * jnp.log1p(-less / (1 - share))
    # Where more errors were seen than expected, the bound has nothing to say.
    chernoff = jnp.where(seen < share, jnp.exp(-count * divergence), 1.0)
    tail = jnp.where(count <= _LARGEST_EXACT, exact, chernoff)
    return jnp.where(errors >= count, 1.0, tail)


@jax.jit(static_argnames=("k", "method", "shared"))
def _estimate(
    scores: Array,
    predicted: Array,
    correct: Array,
    weights: Array,
    candidates: Array | None,
    error: Array,
    failure: Array,
    looks: Array,
    deviations: Array,
    min_count: Array,
    *,
    k: int,
    method: str,
    shared: bool,
) -> Thresholds:
    n = len(scores)
    out = jnp.where(weights, scores, -jnp.inf)
    grid = jnp.sort(out if candidates is None else candidates)
    # A point counts for the largest candidate that it reaches; one below all of them counts for none.
    place = jnp.searchsorted(grid, out, side="right") - 1
    reached = jnp.where(place >= 0, grid[jnp.maximum(place, 0)], -jnp.inf)
    counted = weights & (reached > -jnp.inf)
    group = jnp.where(counted, predicted, k)
    order = jnp.lexsort((-reached, group))
    value, group, wrong = reached[order], group[order], ~correct[order]
    first = jnp.searchsorted(group, jnp.arange(k + 1), side="left")
    start = first[group]
    count = jnp.arange(n) - start + 1
    total = jnp.concatenate([jnp.zeros(1, int), jnp.cumsum(wrong)])
    errors = total[1:] - total[start]
    # Equal scores stand or fall together: only the last of them tells what lies at or above that score.
    last = jnp.concatenate([(value[1:] != value[:-1]) | (group[1:] != group[:-1]), jnp.ones(1, bool)]) & (group < k)
    divided = failure / (looks * (1 if shared else k))
    share, m = errors / count, count.astype(scores.dtype)
    if method == "certified":
        # Counts alone say where a test may begin, before any label is looked at.
        needed = jnp.log(divided) / jnp.log1p(-jnp.minimum(error, 1 - 1e-7))
        # Rounding asks for no point more, and without an error that many are enough.
        testable = last & (m >= (1 - 1e-6) * needed)
        fails = testable & (errors > 0) & (binomial_tail(errors.astype(scores.dtype), m, error) > divided)
        failed = jnp.concatenate([jnp.zeros(1, int), jnp.cumsum(fails)])
        admissible = testable & (failed[1:] == failed[start])
    else:
        deviation = {"sigma": jnp.sqrt(share * (1 - share)), "hoeffding": 1 / jnp.sqrt(m), "none": 0.0}[method]
        admissible = last & (m > min_count) & (share + deviations * deviation <= error)
    # What lies between this point's score and the next one's of its class has the same points above it, so that the
    # smallest candidate there is the smallest threshold of equal merit.
    following = jnp.where(jnp.concatenate([group[1:] == group[:-1], jnp.zeros(1, bool)]), jnp.roll(value, -1), -jnp.inf)
    least = grid[jnp.minimum(jnp.searchsorted(grid, following, side="right"), len(grid) - 1)]
    deepest = jax.ops.segment_max(jnp.where(admissible, jnp.arange(n), -1), group, k + 1)[:k]
    found = deepest >= 0
    at = jnp.maximum(deepest, 0)
    counts, wrongs = jnp.where(found, count[at], 0), jnp.where(found, errors[at], 0)
    result = Thresholds(
        jnp.where(found, least[at], jnp.inf),
        counts,
        wrongs,
        jnp.where(found, _upper_bound(wrongs, jnp.maximum(counts, 1), divided), 1.0),
    )
    return jax.tree.map(lambda x: jnp.broadcast_to(x[0], (k,)), result) if shared else result


def _upper_bound(errors: Array, count: Array, failure: Array) -> Array:
    """The largest share of errors that the binomial test does not reject, by bisection."""
    errors, count = errors.astype(failure.dtype), count.astype(failure.dtype)

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        rejected = binomial_tail(errors, count, middle) <= failure
        return jnp.where(rejected, low, middle), jnp.where(rejected, middle, high)

    return jax.lax.fori_loop(0, 24, halve, (errors / count, jnp.ones_like(count)))[1]


def _classes_of(predicted: AnyArray) -> int:
    if is_traced(predicted):
        raise ValueError("n_classes must be given where predicted is traced, as in jit and vmap")
    return int(np.max(predicted, initial=0)) + 1


def _check(
    scores: AnyArray,
    predicted: AnyArray,
    correct: AnyArray,
    k: int,
    method: str,
    weights: AnyArray | None,
    candidates: AnyArray | None,
    error: Scalar,
    failure: Scalar,
    looks: Scalar,
) -> None:
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {', '.join(get_args(Method))}, got {method!r}")
    if np.ndim(scores) != 1 or len(scores) == 0:
        raise ValueError(f"scores must have shape (n,) with n >= 1, got shape {np.shape(scores)}")
    n = len(scores)
    check_indices(predicted, n, k, "predicted")
    if not jnp.issubdtype(jnp.result_type(correct), jnp.bool_):
        raise ValueError(f"correct must hold booleans, got dtype {jnp.result_type(correct)}")
    for name, values in {"correct": correct, "weights": weights}.items():
        if values is not None and np.shape(values) != (n,):
            raise ValueError(f"{name} must have shape ({n},) as scores, got shape {np.shape(values)}")
    for name, values in {"scores": scores, "candidates": candidates}.items():
        if values is None or is_traced(values):
            continue
        if np.ndim(values) != 1 or len(values) == 0 or np.isnan(np.asarray(values)).any():
            raise ValueError(f"{name} must be a row of numbers without NaN, got {values}")
    for name, value, low, high in (("error", error, 0, 1), ("failure", failure, 0, 1), ("looks", looks, 1, np.inf)):
        if not is_traced(value) and not ((np.asarray(value) >= low) & (np.asarray(value) <= high)).all():
            raise ValueError(f"{name} must lie between {low} and {high}, got {value}")
