"""Transport of the few rows that are not obvious: POT's network simplex, its dual, and the rounding of split rows."""

import os
from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.sparse


class SparsePlan(NamedTuple):
    """Where the rows of the small problem go, as a sparse matrix of ``(row, class, mass)`` entries."""

    row: np.ndarray
    column: np.ndarray
    mass: np.ndarray


def solve(
    scores: np.ndarray, row_mass: np.ndarray, lower: np.ndarray, upper: np.ndarray, dual: np.ndarray
) -> tuple[SparsePlan, np.ndarray]:
    """Transports the undecided rows by network simplex; returns the plan and the dual that belongs to it.

    A class has a column for the mass that it must get and one for the mass that it may get. A dummy row takes what is
    left of the latter, at no cost, so that it ties the dual of classes inside their interval to zero.
    """
    optional = np.maximum(upper - lower, 0.0)
    dust = 1e-9
    must, may = np.flatnonzero(lower > dust), np.flatnonzero(optional > dust)
    columns = np.concatenate([must, may])
    capacity = np.concatenate([lower[must], optional[may]])
    spare = capacity.sum() - row_mass.sum()
    with_dummy = len(may) > 0 and spare > dust

    reduced = -(scores + dual)
    reduced -= reduced.min(axis=1, keepdims=True)
    finite = np.isfinite(reduced)
    forbidden = (len(upper) + 1) * (reduced[finite].max(initial=1.0) + np.abs(dual).max() + 1.0)
    reduced = np.where(finite, reduced, forbidden)
    cost = np.ascontiguousarray(reduced[:, columns])
    mass = row_mass
    if with_dummy:
        dummy = np.concatenate([np.full(len(must), 2 * forbidden), -dual[may]])
        cost = np.vstack([cost, dummy])
        mass = np.append(row_mass, spare)
    capacity = capacity * (mass.sum() / capacity.sum())
    flow, row_potential, column_potential = _network_simplex(mass, capacity, cost)

    offset = row_potential[-1] if with_dummy else -np.median(column_potential)
    trial = np.full(len(upper), np.inf)
    trial[may] = column_potential[len(must) :] + offset
    trial[must] = column_potential[: len(must)] + offset
    idle = ~np.isfinite(trial)
    if idle.any():
        row_potential = row_potential[: len(row_mass)] - offset
        trial[idle] = np.minimum(0.0, (reduced[:, idle] - row_potential[:, None]).min(axis=0))

    flow = flow[: len(row_mass)]
    row, column = np.nonzero(flow > dust * row_mass[:, None])
    entries = scipy.sparse.coo_array((flow[row, column], (row, columns[column])), shape=(len(row_mass), len(upper)))
    entries.sum_duplicates()
    return SparsePlan(entries.coords[0], entries.coords[1], entries.data), dual + trial


def _network_simplex(
    row_mass: np.ndarray, column_mass: np.ndarray, cost: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    for backend in ("TENSORFLOW", "PYTORCH", "JAX", "CUPY"):  # POT imports every framework it finds
        os.environ.setdefault(f"POT_BACKEND_DISABLE_{backend}", "1")
    import ot

    flow, log = ot.emd(row_mass, column_mass, cost, numItermax=2**31 - 1, log=True, center_dual=False)
    if log["warning"] is not None:
        raise RuntimeError(f"the network simplex of POT failed: {log['warning']}")
    return flow, np.asarray(log["u"]), np.asarray(log["v"])


def largest_part(plan: SparsePlan, n_rows: int) -> np.ndarray:
    """Returns the class that gets most of each row, ``(n_rows,)``; the first on ties."""
    order = np.lexsort((plan.column, -plan.mass, plan.row))
    _, first = np.unique(plan.row[order], return_index=True)
    assignment = np.zeros(n_rows, np.int32)
    assignment[plan.row[order][first]] = plan.column[order][first]
    return assignment


def class_slack(scores: np.ndarray, plan: SparsePlan, shift: np.ndarray) -> np.ndarray:
    """Returns, for classes a and j, by how much the rows at a prefer a to j at least, ``(k, k)``."""
    k = scores.shape[1]
    order = np.argsort(plan.column, kind="stable")
    row, column = plan.row[order], plan.column[order]
    starts = np.flatnonzero(np.diff(column, prepend=-1))
    slack = np.full((k, k), np.inf)
    for begin, end in zip(starts, [*starts[1:], len(row)], strict=True):
        j = column[begin]
        shifted = scores[row[begin:end]] + shift
        slack[j] = (shifted[:, j : j + 1] - shifted).min(axis=0)
    return slack


def rounded_assignment(
    plan: SparsePlan, assignment: np.ndarray, class_mass: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> np.ndarray:
    """Sends each split row to one of its classes, so that every class has a whole number of rows beside its mass.

    The bounds form a network, whose vertices are whole, and the plan itself lies inside: a vertex exists.
    """
    parts = np.bincount(plan.row, minlength=len(assignment))
    split = parts[plan.row] > 1
    if not split.any():
        return assignment
    rows, row = np.unique(plan.row[split], return_inverse=True)
    columns, column = np.unique(plan.column[split], return_inverse=True)
    mass = plan.mass[split]
    settled = np.round(class_mass[columns] - np.bincount(column, mass))
    least = np.floor(lower[columns] + 1e-6) - settled
    most = np.ceil(upper[columns] - 1e-6) - settled
    entry = np.arange(len(mass))
    one = np.ones(len(mass))
    by_row = scipy.sparse.csr_array((one, (row, entry)), shape=(len(rows), len(mass)))
    by_column = scipy.sparse.csr_array((one, (column, entry)), shape=(len(columns), len(mass)))
    vertex = scipy.optimize.linprog(
        -mass,
        A_ub=scipy.sparse.vstack([by_column, -by_column]),
        b_ub=np.concatenate([most, -least]),
        A_eq=by_row,
        b_eq=np.ones(len(rows)),
        bounds=(0, 1),
        method="highs-ds",
    )
    if not vertex.success:
        raise RuntimeError(f"the counts could not be rounded: {vertex.message}")
    chosen = vertex.x > 0.5
    assignment = assignment.copy()
    assignment[rows[row[chosen]]] = columns[column[chosen]]
    return assignment
