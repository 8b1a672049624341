"""A zero-shot classifier: one unit vector per class, and a logit scale.

Every method of this wing ends in such a head. RoboShot transforms its class vectors, OTTER's dual is added to its
bias, and Loki decodes its probabilities, so that a composed method costs one affine map per example.
"""

import dataclasses
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from zsml_jax.typing import AnyArray, Array, Encoder, Scalar


@flax.struct.dataclass
class ClassHead:
    """An affine map from embeddings to class logits, a pytree.

    Attributes:
      vectors: class vectors, ``(k, d)``.
      logit_scale: the inverse temperature, a scalar; CLIP's is 100.
      bias: added to the scaled logits, ``(k,)``, in nats; OTTER's dual goes here.
    """

    vectors: Float[AnyArray, "*batch k d"]
    logit_scale: Float[AnyArray, "*batch"]
    bias: Float[AnyArray, "*batch k"]

    def logits(self, x: Float[AnyArray, "n d"]) -> Float[Array, "n k"]:
        """Returns ``logit_scale * x @ vectors.T + bias``."""
        cosines = jnp.matmul(jnp.asarray(x), self.vectors.T, precision=jax.lax.Precision.HIGHEST)
        return jnp.asarray(self.logit_scale) * cosines + self.bias

    def log_probs(self, x: Float[AnyArray, "n d"]) -> Float[Array, "n k"]:
        """Returns the log-softmax of the logits, in nats."""
        return jax.nn.log_softmax(self.logits(x), axis=-1)

    def predict(self, x: Float[AnyArray, "n d"]) -> Array:
        """Returns the class index of the largest logit, the first one on ties."""
        return jnp.argmax(self.logits(x), axis=-1)

    def shifted(self, dual: Float[AnyArray, " k"]) -> "ClassHead":
        """Returns the head with ``dual`` (nats) added to its bias: OTTER folded in."""
        return dataclasses.replace(self, bias=self.bias + dual)


def class_head(
    encoder: Encoder, prompts: Sequence[str] | Sequence[Sequence[str]], *, logit_scale: Scalar = 100.0
) -> ClassHead:
    """Builds a head from class prompts, as CLIP does.

    A class with several prompts (a template ensemble) takes the normalised mean of their normalised embeddings
    (Radford et al., 2021, section 3.1.4).

    Args:
      encoder: maps a list of texts to their embeddings ``(n, d)``.
      prompts: one prompt, or one sequence of prompts, for each of the k classes.
      logit_scale: the inverse temperature of the logits.

    Returns:
      The head, with unit class vectors and a zero bias.

    Raises:
      ValueError: if there are fewer than two classes, a class has no prompt, or an embedding is zero or not finite.
    """
    ensembles = [[p] if isinstance(p, str) else list(p) for p in prompts]
    if len(ensembles) < 2:
        raise ValueError(f"prompts must name at least two classes, got {len(ensembles)}")
    if empty := [i for i, ensemble in enumerate(ensembles) if not ensemble]:
        raise ValueError(f"prompts must hold at least one prompt per class; classes {empty} have none")
    embeddings = _unit_rows(np.asarray(encoder([p for ensemble in ensembles for p in ensemble])))
    ends = np.cumsum([len(ensemble) for ensemble in ensembles])
    means = np.stack([part.mean(axis=0) for part in np.split(embeddings, ends[:-1])])
    return ClassHead(
        vectors=jnp.asarray(_unit_rows(means)),
        logit_scale=jnp.asarray(logit_scale, dtype=means.dtype),
        bias=jnp.zeros(len(ensembles), dtype=means.dtype),
    )


def _unit_rows(x: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(x, axis=-1, keepdims=True)
    if not np.isfinite(norms).all() or (norms == 0).any():
        raise ValueError("prompt embeddings must be finite and non-zero")
    return x / norms
