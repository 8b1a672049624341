r"""Colander: a confidence function that is trained for auto-labelling.

Vishwakarma, Chen, Namburi, Tay, Vinayak and Sala, "Pearls from Pebbles: Improved Confidence Functions for
Auto-labeling", NeurIPS 2024, problem (P3). With :math:`S_i = \sigma(\alpha (g(x_i)[\hat y_i] - t_{\hat y_i}))`, the
network g and the thresholds t are trained together to label much and err little,

.. math:: \min_{g, t} \; -\tilde P + \lambda \tilde E, \quad
          \tilde P = \frac1n \sum_i S_i, \quad
          \tilde E = \frac{\sum_i S_i \, 1[\hat y_i \ne y_i]}{\sum_i S_i},

and t is then thrown away: :func:`zsml_jax.autolabel.thresholds.estimate` makes thresholds of other points. The network
has one hidden layer of twice its input's width, :math:`W_2 \tanh(W_1 z)`, and reads the logits and the activations
before them.

:meth:`Colander.paper` is the method as the paper states it: random weights, probabilities, one :math:`\alpha` of at
most 1, minibatches, weight decay in the gradient. Probabilities and thresholds lie in [0, 1], so that S then is nearly
constant and :math:`\tilde E` nearly the classifier's error. The default is a repaired form: the network adds to the
classifier's logits and begins at zero, so that step 0 is the softmax; S is taken of log-odds in units of their standard
deviation, at least one nat; :math:`\alpha` grows; gradients are of all points; and the step is chosen on points that
were held out of the training, none of which estimates a threshold.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from zsml_jax.autolabel import thresholds
from zsml_jax.autolabel.confidence.confidence import usable
from zsml_jax.autolabel.confidence.unfitted import log_odds
from zsml_jax.autolabel.outputs import Outputs, own
from zsml_jax.train.shuffling import epoch_order
from zsml_jax.typing import Array, Key, PyTree, Scalar

Start = Literal["classifier", "random"]
Features = Literal["both", "logits", "hidden"]


class ColanderNet(NamedTuple):
    """A fitted Colander, a pytree.

    Attributes:
      first: the kernel of the hidden layer, ``(d, 2 d)``.
      second: the kernel of the last layer, ``(2 d, k)``.
      mean: what is taken off the features, ``(d,)``.
      deviation: what they are divided by, ``(d,)``.
      thresholds: the learned ones, ``(k,)``, of which a shared one is the first; scoring does not use them.
      step: the step that was chosen.
    """

    first: Float[Array, "d width"]
    second: Float[Array, "width k"]
    mean: Float[Array, " d"]
    deviation: Float[Array, " d"]
    thresholds: Float[Array, " k"]
    step: Int[Array, ""]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["penalty", "alpha", "last_alpha", "learning_rate", "weight_decay", "error"],
    meta_fields=["epochs", "batch_size", "start", "features", "decoupled", "held_out", "checks", "shared"],
)
@dataclasses.dataclass(frozen=True)
class Colander:
    """The settings of Colander; numbers are traced, so that a study stacks them.

    Attributes:
      penalty: the weight lambda of the error against coverage.
      alpha: the steepness of the surrogate at the first step.
      last_alpha: at the last one; between them it grows by a constant factor.
      learning_rate: of Adam, under a cosine decay to zero.
      weight_decay: on the kernels of the network.
      error: the error of auto-labels at which held-out coverage is compared.
      epochs: passes over the points.
      batch_size: points of a step; 0 is all of them.
      start: ``"classifier"`` adds to the classifier's logits, from zero, and works with log-odds; ``"random"`` is a
        network of its own with random weights, and works with probabilities.
      features: what the network reads.
      decoupled: whether decay is taken off the weights (AdamW) or added to the gradient (L2).
      held_out: the share of the points that choose the step; 0 takes the last step.
      checks: how often they are asked.
      shared: whether the thresholds that are estimated in the end are one for all classes; then t is one, too.
    """

    penalty: Scalar = 10.0
    alpha: Scalar = 1.0
    last_alpha: Scalar = 30.0
    learning_rate: Scalar = 1e-2
    weight_decay: Scalar = 0.1
    error: Scalar = 0.05
    epochs: int = 300
    batch_size: int = 0
    start: Start = "classifier"
    features: Features = "both"
    decoupled: bool = True
    held_out: float = 0.3
    checks: int = 10
    shared: bool = False

    def __post_init__(self):
        if self.start not in ("classifier", "random"):
            raise ValueError(f"start must be 'classifier' or 'random', got {self.start!r}")
        if self.features not in ("both", "logits", "hidden"):
            raise ValueError(f"features must be 'both', 'logits' or 'hidden', got {self.features!r}")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out must lie in [0, 1), got {self.held_out}")
        if self.epochs < 1 or not 1 <= self.checks <= self.epochs:
            raise ValueError(f"checks must be at least 1 and at most epochs, got {self.checks} and {self.epochs}")

    @staticmethod
    def paper(
        penalty: Scalar = 10.0,
        alpha: Scalar = 0.1,
        learning_rate: Scalar = 0.01,
        weight_decay: Scalar = 0.1,
        *,
        epochs: int = 500,
        batch_size: int = 64,
        features: Features = "both",
        shared: bool = False,
    ) -> "Colander":
        """Returns the settings of the paper's text: nothing of the repairs."""
        return Colander(
            penalty=penalty,
            alpha=alpha,
            last_alpha=alpha,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            epochs=epochs,
            batch_size=batch_size,
            start="random",
            features=features,
            decoupled=False,
            held_out=0.0,
            checks=1,
            shared=shared,
        )

    def fit(self, outputs: Outputs, labels: Int[Array, " n"], *, weights: Float[Array, " n"], key: Key) -> ColanderNet:
        """Trains the network and the thresholds."""
        weights = usable(weights)
        predicted, wrong = outputs.predicted, (outputs.predicted != labels).astype(weights.dtype)
        init_key, split_key, order_key = jax.random.split(key, 3)
        held = (jax.random.uniform(split_key, weights.shape) < self.held_out) & (weights > 0)
        trained = usable(jnp.where(held, 0.0, weights))
        first = self._initial(outputs, trained, init_key)
        spread = self._spread(first, outputs, trained)
        z = self._inputs(first, outputs)
        rows = (z, outputs.logits, predicted, wrong, trained)
        n = len(labels)
        size = min(self.batch_size, n) if self.batch_size else n
        per_epoch = n // size
        total = self.epochs * per_epoch
        adam, decay = optax.scale_by_adam(), optax.cosine_decay_schedule(1.0, total)

        def step(i: Array, carry: tuple, batch: tuple) -> tuple:
            net, state = carry
            alpha = jnp.asarray(self.alpha) * (jnp.asarray(self.last_alpha) / self.alpha) ** (i / total)
            gradient = jax.grad(lambda part: self._loss(net, part, batch, alpha / spread))(_trained(net))
            part = _trained(net)
            shrink = {"first": self.weight_decay, "second": self.weight_decay, "thresholds": 0.0}
            if not self.decoupled:
                gradient = {name: g + shrink[name] * part[name] for name, g in gradient.items()}
            update: tuple[Any, Any] = adam.update(gradient, state)
            direction, state = update
            if self.decoupled:
                direction = {name: d + shrink[name] * part[name] for name, d in direction.items()}
            moved = {name: part[name] - self.learning_rate * decay(i) * d for name, d in direction.items()}
            return net._replace(**moved, step=i + 1), state

        def epoch(number: Array, carry: tuple) -> tuple:
            if size == n:
                return step(number, carry, rows)
            # Drawn once an epoch: on a CPU the sort behind it takes as long as a step.
            order = epoch_order(n, number, key=order_key)[: per_epoch * size].reshape(per_epoch, size)
            batch = lambda j: jax.tree.map(lambda leaf: leaf[order[j]], rows)
            return jax.lax.fori_loop(0, per_epoch, lambda j, c: step(number * per_epoch + j, c, batch(j)), carry)

        def check(carry: tuple, ends: Array) -> tuple:
            (net, state), best, coverage = carry
            net, state = jax.lax.fori_loop(ends[0], ends[1], epoch, (net, state))
            if not self.held_out:
                return ((net, state), net, coverage), None
            reached = self._coverage(net, outputs, predicted, wrong, held)
            better = reached > coverage
            best = jax.tree.map(lambda new, old: jnp.where(better, new, old), net, best)
            return ((net, state), best, jnp.maximum(reached, coverage)), None

        marks = jnp.asarray([round(self.epochs * i / self.checks) for i in range(self.checks + 1)], jnp.int32)
        coverage = self._coverage(first, outputs, predicted, wrong, held) if self.held_out else jnp.float32(0)
        carry = ((first, adam.init(_trained(first))), first, coverage)
        (_, best, _), _ = jax.lax.scan(check, carry, jnp.stack([marks[:-1], marks[1:]], axis=1))
        return best

    def score(self, fitted: ColanderNet, outputs: Outputs) -> Float[Array, " n"]:
        """Returns log-odds (from the classifier) or probabilities (from random weights) of the predicted class."""
        logits = self._logits(fitted, self._inputs(fitted, outputs), outputs.logits)
        return self._confidence(logits, outputs.predicted)

    def _confidence(self, logits: Array, predicted: Array) -> Array:
        if self.start == "classifier":
            return log_odds(logits, predicted)
        return own(jax.nn.softmax(logits, axis=1), predicted)

    def _logits(self, net: ColanderNet, z: Array, classifier: Array) -> Array:
        added = jnp.tanh(z @ net.first) @ net.second
        return classifier + added if self.start == "classifier" else added

    def _inputs(self, net: ColanderNet, outputs: Outputs) -> Array:
        return (self._features(outputs) - net.mean) / net.deviation

    def _features(self, outputs: Outputs) -> Array:
        parts = {"both": (outputs.logits, outputs.hidden), "logits": (outputs.logits,), "hidden": (outputs.hidden,)}
        return jnp.concatenate(parts[self.features], axis=1)

    def _initial(self, outputs: Outputs, weights: Array, key: Key) -> ColanderNet:
        features, k = self._features(outputs), outputs.logits.shape[1]
        d = features.shape[1]
        mean, deviation = jnp.zeros(d), jnp.ones(d)
        one, two = jax.random.split(key)
        # torch's default for a dense layer, which the released code has: uniform within one over the root of its width.
        first = jax.random.uniform(one, (d, 2 * d), minval=-1, maxval=1) * d**-0.5
        second = jax.random.uniform(two, (2 * d, k), minval=-1, maxval=1) * (2 * d) ** -0.5
        if self.start == "classifier":
            mean = weights @ features
            deviation = jnp.sqrt(weights @ (features - mean) ** 2) + 1e-6
            second = jnp.zeros((2 * d, k))
        net = ColanderNet(first, second, mean, deviation, jnp.full(k, 0.5), jnp.int32(0))
        if self.start == "random":
            return net
        return net._replace(thresholds=jnp.full(k, weights @ self.score(net, outputs)))

    def _spread(self, net: ColanderNet, outputs: Outputs, weights: Array) -> Array:
        if self.start == "random":
            return jnp.float32(1)
        scores = self.score(net, outputs)
        # A classifier that is equally sure of all points has no deviation; then one nat is the unit.
        return jnp.maximum(jnp.sqrt(weights @ (scores - weights @ scores) ** 2), 1.0)

    def _loss(self, net: ColanderNet, part: PyTree, batch: tuple, steepness: Array) -> Array:
        z, classifier, predicted, wrong, weights = batch
        net = net._replace(**part)
        scores = self._confidence(self._logits(net, z, classifier), predicted)
        threshold = net.thresholds[0] if self.shared else net.thresholds[predicted]
        taken = weights * jax.nn.sigmoid(steepness * (scores - threshold))
        mass = taken.sum()
        return -mass / jnp.maximum(weights.sum(), 1e-12) + self.penalty * (taken * wrong).sum() / (mass + 1e-12)

    def _coverage(self, net: ColanderNet, outputs: Outputs, predicted: Array, wrong: Array, held: Array) -> Array:
        """The share of held-out points that could be labelled within the error, had their labels been known."""
        scores = self.score(net, outputs)
        found = thresholds.estimate(
            scores,
            predicted,
            wrong == 0,
            error=self.error,
            n_classes=outputs.logits.shape[1],
            method="none",
            weights=held,
            min_count=0,
            shared=self.shared,
        )
        counted = found.counts[0] if self.shared else found.counts.sum()
        return counted / jnp.maximum(held.sum(), 1).astype(jnp.float32)


def _trained(net: ColanderNet) -> dict[str, Array]:
    return {"first": net.first, "second": net.second, "thresholds": net.thresholds}
