"""Small classifiers of few features, fitted by the thousand, out of which labelling functions are chosen.

Each family has ``fit(features, labels, weights, k, ...)`` and a pytree with ``probs(features)``, class probabilities
``(n, h, k)`` of h heuristics: :mod:`.stumps`, :mod:`.logistic` and :mod:`.neighbours`. :mod:`.bands` makes votes of
them.
"""

from zsml_jax.weaksup.heuristics import bands, logistic, neighbours, stumps
from zsml_jax.weaksup.heuristics.logistic import Logistic
from zsml_jax.weaksup.heuristics.neighbours import Neighbours
from zsml_jax.weaksup.heuristics.stumps import Stumps

__all__ = ["Logistic", "Neighbours", "Stumps", "bands", "logistic", "neighbours", "stumps"]
