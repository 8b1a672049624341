"""A network trained on a label model's posteriors; :mod:`.softmax_regression` has the linear one."""

import dataclasses
import functools
import itertools

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from zsml_jax.typing import AnyArray, Array, Key, Scalar
from zsml_jax.weaksup.perceptron import logits
from zsml_jax.weaksup.softmax_regression import checked_posteriors
from zsml_jax.weaksup.vote_matrix import checked_features, checked_weights


@dataclasses.dataclass(frozen=True)
class Config:
    """What is static in the network.

    Attributes:
      hidden: units of each hidden layer.
      steps: of Adam.
      batch_size: examples of a step.
    """

    hidden: tuple[int, ...] = (64,)
    steps: int = 500
    batch_size: int = 128

    def __post_init__(self):
        if min((*self.hidden, self.steps, self.batch_size)) < 1:
            raise ValueError(f"hidden, steps and batch_size must be at least 1, got {self}")


@flax.struct.dataclass
class Network:
    """A fitted network, a pytree.

    Attributes:
      mean: of the features, which are standardised, ``(d,)``.
      scale: their standard deviations, ``(d,)``.
      layers: weights and biases.
      losses: the loss of each step, nats.
    """

    mean: Float[AnyArray, "*batch d"]
    scale: Float[AnyArray, "*batch d"]
    layers: tuple[tuple[Array, Array], ...]
    losses: Float[AnyArray, "*batch steps"]

    def posterior(self, features: Float[AnyArray, "n d"]) -> Float[Array, "n k"]:
        """Returns the probability of each class.

        Raises:
          ValueError: if the features are not finite, or have other columns than those of the fit.
        """
        x = checked_features(features, d=self.mean.shape[0])
        return jax.nn.softmax(logits(self.layers, (x - self.mean) / self.scale), axis=1)


def fit(
    features: Float[AnyArray, "n d"],
    posteriors: Float[AnyArray, "n k"],
    config: Config | None = None,
    *,
    key: Key,
    weights: Float[AnyArray, " n"] | None = None,
    learning_rate: Scalar = 1e-3,
    weight_decay: Scalar = 1e-4,
) -> Network:
    """Trains a network whose loss is its expectation over the class that is not known.

    Args:
      features: one row an example.
      posteriors: the probability of each class.
      config: what is static.
      key: the random key of the first parameters and of the batches.
      weights: of each example; zero leaves out one that no function votes on.
      learning_rate: of Adam.
      weight_decay: of AdamW.

    Raises:
      ValueError: if features or weights are not sound, or the posteriors are no distributions of as many examples.
    """
    config = config or Config()
    x = checked_features(features)
    q = checked_posteriors(posteriors, len(x))
    return _fit(x, q, checked_weights(weights, len(x)), key, learning_rate, weight_decay, config=config)


@functools.partial(jax.jit, static_argnames="config")
def _fit(
    x: Array, q: Array, given: Array, key: Key, learning_rate: Array, weight_decay: Array, *, config: Config
) -> Network:
    share = given / given.sum()
    mean = share @ x
    scale = jnp.sqrt(share @ (x - mean) ** 2)
    scale = jnp.where(scale > 1e-6, scale, 1)
    z = (x - mean) / scale
    init_key, batch_key = jax.random.split(key)
    sizes, layers = (x.shape[1], *config.hidden, q.shape[1]), []
    for i, (rows, columns) in enumerate(itertools.pairwise(sizes)):
        draw = jax.random.normal(jax.random.fold_in(init_key, i), (rows, columns))
        layers.append((draw * (2 / rows) ** 0.5, jnp.zeros(columns)))
    optimizer = optax.adamw(learning_rate, weight_decay=weight_decay)

    def step(state: tuple, key: Key) -> tuple[tuple, Array]:
        layers, opt_state = state
        rows = jax.random.categorical(key, jnp.log(share), shape=(config.batch_size,))
        loss = lambda layers: -(q[rows] * jax.nn.log_softmax(logits(layers, z[rows]), axis=1)).sum(axis=1).mean()
        value, slope = jax.value_and_grad(loss)(layers)
        updates, opt_state = optimizer.update(slope, opt_state, layers)
        return (optax.apply_updates(layers, updates), opt_state), value

    start = tuple(layers)
    (fitted, _), losses = jax.lax.scan(step, (start, optimizer.init(start)), jax.random.split(batch_key, config.steps))
    return Network(mean, scale, fitted, losses)
