"""Many methods over many problems: Dolan and Moré's profiles, mean ranks, and which ranks differ surely."""

from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float


class RankOutput(NamedTuple):
    """Ranks of methods over problems.

    Attributes:
      mean_ranks: of each method; 1 is best, equal ones share their mean.
      p_value: of Friedman's test that all methods are alike.
      critical_difference: two methods whose mean ranks differ by more are told apart (Nemenyi).
      groups: methods, from the best to the worst, that are not told apart: as long as can be, none within another.
    """

    mean_ranks: Float[np.ndarray, " m"]
    p_value: float
    critical_difference: float
    groups: tuple[tuple[int, ...], ...]


def profiles(losses: Float[np.ndarray, "m p"], taus: Float[np.ndarray, " t"]) -> Float[np.ndarray, "m t"]:
    """Returns the share of problems on which a method's loss is within a factor tau of the best (Dolan and Moré, 2002).

    >>> profiles(np.array([[1.0, 4.0], [2.0, 2.0]]), np.array([1.0, 2.0])).tolist()
    [[0.5, 1.0], [0.5, 1.0]]

    Args:
      losses: of each method on each problem, positive; NaN where it was not run, which counts as never within.
      taus: factors of at least one.

    Raises:
      ValueError: if a loss is not positive, or a problem has none.
    """
    if not (losses[~np.isnan(losses)] > 0).all():
        raise ValueError("losses must be positive, since they are compared by their ratios")
    if np.isnan(losses).all(axis=0).any():
        raise ValueError("losses must hold one number at least for each problem")
    ratios = losses / np.nanmin(losses, axis=0)
    ratios = np.where(np.isnan(ratios), np.inf, ratios)
    return (ratios[:, :, None] <= np.asarray(taus) + 1e-12).mean(axis=1)


def compare_ranks(scores: Float[np.ndarray, "m p"], *, alpha: float = 0.05) -> RankOutput:
    """Ranks methods on each problem, and says which mean ranks differ surely (Demšar, JMLR 2006).

    Args:
      scores: of each method on each problem, larger is better; all were run.
      alpha: the level of both tests.

    Raises:
      ValueError: if there are fewer than two methods or problems, or a score is not finite.
    """
    m, p = scores.shape
    if m < 2 or p < 2:
        raise ValueError(f"scores must hold at least two methods and two problems, got shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite: every method is run on every problem")
    ranks = scipy.stats.rankdata(-scores, axis=0)
    mean = ranks.mean(axis=1)
    centred = ((ranks - (m + 1) / 2) ** 2).sum()
    # Equal to Friedman's statistic with its correction for ties.
    statistic = (m - 1) * p**2 * ((mean - (m + 1) / 2) ** 2).sum() / centred if centred > 0 else 0.0
    difference = scipy.stats.studentized_range.ppf(1 - alpha, m, np.inf) / np.sqrt(2) * np.sqrt(m * (m + 1) / (6 * p))
    order = np.argsort(mean, kind="stable")
    runs: list[tuple[int, ...]] = []
    for start in range(m):
        reach = tuple(int(i) for i in order[start:] if mean[i] - mean[order[start]] <= difference)
        if len(reach) > 1 and not any(set(reach) <= set(run) for run in runs):
            runs.append(reach)
    return RankOutput(mean, float(scipy.stats.chi2.sf(statistic, m - 1)), float(difference), tuple(runs))
