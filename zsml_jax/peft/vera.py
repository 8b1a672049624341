"""VeRA: two random matrices that all layers share, and two trained vectors for each (Kopiczko et al., 2024)."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp

from zsml_jax.peft.method import Arrays, Kernel, LayerShape, LowRank
from zsml_jax.typing import AnyArray, Array, Key


@dataclasses.dataclass(frozen=True, kw_only=True)
class VeRA(LowRank):
    r"""Adds :math:`A \, \mathrm{diag}(d) \, B \, \mathrm{diag}(b)` to the kernel, with only d and b trained.

    A ``(n, r)`` and B ``(r, m)`` are the first rows and columns of matrices as large as the largest layer needs.

    Attributes:
      rank: r, of all layers alike.
      d_initial: what all of d begins with; b begins with 0.
      projection_seed: the seed of the random matrices, whatever the key of the adapter is.
    """

    rank: int = 256
    d_initial: float | int = 0.1
    projection_seed: int = 0

    rank_field: ClassVar[str] = "rank"

    def __post_init__(self):
        super().__post_init__()
        if self.ranks:
            raise ValueError(f"ranks must be empty, since all layers of VeRA share their matrices, got {self.ranks}")

    def init(self, shape: LayerShape, kernel: Kernel, *, key: Key) -> Arrays:
        """Returns ``d`` and ``b``."""
        return {"d": jnp.full(self.rank, self.d_initial, jnp.float32), "b": jnp.zeros(shape.outputs)}

    def shared(self, shapes: Sequence[LayerShape]) -> Arrays:
        """Returns A and B, uniform, with variance 2 over the numbers that go in."""
        inputs, outputs = (max(getattr(shape, name) for shape in shapes) for name in ("inputs", "outputs"))
        key_a, key_b = jax.random.split(jax.random.key(self.projection_seed))
        bound_a, bound_b = (6 / inputs) ** 0.5, (6 / self.rank) ** 0.5
        return {
            "projection_a": jax.random.uniform(key_a, (inputs, self.rank), minval=-bound_a, maxval=bound_a),
            "projection_b": jax.random.uniform(key_b, (self.rank, outputs), minval=-bound_b, maxval=bound_b),
        }

    def term(self, x: AnyArray, shape: LayerShape, arrays: Arrays, shared: Arrays) -> Array:
        """Returns the vectors times the product."""
        down, up = shared["projection_a"][: shape.inputs], shared["projection_b"][:, : shape.outputs]
        return self.scaled(arrays["b"], shared) * ((arrays["d"] * (x @ down)) @ up)

    def low_rank(self, shape: LayerShape, arrays: Arrays, shared: Arrays) -> tuple[Array, Array]:
        """Returns the scaled matrices, as far as the layer is large."""
        down = shared["projection_a"][: shape.inputs] * arrays["d"]
        return down, shared["projection_b"][:, : shape.outputs] * self.scaled(arrays["b"], shared)
