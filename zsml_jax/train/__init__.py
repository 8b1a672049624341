"""Training: checkpoints that survive preemption.

Start with :func:`zsml_jax.train.checkpoint.save` and :func:`~zsml_jax.train.checkpoint.restore` for one fitted
pytree, and :class:`~zsml_jax.train.checkpoint.Checkpointer` for the steps of a run.
"""

from zsml_jax.train import checkpoint
from zsml_jax.train.checkpoint import Checkpointer

__all__ = ["Checkpointer", "checkpoint"]
