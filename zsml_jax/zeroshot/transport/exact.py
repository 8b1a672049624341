r"""Exact optimal transport of many rows onto k classes, with a certificate: epsilon = 0.

Network simplex on the whole ``n x k`` cost is what one would run, and what is slow: nearly every row's class is
obvious once the k dual numbers are about right. So

1. the semi-dual is annealed (:mod:`.semidual`) until a few thousand rows have a margin near the temperature;
2. only those rows, with what the other rows leave of each class, go to POT's network simplex;
3. the dual of that small problem is tried on all rows. A row that it contradicts joins the small problem. If there is
   none, plan and dual are optimal for the whole, and the duality gap says so;
4. the dual is moved to the middle of its optimal face, so that new points near a boundary are treated evenly.

Rows are read in chunks, so that the scores may lie on disk. Memory holds the chunk, a few numbers a row, the small
problem, and a k x k matrix.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zsml_jax.typing import AnyArray, Array
from zsml_jax.zeroshot.transport import chunked_semidual, network_simplex, row_blocks, semidual
from zsml_jax.zeroshot.transport.marginals import Between, Exactly
from zsml_jax.zeroshot.transport.row_chunks import CoarseRows, RowChunks

_SMALL_PROBLEM_ENTRIES = 2**19  # below, the network simplex takes all rows at once
_SMALL_PROBLEM_ROWS = 2048  # rows that the annealing should leave undecided, or
_SMALL_PROBLEM_ROWS_PER_CLASS = 3  # this many for each class
_MAX_ROUNDS = 30
_MAX_ANNEALING_PASSES = 300
_ANNEALING_TOLERANCES = 2e-4, 0.02  # bounds of the L1 error at which the annealing ends
_CENTRING_STEPS = 60
_EXPONENT_DTYPE = jnp.float32  # the annealing only has to come near; margins and costs are float64


class ExactSolution(NamedTuple):
    """An optimal plan and dual, in float64.

    Attributes:
      dual: ``(k,)``, nats; -inf for classes that may not have mass.
      assignment: the class of each row, ``(n,)``.
      cost: the mean transport cost, nats.
      duality_gap: the cost minus the value of the dual, nats.
      marginal_error: L1 distance of the plan's class masses from the required ones.
      n_iterations: passes over the rows.
      converged: whether the gap is zero up to rounding.
    """

    dual: np.ndarray
    assignment: np.ndarray
    cost: float
    duality_gap: float
    marginal_error: float
    n_iterations: int
    converged: bool


def solve(chunks: RowChunks, marginal: Exactly | Between, *, in_memory: bool) -> ExactSolution:
    """Solves the linear programme ``min <P, -log_probs>`` with given row masses and class masses.

    Args:
      chunks: the scores, with row masses that sum to one.
      marginal: the masses of the classes, exactly or as intervals.
      in_memory: whether a float32 copy of the scores may be kept on the device, so that annealing need not read them.

    Returns:
      The solution. Where all rows weigh the same, the number of rows of a class is its mass times n if that is whole,
      else one of the two whole numbers beside it; with sample weights, a row that is split goes to its largest part.

    Raises:
      ValueError: if every plan uses a class of zero probability, so that the cost is infinite.
      RuntimeError: if the network simplex fails.
    """
    with jax.enable_x64(True):
        return _solve(chunks, marginal.astype(np.float64), in_memory)


def _solve(chunks: RowChunks, marginal: Exactly | Between, in_memory: bool) -> ExactSolution:
    n = chunks.n
    lower, upper = _capacities(marginal, n, whole=chunks.equal_weights)
    active = upper > 0
    row_mass = chunks.weights * n
    if n * chunks.k <= _SMALL_PROBLEM_ENTRIES or n <= _SMALL_PROBLEM_ROWS:
        dual, passes = np.zeros(chunks.k), 0
        undecided = np.ones(n, bool)
        best, margin = np.zeros(n, np.int32), np.zeros(n)
    else:
        source = chunks.coarse() if in_memory else chunks
        dual, passes = _anneal(source, marginal, _capped_rows(n, chunks.k))
        best, margin = _best_classes(source, _shift(dual, active))
        del source
        undecided = np.zeros(n, bool)
        undecided[np.argpartition(margin, _capped_rows(n, chunks.k) - 1)[: _capped_rows(n, chunks.k)]] = True

    for _ in range(_MAX_ROUNDS):
        _release_overfull(undecided, best, margin, row_mass, lower, upper)
        indices = np.flatnonzero(undecided)
        decided_mass = np.bincount(best[~undecided], row_mass[~undecided], chunks.k)
        scores = chunks.rows(indices)
        plan, trial = network_simplex.solve(
            scores, row_mass[indices], np.maximum(lower - decided_mass, 0.0), upper - decided_mass, dual
        )
        if np.isneginf(scores[plan.row, plan.column]).any():
            if undecided.all():
                raise ValueError(
                    "log_probs holds so many -inf that no assignment with this label distribution avoids them; "
                    "raise them to a floor, for example with jnp.maximum(log_probs, -20)"
                )
            _release_smallest_margins(undecided, margin)
            continue
        class_mass = decided_mass + np.bincount(plan.column, plan.mass, chunks.k)
        freedom = _freedom(trial, class_mass, lower, upper)
        trial = _centre(trial, network_simplex.class_slack(scores, plan, _shift(trial, active)), *freedom)
        assignment = best.copy()
        assignment[indices] = network_simplex.largest_part(plan, len(indices))
        check = _certify(chunks, assignment, np.where(undecided, 0.0, row_mass), _shift(trial, active))
        passes += 2
        rounding = 1e-11 * (np.abs(trial).max() + check.totals.largest)
        wrong = (check.violation > rounding) & ~undecided
        if not wrong.any():
            break
        undecided |= wrong
    else:
        raise RuntimeError(f"the exact solver did not settle all rows within {_MAX_ROUNDS} rounds")

    slack = np.minimum(check.totals.slack, network_simplex.class_slack(scores, plan, _shift(trial, active)))
    trial = _centre(trial, slack, *_freedom(trial, class_mass, lower, upper))
    check = _certify(chunks, assignment, np.where(undecided, 0.0, row_mass), _shift(trial, active))
    small_cost = -np.sum(plan.mass * scores[plan.row, plan.column])
    cost = (check.totals.cost + small_cost) / n
    reward = np.where(active, np.where(trial > 0, lower, upper) * trial, 0.0).sum() / n
    gap = cost - (reward - check.totals.potential)
    if chunks.equal_weights:
        assignment[indices] = network_simplex.rounded_assignment(plan, assignment[indices], class_mass, lower, upper)
    return ExactSolution(
        dual=_shift(trial, active),
        assignment=assignment,
        cost=float(cost),
        duality_gap=float(gap),
        marginal_error=float(np.abs(class_mass - np.clip(class_mass, lower, upper)).sum() / n),
        n_iterations=passes + 1,
        converged=bool(gap <= 1e-9 * (abs(cost) + check.totals.largest)),
    )


def _capacities(marginal: Exactly | Between, n: int, *, whole: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns the least and the largest mass of each class, in rows; whole where rounding alone kept it from that."""
    if isinstance(marginal, Exactly):
        nu = np.asarray(marginal.label_distribution, np.float64)
        mass = _whole(nu * n, n) if whole else nu * n
        return mass, mass
    return np.asarray(marginal.lower, np.float64) * n, np.asarray(marginal.upper, np.float64) * n


def _whole(mass: np.ndarray, total: int) -> np.ndarray:
    """Returns masses that lie within float32 rounding of whole numbers as those numbers; the rest keep the sum."""
    nearest = np.round(mass)
    close = np.abs(mass - nearest) <= 1e-6 * np.maximum(mass, 1.0)
    rest = total - nearest[close].sum()
    if close.all():
        return nearest if rest == 0 else mass
    loose = mass[~close].sum()
    return np.where(close, nearest, mass * rest / loose) if rest > 0 else mass


def _capped_rows(n: int, k: int) -> int:
    return min(n, max(_SMALL_PROBLEM_ROWS, _SMALL_PROBLEM_ROWS_PER_CLASS * k))


def _shift(dual: np.ndarray, active: np.ndarray) -> np.ndarray:
    return np.where(active, dual, -np.inf)


def _anneal(chunks: RowChunks | CoarseRows, marginal: Exactly | Between, n_undecided: int) -> tuple[np.ndarray, int]:
    """Returns a dual so near the optimum that about ``n_undecided`` rows have margins of a few temperatures.

    The rows that its marginal has in a wrong class would all join the small problem, so that the tolerance is theirs.
    """
    margin = chunked_semidual.mean_margin(chunks, marginal.active) or 1.0
    share = n_undecided / (3 * chunks.n)
    state = chunked_semidual.anneal(
        chunks,
        marginal,
        margin * min(1.0, share),
        scale=margin,
        tolerance=float(np.clip(share, *_ANNEALING_TOLERANCES)),
        max_iterations=_MAX_ANNEALING_PASSES,
        dtype=_EXPONENT_DTYPE,
    )
    return np.asarray(state.dual), int(state.iteration) + 2


def _best_classes(chunks: RowChunks | CoarseRows, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    parts = [jax.tree.map(np.asarray, _row_margins(rows, weights, shift)) for rows, weights in chunks]
    best, margin = (np.concatenate(part) for part in zip(*parts, strict=True))
    return best.astype(np.int32), margin


@jax.jit
def _row_margins(rows: Array, weights: Array, shift: Array) -> tuple[Array, Array]:
    return row_blocks.map_blocks(lambda block, _: (semidual.row_margins(block, shift), ()), rows, (weights,))[0]


def _release_overfull(
    undecided: np.ndarray,
    best: np.ndarray,
    margin: np.ndarray,
    row_mass: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
) -> None:
    """Marks rows as undecided, those of smallest margin first, until the small problem has a solution."""
    k = len(upper)
    while True:
        decided = np.bincount(best[~undecided], row_mass[~undecided], k)
        for j in np.flatnonzero(decided > upper + 1e-9):
            rows = np.flatnonzero(~undecided & (best == j))
            rows = rows[np.argsort(margin[rows], kind="stable")]
            released = np.searchsorted(np.cumsum(row_mass[rows]), decided[j] - upper[j]) + 1
            undecided[rows[: 2 * released]] = True
        decided = np.bincount(best[~undecided], row_mass[~undecided], k)
        missing = np.maximum(lower - decided, 0.0).sum() - row_mass[undecided].sum()
        if missing <= 1e-6:
            return
        _release_smallest_margins(undecided, margin)


def _release_smallest_margins(undecided: np.ndarray, margin: np.ndarray) -> None:
    """Doubles the number of undecided rows."""
    rows = np.flatnonzero(~undecided)
    undecided[rows[np.argsort(margin[rows], kind="stable")[: max(1, undecided.sum())]]] = True


def _freedom(
    dual: np.ndarray, class_mass: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns how far each dual may rise and fall by the sign rules of its class's interval."""
    fixed = upper - lower <= 1e-9
    at_lower = class_mass <= lower + 1e-6
    at_upper = class_mass >= upper - 1e-6
    rise = np.where(fixed, np.inf, np.where(at_upper, -dual, np.where(at_lower, np.inf, 0.0)))
    fall = np.where(fixed, np.inf, np.where(at_lower, dual, np.where(at_upper, np.inf, 0.0)))
    return np.maximum(rise, 0.0), np.maximum(fall, 0.0)


def _centre(dual: np.ndarray, slack: np.ndarray, rise: np.ndarray, fall: np.ndarray) -> np.ndarray:
    """Moves a dual towards the middle of its optimal face by simultaneous relaxation.

    Class j may rise by the least slack of other classes' rows against j, and fall by the least slack of its own rows.
    Each moves by a quarter of the difference, which is half the way to its middle: no two classes then use up the slack
    between them, and two alone meet in the middle.
    """
    slack = slack.copy()
    np.fill_diagonal(slack, np.inf)
    slack = np.maximum(slack, 0.0)
    for _ in range(_CENTRING_STEPS):
        up, down = np.minimum(slack.min(axis=0), 4 * rise), np.minimum(slack.min(axis=1), 4 * fall)
        bounded = np.isfinite(up) & np.isfinite(down)
        move = np.zeros_like(dual)
        move[bounded] = (up[bounded] - down[bounded]) / 4
        dual = dual + move
        rise, fall = rise - move, fall + move
        slack = np.maximum(slack + move[:, None] - move[None, :], 0.0)
    return dual


class _Totals(NamedTuple):
    slack: AnyArray  # (k, k), see network_simplex.class_slack
    cost: AnyArray  # of the decided rows
    potential: AnyArray  # mean of the rows' best shifted scores
    largest: AnyArray  # magnitude of a row's best shifted score


class _Check(NamedTuple):
    violation: AnyArray  # (n,), by how much a row prefers another class than its own
    totals: _Totals


def _combined(a: _Totals, b: _Totals) -> _Totals:
    return _Totals(
        jnp.minimum(a.slack, b.slack), a.cost + b.cost, a.potential + b.potential, jnp.maximum(a.largest, b.largest)
    )


def _certify(chunks: RowChunks, assignment: np.ndarray, decided_mass: np.ndarray, shift: np.ndarray) -> _Check:
    violations, totals, begin = [], None, 0
    for rows, weights in chunks:
        span = slice(begin, begin + len(weights))
        part = _check_rows(rows, weights, assignment[span], decided_mass[span], shift)
        violations.append(np.asarray(part.violation))
        totals = part.totals if totals is None else _combined(totals, part.totals)
        begin += len(weights)
    return _Check(np.concatenate(violations), jax.tree.map(np.asarray, totals))


@jax.jit
def _check_rows(rows: Array, weights: Array, assignment: Array, decided_mass: Array, shift: Array) -> _Check:
    def check_block(rows: Array, mass: Array, assignment: Array, decided_mass: Array) -> tuple[Array, _Totals]:
        own_score = jnp.take_along_axis(rows, assignment[:, None], axis=1)[:, 0].astype(jnp.float64)
        own = own_score + shift[assignment]
        shifted = rows + shift
        top = shifted.max(axis=1)
        slack = jax.ops.segment_min(own[:, None] - shifted, assignment, num_segments=shift.shape[0])
        cost = -jnp.sum(jnp.where((decided_mass > 0) & (mass > 0), decided_mass * own_score, 0.0))
        return top - own, _Totals(slack, cost, jnp.sum(mass * top), jnp.abs(top).max())

    columns = (weights, assignment, decided_mass)
    return _Check(*row_blocks.map_blocks(check_block, rows, columns, _combined))
