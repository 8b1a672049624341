"""Compression one block at a time: statistics of a block's inputs, its kernels compressed, and on to the next.

A block sees what the blocks before it give after their compression, as the released code of Wanda, SparseGPT and GPTQ
has it; within a block all inputs are those from before. In memory are the activations of the calibration data and the
statistics of one block.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from zsml_jax import transform
from zsml_jax.compression.calibration import Calibration, InputStatistics, add, statistics_of
from zsml_jax.models.blocks import BlockInput, Stack, stacks
from zsml_jax.typing import Array, Params, PyTree

T = TypeVar("T")
#: ``(kernel, statistics, (path, block)) -> what stands in its place, and what else is to be kept``; of one layer.
Compress = Callable[[Array, InputStatistics, tuple[str, int]], tuple[Any, Any]]


def compress_blocks(
    params: Params, calibration: Calibration, paths: Sequence[str], compress: Compress, *, gram: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compresses kernels in the order in which their blocks run.

    Args:
      params: the parameters; they stay as they are.
      calibration: the data.
      paths: paths of kernels in the layers.
      compress: called once for each kernel of each layer; it must return the same shapes for the layers of a stack.
      gram: whether it needs the Gram matrix.

    Returns:
      The parameters with what stands in the kernels' places, and by path what else was kept; of stacked layers both
      are stacked.

    Raises:
      ValueError: if a kernel is in no layer, or inputs are missing or not finite.
    """
    found = stacks(calibration.pretrained)
    outside = [
        path for path in paths if not any(_local(stack, i, path) for stack in found for i in range(stack.length))
    ]
    if outside:
        raise ValueError(f"groups must be kernels in layers for a method with calibration data; {outside[0]} is not")
    kept: dict[str, Any] = {}
    for stack in found:
        if any(_local(stack, i, path) for path in paths for i in range(stack.length)):
            states = [stack.enter(params, tokens, **inputs) for tokens, inputs in calibration.batches()]
            params, also_kept = _compress_stack(params, stack, states, paths, compress, gram)
            kept |= also_kept
    return dict(params), kept


def _compress_stack(
    params: Params, stack: Stack, states: list[BlockInput], paths: Sequence[str], compress: Compress, gram: bool
) -> tuple[Params, dict[str, Any]]:
    new: dict[str, list[Any]] = {}
    kept: dict[str, list[Any]] = {}
    for i in range(stack.length):
        own = stack.take(params, i)
        local = {path: name for path in paths if (name := _local(stack, i, path))}
        sites = tuple(sorted({name.removesuffix("/kernel") for name in local.values()}))
        seen = _statistics(stack, own, states, i, sites, gram) if local else {}
        for path, name in local.items():
            (kernel,) = transform.select(own, name).values()
            statistics = seen[name.removesuffix("/kernel")]
            if not bool(jnp.isfinite(statistics.squares).all()):
                raise ValueError(f"calibration must give finite activations; those that enter {path} are not")
            replacement, also = compress(jnp.asarray(kernel), statistics, (path, i))
            new.setdefault(path, []).append(replacement)
            kept.setdefault(path, []).append(also)
            own = transform.update(own, name, lambda _, __, replacement=replacement: replacement)
        states = [stack.run(own, state, i) for state in states]
    join = functools.partial(_stacked, stack.is_stacked)
    replaced = {path: join(values) for path, values in new.items()}
    return (
        transform.update(params, list(replaced), lambda _, path: replaced[path]),
        {path: join(values) for path, values in kept.items()},
    )


def _stacked(is_stacked: bool, values: list[T]) -> T:
    return jax.tree.map(lambda *rows: jnp.stack(rows), *values) if is_stacked else values[0]


def _local(stack: Stack, index: int, path: str) -> str | None:
    """The path within a block of a path in the model, None if it is not in that block."""
    start = f"{stack.prefix(index)}/"
    return path.removeprefix(start) if path.startswith(start) else None


def _statistics(
    stack: Stack, own: Any, states: Sequence[BlockInput], index: int, sites: tuple[str, ...], gram: bool
) -> Mapping[str, InputStatistics]:
    total: Mapping[str, InputStatistics] | None = None
    for state in states:
        for _ in range(stack.calls[index]):
            carry, seen = _run_and_look(stack, sites, gram, own, *stack.layer_input(state, index))
            state = state._replace(carry=carry)
            total = seen if total is None else {site: _add(total[site], seen[site]) for site in sites}
    return total or {}


_add = jax.jit(add)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _run_and_look(
    stack: Stack, sites: tuple[str, ...], gram: bool, own: Any, *inputs: PyTree
) -> tuple[PyTree, dict[str, InputStatistics]]:
    """Runs a block, and returns besides the statistics of what enters some of its dense layers."""
    look = functools.partial(statistics_of, gram=gram)
    return transform.capture(stack.apply, sites, look, of="input")(own, *inputs)
