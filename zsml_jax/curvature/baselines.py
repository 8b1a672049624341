r"""Embeddings to compare with: node2vec and Laplacian eigenmaps, with the scale that makes their distances fit best.

Neither tries to keep distances, so that without the scale its distortion says nothing. All families get the same fit:
the one number that minimises :math:`\sum (c\,d_P/d_G - 1)^2`, which has a closed form.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from zsml_jax.curvature.curved_trig import safe_sqrt
from zsml_jax.curvature.problem import Problem, Scores, prepare, score
from zsml_jax.data.graphs import Graph
from zsml_jax.typing import Array, Key


class FlatEmbedding(NamedTuple):
    """Euclidean coordinates, with the scale at which their distances fit those of the graph.

    Attributes:
      x: a row for each node, ``(n, d)``.
      scale: the factor of the distances.
      unscaled: what is measured without the scale.
      scores: what is measured with it.
    """

    x: Float[Array, "n d"]
    scale: Float[Array, ""]
    unscaled: Scores
    scores: Scores


def laplacian_eigenmaps(graph: Graph, dim: int) -> FlatEmbedding:
    """Embeds a graph by the eigenvectors of its normalised Laplacian next to zero (Belkin and Niyogi, 2003).

    Args:
      graph: connected.
      dim: eigenvectors, those of the least eigenvalues but the first; at most n - 1 are there, and the rest is zero.

    Raises:
      ValueError: if the graph is not connected, or ``dim`` is not positive.
    """
    _require_positive(dim)
    problem = prepare([graph])
    adjacency = graph.adjacency().astype(np.float64)
    degrees = adjacency.sum(axis=1)
    laplacian = np.eye(len(graph)) - adjacency / np.sqrt(degrees[:, None] * degrees)
    vectors = np.linalg.eigh(laplacian)[1][:, 1 : dim + 1] / np.sqrt(degrees)[:, None]
    x = np.zeros((len(graph), dim), np.float32)
    x[:, : vectors.shape[1]] = vectors
    return _fitted(jnp.asarray(x), problem)


def node2vec(
    graph: Graph,
    dim: int,
    *,
    key: Key,
    walk_length: int = 20,
    walks: int = 10,
    context: int = 10,
    p: float = 1.0,
    q: float = 1.0,
    negatives: int = 1,
    epochs: int = 100,
    learning_rate: float = 0.01,
) -> FlatEmbedding:
    """Embeds a graph by skip-grams of biased random walks (Grover and Leskovec, KDD 2016), an epoch at a time.

    Args:
      graph: connected.
      dim: of the embedding.
      key: of the walks, the negatives and the start.
      walk_length: nodes of a walk.
      walks: from each node and epoch.
      context: nodes of a window, the first of which is the centre.
      p: the larger, the rarer a walk returns to where it came from.
      q: the larger, the nearer it stays to there.
      negatives: random nodes for each node of a context.
      epochs: updates by Adam.
      learning_rate: of Adam.

    Raises:
      ValueError: if the graph is not connected, or a number is not positive.
    """
    numbers = {"walk_length": walk_length - 1, "walks": walks, "p": p, "q": q, "negatives": negatives, "epochs": epochs}
    for name, value in {"dim": dim, "context": context - 1, **numbers}.items():
        if value <= 0:
            raise ValueError(f"{name} must be positive, and walk_length and context at least 2")
    problem = prepare([graph])
    adjacency = jnp.asarray(graph.adjacency())
    x = _skip_grams(
        adjacency,
        key,
        jnp.float32([p, q, learning_rate]),
        dim,
        (walk_length, walks, min(context, walk_length), negatives, epochs),
    )
    return _fitted(x, problem)


def random_walks(
    adjacency: Array, starts: Int[Array, " w"], length: int, *, key: Key, p: Array | float = 1.0, q: Array | float = 1.0
) -> Int[Array, "w t"]:
    """Returns walks of node2vec: 1/p to go back, 1 to a common neighbour of the last node, 1/q to go further."""
    log_weights = jnp.where(adjacency, 0.0, -jnp.inf)

    def step(carry: tuple[Array, Array], key: Key) -> tuple[tuple[Array, Array], Array]:
        before, here = carry
        biased = log_weights[here] + jnp.where(adjacency[before], 0.0, -jnp.log(q))
        biased = biased.at[jnp.arange(len(here)), before].set(log_weights[here, before] - jnp.log(p))
        after = jax.random.categorical(key, biased)
        return (here, after), after

    first, rest = jax.random.split(key)
    second = jax.random.categorical(first, log_weights[starts])
    _, later = jax.lax.scan(step, (starts, second), jax.random.split(rest, length - 2))
    return jnp.concatenate([starts[None], second[None], later]).T


@functools.partial(jax.jit, static_argnames=("dim", "sizes"))
def _skip_grams(adjacency: Array, key: Key, numbers: Array, dim: int, sizes: tuple[int, ...]) -> Array:
    length, walks, context, negatives, epochs = sizes
    n, (p, q, rate) = len(adjacency), numbers
    start_key, walk_key = jax.random.split(key)
    x = jax.random.normal(start_key, (n, dim), jnp.float32)
    windows = jnp.arange(length - context + 1)[:, None] + jnp.arange(context)
    rule = optax.adam(rate)

    def epoch(carry: tuple[Array, optax.OptState], key: Key) -> tuple[tuple[Array, optax.OptState], None]:
        x, state = carry
        first, second = jax.random.split(key)
        found = random_walks(adjacency, jnp.repeat(jnp.arange(n), walks), length, key=first, p=p, q=q)[:, windows]
        # Only how often a pair is met matters to the loss.
        count = lambda a, b: jnp.zeros((n, n)).at[a, b].add(1.0)
        met = count(found[..., :1], found[..., 1:])
        other = jax.random.randint(second, (*found.shape[:-1], (context - 1) * negatives), 0, n)
        missed = count(found[..., :1], other)

        def loss(x: Array) -> Array:
            scores = x @ x.T
            nats = met * jax.nn.log_sigmoid(scores) / met.sum() + missed * jax.nn.log_sigmoid(-scores) / missed.sum()
            return -jnp.sum(nats)

        updates, state = rule.update(jax.grad(loss)(x), state)
        return (x + jnp.asarray(updates), state), None

    (x, _), _ = jax.lax.scan(epoch, (x, rule.init(x)), jax.random.split(walk_key, epochs))
    return x


@jax.jit
def _fitted(x: Array, problem: Problem) -> FlatEmbedding:
    problem = jax.tree.map(lambda a: a[0], problem)
    found = safe_sqrt(jnp.sum((x[:, None] - x[None]) ** 2, axis=-1))
    ratio = jnp.where(problem.pairs, found / problem.distances, 0)
    scale = ratio.sum() / jnp.sum(ratio**2)
    return FlatEmbedding(x, scale, score(found, problem), score(scale * found, problem))


def _require_positive(dim: int) -> None:
    if dim < 1:
        raise ValueError(f"dim must be positive, got {dim}")
