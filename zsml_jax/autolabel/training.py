"""Training a classifier on a growing set of labelled points, in a program of one shape.

The labelled points are the first ``count`` entries of a row of indices, so that nothing is compiled again as the set
grows, and a whole run can be vmapped over seeds and settings.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jaxtyping import Float, Int

from zsml_jax.autolabel import objectives
from zsml_jax.autolabel.classifier import Classifier
from zsml_jax.typing import Array, Key, PyTree, Scalar

#: What is minimised; ``fmfp`` is cross-entropy by sharpness-aware minimisation.
Objective = Literal["cross_entropy", "squentropy", "crl", "fmfp", "mixup"]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["learning_rate", "weight_decay", "momentum", "ranking", "radius", "mixing", "enough"],
    meta_fields=["objective", "epochs", "batch_size", "select_every"],
)
@dataclasses.dataclass(frozen=True)
class Training:
    """How a classifier is trained; numbers are traced, so that a study stacks them.

    Attributes:
      learning_rate: of SGD, under a cosine decay to zero.
      weight_decay: added to the gradient, times the weights.
      momentum: of SGD.
      ranking: the weight of the ranking loss, for ``crl``.
      radius: of the ascent step, for ``fmfp`` (Foret et al., 2021; Zhu et al., 2022).
      mixing: the concentration of the mixing share, for ``mixup``.
      enough: training stops after an epoch whose error is at most this.
      objective: what is minimised.
      epochs: passes over the labelled points.
      batch_size: points of a step, drawn without replacement within an epoch.
      select_every: epochs between two looks at the points that choose the checkpoint; 0 takes the last epoch.
    """

    learning_rate: Scalar = 0.01
    weight_decay: Scalar = 1e-3
    momentum: Scalar = 0.9
    ranking: Scalar = 0.8
    radius: Scalar = 0.05
    mixing: Scalar = 0.2
    enough: Scalar = 1e-3
    objective: Objective = "cross_entropy"
    epochs: int = 50
    batch_size: int = 32
    select_every: int = 5

    def __post_init__(self):
        if self.objective not in get_args(Objective):
            raise ValueError(f"objective must be one of {', '.join(get_args(Objective))}, got {self.objective!r}")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.select_every < 0:
            raise ValueError(f"select_every must not be negative, got {self.select_every}")


class Labelled(NamedTuple):
    """Labelled points as rows of the features, a pytree.

    Attributes:
      rows: indices into the features, ``(m,)``; those that count come first.
      labels: their classes, ``(m,)``.
      count: how many count.
    """

    rows: Int[Array, " m"]
    labels: Int[Array, " m"]
    count: Int[Array, ""]


class Held(NamedTuple):
    """Labelled points that choose the checkpoint, a pytree: rows, classes, and which of them count."""

    rows: Int[Array, " m"]
    labels: Int[Array, " m"]
    weights: Float[Array, " m"]


def fit(
    classifier: Classifier, features: PyTree, labelled: Labelled, held: Held, training: Training, *, key: Key
) -> PyTree:
    """Trains a classifier from scratch.

    Args:
      classifier: what is trained.
      features: all points, arrays of n rows.
      labelled: what it is trained on.
      held: what chooses the checkpoint: the epoch with the best accuracy there, the first of equal ones. With no
        weight at all the last epoch is taken.
      training: how.
      key: the random key.

    Returns:
      The parameters.
    """
    init_key, key = jax.random.split(key)
    first = classifier.init(init_key)
    optimizer = _optimizer(training)
    size = min(training.batch_size, len(labelled.rows))
    steps = jnp.maximum(labelled.count // size, 1)
    total = training.epochs * steps
    take = lambda rows: jax.tree.map(lambda x: x[rows], features)

    def step(i: Array, carry: _Carry, order: Array, epoch_key: Key) -> _Carry:
        # A set smaller than a batch is repeated in it.
        places = order[(i % steps * size + jnp.arange(size)) % jnp.maximum(labelled.count, 1)]
        batch, labels = take(labelled.rows[places]), labelled.labels[places]
        share = carry.right[places] / jnp.maximum(carry.epoch, 1)
        loss = _loss(classifier, training, batch, labels, share, jax.random.fold_in(epoch_key, i))
        gradient, predicted = jax.grad(loss, has_aux=True)(carry.params)
        rate = training.learning_rate * optax.cosine_decay_schedule(1.0, 1)((carry.epoch * steps + i) / total)
        updates, state = optimizer.update(
            gradient, carry.state, carry.params, grad_fn=lambda params, _: jax.grad(loss, has_aux=True)(params)[0]
        )
        params = jax.tree.map(lambda p, u: p + rate * u, carry.params, updates)
        hit = (predicted == labels).astype(jnp.float32)
        right, seen = carry.right.at[places].add(hit), carry.seen + hit.mean() / steps
        return carry._replace(params=params, state=state, right=right, seen=seen)

    def epoch(carry: _Carry) -> _Carry:
        epoch_key = jax.random.fold_in(key, carry.epoch)
        order = jnp.argsort(
            jnp.where(
                jnp.arange(len(labelled.rows)) < labelled.count,
                jax.random.uniform(epoch_key, labelled.rows.shape),
                jnp.inf,
            )
        )
        carry = carry._replace(seen=jnp.float32(0))
        carry = jax.lax.fori_loop(0, steps, lambda i, c: step(i, c, order, epoch_key), carry)
        carry = carry._replace(epoch=carry.epoch + 1)
        return carry._replace(stop=1 - carry.seen <= training.enough)

    def block(carry: _Carry) -> _Carry:
        """Some epochs, then a look at the held-out points."""
        until = jnp.minimum(carry.epoch + max(training.select_every, 1), training.epochs)
        carry = jax.lax.while_loop(lambda c: (c.epoch < until) & ~c.stop, epoch, carry)
        if not training.select_every:
            return carry._replace(best=carry.params)
        predicted = classifier.apply(carry.params, take(held.rows)).predicted
        accuracy = (held.weights * (predicted == held.labels)).sum()
        better = (accuracy > carry.accuracy) | (held.weights.sum() == 0)
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), carry.params, carry.best)
        return carry._replace(best=best, accuracy=jnp.maximum(accuracy, carry.accuracy))

    carry = _Carry(
        first,
        optimizer.init(first),
        jnp.zeros(len(labelled.rows), jnp.float32),
        jnp.float32(0),
        jnp.int32(0),
        jnp.zeros((), bool),
        first,
        jnp.float32(-1),
    )
    return jax.lax.while_loop(lambda c: (c.epoch < training.epochs) & ~c.stop, block, carry).best


class _Carry(NamedTuple):
    params: PyTree
    state: PyTree
    right: Array
    seen: Array
    epoch: Array
    stop: Array
    best: PyTree
    accuracy: Array


def _optimizer(training: Training) -> Any:
    """SGD up to the learning rate, which steps multiply later; updates point downhill."""
    descent = optax.chain(
        optax.add_decayed_weights(jnp.asarray(training.weight_decay)),
        optax.trace(jnp.asarray(training.momentum)),
        optax.scale(-1.0),
    )
    if training.objective != "fmfp":
        return optax.with_extra_args_support(descent)
    ascent = optax.chain(optax.contrib.normalize(), optax.scale(-1.0), optax.scale(training.radius))
    return optax.contrib.sam(descent, ascent, opaque_mode=True)


def _loss(classifier: Classifier, training: Training, x: PyTree, labels: Array, share: Array, key: Key) -> Any:
    """Returns the loss of a batch as a function of parameters; its second result are predictions."""

    def loss(params: PyTree) -> tuple[Array, Array]:
        if training.objective == "mixup":
            mixing = objectives.mixing_share(key, training.mixing)
            logits = classifier.apply(params, jax.tree.map(lambda leaf: objectives.mixed(leaf, mixing), x)).logits
            value = mixing * objectives.cross_entropy(logits, labels)
            value = value + (1 - mixing) * objectives.cross_entropy(logits, jnp.roll(labels, 1))
            return value.mean(), jnp.argmax(logits, axis=1)
        logits = classifier.apply(params, x).logits
        kind = objectives.squentropy if training.objective == "squentropy" else objectives.cross_entropy
        value = kind(logits, labels)
        if training.objective == "crl":
            value = value + training.ranking * objectives.correctness_ranking(logits, share)
        return value.mean(), jnp.argmax(logits, axis=1)

    return loss
