"""Confidence at a temperature of each point's own.

Parameterized temperature scaling (Tomani, Cremers and Buettner, 2022): a small network reads a point's largest logits
and says its temperature, so that the predicted classes stay as they are. The Colander paper's "AdaTS" (Joy et al.,
2023) is of the same form with a variational autoencoder in the network's place; the released code holds neither.
"""

import dataclasses
import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from zsml_jax.autolabel.confidence.confidence import usable
from zsml_jax.autolabel.confidence.unfitted import log_odds
from zsml_jax.autolabel.outputs import Outputs, own
from zsml_jax.evaluate import calibrators
from zsml_jax.typing import Array, Key, PyTree, Scalar


class TemperatureNet(NamedTuple):
    """A fitted network, a pytree.

    Attributes:
      layers: kernels and biases, the last one of width 1.
      scale: the inverse of the one temperature that all points begin with.
      mean: of the sorted logits, ``(m,)``.
      deviation: their standard deviation, ``(m,)``.
    """

    layers: PyTree
    scale: Float[Array, ""]
    mean: Float[Array, " m"]
    deviation: Float[Array, " m"]

    def logits(self, outputs: Outputs) -> Float[Array, "n k"]:
        """Returns the logits at the points' temperatures."""
        x = (_largest(outputs.logits, len(self.mean)) - self.mean) / self.deviation
        *hidden, last = self.layers
        for kernel, bias in hidden:
            x = jnp.tanh(x @ kernel + bias)
        # Exponents are held within e^3 of the common temperature: further out the likelihood is flat.
        factor = jnp.exp(3 * jnp.tanh((x @ last[0] + last[1])[:, 0] / 3))
        return outputs.logits * (self.scale * factor)[:, None]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["learning_rate"], meta_fields=["largest", "widths", "steps"]
)
@dataclasses.dataclass(frozen=True)
class AdaptiveTemperature:
    """The softmax at a temperature that a network reads off the sorted logits.

    It begins at the one temperature of :class:`.TemperatureScaling` and lowers the negative log-likelihood by Adam, on
    all points at once.

    Attributes:
      learning_rate: of Adam, under a cosine decay.
      largest: how many of the largest logits the network reads.
      widths: of its hidden layers.
      steps: of Adam.
    """

    learning_rate: Scalar = 0.01
    largest: int = 10
    widths: tuple[int, ...] = (5, 5)
    steps: int = 500

    def fit(
        self, outputs: Outputs, labels: Int[Array, " n"], *, weights: Float[Array, " n"], key: Key
    ) -> TemperatureNet:
        """Trains the network."""
        weights = usable(weights)
        common = calibrators.fit_temperature(outputs.logits, labels, sample_weights=weights)
        # Scores that point away from the labels have no temperature; they keep their own.
        scale = jnp.where(common.scale > 0, common.scale, 1.0)
        x = _largest(outputs.logits, self.largest)
        mean = weights @ x
        deviation = jnp.sqrt(weights @ (x - mean) ** 2) + 1e-6
        sizes = [x.shape[1], *self.widths, 1]
        layers = [
            (jax.random.normal(jax.random.fold_in(key, i), (a, b)) * (a**-0.5 if b > 1 else 0.0), jnp.zeros(b))
            for i, (a, b) in enumerate(itertools.pairwise(sizes))
        ]
        net = lambda layers: TemperatureNet(layers, scale, mean, deviation)

        def loss(layers: PyTree) -> Array:
            log_q = jax.nn.log_softmax(net(layers).logits(outputs), axis=1)
            return -(weights * own(log_q, labels)).sum()

        adam, decay = optax.scale_by_adam(), optax.cosine_decay_schedule(1.0, self.steps)

        def step(carry: tuple, i: Array) -> tuple:
            layers, state = carry
            direction, state = adam.update(jax.grad(loss)(layers), state)
            return (jax.tree.map(lambda p, d: p - self.learning_rate * decay(i) * d, layers, direction), state), None

        (layers, _), _ = jax.lax.scan(step, (layers, adam.init(layers)), jnp.arange(self.steps))
        return net(layers)

    def score(self, fitted: TemperatureNet, outputs: Outputs) -> Float[Array, " n"]:
        """Returns log-odds of the predicted class: low temperatures round probabilities to one, and order is lost."""
        return log_odds(fitted.logits(outputs), outputs.predicted)


def _largest(logits: Array, m: int) -> Array:
    top = jax.lax.top_k(logits, min(m, logits.shape[1]))[0]
    return top - top.mean(axis=1, keepdims=True)
