"""Which points to have labelled next: at random, near the boundary, or far from all that is labelled."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from zsml_jax.autolabel.confidence.unfitted import probability_margin
from zsml_jax.autolabel.outputs import Outputs
from zsml_jax.typing import Array, Key

#: Names of the strategies.
Strategy = Literal["random", "margin_random", "entropy", "coreset"]


def select(
    strategy: Strategy,
    outputs: Outputs,
    available: Bool[Array, " n"],
    labelled: tuple[Int[Array, " m"], Int[Array, ""]],
    count: int,
    *,
    key: Key,
    widening: int = 2,
) -> tuple[Int[Array, " count"], Bool[Array, " count"]]:
    """Returns the points to ask for, and which of them are there: fewer are available at the end.

    ``random`` draws uniformly. ``margin_random`` draws uniformly among the ``widening * count`` points with the
    smallest difference of the two largest softmax probabilities (Vishwakarma et al., 2024, algorithm 1). ``entropy``
    takes the largest entropies of the softmax. ``coreset`` takes the point that is farthest from all labelled or taken
    ones in the hidden activations, again and again (Sener and Savarese, 2018, algorithm 1).

    Args:
      strategy: one of the four.
      outputs: of all points.
      available: points that may be asked for.
      labelled: rows of labelled points, which ``coreset`` keeps away from, and how many of these rows count.
      count: how many to ask for; static.
      key: the random key.
      widening: the constant C of ``margin_random``.

    Raises:
      ValueError: if there is no such strategy, or a number is not positive.
    """
    if strategy not in get_args(Strategy):
        raise ValueError(f"strategy must be one of {', '.join(get_args(Strategy))}, got {strategy!r}")
    for name, value in {"count": count, "widening": widening}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    n = len(available)
    count = min(count, n)
    draws = jax.random.uniform(key, (n,))
    if strategy == "coreset":
        return _farthest(outputs.hidden, available, labelled, count, draws)
    if strategy == "random":
        wanted = draws
    elif strategy == "entropy":
        log_p = jax.nn.log_softmax(outputs.logits, axis=1)
        wanted = -(jnp.exp(log_p) * log_p).sum(axis=1)
    else:
        near = _first(-probability_margin(outputs.logits), available, min(widening * count, n))
        wanted, available = draws, jnp.zeros(n, bool).at[near[0]].max(near[1])
    return _first(wanted, available, count)


def _first(wanted: Float[Array, " n"], available: Array, count: int) -> tuple[Array, Array]:
    value, rows = jax.lax.top_k(jnp.where(available, wanted, -jnp.inf), count)
    return rows, value > -jnp.inf


def _farthest(hidden: Array, available: Array, labelled: tuple, count: int, draws: Array) -> tuple[Array, Array]:
    away = lambda row: ((hidden - hidden[row]) ** 2).sum(axis=1)
    rows, known = labelled
    # Without any labelled point all are equally far, and the first is drawn at random.
    far = jnp.finfo(hidden.dtype).max * (0.5 + draws.astype(hidden.dtype) / 2)
    far = jax.lax.fori_loop(0, known, lambda i, far: jnp.minimum(far, away(rows[i])), far)

    def take(carry: tuple, _: None) -> tuple:
        far, left = carry
        row = jnp.argmax(jnp.where(left, far, -jnp.inf))
        return (jnp.minimum(far, away(row)), left.at[row].set(False)), (row, left[row])

    return jax.lax.scan(take, (far, available), length=count)[1]
