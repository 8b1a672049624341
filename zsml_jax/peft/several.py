"""Several adapters of one model: stacked to serve one batch, or combined into one."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from zsml_jax.peft.adapter import AdaptedLayer, Adapter
from zsml_jax.peft.lora import LoRA
from zsml_jax.typing import Array, Scalar


def stack(adapters: Sequence[Adapter]) -> Adapter:
    """Returns adapters as one pytree with a leading axis, for ``rows`` of :func:`~zsml_jax.peft.apply`, or ``vmap``.

    Args:
      adapters: adapters of one model, with configs that differ at most in traced numbers such as ``alpha``.

    Raises:
      ValueError: if there are none, or they adapt different layers or in different ways.
    """
    _check_same(adapters, "adapters")
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *adapters)


def pick(stacked: Adapter, index: int) -> Adapter:
    """Returns one adapter of a stack.

    Raises:
      ValueError: if the stack has no such number.
    """
    count = len(jax.tree.leaves(stacked)[0])
    if not 0 <= index < count:
        raise ValueError(f"index must lie in 0 ... {count - 1}, got {index}")
    return jax.tree.map(lambda leaf: leaf[index], stacked)


def combine(adapters: Sequence[Adapter], weights: Sequence[Scalar]) -> Adapter:
    r"""Returns the LoRA that adds the weighted sum of what low-rank adapters add, :math:`\sum_i w_i \Delta_i`, exactly.

    Its rank is the sum of theirs, N r for MoRe. MoRe, LoRA and VeRA can be combined, also with one another, and need
    not adapt the same layers. What DoRA, (IA)^3, OFT and BOFT do to a layer depends on its kernel and has no sum.

    Args:
      adapters: low-rank adapters of one model.
      weights: one factor for each; negative ones take away what was learned.

    Returns:
      The adapter, with the traced ``alpha`` 1 and without dropout.

    Raises:
      ValueError: if there are none, a method is not of low rank, an adapter has parameters that are trained in full or
        a head, which have no sum either, or the adapters are of different models.
    """
    if not adapters or len(adapters) != len(weights):
        raise ValueError(
            f"adapters and weights must be as many, and at least one, got {len(adapters)} and {len(weights)}"
        )
    for i, adapter in enumerate(adapters):
        if adapter.weights or adapter.head is not None:
            raise ValueError(f"adapters must train low-rank arrays only; number {i} also trains weights or a head")
    factors: dict[str, list[tuple[Array, Array]]] = {}
    layers: dict[str, AdaptedLayer] = {}
    for adapter, weight in zip(adapters, weights, strict=True):
        for layer in adapter.layers:
            known = layers.setdefault(layer.path, layer)
            if (known.shape, known.stack, known.rows) != (layer.shape, layer.stack, layer.rows):
                raise ValueError(f"adapters must be of one model and adapt the same layers of {layer.path!r}")
            down, up = low_rank_factors(adapter, layer)
            factors.setdefault(layer.path, []).append((down, jnp.asarray(weight) * up))
    arrays = {
        path: {
            "a": jnp.concatenate([down for down, _ in pairs], axis=-1),
            "b": jnp.concatenate([up for _, up in pairs], axis=-2),
        }
        for path, pairs in factors.items()
    }
    ranks = {path: arrays[path]["b"].shape[-2] for path in arrays}
    method = LoRA(
        targets=tuple(arrays),
        layers=next((layer.rows for layer in layers.values() if layer.rows is not None), None),
        rank=max(ranks.values()),
        ranks=ranks,
        alpha=1.0,
        scaling="none",
    )
    return Adapter(
        arrays=arrays,
        weights={},
        head=None,
        numbers={"alpha": jnp.ones(())},
        shared={},
        method=method.without_numbers(),
        layers=tuple(
            AdaptedLayer(path, layer.shape, layer.stack, layer.rows, method.without_numbers().at(path))
            for path, layer in layers.items()
        ),
    )


def low_rank_factors(adapter: Adapter, layer: AdaptedLayer) -> tuple[Array, Array]:
    """Returns two factors whose product is what the adapter adds to a layer's kernel, with the layer's leading axes.

    Args:
      adapter: a low-rank adapter.
      layer: one of its layers.

    Returns:
      ``(*l, n, r)`` and ``(*l, r, m)``.

    Raises:
      ValueError: if the method is not of low rank.
    """
    shared = {**adapter.shared, **adapter.numbers}
    of_all = lambda arrays: layer.method.low_rank(layer.shape, arrays, shared)
    for _ in layer.leading:
        of_all = jax.vmap(of_all)
    return of_all(adapter.arrays[layer.path])


def _check_same(adapters: Sequence[Adapter], argument: str) -> None:
    if not adapters:
        raise ValueError(f"{argument} must have at least one adapter, got none")
    shapes = lambda adapter: jax.tree.map(np.shape, adapter)
    for i, other in enumerate(adapters[1:], 1):
        if jax.tree.structure(other) != jax.tree.structure(adapters[0]) or shapes(other) != shapes(adapters[0]):
            raise ValueError(
                f"{argument} must be alike but for their numbers: number {i} has {other.method} on "
                f"{[layer.path for layer in other.layers]}, number 0 has {adapters[0].method} on "
                f"{[layer.path for layer in adapters[0].layers]}"
            )
