r"""Embedding a large graph by sampled pairs: neither its distances nor the embedding's are ever held as a matrix.

Each round draws source nodes and finds their shortest paths to all nodes; each step of the round takes some sources and
some other nodes and descends on the distances between them. Memory grows with sources times nodes.
"""

import dataclasses
import functools
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Float

from zsml_jax.curvature import distortion, embed, optimizer, slots
from zsml_jax.curvature.embed import Config
from zsml_jax.curvature.manifold import Curvatures, Points, Product
from zsml_jax.curvature.slots import Place, Slots
from zsml_jax.data.graphs import Graph
from zsml_jax.typing import Array, Key, PyTree


@dataclasses.dataclass(frozen=True)
class Sampling:
    """What is sampled."""

    sources: int = 256
    """Nodes of a round whose shortest paths are found."""
    rounds: int = 4
    """Rounds; the steps of the config are shared among them."""
    rows: int = 32
    """Sources of a step."""
    columns: int = 512
    """Other nodes of a step."""
    measured: int = 256
    """Nodes whose distances to all others measure the result, drawn anew."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(f"{field.name} must be at least 1, got {getattr(self, field.name)}")


class SampledEmbedding(flax.struct.PyTreeNode):
    """A large graph in a product of spaces, a pytree.

    Attributes:
      points: a point for each node.
      params: the curvatures.
      distortion: the average distortion of the measured rows.
      mean_average_precision: that of the measured rows.
      losses: the mean loss of each round.
      product: the signature.
      nodes: the ids.
    """

    points: Points
    params: Curvatures
    distortion: Float[Array, ""]
    mean_average_precision: Float[Array, ""]
    losses: Float[Array, " rounds"]
    product: Product = flax.struct.field(pytree_node=False)
    nodes: tuple[str, ...] = flax.struct.field(pytree_node=False)


class _Carry(NamedTuple):
    place: Place
    moments: PyTree


def fit(
    graph: Graph, signature: Product, config: Config | None = None, sampling: Sampling | None = None, *, key: Key
) -> SampledEmbedding:
    """Embeds a graph by sampled pairs.

    Args:
      graph: connected, of at least two nodes.
      signature: a product of factors h, e and s.
      config: how; ``steps`` are those of all rounds together.
      sampling: what is sampled; numbers beyond the nodes of the graph mean all of them.
      key: of the first points and of the samples.

    Returns:
      The embedding.

    Raises:
      ValueError: if the graph has fewer than two nodes or is not connected.
    """
    config, sampling = config or Config(), sampling or Sampling()
    n = len(graph)
    if n < 2:
        raise ValueError(f"graph must have at least 2 nodes, {graph} has {n}")
    if (count := graph.components().max() + 1) > 1:
        raise ValueError(f"graph must be connected, {graph} has {count} components: embed its largest_component()")
    first_key, draw_key = jax.random.split(key)
    spec = jax.tree.map(lambda a: a[0], slots.stack([signature]))
    place = slots.init(spec, n, key=first_key, scale=config.initial_scale)
    carry = _Carry(place, optimizer.riemannian_adam(0.0, embed.spaces_of(place, spec.sign)).init(place))
    steps, losses = -(-config.steps // sampling.rounds), []
    for number in range(sampling.rounds):
        drawn, used = jax.random.split(jax.random.fold_in(draw_key, number))
        sources, between = _rows(graph, sampling.sources, drawn)
        carry, loss = _round(spec, carry, sources, between, used, number * steps, config, sampling, steps)
        losses.append(loss)
    sources, between = _rows(graph, sampling.measured, jax.random.fold_in(draw_key, sampling.rounds))
    adjacency = scipy.sparse.csr_array(graph.sparse()[np.asarray(sources)]).toarray() > 0
    error, precision = _measure(spec, carry.place, sources, between, jnp.asarray(adjacency), config)
    points, params = slots.unpack(signature, carry.place, n)
    return SampledEmbedding(points, params, error, precision, jnp.stack(losses), product=signature, nodes=graph.nodes)


def _rows(graph: Graph, count: int, key: Key) -> tuple[Array, Array]:
    """Returns some nodes and their distances to all, ``(s,)`` and ``(s, n)``."""
    sources = np.asarray(jax.random.permutation(key, len(graph))[: min(count, len(graph))])
    return jnp.asarray(sources), jnp.asarray(graph.distances(sources), jnp.float32)


@functools.partial(jax.jit, static_argnames=("config", "sampling", "steps"), donate_argnames="carry")
def _round(
    spec: Slots,
    carry: _Carry,
    sources: Array,
    between: Array,
    key: Key,
    start: Array | int,
    config: Config,
    sampling: Sampling,
    steps: int,
) -> tuple[_Carry, Array]:
    n = between.shape[1]
    rows, columns = min(sampling.rows, len(sources)), min(sampling.columns, n)
    spaces = embed.spaces_of(carry.place, spec.sign)

    def step(carry: _Carry, number: Array) -> tuple[_Carry, Array]:
        first, second = jax.random.split(jax.random.fold_in(key, number))
        row = jax.random.choice(first, len(sources), (rows,), replace=False)
        column = jax.random.randint(second, (columns,), 0, n)
        wanted = between[row][:, column]
        pairs = wanted > 0

        def total(place: Place) -> Array:
            part = place._replace(x=place.x[:, column])
            found = slots.distances(spec, part, place.x[:, sources[row]], config.reduction)
            each = distortion.pair_losses(found, jnp.where(pairs, wanted, 1), config.loss)
            return jnp.sum(jnp.where(pairs, each, 0)) / jnp.sum(pairs)

        value, gradient = jax.value_and_grad(total)(carry.place)
        gradient = gradient._replace(log_scale=gradient.log_scale * spec.used * jnp.abs(spec.sign))
        share = embed.cosine(start + number, steps * sampling.rounds)
        rates = Place(share * config.learning_rate, share * config.scale_learning_rate)
        rule = optimizer.riemannian_adam(rates, spaces, clip_step=config.clip_step)
        updates, moments = rule.update(gradient, carry.moments, carry.place)
        return _Carry(jax.tree.map(jnp.add, carry.place, updates), moments), value

    carry, values = jax.lax.scan(step, carry, jnp.arange(steps))
    return carry, values.mean()


@functools.partial(jax.jit, static_argnames="config")
def _measure(
    spec: Slots, place: Place, sources: Array, between: Array, neighbours: Array, config: Config
) -> tuple[Array, Array]:
    found = slots.distances(spec, place, place.x[:, sources], config.reduction)
    others = between > 0
    return (
        distortion.average_distortion(found, jnp.where(others, between, 1), others),
        distortion.mean_average_precision(found, neighbours, others),
    )
