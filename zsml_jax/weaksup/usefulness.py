"""Predicts whether an expert would call a labelling function useful: bagged networks on a description of its votes."""

import functools
import itertools

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from zsml_jax.typing import Array, Key
from zsml_jax.weaksup.perceptron import logits

_WIDTHS = (10, 10)


def describe(votes: Int[Array, "n h"], k: int, *, dimension: int = 40) -> Float[Array, "h s"]:
    """Returns each function's coordinates in the leading singular directions of the votes on labelled examples.

    With two classes a vote is 1 or -1 and abstaining 0, else each class has a column of its own.

    Args:
      votes: of h functions on n labelled examples.
      k: the number of classes.
      dimension: how many directions, at most the number of columns.
    """
    if k == 2:
        table = jnp.where(votes == 1, 1.0, jnp.where(votes == 0, -1.0, 0.0)).T
    else:
        table = (votes.T[:, :, None] == jnp.arange(k)).reshape(votes.shape[1], -1).astype(jnp.float32)
    _, vectors = jnp.linalg.eigh(jnp.dot(table.T, table, precision="highest"))
    leading = vectors[:, ::-1][:, : min(dimension, table.shape[1])]
    # A direction has no sign of its own; the largest entry is made positive, so that machines agree.
    peak = jnp.take_along_axis(leading, jnp.argmax(jnp.abs(leading), axis=0)[None], axis=0)
    return jnp.dot(table, leading * jnp.sign(peak), precision="highest")


@functools.partial(jax.jit, static_argnames=("ensemble", "epochs"))
def predict(
    described: Float[Array, "h s"],
    asked: Int[Array, " q"],
    answers: Float[Array, " q"],
    weights: Float[Array, " q"],
    key: Key,
    *,
    ensemble: int = 50,
    epochs: int = 200,
    patience: int = 10,
    tolerance: float = 1e-4,
) -> tuple[Float[Array, " h"], Float[Array, " h"]]:
    """Trains networks on bootstrap resamples of the answers, and returns their mean and standard deviation.

    Each network has two hidden layers of ten ReLUs and a sigmoid, is trained by Adam (rate 1e-3, L2 penalty 1e-4 in its
    gradient), and stops when the loss has not fallen by the tolerance for so many epochs (Boecking et al., appendix).

    Args:
      described: one row a function.
      asked: the functions that were asked about; a place of weight zero is empty.
      answers: one for useful, zero for not.
      weights: how much each answer counts.
      key: the random key.
      ensemble: how many networks.
      epochs: at most.
      patience: epochs without progress.
      tolerance: what counts as progress.
    """
    x = described[asked]
    q = len(asked)

    def train(key: Key) -> Array:
        init_key, draw_key = jax.random.split(key)
        drawn = jax.random.categorical(draw_key, jnp.log(weights), shape=(q,))
        drawn = jnp.where(jnp.arange(q) < (weights > 0).sum(), drawn, q)  # as many draws as there are answers
        times = jnp.zeros(q).at[drawn].add(1.0, mode="drop")

        def loss(params: list) -> Array:
            odds = logits(params, x)[:, 0]
            nll = jax.nn.softplus(odds) - answers * odds
            return (times * nll).sum() / times.sum()

        optimizer = optax.chain(optax.add_decayed_weights(1e-4), optax.adam(1e-3))
        params = _initial(init_key, x.shape[1])

        def epoch(state: tuple, _: None) -> tuple[tuple, None]:
            params, opt_state, last, idle = state
            value, slope = jax.value_and_grad(loss)(params)
            updates, following = optimizer.update(slope, opt_state, params)
            idle = jnp.where(last - value < tolerance, idle + 1, 0)
            going = idle < patience
            keep = lambda new, old: jnp.where(going, new, old)
            moved = jax.tree.map(keep, optax.apply_updates(params, updates), params)
            return (moved, jax.tree.map(keep, following, opt_state), value, jnp.where(going, idle, patience)), None

        start = (params, optimizer.init(params), jnp.asarray(jnp.inf), jnp.asarray(0))
        (params, *_), _ = jax.lax.scan(epoch, start, None, length=epochs)
        return jax.nn.sigmoid(logits(params, described)[:, 0])

    votes = jax.vmap(train)(jax.random.split(key, ensemble))
    return votes.mean(axis=0), votes.std(axis=0)


def _initial(key: Key, inputs: int) -> list[tuple[Array, Array]]:
    layers, sizes = [], (inputs, *_WIDTHS, 1)
    for i, (rows, columns) in enumerate(itertools.pairwise(sizes)):
        # Uniform in one over the root of the inputs, weights and biases alike.
        reach, keys = rows**-0.5, jax.random.split(jax.random.fold_in(key, i))
        draw = functools.partial(jax.random.uniform, minval=-reach, maxval=reach)
        layers.append((draw(keys[0], (rows, columns)), draw(keys[1], (columns,))))
    return layers
