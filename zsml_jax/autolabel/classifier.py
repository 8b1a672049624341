"""Classifiers as pure functions: how parameters are drawn, and what points come out as."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from zsml_jax.autolabel.outputs import Outputs
from zsml_jax.typing import Array, Key, PyTree


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trainable classifier; equal ones share compiled programs.

    Bound methods are equal only if they are of one object, however equal two objects are: whoever makes a classifier of
    them keeps it, as :func:`mlp` does.

    Attributes:
      init: ``(key) -> params``.
      apply: ``(params, x) -> Outputs``, for a batch of features.
    """

    init: Callable[[Key], PyTree]
    apply: Callable[[PyTree, Any], Outputs]


@dataclasses.dataclass(frozen=True)
class _Mlp:
    """The two functions of :func:`mlp`."""

    sizes: tuple[int, ...]
    activation: str

    def init(self, key: Key) -> list[tuple[Array, Array]]:
        keys = jax.random.split(key, len(self.sizes))
        return [
            (jax.random.normal(keys[i], (a, b)) * (1 / a) ** 0.5, jnp.zeros(b))
            for i, (a, b) in enumerate(zip(self.sizes[:-1], self.sizes[1:], strict=True))
        ]

    def apply(self, params: list[tuple[Array, Array]], x: Float[Array, "b d"]) -> Outputs:
        activation = {"tanh": jnp.tanh, "relu": jax.nn.relu}[self.activation]
        *hidden, (kernel, bias) = params
        for w, b in hidden:
            x = activation(x @ w + b)
        return Outputs(x @ kernel + bias, x)


def mlp(d: int, widths: tuple[int, ...], k: int, *, activation: str = "tanh") -> Classifier:
    """Returns a multilayer perceptron; without widths a linear classifier, whose hidden activations are its input.

    The same arguments give the same classifier, so that jit knows it again.

    >>> classifier = mlp(2, (3,), 4)
    >>> classifier.apply(classifier.init(jax.random.key(0)), jnp.ones((5, 2))).logits.shape
    (5, 4)

    Args:
      d: the number of features.
      widths: of the hidden layers.
      k: the number of classes.
      activation: ``"tanh"`` or ``"relu"``.

    Raises:
      ValueError: if a size is not positive, or there is no such activation.
    """
    sizes = (d, *widths, k)
    if min(sizes) < 1:
        raise ValueError(f"d, widths and k must be positive, got {sizes}")
    if activation not in ("tanh", "relu"):
        raise ValueError(f"activation must be 'tanh' or 'relu', got {activation!r}")
    return _classifier(_Mlp(sizes, activation))


@functools.cache
def _classifier(net: _Mlp) -> Classifier:
    return Classifier(net.init, net.apply)
