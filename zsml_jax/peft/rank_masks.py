r"""Adapters of several ranks in one program: the arrays of the largest rank, with parts of them switched off.

LoRA of rank r is LoRA of rank R whose columns beyond r are zero. MoRe is not that simple: its inner permutation sends
feature ``k r + q`` to output block ``(k r + q) mod N``, so that with another r other features meet other blocks, and
the first r of R features are MoRe of rank r only if N divides both. But where N divides R, feature q of block k goes to
block ``q mod N`` whatever k is, and each pair of blocks has R / N features of its own. MoRe of rank r uses

.. math:: c_{kl} = |\{q < r : (k r + q) \bmod N = l\}| \le R / N

features for the pair (k, l). With :func:`narrow` keeping the first :math:`c_{kl}` of them, the masked product runs over
exactly the matrices of MoRe of rank r, up to the order of features, also for ranks that N does not divide.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from zsml_jax.peft.adapter import Adapter
from zsml_jax.peft.lora import LoRA
from zsml_jax.peft.method import LayerShape, Method
from zsml_jax.peft.more import MoRe
from zsml_jax.typing import AnyArray, Array, Scalar


def widest(methods: Sequence[Method], shapes: Mapping[str, LayerShape]) -> Method | None:
    """Returns the method of which all of these are parts, or None if there is none.

    Args:
      methods: at least one; LoRA, DoRA or MoRe that differ in rank and ``alpha`` only.
      shapes: the layers that they adapt.

    Returns:
      The method with a rank that holds all, and ``alpha`` 1.
    """
    first: Any = methods[0]
    if not isinstance(first, LoRA | MoRe) or first.ranks:
        return None
    rank = max(getattr(method, first.rank_field) for method in methods)
    if isinstance(first, MoRe):
        rank = -(-rank // first.blocks) * first.blocks
        if any(first.monarch_shape(shape).block_count != first.blocks for shape in shapes.values()):
            return None
    of = lambda method: dataclasses.replace(method, **{first.rank_field: rank}, alpha=1.0)
    return of(first) if all(type(m) is type(first) and of(m) == of(first) for m in methods) else None


def scale_in(method: LoRA | MoRe, wide: LoRA | MoRe) -> float:
    """Returns the ``alpha`` with which ``wide`` gives its narrow part the factor that ``method`` has alone."""
    power = {"rank": 1.0, "root_rank": 0.5, "none": 0.0}[method.scaling]
    rank, widest_rank = (getattr(m, m.rank_field) for m in (method, wide))
    return method.alpha * (widest_rank / rank) ** power


def narrow(adapter: Adapter, rank: Scalar, alpha: Scalar) -> Adapter:
    """Returns the adapter with its arrays beyond a rank at zero, where they get no gradient.

    Args:
      adapter: of the method that :func:`widest` returned.
      rank: the rank; traced.
      alpha: the number of :func:`scale_in`; traced.
    """
    arrays = {}
    for layer in adapter.layers:
        own, method = dict(adapter.arrays[layer.path]), layer.method
        if isinstance(method, MoRe):
            own["first"] = own["first"] * more_features(method.blocks, method.block_rank, rank)[..., None]
        elif isinstance(method, LoRA):
            own["a"] = own["a"] * (jnp.arange(method.rank) < rank)
        arrays[layer.path] = own
    numbers = {**adapter.numbers, "alpha": jnp.asarray(alpha, jnp.float32)}
    return dataclasses.replace(adapter, arrays=arrays, numbers=numbers)


def more_features(blocks: int, widest_rank: int, rank: Scalar | AnyArray) -> Array:
    """Returns which features of MoRe of the rank R make MoRe of the rank r, ``(N, R)``.

    >>> more_features(2, 4, 1).astype(int).tolist()
    [[1, 0, 0, 0], [0, 1, 0, 0]]

    Args:
      blocks: N.
      widest_rank: R, a multiple of N.
      rank: r, at most R; may be traced.
    """
    if widest_rank % blocks:
        raise ValueError(f"widest_rank must be a multiple of the {blocks} blocks, got {widest_rank}")
    k = jnp.arange(blocks)[:, None]
    place, l = jnp.divmod(jnp.arange(widest_rank), blocks)
    below = lambda number: -((l - number) // blocks)  # how many of 0 ... number - 1 are l modulo N
    return place < below(k * rank + rank) - below(k * rank)
