"""What a training step of one method costs: planned memory and measured time."""

import time
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from zsml_jax.train import memory, sharding
from zsml_jax.train.optimizer import PathOptimizer
from zsml_jax.train.state import init_state
from zsml_jax.train.step import LossFn, make_step
from zsml_jax.typing import PyTree


def measure(loss_fn: LossFn, params: PyTree, batch: PyTree, optimizer: PathOptimizer, *, steps: int) -> dict[str, Any]:
    """Returns the bytes that the compiler plans for a step, and the seconds of each of some steps after the first.

    Args:
      loss_fn: as for :func:`zsml_jax.train.fit`.
      params: the parameters with the base, as ``fit`` gets them; they stay as they are.
      batch: one batch.
      optimizer: the optimizer.
      steps: how many steps are timed.

    Returns:
      ``bytes``, the list ``seconds``, and its ``median``.
    """
    mesh = sharding.make_mesh("data:1", devices=jax.local_devices()[:1])
    whole = NamedSharding(mesh, PartitionSpec())
    fresh = lambda params: init_state(jax.tree.map(jax.numpy.copy, params), optimizer, key=jax.random.key(0))
    state = jax.jit(fresh)(jax.device_put(params, whole))
    batch = jax.device_put(batch, whole)
    step = make_step(loss_fn, optimizer)
    planned = memory.step_memory(step, state, batch, mesh=mesh)
    compiled = jax.jit(step, donate_argnums=0)
    state, _ = compiled(state, batch)
    seconds = []
    for _ in range(steps):
        jax.block_until_ready(state)
        start = time.perf_counter()
        state, _ = compiled(state, batch)
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - start)
    return {"bytes": planned.total, "seconds": seconds, "median": float(np.median(seconds))}
