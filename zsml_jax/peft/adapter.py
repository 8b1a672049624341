"""Adapters: what fine-tuning learns, as a pytree of its own beside the pretrained parameters."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from zsml_jax.models.pretrained import Pretrained
from zsml_jax.models.quantized import Quantized
from zsml_jax.models.t5_config import T5Config
from zsml_jax.peft.layer_patterns import select_layers
from zsml_jax.peft.method import LayerShape, Method
from zsml_jax.transform.sites import ApplyFn, Site, sites
from zsml_jax.typing import Key, Params, PyTree


@dataclasses.dataclass(frozen=True)
class AdaptedLayer:
    """One Dense layer that has an adapter, or a scanned stack of them.

    Attributes:
      path: its path.
      shape: the sizes of one layer.
      stack: the leading axes of its parameters, ``(l,)`` in a scanned stack of l layers, else ``()``.
      rows: which layers of the stack are adapted; all if None. Arrays have a leading axis of this length.
      method: the config as it is at this layer.
    """

    path: str
    shape: LayerShape
    stack: tuple[int, ...]
    rows: tuple[int, ...] | None
    method: Method

    @property
    def leading(self) -> tuple[int, ...]:
        """The leading axes of the adapter's arrays."""
        return self.stack if self.rows is None else (len(self.rows),)


@flax.struct.dataclass
class Adapter:
    """An adapter; a pytree, of which ``arrays``, ``weights`` and ``head`` are trained.

    Adapters with the same static fields share compiled programs: new values, numbers included, never recompile.

    Attributes:
      arrays: by path of the layer, its arrays by name; with a leading axis of layers in a scanned stack.
      weights: parameters of the model that are trained in full, by path; they take the place of the model's.
      head: what is trained along and belongs to a task and not to the model, such as a classification head; the model
        never sees it. None if there is none.
      numbers: the traced fields of the config, such as ``alpha``.
      shared: arrays that belong to the adapter and are not trained, such as VeRA's random matrices.
      method: the config without these numbers.
      layers: the layers that are adapted.
    """

    arrays: dict[str, dict[str, Any]]
    weights: dict[str, Any]
    head: PyTree
    numbers: dict[str, Any]
    shared: dict[str, Any]
    method: Method = flax.struct.field(pytree_node=False)
    layers: tuple[AdaptedLayer, ...] = flax.struct.field(pytree_node=False)

    @property
    def config(self) -> Method:
        """The config with the numbers that the adapter has; they must be known, and not those of several adapters."""
        # By way of the text, since 0.1 is another number in float64 than in float32.
        numbers: dict[str, Any] = {name: float(str(value)) for name, value in self.numbers.items()}
        return dataclasses.replace(self.method, **numbers)

    @property
    def parameters(self) -> int:
        """How many numbers are trained, those of the head excluded, as is usual in published tables."""
        return sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves((self.arrays, self.weights)))


def adapt(pretrained: Pretrained, config: Method, *, key: Key, head: PyTree = None) -> Adapter:
    """Returns a fresh adapter, with which the model computes what it did before.

    It can be traced: under :func:`jax.eval_shape` an adapter of any model is made without its weights.

    Args:
      pretrained: the model; it stays as it is. Its kernels may be quantised (Dettmers et al., "QLoRA", 2023).
      config: the method, such as :class:`~zsml_jax.peft.MoRe`, with the layers that it adapts.
      key: from which random arrays are drawn; each layer has its own numbers.
      head: what is trained along, see :class:`Adapter`.

    Returns:
      The adapter, with float32 arrays.

    Raises:
      ValueError: if a pattern matches nothing, the model has no such layer, a layer does not suit the method, or a
        quantised kernel would be trained in full.
    """
    tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    inputs = {"decoder_tokens": tokens} if isinstance(pretrained.config, T5Config) else {}
    return init(pretrained.apply, pretrained.params, config, tokens, key=key, head=head, **inputs)


def init(
    apply_fn: ApplyFn, params: Params, config: Method, *args: Any, key: Key, head: PyTree = None, **kwargs: Any
) -> Adapter:
    """Returns a fresh adapter of any Linen model.

    Args:
      apply_fn: ``(params, *args, **kwargs) -> output``, see :func:`zsml_jax.transform.sites`.
      params: the model's parameters.
      config: as for :func:`adapt`.
      *args: what the model is called with: arrays or their shapes.
      key: as for :func:`adapt`.
      head: as for :func:`adapt`.
      **kwargs: the same, by name.

    Raises:
      ValueError: as for :func:`adapt`.
    """
    method = config.without_numbers()
    layers = _adapted_layers(method, sites(apply_fn, params, *args, **kwargs))
    shapes = {layer.path: layer.shape for layer in layers}
    config.check(shapes)
    flat = flatten(params)
    arrays = {}
    for i, layer in enumerate(layers):
        kernel = _rows(flat[f"{layer.path}/kernel"], layer)
        start: Callable[..., Any] = lambda key, kernel, layer=layer: dict(
            layer.method.init(layer.shape, kernel, key=key)
        )
        for _ in layer.leading:
            start = jax.vmap(start)
        arrays[layer.path] = start(_keys(jax.random.fold_in(key, i), layer.leading), kernel)
    trained = select_layers(config.train, flat, argument="train", kind="parameter")
    if quantised := [path for path in trained if isinstance(flat[path], Quantized)]:
        raise ValueError(f"train must name no quantised kernels, whose codes have no gradient, got {quantised}")
    numbers = {name: jnp.asarray(value, jnp.float32) for name, value in config.numbers().items()}
    shared = dict(config.shared(list(shapes.values()))) if layers else {}
    return Adapter(
        arrays,
        {path: jnp.asarray(flat[path]) for path in trained},
        head,
        numbers,
        shared,
        method,
        tuple(layers),
    )


def check_fits(adapter: Adapter, params: Params, *, stacked: bool = False) -> None:
    """Raises a ValueError if an adapter has other shapes than a model asks for, one of another model for example.

    Args:
      adapter: the adapter.
      params: the model's parameters.
      stacked: whether the adapter is a stack of several, of :func:`~zsml_jax.peft.stack`.
    """
    flat = flatten(params)
    several = "of several adapters; name one for each row in rows, or take one with pick"
    lead = np.shape(jax.tree.leaves(adapter.arrays)[0])[:1] if stacked else ()
    for layer in adapter.layers:
        kernel = (*layer.stack, layer.shape.inputs, layer.shape.outputs)
        found = np.shape(flat[f"{layer.path}/kernel"]) if f"{layer.path}/kernel" in flat else None
        if found != kernel:
            raise ValueError(f"adapter is of another model: it needs a kernel {kernel} at {layer.path!r}, got {found}")
        own = adapter.arrays.get(layer.path, {})
        for name, shape in expected_shapes(layer).items():
            got = np.shape(own[name]) if name in own else None
            if got != lead + layer.leading + shape:
                is_several = not stacked and got is not None and got[1:] == layer.leading + shape
                raise ValueError(
                    f"adapter must have the shape {lead + layer.leading + shape} for {name!r} at {layer.path!r}, "
                    f"got {got}{', ' + several if is_several else ''}"
                )
        if unknown := sorted(set(own) - set(expected_shapes(layer))):
            raise ValueError(f"adapter has arrays at {layer.path!r} that its method does not know: {unknown}")
    if unknown := sorted(set(adapter.arrays) - {layer.path for layer in adapter.layers}):
        raise ValueError(f"adapter has arrays for layers that it does not adapt: {unknown}")
    for path, value in adapter.weights.items():
        found = np.shape(flat[path]) if path in flat else None
        if found is None or np.shape(value) != lead + found:
            raise ValueError(
                f"adapter must have the model's shape {found} for the parameter {path!r}, got {value.shape}"
            )


@functools.lru_cache(maxsize=4096)
def _shapes_of(method: Method, shape: LayerShape) -> dict[str, tuple[int, ...]]:
    kernel = jax.ShapeDtypeStruct((shape.inputs, shape.outputs), jnp.float32)
    arrays = jax.eval_shape(lambda kernel: dict(method.init(shape, kernel, key=jax.random.key(0))), kernel)
    return {name: array.shape for name, array in arrays.items()}


def expected_shapes(layer: AdaptedLayer) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a layer's arrays by name, without leading axes."""
    return _shapes_of(layer.method, layer.shape)


def flatten(params: Params) -> dict[str, Any]:
    """Returns parameters by path."""
    return dict(flax.traverse_util.flatten_dict(params, sep="/", keep_empty_nodes=True))  # pyrefly: ignore


def with_weights(params: Params, weights: Mapping[str, Any]) -> Params:
    """Returns the parameters with those that an adapter trains in full in their places."""
    if not weights:
        return params
    return flax.traverse_util.unflatten_dict({**flatten(params), **weights}, sep="/")


def _adapted_layers(config: Method, found: Mapping[str, Site]) -> list[AdaptedLayer]:
    dense = [path for path, site in found.items() if site.is_dense]
    kind = "Dense layer of the model"
    chosen = select_layers(config.targets, dense, argument="targets", kind=kind)
    left_out = select_layers(config.exclude, dense, argument="exclude", kind=kind)
    layers = []
    for path in chosen:
        site = found[path]
        if path in left_out:
            continue
        rows = None
        if config.layers is not None:
            if site.num_layers is None:
                continue
            outside = [i for i in config.layers if not 0 <= i < site.num_layers]
            if outside:
                raise ValueError(f"layers must lie in 0 ... {site.num_layers - 1} at {path!r}, got {outside}")
            if not site.stack and site.layer not in config.layers:
                continue
            rows = tuple(config.layers) if site.stack else None
        inputs, outputs = site.params["kernel"].shape
        layers.append(AdaptedLayer(path, LayerShape(inputs, outputs), site.stack, rows, config.at(path)))
    if config.targets and not layers:
        raise ValueError(
            f"targets, exclude and layers must leave a Dense layer to adapt, got {config.targets}, {config.exclude} "
            f"and {config.layers}"
        )
    for argument, patterns in config.patterns().items():
        adapted = [layer.path for layer in layers]
        select_layers(patterns, adapted, argument=argument, kind="layer that is adapted")
    return layers


def _rows(kernel: Any, layer: AdaptedLayer) -> Any:
    """The kernels of the layers that are adapted; of a quantised one all that it has."""
    rows = ... if layer.rows is None else np.asarray(layer.rows)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], kernel)


def _keys(key: Key, leading: tuple[int, ...]) -> Any:
    return jax.random.split(key, leading) if leading else key
