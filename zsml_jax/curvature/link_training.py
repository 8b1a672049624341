"""Training link predictors: many graphs, padded to one size, each with every configuration, in one program.

Negatives of a step are all pairs that are no training edges, so that the loss is the expectation of what drawing them
anew each step would give. The parameters of the epoch with the least validation loss are kept. Test edges are not in
here at all: what comes back are the scores of all pairs.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, Float

from zsml_jax.curvature import decoder, gcn
from zsml_jax.curvature.gcn import Gcn, GcnConfig
from zsml_jax.curvature.links import Links
from zsml_jax.typing import Array, Key


class Task(NamedTuple):
    """What a model may see of a graph; stacked for several.

    Attributes:
      propagate: the training adjacency with loops, rows scaled to one, ``(n, n)``.
      positives: training edges, ``(n, n)`` above the diagonal.
      negatives: pairs of nodes that are no training edges, likewise.
      validation: edges and non-edges to stop by, ``(2, n, n)``.
      features: of each factor, ``(n, d)``.
    """

    propagate: Float[Array, "*g n n"]
    positives: Bool[Array, "*g n n"]
    negatives: Bool[Array, "*g n n"]
    validation: Bool[Array, "*g 2 n n"]
    features: tuple[Float[Array, "*g n _"], ...]


class Hyperparameters(NamedTuple):
    """What a sweep varies; all traced.

    Attributes:
      learning_rate: of Adam.
      dropout: of the tangent coordinates.
      curvature_rate: of the curvatures, as a share of the learning rate.
    """

    learning_rate: Any
    dropout: Any
    curvature_rate: Any


class Fitted(NamedTuple):
    """A trained model.

    Attributes:
      logits: log-odds of an edge for all pairs, ``(n, n)``.
      validation_loss: at the kept epoch.
      train_loss: at the last epoch.
      params: of the kept epoch.
    """

    logits: Float[Array, "*g n n"]
    validation_loss: Float[Array, "*g"]
    train_loss: Float[Array, "*g"]
    params: Gcn


def task(links: Links, features: Sequence[Float[np.ndarray, "n _"]], *, pad_to: int | None = None) -> Task:
    """Returns what a model may see, padded to ``pad_to`` nodes; padding has no edges but a loop.

    Raises:
      ValueError: if features are not one row for each node, or not finite.
    """
    n, size = len(links.nodes), pad_to or len(links.nodes)
    for f, x in enumerate(features):
        if len(x) != n or not np.isfinite(x).all():
            raise ValueError(f"features must be finite, a row for each of {n} nodes; those of factor {f} are not")

    def mask(pairs: np.ndarray) -> np.ndarray:
        matrix = np.zeros((size, size), bool)
        matrix[pairs[:, 0], pairs[:, 1]] = True
        return matrix

    positives = mask(links.train)
    inside = np.triu(np.ones((size, size), bool), k=1)
    inside[:, n:] = False
    return Task(
        gcn.row_normalised(positives | positives.T),
        jnp.asarray(positives),
        jnp.asarray(inside & ~positives),
        jnp.asarray(np.stack([mask(part) for part in links.validation])),
        tuple(jnp.asarray(np.pad(x, ((0, size - n), (0, 0))), jnp.float32) for x in features),
    )


def grid(learning_rates: Sequence[float], dropouts: Sequence[float], *, curvature_rate: float = 0.1) -> Hyperparameters:
    """Returns the product of rates and dropouts, stacked; the same for every family of models.

    Raises:
      ValueError: if there are none, a rate is not positive, or a dropout is not in [0, 1).
    """
    rates, drops = (a.reshape(-1) for a in np.meshgrid(learning_rates, dropouts, indexing="ij"))
    if not len(rates) or (rates <= 0).any() or (drops < 0).any() or (drops >= 1).any():
        raise ValueError(f"rates must be positive and dropouts in [0, 1), got {learning_rates} and {dropouts}")
    return Hyperparameters(jnp.float32(rates), jnp.float32(drops), jnp.full(len(rates), curvature_rate, jnp.float32))


@functools.partial(jax.jit, static_argnames=("config", "epochs"))
def fit_all(config: GcnConfig, tasks: Task, hyperparameters: Hyperparameters, *, key: Key, epochs: int) -> Fitted:
    """Trains a model for each graph and each configuration.

    Args:
      config: the static part, the same for all.
      tasks: stacked, ``(g, ...)``.
      hyperparameters: stacked, ``(c,)``.
      key: that of graph i and configuration j is ``fold_in(fold_in(key, i), j)``.
      epochs: steps, each of all pairs.

    Returns:
      The models, ``(g, c, ...)``.
    """
    graphs, points = len(tasks.propagate), len(hyperparameters.learning_rate)

    def one(row: tuple[Array, Task]) -> Fitted:
        keys = jax.vmap(lambda j: jax.random.fold_in(jax.random.fold_in(key, row[0]), j))(jnp.arange(points))
        return jax.vmap(lambda h, k: fit(config, row[1], h, key=k, epochs=epochs))(hyperparameters, keys)

    return jax.lax.map(one, (jnp.arange(graphs), tasks))


def fit(config: GcnConfig, task: Task, hyperparameters: Hyperparameters, *, key: Key, epochs: int) -> Fitted:
    """Trains one model; pure."""
    first_key, drop_key = jax.random.split(key)
    first: Gcn = gcn.init(config, key=first_key)
    adam: Any = optax.scale_by_adam()

    def losses(params: Gcn, key: Key | None) -> tuple[Array, Array]:
        dropout = hyperparameters.dropout
        points = gcn.embed(config, params, task.features, task.propagate, dropout=dropout, key=key)
        logits = decoder.logits(params.decoder, gcn.squared_distances(config, params, points))
        return _loss(logits, task.positives, task.negatives), logits

    def step(carry: tuple, epoch: Array) -> tuple[tuple, Array]:
        params, moments, best, best_loss = carry
        key = jax.random.fold_in(drop_key, epoch)
        value, gradient = jax.value_and_grad(lambda p: losses(p, key)[0])(params)
        direction, moments = adam.update(gradient, moments)
        rate = -hyperparameters.learning_rate
        moved = jax.tree.map(lambda p, d: p + rate * d, params, direction)
        curvature = params.curvature + rate * hyperparameters.curvature_rate * direction.curvature
        moved = moved._replace(curvature=curvature)
        found = _loss(losses(moved, None)[1], *task.validation)
        better = found < best_loss
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), moved, best)
        return (moved, moments, best, jnp.where(better, found, best_loss)), value

    carry = (first, adam.init(first), first, jnp.float32(jnp.inf))
    (_, _, best, best_loss), values = jax.lax.scan(step, carry, jnp.arange(epochs))
    return Fitted(losses(best, None)[1], best_loss, values[-1], best)


def _loss(logits: Array, positives: Array, negatives: Array) -> Array:
    mean = lambda values, mask: jnp.sum(jnp.where(mask, values, 0)) / jnp.maximum(jnp.sum(mask), 1)
    return -mean(jax.nn.log_sigmoid(logits), positives) - mean(jax.nn.log_sigmoid(-logits), negatives)
