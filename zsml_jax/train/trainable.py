"""A tree of parameters without its frozen ones, so that neither gradients nor optimizer states are made for those.

Frozen leaves become ``optax.MaskedNode()``, an empty node: maps over the tree pass over it, and all paths stay.
"""

import jax
import optax

from zsml_jax.typing import PyTree


def select(params: PyTree, frozen: PyTree) -> PyTree:
    """Returns the parameters with every leaf taken out that is True in ``frozen``.

    >>> trained = select({"head": 1.0, "body": 2.0}, {"head": False, "body": True})
    >>> trained
    {'body': MaskedNode(), 'head': 1.0}
    >>> merge({"head": 3.0, "body": trained["body"]}, {"head": 1.0, "body": 2.0})
    {'body': 2.0, 'head': 3.0}
    """
    return jax.tree.map(lambda leaf, is_frozen: optax.MaskedNode() if is_frozen else leaf, params, frozen)


def merge(trained: PyTree, params: PyTree) -> PyTree:
    """Returns ``params`` with the leaves of ``trained`` in their places; the inverse of :func:`select`."""
    return jax.tree.map(
        lambda new, old: old if isinstance(new, optax.MaskedNode) else new,
        trained,
        params,
        is_leaf=lambda node: isinstance(node, optax.MaskedNode),
    )
