"""Training: a readable loop, studies in one compiled program, sharding, and checkpoints that survive preemption.

Start with :func:`fit`, which sees a model as a loss ``loss_fn(params, batch, key)`` and a pytree of parameters::

    result = fit(loss_fn, params, batches, optimizer=optimizer.by_path([(".*", optimizer.adamw(1e-3))]),
                 steps=1_000, key=jax.random.key(0))

:mod:`.optimizer` and :mod:`.schedules` say how parameters move, :mod:`.sharding` where they lie, and
:class:`~zsml_jax.train.checkpoint.Checkpointer` keeps the steps of a run; :func:`zsml_jax.train.checkpoint.save` and
:func:`~zsml_jax.train.checkpoint.restore` are for one fitted pytree. :func:`zsml_jax.train.sweep.run` trains all
:mod:`points <zsml_jax.train.points>` of a study at once, and :func:`zsml_jax.train.halving.run` the promising ones
longer.
"""

from zsml_jax.train import (
    activations,
    checkpoint,
    distributed,
    halving,
    optimizer,
    points,
    population,
    schedules,
    sharding,
    sharding_tables,
    sweep,
)
from zsml_jax.train.checkpoint import Checkpointer
from zsml_jax.train.early_stopping import EarlyStopping
from zsml_jax.train.evaluator import Evaluator
from zsml_jax.train.fit import FitResult, fit
from zsml_jax.train.not_finite import NotFiniteError
from zsml_jax.train.state import TrainState, init_state
from zsml_jax.train.step import make_step

__all__ = [
    "Checkpointer",
    "EarlyStopping",
    "Evaluator",
    "FitResult",
    "NotFiniteError",
    "TrainState",
    "activations",
    "checkpoint",
    "distributed",
    "fit",
    "halving",
    "init_state",
    "make_step",
    "optimizer",
    "points",
    "population",
    "schedules",
    "sharding",
    "sharding_tables",
    "sweep",
]
