"""Foundation models as labelling functions: their zero-shot predictions are votes, or features for other methods."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from zsml_jax.typing import AnyArray, Array, Scalar
from zsml_jax.weaksup.vote_matrix import ABSTAIN


def votes(posteriors: Sequence[Float[AnyArray, "n k"]], *, least: Scalar = 0.0) -> Int[Array, "n m"]:
    """Returns each model's most probable class, and -1 where its probability is below ``least``.

    >>> probs = np.array([[0.9, 0.1], [0.45, 0.55]])
    >>> votes([probs], least=0.6).tolist()
    [[0], [-1]]

    Args:
      posteriors: class probabilities of the same examples, one array for each model.
      least: the probability below which a model abstains.

    Raises:
      ValueError: if there are no models, or they disagree in shape.
    """
    _check(posteriors)
    columns = [jnp.where(jnp.max(p, axis=1) >= least, jnp.argmax(p, axis=1), ABSTAIN) for p in posteriors]
    return jnp.stack(columns, axis=1).astype(jnp.int8)


def features(posteriors: Sequence[Float[AnyArray, "n k"]]) -> Float[Array, "n km"]:
    """Returns the class probabilities of all models side by side, as AutoWS-Bench-101 gives CLIP's to its methods.

    Raises:
      ValueError: if there are no models, or they disagree in shape.
    """
    _check(posteriors)
    return jnp.concatenate([jnp.asarray(p, jnp.float32) for p in posteriors], axis=1)


def _check(posteriors: Sequence[AnyArray]) -> None:
    shapes = {np.shape(p) for p in posteriors}
    if len(shapes) != 1 or any(len(shape) != 2 or shape[1] < 2 for shape in shapes):
        raise ValueError(f"posteriors must hold matrices (n, k) of one shape, k >= 2, got shapes {sorted(shapes)}")
