r"""Threshold-based auto-labelling: a classifier labels what it is sure of, and asks a human about some of the rest.

Vishwakarma, Lin, Sala and Vinayak, "Promises and Pitfalls of Threshold-based Auto-labeling", NeurIPS 2023, algorithm 1,
and "Pearls from Pebbles", NeurIPS 2024, algorithm 1. A round trains a classifier on all labels bought so far, fits a
confidence function, estimates a threshold for each class, labels the points above it, takes them and the labelled
points above it out of the game, and says which points to ask about next.

:func:`run` does all of it with an :class:`.Oracle`. Underneath is a state machine of pure functions, for a human
oracle, a study or a job that is killed now and then::

    state = start(features, config, key=key)
    while not finished(state, config):
        rows = wanted(state)
        state = tell(state, rows, labels_of(rows))       # from whoever knows
        state = advance(state, features, config)

The state is a pytree and knows of a label only what it was told.
"""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from zsml_jax.autolabel import queries, thresholds, training
from zsml_jax.autolabel.config import Config, Roles
from zsml_jax.autolabel.oracle import Oracle
from zsml_jax.autolabel.outputs import Outputs
from zsml_jax.autolabel.state import Audit, TBALState
from zsml_jax.evaluate.validation import check_indices, is_traced
from zsml_jax.train.checkpoint import Checkpointer
from zsml_jax.typing import AnyArray, Array, Key, PyTree

__all__ = ["Audit", "Oracle", "Roles", "TBALState", "advance", "finished", "run", "simulate", "start", "tell", "wanted"]


def run(
    features: PyTree,
    oracle: Callable[[np.ndarray], np.ndarray],
    config: Config,
    *,
    key: Key,
    checkpoints: Checkpointer | None = None,
) -> TBALState:
    """Labels a pool automatically, as far as the error allows.

    Args:
      features: all points, arrays of n rows.
      oracle: who knows the labels, such as :class:`.Oracle`: rows of points to their classes.
      config: the settings.
      key: the random key.
      checkpoints: where the state is saved after each round. A run that was killed goes on there; it asks again for
        what was told before, which an :class:`.Oracle` counts once.

    Returns:
      The state after the last round.

    Raises:
      ValueError: if there are fewer points than are to be bought, a feature is not finite, training diverged, or the
        oracle's labels are no classes or others than before.
    """
    state = start(features, config, key=key)
    if checkpoints is not None and checkpoints.latest_step is not None:
        state = checkpoints.restore(like=state)
        told = np.flatnonzero(np.asarray(state.known) >= 0)
        if not np.array_equal(oracle(told), np.asarray(state.known)[told]):
            raise ValueError("oracle must give the labels that it gave before the run was resumed, and it does not")
    while not finished(state, config):
        rows = wanted(state)
        state = advance(tell(state, rows, oracle(rows)), features, config)
        if state.diverged:
            raise ValueError(
                f"training diverged in round {int(state.round)}: the classifier's parameters are not finite; a smaller "
                f"training.learning_rate than {float(config.training.learning_rate):g} would do"
            )
        if checkpoints is not None:
            checkpoints.save(int(state.round), state)
    return state


def start(features: PyTree, config: Config, *, key: Key, labelled: Bool[AnyArray, " n"] | None = None) -> TBALState:
    """Draws the points with roles and the seed, and asks for their labels.

    Args:
      features: all points, arrays of n rows.
      config: the settings.
      key: the random key.
      labelled: points whose labels are at hand already, ``(n,)``, to be drawn first. Only if they were chosen at random
        do thresholds and the audit hold for the other points.

    Raises:
      ValueError: as :func:`run`.
    """
    leaves = jax.tree.leaves(features)
    n = len(leaves[0])
    if n < config.roles.total + config.budget + 1:
        raise ValueError(
            f"features must have more rows than the {config.roles.total} labelled points with roles and the budget of "
            f"{config.budget}, got {n}"
        )
    for leaf in leaves:
        if not isinstance(leaf, jax.core.Tracer) and jnp.issubdtype(leaf.dtype, jnp.floating):
            bad = ~np.isfinite(np.asarray(leaf)).reshape(len(leaf), -1).all(axis=1)
            if bad.any():
                raise ValueError(f"features must be finite; row {int(bad.argmax())} is not")
    if labelled is not None and np.shape(labelled) != (n,):
        raise ValueError(f"labelled must have shape ({n},), got {np.shape(labelled)}")
    return _start(features, config, key, jnp.zeros(n, bool) if labelled is None else jnp.asarray(labelled, bool))


def wanted(state: TBALState) -> Int[np.ndarray, " m"]:
    """Returns the points whose labels are wanted, none of them twice."""
    asked = np.asarray(state.asked)
    return asked[asked >= 0]


def tell(state: TBALState, rows: Int[AnyArray, " m"], labels: Int[AnyArray, " m"]) -> TBALState:
    """Returns the state after it was told labels: of all that it wanted, in any order.

    Raises:
      ValueError: if these are not the wanted rows, or a label is not a class.
    """
    rows, labels = np.asarray(rows), np.asarray(labels)
    asked = np.asarray(state.asked)
    want = np.sort(asked[asked >= 0])
    if not np.array_equal(np.sort(rows), want):
        missing = np.setdiff1d(want, rows)
        raise ValueError(f"rows must be the {len(want)} wanted ones, got {len(rows)}; missing are {missing[:5]} ...")
    if len(rows) or labels.size:
        check_indices(labels, len(rows), state.thresholds.shape[-1], "labels")
    given = dict(zip(rows.tolist(), labels.tolist(), strict=True))
    return _tell(state, jnp.asarray([given.get(row, -1) for row in asked.tolist()], jnp.int32))


def advance(state: TBALState, features: PyTree, config: Config) -> TBALState:
    """Returns the state after one more round; a pure function, compiled once for each shape.

    Args:
      state: all that it wanted must have been told.
      features: all points, arrays of n rows.
      config: the settings that the state was started with.

    Raises:
      ValueError: if the state was not told all that it wanted; where it is traced, this is not checked.
    """
    if not is_traced(state.asked) and (missing := len(wanted(state))):
        raise ValueError(f"state must be told the {missing} labels that it wants before it advances")
    return _advance(state, features, config)


def finished(state: TBALState, config: Config) -> bool:
    """Returns whether all rounds are done, or nothing is left to label."""
    left = np.asarray(state.in_pool & (state.known < 0) & (state.labels < 0))
    return int(state.round) >= config.rounds or not left.any()


def simulate(features: PyTree, labels: Int[AnyArray, " n"], config: Config, *, key: Key) -> TBALState:
    """Runs a whole simulation in one program, for ``vmap`` over keys and settings.

    It does what :func:`run` does with ``Oracle(labels)``: labels are read at the points that are asked for and nowhere
    else, so that those of others change nothing, bit by bit. It cannot stop where training diverged: no point is
    labelled then whose outputs are not finite, and the state's ``diverged`` tells of the last round.

    Args:
      features: all points, arrays of n rows.
      labels: their classes, ``(n,)``.
      config: the settings, whose numbers may be traced.
      key: the random key.
    """
    labels = jnp.asarray(labels, jnp.int32)

    def round_(_: Array, state: TBALState) -> TBALState:
        answers = jnp.where(state.asked >= 0, labels[state.asked], -1)
        return _advance(_tell(state, answers), features, config)

    return jax.lax.fori_loop(0, config.rounds, round_, start(features, config, key=key))


@jax.jit
def _start(features: PyTree, config: Config, key: Key, labelled: Array) -> TBALState:
    n, roles, k = len(jax.tree.leaves(features)[0]), config.roles, config.n_classes
    draw_key, key = jax.random.split(key)
    order = jnp.argsort(jax.random.uniform(draw_key, (n,)) - labelled).astype(jnp.int32)
    asked = jnp.full(max(roles.total + config.seed, config.batch), -1, jnp.int32)
    few = jax.tree.map(lambda x: x[: roles.calibration], features)

    def fit(key: Key) -> tuple[PyTree, PyTree]:
        params = config.classifier.init(key)
        outputs = config.classifier.apply(params, few)
        rows, labels = _calibration_rows(config), jnp.zeros(_calibration_rows(config), jnp.int32)
        outputs = jax.tree.map(lambda x: jnp.zeros((rows, *x.shape[1:]), x.dtype), outputs)
        return params, config.confidence.fit(outputs, labels, weights=jnp.ones(rows), key=key)

    # Only the shapes: the first round replaces both.
    params, fitted = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(fit, key))
    return TBALState(
        key=key,
        round=jnp.int32(0),
        held=order[: roles.total],
        known=jnp.full(n, -1, jnp.int32),
        order=jnp.zeros(config.budget, jnp.int32),
        count=jnp.int32(0),
        asked=asked.at[: roles.total + config.seed].set(order[: roles.total + config.seed]),
        labels=jnp.full(n, -1, jnp.int32),
        labelled_in=jnp.full(n, -1, jnp.int32),
        scores=jnp.zeros(n),
        thresholds=jnp.full((config.rounds, k), jnp.inf),
        bounds=jnp.ones((config.rounds, k)),
        params=params,
        fitted=fitted,
    )


@jax.jit
def _tell(state: TBALState, answers: Int[Array, " m"]) -> TBALState:
    n = len(state.known)
    told = (state.asked >= 0) & (answers >= 0)
    known = state.known.at[jnp.where(told, state.asked, n)].set(answers, mode="drop")
    trained = told & state.in_pool[state.asked]
    place = state.count + jnp.cumsum(trained) - 1
    order = state.order.at[jnp.where(trained, place, len(state.order))].set(state.asked, mode="drop")
    return state._replace(
        known=known, order=order, count=state.count + trained.sum(), asked=jnp.full_like(state.asked, -1)
    )


@jax.jit
def _advance(state: TBALState, features: PyTree, config: Config) -> TBALState:
    keys = jax.random.split(jax.random.fold_in(state.key, state.round), 4)
    selection, calibration, threshold = _parts(state, config, keys[0])
    labelled = training.Labelled(state.order, state.known[state.order], state.count)
    params = training.fit(config.classifier, features, labelled, selection, config.training, key=keys[1])
    outputs = _outputs(config, params, features)
    predicted = outputs.predicted
    fitted = config.confidence.fit(
        outputs.take(calibration.rows), calibration.labels, weights=calibration.weights, key=keys[2]
    )
    scores = config.confidence.score(fitted, outputs)
    pool = state.in_pool
    left = pool & (state.known < 0) & (state.labels < 0)
    last = state.round == config.rounds - 1
    found = thresholds.estimate(
        scores[threshold.rows],
        predicted[threshold.rows],
        predicted[threshold.rows] == threshold.labels,
        error=config.error,
        n_classes=config.n_classes,
        method=config.method,
        weights=threshold.weights > 0,
        # Scores of unlabelled points do not know of the labels that judge them.
        candidates=jnp.where(left, scores, jnp.inf) if config.method == "certified" else None,
        failure=config.failure,
        looks=config.looks,
        deviations=config.deviations,
        min_count=config.min_count,
        shared=config.shared,
    )
    accepted = found.accepts(scores, predicted)
    if config.labels_when == "all":
        accepted, found = jnp.ones_like(accepted), found._replace(values=jnp.full_like(found.values, -jnp.inf))
    if config.labels_when != "every_round":
        accepted &= last
        found = found._replace(values=jnp.where(last, found.values, jnp.inf))
    # The argmax of NaN is class 0, and a classifier that diverged would label everything by it.
    accepted &= (left | ~pool) & (state.labels < 0) & jnp.isfinite(outputs.logits).all(axis=1)
    left &= ~accepted
    rows, there = queries.select(
        config.query,
        outputs,
        left,
        (state.order, state.count),
        config.batch,
        key=keys[3],
        widening=config.widening,
    )
    there &= (jnp.arange(len(rows)) < config.budget - state.count) & ~last
    asked = jnp.full_like(state.asked, -1).at[: len(rows)].set(jnp.where(there, rows, -1).astype(jnp.int32))
    return state._replace(
        round=state.round + 1,
        asked=asked,
        labels=jnp.where(accepted, predicted.astype(jnp.int32), state.labels),
        labelled_in=jnp.where(accepted, state.round, state.labelled_in),
        scores=jnp.where(accepted, scores, state.scores),
        thresholds=state.thresholds.at[state.round].set(found.values),
        bounds=state.bounds.at[state.round].set(found.bound),
        params=params,
        fitted=fitted,
    )


def _outputs(config: Config, params: PyTree, features: PyTree) -> Outputs:
    """The classifier on all points, some at a time."""
    n = len(jax.tree.leaves(features)[0])
    if n <= config.chunk:
        return config.classifier.apply(params, features)
    one = lambda x: jax.tree.map(
        lambda leaf: leaf[0], config.classifier.apply(params, jax.tree.map(lambda leaf: leaf[None], x))
    )
    return jax.lax.map(one, features, batch_size=config.chunk)


def _calibration_rows(config: Config) -> int:
    """How many points fit the confidence function; at most, where they are drawn anew from all with roles."""
    roles = config.roles
    if not config.reuse:
        return roles.calibration
    return -(-roles.total * roles.calibration // (roles.calibration + roles.threshold))


def _parts(state: TBALState, config: Config, key: Key) -> tuple[training.Held, training.Held, training.Held]:
    """The points for the checkpoint, the confidence function and the thresholds; those above old thresholds are out."""
    roles = config.roles
    weights = (state.labels[state.held] < 0).astype(jnp.float32)
    labels = state.known[state.held]
    if config.reuse:
        draw = jnp.where(weights > 0, jax.random.uniform(key, weights.shape), jnp.inf)
        order = jnp.argsort(draw)
        early = jnp.arange(len(order)) < weights.sum() * roles.calibration / (roles.calibration + roles.threshold)
        held = lambda part: training.Held(state.held[order], labels[order], jnp.where(part, weights[order], 0.0))
        calibration = jax.tree.map(lambda leaf: leaf[: _calibration_rows(config)], held(early))
        return training.Held(state.held, labels, weights), calibration, held(~early)
    ends = np.cumsum([0, roles.selection, roles.calibration, roles.threshold])
    selection, calibration, threshold = (
        training.Held(state.held[a:b], labels[a:b], weights[a:b]) for a, b in itertools.pairwise(ends)
    )
    if config.fresh:
        turn = jnp.arange(roles.threshold) % config.looks
        now = turn == (state.round if config.looks > 1 else 0)
        threshold = threshold._replace(weights=jnp.where(now, threshold.weights, 0.0))
    return selection, calibration, threshold
