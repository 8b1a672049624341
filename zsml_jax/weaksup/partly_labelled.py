"""Examples of which a few have labels: what every method of this room is given."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from zsml_jax.typing import AnyArray, Array, Key
from zsml_jax.weaksup.vote_matrix import ABSTAIN, checked_features, checked_labels


def checked_examples(
    features: Float[AnyArray, "n d"], labels: Int[AnyArray, " n"]
) -> tuple[Float[Array, "n d"], Int[Array, " l"], Int[Array, " l"], int]:
    """Returns the features, the rows with a label, their labels, and the number of classes.

    Args:
      features: one row an example.
      labels: class indices, and -1 for the examples without a label.

    Raises:
      ValueError: if the features are no finite matrix, the labels are traced, of another shape, no integers or below
        -1, nothing is labelled, or a class below the largest label has no example.
    """
    x = checked_features(features)
    rows, truth, k = labelled_rows(labels, len(x))
    return x, rows, truth, k


def labelled_rows(labels: Int[AnyArray, " n"], n: int) -> tuple[Int[Array, " l"], Int[Array, " l"], int]:
    """Returns the rows with a label, their labels, and the number of classes.

    Raises:
      ValueError: as :func:`checked_examples`.
    """
    if isinstance(labels, jax.core.Tracer):
        raise ValueError("labels decide shapes, and must be known outside of jit and vmap; they may be closed over")
    values = np.asarray(labels)
    if values.shape != (n,) or values.dtype.kind not in "iu":
        raise ValueError(f"labels must be {n} integers, one for each example, got shape {values.shape} {values.dtype}")
    if values.min() < ABSTAIN:
        raise ValueError(f"labels must be classes, or -1 for none, got {values.min()}")
    rows = np.flatnonzero(values != ABSTAIN)
    if not len(rows):
        raise ValueError("labels must hold at least one label, but all are -1")
    k = max(2, int(values.max()) + 1)
    truth = checked_labels(values[rows], len(rows), k, every_class=True)
    return jnp.asarray(rows), truth, k


def hidden_folds(count: int, folds: int, *, key: Key) -> Bool[np.ndarray, "folds l"]:
    """Returns which labels each fold hides: every label is hidden once.

    Raises:
      ValueError: if there are fewer than two folds, or fewer labels than folds.
    """
    if not 2 <= folds <= count:
        raise ValueError(f"folds must lie between 2 and the {count} labels, got {folds}")
    hidden = np.zeros((folds, count), bool)
    for fold, part in enumerate(np.array_split(np.asarray(jax.random.permutation(key, count)), folds)):
        hidden[fold, part] = True
    return hidden
