"""Label shift on purpose: a random label distribution, and the largest sample of a labelled set that has it.

The protocol of OTTER's experiments (Shin et al., 2024): nu ~ Dirichlet(alpha * k * P(y)), then resampling without
replacement, so that P(x | y) stays as it is and only P(y) moves.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from zsml_jax.typing import AnyArray, Array, Key, Scalar


def dirichlet_label_distribution(
    label_distribution: Float[AnyArray, " k"], *, concentration: Scalar, key: Key
) -> Float[Array, " k"]:
    """Draws a label distribution around another one.

    ``nu ~ Dirichlet(concentration * k * label_distribution)``: the mean is ``label_distribution``, and a class's
    variance is ``p (1 - p) / (concentration * k + 1)``.

    Args:
      label_distribution: the source's distribution over k classes; a class of probability zero keeps it.
      concentration: alpha, positive; small values give a strong shift. It may be traced.
      key: a PRNG key.

    Returns:
      The drawn distribution; it sums to 1.

    Raises:
      ValueError: if ``label_distribution`` is not a distribution, or ``concentration`` is not positive.
    """
    _require_distribution(label_distribution)
    if not isinstance(concentration, jax.core.Tracer) and not (np.isfinite(concentration) and concentration > 0):
        raise ValueError(f"concentration must be positive and finite, got {concentration}")
    p = jnp.asarray(label_distribution)
    alpha = concentration * p.shape[0] * p
    # Dirichlet as normalised Gamma variates, in log space: small alphas underflow otherwise.
    log_gamma = jax.random.loggamma(key, jnp.where(p > 0, alpha, 1.0), dtype=p.dtype)
    return jax.nn.softmax(jnp.where(p > 0, log_gamma, -jnp.inf))


def resample(
    labels: Int[AnyArray, " n"], label_distribution: Float[AnyArray, " k"], *, key: Key
) -> Int[np.ndarray, " m"]:
    """Chooses the largest subset, without replacement, whose labels follow a distribution.

    Its size is ``m = floor(min_y n_y / nu_y)`` over the classes with ``nu_y > 0``. Where ``m * nu_y`` is not whole,
    the largest remainders are rounded up, which the class sizes always allow.

    Args:
      labels: class indices of n examples.
      label_distribution: the wanted distribution over k classes.
      key: a PRNG key.

    Returns:
      Indices into ``labels``, in random order.

    Raises:
      ValueError: if ``label_distribution`` is not a distribution, a label lies outside of its classes, a class with a
        positive share has no example, or no example can be kept.
    """
    _require_distribution(label_distribution)
    y, nu = np.asarray(labels), np.asarray(label_distribution, np.float64)
    nu = nu / nu.sum()
    if y.size == 0 or y.min() < 0 or y.max() >= len(nu):
        found = f"{y.min()}..{y.max()}" if y.size else "none"
        raise ValueError(f"labels must be class indices in 0..{len(nu) - 1}, got {found}")
    available = np.bincount(y, minlength=len(nu))
    if len(empty := np.flatnonzero((nu > 0) & (available == 0))):
        raise ValueError(f"label_distribution gives classes {empty.tolist()} a share, but labels hold none of them")
    wanted = nu > 0
    # The tolerance keeps a distribution that is met exactly, such as the labels' own, from losing an example.
    size = int(np.floor(np.min(available[wanted] / nu[wanted]) * (1 + 1e-6)))
    counts = _largest_remainders(nu, size, available)
    if not counts.sum():
        raise ValueError("label_distribution leaves no example: a rare class has too large a share")
    # On the host: the sizes differ from call to call, and a compiled permutation is one program for each size.
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
    by_class = np.split(np.argsort(y, kind="stable"), np.cumsum(available)[:-1])
    chosen = [rng.choice(members, count, replace=False) for members, count in zip(by_class, counts, strict=True)]
    return rng.permutation(np.concatenate(chosen))


def _largest_remainders(nu: np.ndarray, size: int, available: np.ndarray) -> np.ndarray:
    quota = np.minimum(size * nu, available)
    counts = np.floor(quota).astype(np.int64)
    remainder = np.where(counts < available, quota - counts, -1.0)
    missing = min(size, int(np.ceil(quota).sum())) - counts.sum()
    counts[np.argsort(-remainder, kind="stable")[:missing]] += 1
    return counts


def _require_distribution(label_distribution: AnyArray) -> None:
    if isinstance(label_distribution, jax.core.Tracer):
        return
    p = np.asarray(label_distribution)
    if p.ndim != 1 or p.size < 2:
        raise ValueError(f"label_distribution must have one axis of at least two classes, got shape {p.shape}")
    if not np.isfinite(p).all() or (p < 0).any() or abs(p.sum() - 1) > 1e-3:
        raise ValueError(
            f"label_distribution must be non-negative and sum to 1, got sum {p.sum()} and minimum {p.min()}"
        )
