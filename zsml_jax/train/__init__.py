"""Training: checkpoints that survive preemption, and studies in one compiled program.

Start with :func:`zsml_jax.train.checkpoint.save` and :func:`~zsml_jax.train.checkpoint.restore` for one fitted
pytree, and :class:`~zsml_jax.train.checkpoint.Checkpointer` for the steps of a run. :func:`zsml_jax.train.sweep.run`
trains all :mod:`points <zsml_jax.train.points>` of a study at once, and :func:`zsml_jax.train.halving.run` the
promising ones longer.
"""

from zsml_jax.train import checkpoint, halving, points, population, sweep
from zsml_jax.train.checkpoint import Checkpointer

__all__ = ["Checkpointer", "checkpoint", "halving", "points", "population", "sweep"]
