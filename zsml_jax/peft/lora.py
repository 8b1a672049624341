"""LoRA: a product of two thin matrices beside the kernel (Hu et al., "LoRA: Low-Rank Adaptation", 2021).

Rank-stabilised LoRA (Kalajdzievski, 2023) is ``scaling="root_rank"``.
"""

import dataclasses

import jax
import jax.numpy as jnp

from zsml_jax.peft.method import Arrays, Kernel, LayerShape, LowRank, Scaling
from zsml_jax.typing import AnyArray, Array, Key


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRA(LowRank):
    """Adds ``factor * a @ b`` to the kernel, with ``a`` of shape ``(n, r)`` and ``b`` of shape ``(r, m)``.

    Dropout acts on this term, as in the paper of MoRe, where the ``peft`` library drops parts of ``x``.

    Attributes:
      rank: r.
      alpha: the scale; the factor is alpha / r, or what ``scaling`` says.
    """

    rank: int = 8
    alpha: float | int = 8.0
    scaling: Scaling = "rank"

    def init(self, shape: LayerShape, kernel: Kernel, *, key: Key) -> Arrays:
        """Returns ``a``, uniform within one over the root of n, and ``b``, zero."""
        bound = shape.inputs**-0.5
        a = jax.random.uniform(key, (self.rank, shape.inputs), minval=-bound, maxval=bound).T
        return {"a": a, "b": jnp.zeros((self.rank, shape.outputs))}

    def term(self, x: AnyArray, shape: LayerShape, arrays: Arrays, shared: Arrays) -> Array:
        """Returns the vectors times the product."""
        return (x @ arrays["a"]) @ self.scaled(arrays["b"], shared)

    def low_rank(self, shape: LayerShape, arrays: Arrays, shared: Arrays) -> tuple[Array, Array]:
        """Returns the factors, the second of them scaled."""
        return arrays["a"], self.scaled(arrays["b"], shared)
