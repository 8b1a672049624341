"""The layers of a model one at a time: what goes into the first, and each of them by itself.

Methods that treat a model layer by layer need the parameters and activations of one layer in memory, not of all::

    for stack in stacks(pretrained):
        state = stack.enter(params, tokens)
        for i in range(stack.length):
            state = stack.run(stack.take(params, i), state, i)
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from zsml_jax.models import bert, decoder, mamba, t5, t5_layers
from zsml_jax.models.layer_stack import LayersReached, stop_at_stack
from zsml_jax.models.pretrained import Pretrained
from zsml_jax.typing import AnyArray, Params, PyTree


class BlockInput(NamedTuple):
    """What a layer is called with.

    Attributes:
      carry: what goes from layer to layer, the hidden states first.
      shared: what all layers see alike, such as a mask.
      scanned: what differs between layers: arrays with a leading axis l, or None.
      mask: where the model's tokens are, ``(b, t)``; None for everywhere.
    """

    carry: PyTree
    shared: PyTree
    scanned: PyTree
    mask: PyTree = None


# Compared and hashed by identity: programs are compiled once for each.
@dataclasses.dataclass(frozen=True, eq=False)
class Stack:
    """Layers that are alike and follow one another.

    Attributes:
      path: of the parameters of all layers, if they are stacked; else what comes before a layer's number.
      length: the number of sets of parameters, the blocks.
      calls: how often each block is called in a row: more than once where layers share their parameters.
      apply: ``(params of one block, carry, shared, this layer's part of scanned) -> carry``.
      module: the whole model.
      number: how many stacks run before this one.
    """

    path: str
    length: int
    calls: tuple[int, ...]
    apply: Callable[..., PyTree]
    module: nn.Module
    number: int = 0

    @property
    def is_stacked(self) -> bool:
        """Whether the parameters of all layers have a leading axis."""
        return not self.path.endswith("_")

    def prefix(self, index: int) -> str:
        """Returns the path of a block's parameters."""
        return self.path if self.is_stacked else f"{self.path}{index}"

    def slot(self, index: int) -> str:
        """Returns what the rules of checkpoints (:mod:`.rules`) call a block."""
        return f"{self.path}[{index}]" if self.is_stacked else self.prefix(index)

    def take(self, params: Params, index: int) -> Any:
        """Returns the parameters of one block."""
        node: Any = params
        for name in self.prefix(index).split("/"):
            node = node[name]
        return jax.tree.map(lambda leaf: leaf[index], node) if self.is_stacked else node

    def enter(self, params: Params, tokens: AnyArray, mask: AnyArray | None = None, **inputs: Any) -> BlockInput:
        """Returns what the first layer is called with; nothing behind it is computed.

        Args:
          params: the parameters of the model.
          tokens: token ids ``(b, t)``.
          mask: non-zero at tokens, zero at padding; all are tokens if None.
          **inputs: further arguments of the module by name.
        """
        return _enter(self, params, tokens, mask, inputs)._replace(mask=mask)

    def layer_input(self, state: BlockInput, index: int) -> tuple[PyTree, PyTree, PyTree]:
        """Returns the arguments of :attr:`apply` behind the parameters."""
        return state.carry, state.shared, jax.tree.map(lambda x: x[index], state.scanned)

    def run(self, own: Any, state: BlockInput, index: int) -> BlockInput:
        """Returns what the layer behind a block is called with, all calls of the block done.

        Args:
          own: the block's parameters.
          state: what the block is called with.
          index: its number.
        """
        for _ in range(self.calls[index]):
            state = state._replace(carry=_run(self.apply, own, *self.layer_input(state, index)))
        return state


def stacks(pretrained: Pretrained) -> list[Stack]:
    """Returns the stacks of a model, in the order in which they run.

    Raises:
      ValueError: if the layers of this kind of model are not known here.
    """
    return list(_stacks_of(pretrained.module))


@functools.cache
def _stacks_of(module: Any) -> tuple[Stack, ...]:
    """The same stacks for the same module, so that their programs are compiled once."""
    config = module.config
    match module:
        case decoder.Decoder():
            return (_stacked("layers", decoder.DecoderLayer(config), config.num_layers, module),)
        case mamba.Mamba():
            return (_stacked("layers", mamba.MambaLayer(config), config.num_layers, module),)
        case t5.T5():
            encoder = _stacked("encoder/layers", t5_layers.EncoderLayer(config), config.num_encoder_layers, module)
            layer = t5_layers.DecoderLayer(config)
            return encoder, _stacked("decoder/layers", layer, config.num_layers, module, number=1)
        case bert.Bert():
            groups = config.num_layers if config.num_groups is None else config.num_groups
            blocks = [i * groups // config.num_layers for i in range(config.num_layers)]
            layer = bert.EncoderLayer(config)
            apply = lambda own, x, mask, _: layer.apply({"params": own}, x, mask)
            return (Stack("layer_", groups, tuple(map(blocks.count, range(groups))), apply, module),)
    raise ValueError(f"pretrained must be a decoder, a Mamba, a T5 or a BERT, got a {type(module).__name__}")


def _stacked(path: str, layer: nn.Module, length: int, module: nn.Module, *, number: int = 0) -> Stack:
    apply: Any = lambda own, *inputs: layer.apply({"params": own}, *inputs)
    return Stack(path, length, (1,) * length, lambda *inputs: apply(*inputs)[0], module, number)


@functools.partial(jax.jit, static_argnums=0)
def _run(apply: Callable[..., PyTree], own: Any, *inputs: PyTree) -> PyTree:
    return apply(own, *inputs)


@functools.partial(jax.jit, static_argnums=0)
def _enter(
    stack: Stack, params: Params, tokens: AnyArray, token_mask: AnyArray | None, inputs: dict[str, Any]
) -> BlockInput:
    def stop(next_fun: Callable[..., Any], args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        if "/".join(context.module.path) == stack.prefix(0) and context.method_name == "__call__":
            x, mask = args
            raise LayersReached(x, mask, None)
        return next_fun(*args, **kwargs)

    # A scanned layer is seen by interceptors within the scan only, so that stacks have a stop of their own.
    try:
        with stop_at_stack(stack.number) if stack.is_stacked else nn.intercept_methods(stop):
            stack.module.apply({"params": params}, tokens, token_mask, **inputs)
    except LayersReached as reached:
        return BlockInput(reached.carry, reached.shared, reached.scanned)
    raise ValueError(f"tokens must come with all that the model needs to reach its layers {stack.path!r}")
