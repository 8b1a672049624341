"""Compression one block at a time: statistics of a block's inputs, its kernels compressed, and on to the next.

A block sees what the blocks before it give after their compression, as the released code of Wanda, SparseGPT and GPTQ
has it; within a block all inputs are those from before. In memory are the activations of the calibration data and the
statistics of one block.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from zsml_jax import transform
from zsml_jax.compression.calibration import Calibration, InputStatistics, add, statistics_of
from zsml_jax.models.blocks import BlockInput, Stack, stacks
from zsml_jax.typing import AnyArray, Array, Params, PyTree

T = TypeVar("T")
_OF_SOURCE = re.compile(r"cross/(key|value)")
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
    check_in_layers(found, paths)
    all_kept: dict[str, Any] = {}
    for stack in found:
        if not any(local_paths(stack, i, paths) for i in range(stack.length)):
            continue
        states = [stack.enter(params, tokens, **inputs) for tokens, inputs in calibration.batches()]
        new: dict[str, list[Any]] = {}
        kept: dict[str, list[Any]] = {}
        for i in range(stack.length):
            own, also_kept = compress_block(stack, i, stack.take(params, i), states, paths, compress, gram=gram)
            for path, name in local_paths(stack, i, paths).items():
                new.setdefault(path, []).extend(transform.select(own, name).values())
                kept.setdefault(path, []).append(also_kept[path])
            advance(stack, i, own, states)
        join = functools.partial(_stacked, stack.is_stacked)
        replaced = {path: join(values) for path, values in new.items()}
        params = transform.update(params, list(replaced), lambda _, path, replaced=replaced: replaced[path])
        all_kept |= {path: join(values) for path, values in kept.items()}
    return dict(params), all_kept


def check_in_layers(found: Sequence[Stack], paths: Sequence[str]) -> None:
    """Raises a ValueError unless all kernels are in layers."""
    inside = {path for stack in found for i in range(stack.length) for path in local_paths(stack, i, paths)}
    if outside := [path for path in paths if path not in inside]:
        raise ValueError(f"groups must be kernels in layers for a method with calibration data; {outside[0]} is not")


def compress_block(
    stack: Stack,
    index: int,
    own: Any,
    states: Sequence[BlockInput],
    paths: Sequence[str],
    compress: Compress,
    *,
    gram: bool,
) -> tuple[Any, dict[str, Any]]:
    """Compresses the kernels of one block.

    Args:
      stack: the layers.
      index: the block's number.
      own: its parameters.
      states: what it is called with, for each batch.
      paths: as for :func:`compress_blocks`.
      compress: as for :func:`compress_blocks`.
      gram: as for :func:`compress_blocks`.

    Returns:
      The block's new parameters, and by path what else is to be kept.

    Raises:
      ValueError: if inputs are not finite.
    """
    local = local_paths(stack, index, paths)
    sites = tuple(sorted({name.removesuffix("/kernel") for name in local.values()}))
    seen = _statistics(stack, own, states, index, sites, gram) if local else {}
    kept: dict[str, Any] = {}
    for path, name in local.items():
        (kernel,) = transform.select(own, name).values()
        statistics = seen[name.removesuffix("/kernel")]
        if not bool(jnp.isfinite(statistics.squares).all()):
            raise ValueError(f"calibration must give finite activations; those that enter {path} are not")
        replacement, kept[path] = compress(jnp.asarray(kernel), statistics, (path, index))
        own = transform.update(own, name, lambda _, __, replacement=replacement: replacement)
    return own, kept


def advance(stack: Stack, index: int, own: Any, states: list[BlockInput]) -> None:
    """Runs a block over all batches; what it gives takes the place of what it was called with, batch by batch."""
    for number, state in enumerate(states):
        # Waiting lets go of what it was called with before the next batch runs.
        states[number] = jax.block_until_ready(stack.run(own, state, index))


def local_paths(stack: Stack, index: int, paths: Sequence[str]) -> dict[str, str]:
    """Returns the paths within a block of those that are in it, by path."""
    return {path: name for path in paths if (name := _local(stack, index, path))}


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
            carry, seen = _run_and_look(stack, sites, gram, own, state.mask, *stack.layer_input(state, index))
            state = state._replace(carry=carry)
            total = seen if total is None else {site: _add(total[site], seen[site]) for site in sites}
    return total or {}


_add = jax.jit(add)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _run_and_look(
    stack: Stack, sites: tuple[str, ...], gram: bool, own: Any, mask: AnyArray | None, *inputs: PyTree
) -> tuple[PyTree, dict[str, InputStatistics]]:
    """Runs a block, and returns besides the statistics of what enters some of its dense layers."""
    # A decoder that reads an encoder sees its padding only where it looks at it.
    padded = [site for site in sites if stack.number == 0 or _OF_SOURCE.fullmatch(site)]
    others = [site for site in sites if site not in padded]
    apply = stack.apply
    if others:
        apply = transform.capture(apply, others, functools.partial(statistics_of, gram=gram), of="input")
    if padded:
        look = lambda x: statistics_of(x, mask, gram=gram)
        apply = transform.capture(apply, padded, look, of="input")
    out = apply(own, *inputs)
    seen: dict[str, InputStatistics] = {}
    for _ in filter(None, (padded, others)):
        out, found = out
        seen |= found
    return out, seen
