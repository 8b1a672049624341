r"""Embedding graphs into products of curved spaces: points whose distances are those of the graph.

Gu, Sala, Gunel and Ré, ICLR 2019; McNeela, Sala and Gitter, "Product Manifold Representations for Learning on
Biological Pathways", 2024. :func:`fit` embeds one graph under one signature::

    embedding = fit(graph, Product((("h", 2, 16), ("e", 1, 32), ("s", 1, 16))), Config(), key=jax.random.key(0))
    embedding.distortion, embedding.mean_average_precision

:func:`fit_all` embeds several graphs under several signatures in one program: graphs are padded to the largest and
signatures to the most factors (:mod:`.slots`). All pairs of a graph are used in every step; for graphs whose matrix of
distances is too large there is :mod:`.embed_sampled`.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from zsml_jax.curvature import distortion, manifold, optimizer, slots
from zsml_jax.curvature.distortion import Loss
from zsml_jax.curvature.manifold import Curvatures, Points, Product, Reduction
from zsml_jax.curvature.problem import Problem, Scores, prepare, score
from zsml_jax.curvature.slots import Place, Slots
from zsml_jax.curvature.spaces import Ambient, Euclidean
from zsml_jax.data.graphs import Graph
from zsml_jax.typing import Array, Key, PyTree, Scalar


@dataclasses.dataclass(frozen=True)
class Config:
    """How to embed."""

    steps: int = 1000
    """Updates, each of all pairs."""
    learning_rate: float = 0.2
    """Of the points, falling to zero as a cosine does; a step is about so long. Traced."""
    scale_learning_rate: float = 0.05
    """Of the logarithms of the scales, that is of the curvatures; zero keeps them at -1 and 1. Traced."""
    initial_scale: float = 0.1
    """Standard deviation of the first coordinates. Traced."""
    clip_step: float = 1.0
    """The longest step of a point in one factor. Traced."""
    loss: Loss = "squared_relative"
    """What is minimised, see distortion.pair_losses."""
    reduction: Reduction = "l2"
    """How the distances in the factors make one."""
    batch: int = 8
    """Trials, of graphs times signatures, at a time in one program."""

    def __post_init__(self):
        if self.steps < 1 or self.batch < 1:
            raise ValueError(f"steps and batch must be at least 1, got {self.steps} and {self.batch}")
        for name in ("learning_rate", "initial_scale", "clip_step"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.scale_learning_rate < math.inf:
            raise ValueError(f"scale_learning_rate must not be negative, got {self.scale_learning_rate}")
        for name, kinds in (("loss", Loss), ("reduction", Reduction)):
            if getattr(self, name) not in get_args(kinds):
                raise ValueError(f"{name} must be one of {get_args(kinds)}, got {getattr(self, name)!r}")


class Embedding(flax.struct.PyTreeNode):
    """A graph in a product of spaces, a pytree.

    Attributes:
      points: a point for each node, in the order of ``nodes``.
      params: the curvatures.
      distortion: the mean of :math:`|d_P - d_G| / d_G` over all pairs.
      worst_case_distortion: the largest expansion times the largest contraction.
      mean_average_precision: how purely neighbours are nearest.
      losses: the mean loss at 100 or fewer steps, evenly spread.
      converged: whether the loss fell by less than a hundredth over the last tenth of the steps.
      product: the signature.
      nodes: the ids.
    """

    points: Points
    params: Curvatures
    distortion: Float[Array, ""]
    worst_case_distortion: Float[Array, ""]
    mean_average_precision: Float[Array, ""]
    losses: Float[Array, " t"]
    converged: Bool[Array, ""]
    product: Product = flax.struct.field(pytree_node=False)
    nodes: tuple[str, ...] = flax.struct.field(pytree_node=False)

    def distances(self) -> Float[Array, "n n"]:
        """Returns the distances of all pairs of points."""
        x = self.points
        return manifold.distance(self.product, self.params, x[:, None], x[None])


class _Hyper(NamedTuple):
    learning_rate: Scalar
    scale_learning_rate: Scalar
    initial_scale: Scalar
    clip_step: Scalar


def fit(graph: Graph, signature: Product, config: Config | None = None, *, key: Key) -> Embedding:
    """Embeds a graph.

    Args:
      graph: connected, of at least two nodes; lengths of edges count.
      signature: the product. Factors of kind ``k`` learn the sign of their curvature too.
      config: how.
      key: of the first points.

    Returns:
      The embedding.

    Raises:
      ValueError: if the graph has fewer than two nodes or is not connected.
    """
    config = config or Config()
    problem = prepare([graph])
    if any(group.kind == "k" for group in signature.factors):
        return _fit_free(graph, jax.tree.map(lambda a: a[0], problem), signature, config, key)
    place, losses, scores = _run(problem, slots.stack([signature]), config, key[None, None])
    return _embedding(graph, signature, *jax.tree.map(lambda a: a[0, 0], (place, losses, scores)))


def fit_all(
    graphs: Sequence[Graph],
    signatures: Sequence[Product],
    config: Config | None = None,
    *,
    key: Key,
    pad_to: int | None = None,
) -> list[list[Embedding]]:
    """Embeds each graph under each signature, as :func:`fit` does.

    Signatures are put together by their number of factors, so that little is padded; graphs all together: give those
    of about one size.

    Args:
      graphs: as for :func:`fit`.
      signatures: products of factors h, e and s.
      config: how.
      key: that of graph i under signature j is ``fold_in(fold_in(key, i), j)``.
      pad_to: nodes that graphs are padded to, so that others of about this size compile nothing; by default the
        largest graph's.

    Returns:
      For each graph, an embedding for each signature.

    Raises:
      ValueError: as :func:`fit`, or if there is no graph or no signature.
    """
    config = config or Config()
    if not graphs or not signatures:
        raise ValueError(f"graphs and signatures must not be empty, got {len(graphs)} and {len(signatures)}")
    problem = prepare(graphs, pad_to)
    keys = jnp.stack(
        [
            jnp.stack([jax.random.fold_in(jax.random.fold_in(key, i), j) for j in range(len(signatures))])
            for i in range(len(graphs))
        ]
    )
    table: list[list[Any]] = [[None] * len(signatures) for _ in graphs]
    for members in _by_factors(signatures):
        chosen = [signatures[j] for j in members]
        found = _run(problem, slots.stack(chosen), config, keys[:, np.array(members)])
        found = jax.device_get(found)  # slices on the device would be compiled one by one
        for i, graph in enumerate(graphs):
            for position, j in enumerate(members):
                at = lambda a, i=i, p=position: jnp.asarray(a[i, p])
                table[i][j] = _embedding(graph, signatures[j], *jax.tree.map(at, found))
    return table


def cosine(step: Array, steps: int) -> Array:
    """Returns the share of the learning rate at a step, from one to zero."""
    return 0.5 * (1 + jnp.cos(jnp.pi * step / steps))


def spaces_of(place: Place, sign: Array) -> Place:
    """Returns where the leaves of a place live, for the optimizer."""
    return Place(Ambient(sign[:, None]), Euclidean())  # pyrefly: ignore[bad-argument-type]


def _by_factors(signatures: Sequence[Product]) -> list[list[int]]:
    """Groups of signatures whose numbers of factors are padded to one: 1, 2 and 3, 4 to 7, and so on."""
    groups: dict[int, list[int]] = {}
    for j, signature in enumerate(signatures):
        groups.setdefault(signature.num_factors.bit_length(), []).append(j)
    return [groups[size] for size in sorted(groups)]


def _run(problem: Problem, stacked: Slots, config: Config, keys: Array) -> tuple[Place, Array, Scores]:
    """Trains all trials, graphs times signatures, ``config.batch`` of them at a time."""
    hyper = _Hyper(config.learning_rate, config.scale_learning_rate, config.initial_scale, config.clip_step)
    hyper = jax.tree.map(jnp.float32, hyper)
    return _train(problem, stacked, hyper, keys, config.steps, config.loss, config.reduction, config.batch)


@functools.partial(jax.jit, static_argnames=("steps", "loss", "reduction", "batch"))
def _train(
    problem: Problem,
    stacked: Slots,
    hyper: _Hyper,
    keys: Array,
    steps: int,
    loss: Loss,
    reduction: Reduction,
    batch: int,
) -> tuple[Place, Array, Scores]:
    graphs, signatures = keys.shape
    trials = graphs * signatures
    # Batches of one size: a smaller last one would be compiled as a program of its own.
    size = -(-trials // -(-trials // batch))
    rows = jnp.minimum(jnp.arange(-(-trials // size) * size), trials - 1)

    def one(row: Array) -> tuple[Place, Array, Scores]:
        i, j = jnp.divmod(row, signatures)
        here, spec = jax.tree.map(lambda a: a[i], problem), jax.tree.map(lambda a: a[j], stacked)
        first = slots.init(spec, here.pairs.shape[-1], key=keys[i, j], scale=hyper.initial_scale)
        learnable = spec.used * jnp.abs(spec.sign)
        total = lambda place: _mean_loss(slots.distances(spec, place, reduction=reduction), here, loss)
        rates = lambda share: Place(
            share * hyper.learning_rate,  # pyrefly: ignore[bad-argument-type]
            share * hyper.scale_learning_rate,  # pyrefly: ignore[bad-argument-type]
        )
        masked = lambda gradient: gradient._replace(log_scale=gradient.log_scale * learnable)
        spaces = spaces_of(first, spec.sign)
        place, losses = _descend(total, first, spaces, rates, masked, hyper.clip_step, steps)
        return place, losses, score(slots.distances(spec, place, reduction=reduction), here)

    found = jax.lax.map(one, rows, batch_size=size)
    return jax.tree.map(lambda a: a[:trials].reshape(graphs, signatures, *a.shape[1:]), found)


def _mean_loss(found: Array, problem: Problem, loss: Loss) -> Array:
    each = distortion.pair_losses(found, problem.distances, loss)
    return jnp.sum(jnp.where(problem.pairs, each, 0)) / jnp.sum(problem.pairs)


def _descend(
    total: Any, first: PyTree, spaces: Any, rates: Any, masked: Any, clip_step: Scalar, steps: int
) -> tuple[PyTree, Array]:
    """Riemannian Adam from the first state; returns the last, and the loss at evenly spread steps."""
    start = optimizer.riemannian_adam(0.0, spaces).init(first)

    def step(carry: tuple[PyTree, PyTree], number: Array) -> tuple[tuple[PyTree, PyTree], Array]:
        state, moments = carry
        value, gradient = jax.value_and_grad(total)(state)
        rule = optimizer.riemannian_adam(rates(cosine(number, steps)), spaces, clip_step=clip_step)
        updates, moments = rule.update(masked(gradient), moments, state)
        return (jax.tree.map(jnp.add, state, updates), moments), value

    (last, _), values = jax.lax.scan(step, (first, start), jnp.arange(steps))
    return last, values[jnp.linspace(0, steps - 1, min(steps, 100)).round().astype(int)]


@functools.partial(jax.jit, static_argnames=("signature", "steps", "loss", "reduction"))
def _train_free(
    problem: Problem, signature: Product, hyper: _Hyper, key: Key, steps: int, loss: Loss, reduction: Reduction
) -> tuple[PyTree, Array, Scores]:
    n = problem.pairs.shape[-1]
    params = manifold.init(signature)
    first = {
        "params": params,
        "points": manifold.random_points(signature, params, (n,), key=key, scale=hyper.initial_scale),
    }
    spaces = lambda state: {
        "params": Euclidean(),
        "points": Points(manifold.spaces(signature, state["params"]), signature),
    }

    def found(state: PyTree) -> Array:
        x = state["points"]
        return manifold.distance(signature, state["params"], x[:, None], x[None], reduction=reduction)

    rates = lambda share: {"params": share * hyper.scale_learning_rate, "points": share * hyper.learning_rate}
    total = lambda state: _mean_loss(found(state), problem, loss)
    last, losses = _descend(total, first, spaces, rates, lambda g: g, hyper.clip_step, steps)
    return last, losses, score(found(last), problem)


def _fit_free(graph: Graph, problem: Problem, signature: Product, config: Config, key: Key) -> Embedding:
    hyper = _Hyper(config.learning_rate, config.scale_learning_rate, config.initial_scale, config.clip_step)
    hyper = jax.tree.map(jnp.float32, hyper)
    state, losses, scores = _train_free(problem, signature, hyper, key, config.steps, config.loss, config.reduction)
    return _finished(graph, signature, state["points"], state["params"], losses, scores)


def _embedding(graph: Graph, signature: Product, place: Place, losses: Array, scores: Scores) -> Embedding:
    points, params = slots.unpack(signature, place, len(graph))
    return _finished(graph, signature, points, params, losses, scores)


def _finished(
    graph: Graph, signature: Product, points: Points, params: Curvatures, losses: Array, scores: Scores
) -> Embedding:
    late = losses[-max(1, len(losses) // 10)]
    converged = (late - losses[-1]) <= 0.01 * late
    arrays = jax.tree.map(jnp.asarray, (points, params, *scores, losses, converged))
    return Embedding(*arrays, product=signature, nodes=graph.nodes)
