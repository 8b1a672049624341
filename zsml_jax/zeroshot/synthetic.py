r"""The papers' synthetic problems, with everything known that real data hides.

:func:`roboshot_gaussians` draws the four groups of RoboShot's experiment with exact concept directions, and
:func:`label_shift_gaussians` the two classes of OTTER's, with exact source and target posteriors.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from zsml_jax.typing import Array, Key, Scalar


class RoboShotProblem(NamedTuple):
    """Embeddings in four groups, with class vectors and insights, a pytree.

    Attributes:
      x: embeddings, ``(n, d)``; the coordinates are the core, the spurious and then the benign concepts.
      labels: 0 or 1, the sign of the core concept.
      groups: ``2 * label + s``, where s is the sign of the spurious concept; 0 and 3 are the aligned groups.
      class_vectors: the class embeddings, ``(2, d)``.
      harmful: noisy insights into the spurious concept, ``(m, d)``.
      helpful: noisy insights into the core concept, ``(m, d)``.
    """

    x: Float[Array, "*batch n d"]
    labels: Int[Array, "*batch n"]
    groups: Int[Array, "*batch n"]
    class_vectors: Float[Array, "*batch k d"]
    harmful: Float[Array, "*batch m d"]
    helpful: Float[Array, "*batch m d"]


class LabelShiftProblem(NamedTuple):
    """Scalars of two classes, with their exact posteriors, a pytree.

    Attributes:
      x: what is observed.
      labels: 0 or 1, drawn from the target prior.
      source_log_probs: the exact log-posterior under the source prior, in nats: what a perfect source model says.
      target_log_probs: the exact log-posterior under the target prior, in nats; its argmax is the Bayes decision.
      target_prior: the label distribution that the labels were drawn from.
    """

    x: Float[Array, "*batch n"]
    labels: Int[Array, "*batch n"]
    source_log_probs: Float[Array, "*batch n k"]
    target_log_probs: Float[Array, "*batch n k"]
    target_prior: Float[Array, "*batch k"]


def roboshot_gaussians(
    key: Key,
    *,
    n_per_group: int = 2500,
    n_benign: int = 1,
    n_insights: int = 1,
    core: Scalar = 1.0,
    spurious: Scalar = 1.0,
    benign: Scalar = 0.5,
    insight: Scalar = 1.0,
    input_noise: Scalar = 0.5,
    benign_noise: Scalar = 0.01,
    insight_noise: Scalar = 0.1,
) -> RoboShotProblem:
    r"""Draws RoboShot's four Gaussians: :math:`x = \pm w_c z_c \pm w_s z_s + w_b z_b` plus noise (section 5).

    The concepts z are orthonormal. Both class vectors hold the spurious concept, with the sign of their core concept,
    so that zero-shot prediction does no better than a coin in the two groups where the signs differ. An insight has the
    coefficient :math:`\gamma` on its own concept and Gaussian ones on all others (theorem 4.1).

    The paper names the scales but not all of their roles; here ``input_noise`` acts on the core and spurious
    coordinates and ``benign_noise`` on the benign ones. All scales are traced.

    Args:
      key: the random key.
      n_per_group: examples in each of the four groups.
      n_benign: the number of benign concepts; d is this plus two.
      n_insights: insights of each kind.
      core: the weight of the core concept.
      spurious: the weight of the spurious concept.
      benign: the weight of each benign concept.
      insight: the coefficient of an insight on its own concept.
      input_noise: standard deviation along the core and spurious concepts.
      benign_noise: standard deviation along the benign concepts.
      insight_noise: standard deviation of an insight's coefficients on the other concepts.

    Returns:
      The problem, groups in order.

    Raises:
      ValueError: if a count is not positive.
    """
    for name, count in (("n_per_group", n_per_group), ("n_benign", n_benign), ("n_insights", n_insights)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    d = 2 + n_benign
    noise_key, harmful_key, helpful_key = jax.random.split(key, 3)
    groups = jnp.repeat(jnp.arange(4), n_per_group)
    labels = groups // 2
    weights = jnp.concatenate([jnp.stack([jnp.asarray(core), jnp.asarray(spurious)]), jnp.full(n_benign, benign)])
    signs = jnp.stack([2 * labels - 1, 2 * (groups % 2) - 1], axis=1)
    means = jnp.concatenate([signs, jnp.ones((4 * n_per_group, n_benign))], axis=1) * weights
    scale = jnp.concatenate([jnp.full(2, input_noise), jnp.full(n_benign, benign_noise)])
    class_signs = jnp.concatenate([jnp.asarray([[-1.0, -1.0], [1.0, 1.0]]), jnp.ones((2, n_benign))], axis=1)

    def insights(key: Key, concept: int) -> Array:
        noise = insight_noise * jax.random.normal(key, (n_insights, d))
        return jnp.where(jnp.arange(d) == concept, insight, noise)

    return RoboShotProblem(
        x=means + scale * jax.random.normal(noise_key, means.shape),
        labels=labels,
        groups=groups,
        class_vectors=class_signs * weights,
        harmful=insights(harmful_key, 1),
        helpful=insights(helpful_key, 0),
    )


def label_shift_gaussians(
    key: Key,
    *,
    n: int = 10_000,
    target_positive_rate: Scalar,
    source_positive_rate: Scalar = 0.9,
    scale: Scalar = 1.0,
) -> LabelShiftProblem:
    r"""Draws OTTER's synthetic label shift: class 0 from :math:`N(-1, \sigma^2)`, class 1 from :math:`N(1, \sigma^2)`.

    The likelihood is the same in source and target, so that the log-posteriors differ by a constant per class.

    Args:
      key: the random key.
      n: the number of examples.
      target_positive_rate: the probability of class 1 in the target, in (0, 1); the paper goes from 0.9 to 0.15.
      source_positive_rate: the probability of class 1 in the source, in (0, 1).
      scale: the standard deviation :math:`\sigma` of both classes.

    Returns:
      Target examples with their exact posteriors under both priors.

    Raises:
      ValueError: if n is not positive, a rate is not between 0 and 1, or the scale is not positive.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    for name, value, most in (
        ("target_positive_rate", target_positive_rate, 1),
        ("source_positive_rate", source_positive_rate, 1),
        ("scale", scale, np.inf),
    ):
        if not isinstance(value, jax.core.Tracer) and not 0 < float(value) < most:
            raise ValueError(f"{name} must lie between 0 and {most}, got {value}")
    label_key, noise_key = jax.random.split(key)
    labels = jax.random.bernoulli(label_key, target_positive_rate, (n,)).astype(int)
    x = 2 * labels - 1 + scale * jax.random.normal(noise_key, (n,))
    log_likelihood = -0.5 * ((x[:, None] - jnp.asarray([-1.0, 1.0])) / scale) ** 2
    prior = lambda positive: jnp.stack([1 - jnp.asarray(positive), jnp.asarray(positive)])
    posterior = lambda positive: jax.nn.log_softmax(log_likelihood + jnp.log(prior(positive)), axis=-1)
    return LabelShiftProblem(
        x=x,
        labels=labels,
        source_log_probs=posterior(source_positive_rate),
        target_log_probs=posterior(target_positive_rate),
        target_prior=prior(target_positive_rate),
    )
