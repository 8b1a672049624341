"""How often thresholds break their promise: vmapped draws of labelled points whose error above any score is known."""

import functools

import jax
import jax.numpy as jnp

from zsml_jax.autolabel import thresholds
from zsml_jax.typing import Array, Key

#: Rules by their names in tables: the method, and whether one threshold serves all classes.
RULES: dict[str, tuple[thresholds.Method, bool]] = {
    "certified": ("certified", False),
    "certified, one for all classes": ("certified", True),
    "sigma": ("sigma", False),
    "hoeffding": ("hoeffding", False),
    "none": ("none", False),
}


def violations(
    rule: str, *, n: int, n_classes: int, error: float, failure: float, min_count: int, simulations: int, key: Key
) -> dict[str, float]:
    """Simulates one round of auto-labelling many times.

    Scores s are uniform in (0, 1), predicted classes uniform, and a prediction with score s is wrong with probability
    (1 - 1/k) (1 - s)^2, so that a third of that is wrong in all. Labels go to every point of an endless pool at or
    above its class's threshold.

    Args:
      rule: one of :data:`RULES`.
      n: labelled points of a simulation.
      n_classes: the number of classes k.
      error: epsilon.
      failure: the probability that ``certified`` allows itself.
      min_count: as in thresholds.estimate.
      simulations: how many.
      key: of the draws.

    Returns:
      The share of simulations whose auto-labels err more often than epsilon, ``violations``, and the mean share of the
      pool that is labelled, ``coverage``.
    """
    method, shared = RULES[rule]
    wrong = 1 - 1 / n_classes
    estimate = functools.partial(
        thresholds.estimate,
        error=error, n_classes=n_classes, method=method, failure=failure, min_count=min_count, shared=shared,
    )  # fmt: skip

    def one(key: Key) -> tuple[Array, Array]:
        score_key, class_key, error_key = jax.random.split(key, 3)
        scores = jax.random.uniform(score_key, (n,))
        correct = jax.random.uniform(error_key, (n,)) >= wrong * (1 - scores) ** 2
        found = estimate(scores, jax.random.randint(class_key, (n,), 0, n_classes), correct)
        above = jnp.clip(1 - found.values, 0, 1)
        labelled = above.mean()
        return wrong * jnp.mean(above**3) / 3 > error * labelled, labelled

    violated, labelled = jax.jit(jax.vmap(one))(jax.random.split(key, simulations))
    return {"violations": float(violated.mean()), "coverage": float(labelled.mean())}
