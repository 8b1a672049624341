"""How much memory of each device a compiled step takes, known before there is a device.

Example, on a machine with nothing but a CPU::

    jax.config.update("jax_num_cpu_devices", 64)
    mesh = make_mesh("data:8,model:8")
    state = abstract(state, state_shardings(state, mesh, rules))    # of jax.eval_shape, no array is made
    step_memory(step, state, batch, mesh=mesh).total / 1e9
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from zsml_jax.train import activations
from zsml_jax.typing import PyTree


class StepMemory(NamedTuple):
    """Bytes of one device.

    Attributes:
      arguments: the state and the device's part of the batch.
      outputs: the new state and the metrics.
      aliased: outputs that take the place of donated arguments.
      temporaries: everything in between: gradients, activations, gathered parameters.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int

    @property
    def total(self) -> int:
        """What must fit into the device at once."""
        return self.arguments + self.outputs - self.aliased + self.temporaries


def step_memory(
    step: Callable[..., Any],
    state: PyTree,
    batch: PyTree,
    *,
    mesh: Mesh,
    batch_axes: str | tuple[str, ...] = "data",
) -> StepMemory:
    """Compiles a step with its state donated, as :func:`zsml_jax.train.fit` does, and reads what the compiler planned.

    Args:
      step: of :func:`zsml_jax.train.make_step`.
      state: its state, concrete or abstract, with shardings (:func:`zsml_jax.train.sharding.abstract`).
      batch: its batch, in the same way.
      mesh: the mesh of the shardings.
      batch_axes: mesh axes that divide the examples.

    Returns:
      The bytes of each device, as the compiler of the mesh's backend lays them out. Another backend, with other fused
      kernels and dtypes, needs another amount.

    Raises:
      NotImplementedError: if the compiler does not tell.
    """
    pinned = jax.tree.map(lambda x: x.sharding, state)
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(pinned, None))
    with activations.divided(mesh, batch_axes):
        planned = jitted.lower(state, batch).compile().memory_analysis()
    if planned is None:
        raise NotImplementedError(f"the compiler of {jax.default_backend()} does not say what memory it plans")
    return StepMemory(
        planned.argument_size_in_bytes,
        planned.output_size_in_bytes,
        planned.alias_size_in_bytes,
        planned.temp_size_in_bytes,
    )
