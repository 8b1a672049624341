"""Auto-labelling with every confidence function, Colander among them, on data whose labels are known.

    python -m experiments.colander digits
    python -m experiments.colander unit_ball

Each cell, an objective of training with a confidence function, is one compiled program over all seeds and values of
epsilon. Beside the cells stand the baselines without auto-labelling, and a score that knows whether a prediction is
right. What labels more points rightly has seen labels, or waits for a better classifier.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import colander_problems, colander_report, runner
from experiments.colander_config import POST_HOC, RELEASED, Cells, UnitBall
from experiments.colander_problems import Problem
from zsml_jax.autolabel import Config, Roles, Training, baselines, mlp, tbal
from zsml_jax.autolabel.confidence import Colander, Confidence
from zsml_jax.autolabel.training import Objective
from zsml_jax.report import RunFolder

#: The classifier's column of the report without any confidence function.
KNOWING = "true correctness"


def run(config: Cells | UnitBall, folder: RunFolder) -> None:
    """Measures what is not in the folder yet, and reports."""
    if isinstance(config, UnitBall):
        measure = lambda budget, labelled: functools.partial(in_unit_ball, config, budget, labelled)
        by_labelled = {m: folder.cached(f"{m} labelled", measure(config.budget, m)) for m in config.validation}
        by_budget = {q: folder.cached(f"{q} queries", measure(q, config.many)) for q in config.budgets}
        colander_report.tell_unit_ball(config, folder, by_labelled, by_budget)
        return
    with runner.refusals():
        check(config)
        problem = colander_problems.load(config)
        tbal.start(problem.features, settings(config, problem, "cross_entropy", "Softmax"), key=jax.random.key(0))
    cells: dict[tuple[str, str], Any] = {
        (objective, name): folder.cached(
            f"{objective}, {name}", functools.partial(cell, config, problem, objective, name)
        )
        for objective in config.objectives
        for name in config.post_hoc
    }
    knowing: dict[str, Any] = {
        objective: folder.cached(
            f"{objective}, {KNOWING}", functools.partial(cell, config, problem, objective, KNOWING)
        )
        for objective in config.objectives
    }
    others = {
        name: folder.cached(name, functools.partial(cell, config, problem, config.objectives[0], name))
        for name in baselines.BASELINES
    }
    colander_report.tell_cells(config, folder, problem, cells, knowing, others)


def check(config: Cells) -> None:
    """Refuses what cannot be run.

    Raises:
      ValueError: if a name is not known, the main epsilon is not among those measured, or there are too few seeds or
        simulations.
    """
    if unknown := [name for name in config.post_hoc if name not in POST_HOC]:
        raise ValueError(f"post_hoc must be among {', '.join(POST_HOC)}, got {', '.join(unknown)}")
    if config.released and set(config.objectives) - set(RELEASED.get(config.released, {})):
        known = {name: sorted(objectives) for name, objectives in RELEASED.items()}
        raise ValueError(f"released must be a set with settings of all objectives, of {known}, got {config.released!r}")
    if config.main_error not in config.errors:
        raise ValueError(f"main_error must be one of errors {config.errors}, got {config.main_error}")
    if config.seeds < 2:
        raise ValueError(f"seeds must be at least 2, got {config.seeds}")
    if config.simulations < 1:
        raise ValueError(f"simulations must be at least 1, got {config.simulations}")


def settings(config: Cells, problem: Problem, objective: Objective, name: str) -> Config:
    """Returns the settings of a cell or of a baseline."""
    told = config
    if config.released:
        told = dataclasses.replace(config, **RELEASED[config.released][objective]._asdict())
    # The repaired Colander keeps the penalty of its own.
    function = confidence(config if name == "Colander" else told, name)
    training = Training(
        learning_rate=told.learning_rate,
        weight_decay=told.weight_decay,
        objective=objective,
        epochs=config.epochs,
        batch_size=config.batch_size,
    )
    plain = Config(
        problem.classifier,
        problem.n_classes,
        Roles(*config.roles),
        confidence=function,
        training=training,
        error=config.main_error,
        failure=config.failure,
        min_count=config.min_count,
        seed=config.seed_points,
        batch=config.batch_points,
        budget=config.budget,
        query=config.query,
        method=config.method,
        shared=config.shared,
        reuse=config.reuse,
        # On a CPU what the convolutions copy stays in the caches.
        chunk=128 if config.net == "lenet5" else Config.chunk,
    )
    return baselines.BASELINES[name](plain) if name in baselines.BASELINES else plain


def confidence(config: Cells, name: str) -> Confidence:
    """Returns a confidence function by its name in tables, Colander with the config's settings."""
    if name == "Colander":
        return Colander(penalty=config.penalty, error=config.main_error, shared=config.shared)
    if name == "Colander (paper)":
        return Colander.paper(
            config.penalty, config.colander_alpha, config.colander_rate, config.colander_decay, shared=config.shared
        )
    if name == KNOWING:
        return colander_problems.TrueCorrectness()
    return POST_HOC.get(name, POST_HOC["Softmax"])


def cell(config: Cells, problem: Problem, objective: Objective, name: str) -> list[list[dict[str, float]]]:
    """Runs a cell: for each epsilon, for each seed, what came out."""
    problem = colander_problems.told(problem) if name == KNOWING else problem
    plain = settings(config, problem, objective, name)
    labels = jnp.asarray(problem.labels, jnp.int32)

    def one(error: jax.Array, key: jax.Array, features: Any) -> dict[str, jax.Array]:
        chosen: Any = plain.confidence
        if name == "Colander":
            chosen = dataclasses.replace(chosen, error=error)
        state = tbal.simulate(features, labels, dataclasses.replace(plain, error=error, confidence=chosen), key=key)
        return outcome(state, labels, plain)

    keys = jax.random.split(jax.random.key(config.seed), config.seeds)
    per_seed = jax.vmap(one, in_axes=(None, 0, None))
    if config.net == "cifar-net":
        # XLA groups convolutions whose kernels differ between seeds, and this net fills a device with one seed.
        per_seed = lambda error, keys, x: jax.lax.map(lambda key: one(error, key, x), keys)
    per_error = jax.jit(lambda errors, keys, x: jax.lax.map(lambda e: per_seed(e, keys, x), errors))
    measured = jax.device_get(per_error(jnp.asarray(config.errors), keys, problem.features))
    return [
        [{field: float(values[e, s]) for field, values in measured.items()} for s in range(config.seeds)]
        for e in range(len(config.errors))
    ]


def outcome(state: tbal.TBALState, labels: jax.Array, config: Config) -> dict[str, jax.Array]:
    """Returns the figures of one run."""
    rows = state.held[config.roles.total - config.roles.audit :]
    given = state.labels[rows]
    return {
        "coverage": state.coverage,
        "error": state.error(labels),
        "spent": state.spent,
        "audited": (given >= 0).sum(),
        "audit_errors": ((given >= 0) & (given != state.known[rows])).sum(),
        "rounds_that_label": jnp.isfinite(state.thresholds).any(axis=1).sum(),
    }


def in_unit_ball(config: UnitBall, budget: int, validation: int) -> dict[str, list[dict[str, float]]]:
    """Runs TBAL and AL+SC in the unit ball with so many queries and labelled points for thresholds."""
    plain = Config(
        mlp(config.dimension, (), 2),
        2,
        # Nothing is calibrated and no checkpoint chosen; one point goes to a role that must not be empty.
        Roles(0, 1, validation - 1),
        training=Training(
            learning_rate=config.learning_rate, weight_decay=0.0, epochs=config.epochs, select_every=0, enough=0.0
        ),
        error=config.error,
        deviations=config.deviations,
        min_count=config.min_count,
        seed=budget // 5,
        batch=budget // 20,
        budget=budget,
        method="sigma",
    )
    result = {}
    for name, settings_ in {"TBAL": plain, "AL+SC": baselines.active_selective(plain)}.items():

        def one(key: jax.Array, settings_: Config = settings_) -> dict[str, jax.Array]:
            data_key, run_key = jax.random.split(key)
            x, labels = colander_problems.unit_ball(data_key, config.n + validation, config.dimension)
            return outcome(tbal.simulate(x, labels, settings_, key=run_key), labels, settings_)

        keys = jax.random.split(jax.random.key(config.seed), config.seeds)
        measured = jax.device_get(jax.jit(lambda keys, one=one: jax.lax.map(one, keys))(keys))
        result[name] = [{f: float(np.asarray(v)[s]) for f, v in measured.items()} for s in range(config.seeds)]
    return result


if __name__ == "__main__":
    runner.main(run, "colander")
