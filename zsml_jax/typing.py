"""Array aliases and the dimension glossary.

Public functions are annotated with jaxtyping; the letters always mean the same:

======  ====================================================
letter  meaning
======  ====================================================
``n``   examples
``k``   classes
``m``   observed classes, or columns of a smaller set than k
``d``   features
``b``   batch
``t``   time or tokens
``v``   vocabulary
``h``   heads
``l``   layers
======  ====================================================

Module bodies write them as name suffixes: ``x_BxTxD``.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

Array: TypeAlias = jax.Array
#: What public functions accept wherever they compute: a JAX or a numpy array.
AnyArray: TypeAlias = jax.Array | np.ndarray
#: A traced hyperparameter: a Python number or a rank-0 array.
Scalar: TypeAlias = float | int | jax.Array | np.ndarray | np.number
Key: TypeAlias = PRNGKeyArray
#: A nested dict of arrays, as ``flax.linen.Module.init`` returns it under ``"params"``.
Params: TypeAlias = Mapping[str, Any]
PyTree: TypeAlias = Any
#: Texts to their embeddings: ``(n,)`` strings to a float array ``(n, d)``.
Encoder: TypeAlias = Callable[[list[str]], AnyArray]

__all__ = ["AnyArray", "Array", "Encoder", "Key", "Params", "PyTree", "Scalar"]
