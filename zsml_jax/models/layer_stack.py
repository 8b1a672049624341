"""Layers that are alike, run as one scanned program over stacked parameters."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any, Literal

import flax.linen as nn
import jax
from flax.core import broadcast

from zsml_jax.typing import PyTree

#: What the backward pass computes again: nothing; all that is in a layer (True); or all but the products with kernels,
#: which keeps less than half of the memory at hardly any time (``"dots"``, ``benchmarks/peft.py``).
Remat = bool | Literal["dots"]
#: How many stacks may still run before one is not to; None for all.
_stacks_left: contextvars.ContextVar[int | None] = contextvars.ContextVar("stacks_left", default=None)


class LayersReached(Exception):
    """Raised in the place of a stack's run, with what it would have begun with."""

    def __init__(self, carry: PyTree, shared: PyTree, scanned: PyTree):
        super().__init__()
        self.carry, self.shared, self.scanned = carry, shared, scanned


@contextlib.contextmanager
def stop_at_stack(number: int) -> Iterator[None]:
    """Within it the stack of this number, counted from 0 as they run, raises :class:`LayersReached`."""
    token = _stacks_left.set(number)
    try:
        yield
    finally:
        _stacks_left.reset(token)


def run_layers(
    layer: type[nn.Module],
    config: Any,
    carry: PyTree,
    shared: PyTree,
    scanned: PyTree,
    *,
    num_layers: int,
    name: str = "layers",
) -> tuple[PyTree, PyTree]:
    """Runs a stack of layers; compile time does not grow with its depth.

    The parameters of all layers lie under ``name`` with a leading axis l, whether ``config.unroll`` makes the loop one
    program per layer or not, and whatever ``config.remat`` keeps for the backward pass.

    Args:
      layer: a module with the field ``config``, called as ``layer(carry, shared, per_layer) -> (carry, output)``.
      config: its configuration, with the fields ``remat`` (:data:`Remat`) and ``unroll``.
      carry: what goes from layer to layer, such as ``x_BxTxD``.
      shared: what all layers see alike, such as a mask.
      scanned: what differs between layers: arrays with a leading axis l, of which each layer sees its own row.
      num_layers: layers l.
      name: name of the stack.

    Returns:
      The carry after the last layer, and the layers' outputs with a leading axis l, None if they have none.

    Raises:
      ValueError: if ``config.remat`` is none of :data:`Remat`.
    """
    if config.remat not in (False, True, "dots"):
        raise ValueError(f"remat must be True, False or 'dots', got {config.remat!r}")
    left = _stacks_left.get()
    if left == 0:
        raise LayersReached(carry, shared, scanned)
    _stacks_left.set(None if left is None else left - 1)
    # Under scan the barrier against merging the two forward passes is not needed, and costs.
    kept = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if config.remat == "dots" else None
    module = nn.remat(layer, prevent_cse=config.unroll, policy=kept) if config.remat else layer
    stack = nn.scan(
        module,
        variable_axes={"params": 0, "intermediates": 0},
        split_rngs={"params": True},
        in_axes=(broadcast, 0),
        length=num_layers,
        unroll=num_layers if config.unroll else 1,
    )
    return stack(config, name=name)(carry, shared, scanned)
