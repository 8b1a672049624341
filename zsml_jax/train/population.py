"""Population-based training's exploit and explore, as one pure function on the stacked trials."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from zsml_jax.typing import AnyArray, Array, Key, PyTree


class Exploited(NamedTuple):
    """A population after truncation selection.

    Attributes:
      state: the stacked states.
      hyperparameters: the stacked hyperparameters.
      source: which member each one was copied from; those that were not replaced from themselves.
    """

    state: PyTree
    hyperparameters: dict[str, Array]
    source: Int[Array, " n"]


def exploit(
    key: Key,
    state: PyTree,
    hyperparameters: Mapping[str, Float[AnyArray, " n"]],
    loss: Float[AnyArray, " n"],
    *,
    fraction: float = 0.2,
    factors: tuple[float, ...] = (0.8, 1.2),
) -> Exploited:
    """Replaces the worst members by copies of random members of the best, and perturbs the copies' hyperparameters.

    Truncation selection with the perturbation of Jaderberg et al. (2017), "Population based training of neural
    networks", section 4.1.1. Goes through ``jit``; give ``loss`` as ``-score`` where more is better.

    Args:
      key: the random key.
      state: leaves with n rows.
      hyperparameters: floating-point ones that are perturbed, ``(n,)`` each.
      loss: what is compared; NaN is worst.
      fraction: the share that is replaced, and that is copied from: at most a half.
      factors: a copy's hyperparameters are multiplied by one of these, drawn for each.

    Returns:
      The new population.

    Raises:
      ValueError: if ``fraction`` is not as above, or there are no factors.
    """
    if not 0 < fraction <= 0.5:
        raise ValueError(f"fraction must lie in (0, 0.5], got {fraction}")
    if not factors:
        raise ValueError("factors must hold at least one factor, got none")
    n = len(loss)
    moved = int(n * fraction)
    order = jnp.argsort(jnp.asarray(loss), stable=True)
    source_key, *factor_keys = jax.random.split(key, 1 + len(hyperparameters))
    parents = order[jax.random.randint(source_key, (moved,), 0, max(moved, 1))]
    source = jnp.arange(n).at[order[n - moved :]].set(parents)
    replaced = source != jnp.arange(n)
    explored = {}
    for factor_key, (name, values) in zip(factor_keys, hyperparameters.items(), strict=True):
        chosen = jax.random.choice(factor_key, jnp.asarray(factors, values.dtype), (n,))
        explored[name] = jnp.asarray(values)[source] * jnp.where(replaced, chosen, 1)
    return Exploited(jax.tree.map(lambda leaf: jnp.asarray(leaf)[source], state), explored, source)
