"""MoRe: a Monarch product beside the kernel.

Tan, Roberts, Huang, Zhao, Cooper, Guo, Duan and Sala, "MoRe Fine-Tuning with 10x Fewer Parameters", 2024.
"""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import ClassVar

from zsml_jax.peft import monarch
from zsml_jax.peft.method import Arrays, Kernel, LayerShape, LowRank
from zsml_jax.peft.monarch import Monarch, MonarchShape
from zsml_jax.typing import AnyArray, Array, Key


class DensityWarning(UserWarning):
    """The blocks do not divide the block rank, so that parts of the update are zero whatever is learned."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MoRe(LowRank):
    """Adds the Monarch product of :mod:`~zsml_jax.peft.monarch`: rank N r for r (n + m) parameters.

    With one block it is LoRA of rank r. The paper adapts query, key and value, with 4 blocks of rank 4.

    Attributes:
      blocks: N.
      block_rank: r; a multiple of N, else there is a :class:`DensityWarning`.
      alpha: the scale; the paper has none, which is 1.
      scaling: as in :class:`~zsml_jax.peft.method.LowRank`, where the rank is r.
    """

    blocks: int = 4
    block_rank: int = 4

    rank_field: ClassVar[str] = "block_rank"

    def __post_init__(self):
        super().__post_init__()
        if self.blocks < 1:
            raise ValueError(f"blocks must be at least 1, got {self.blocks}")

    def check(self, shapes: Mapping[str, LayerShape]) -> None:
        """Warns of the density of the update, once for all layers."""
        products = {path: self.at(path).monarch_shape(shape) for path, shape in shapes.items()}
        sparse = {path: product for path, product in products.items() if product.density < 1}
        if sparse:
            path, product = min(sparse.items(), key=lambda item: item[1].density)
            warnings.warn(
                f"{product.block_count} blocks do not divide the block rank {product.block_rank}: a share of "
                f"{1 - product.density:.0%} of the update of {path!r} is zero whatever is learned (density "
                f"{product.density:.2f}), in {len(sparse)} of {len(products)} adapted layers; a block_rank that is a "
                f"multiple of blocks has density 1",
                DensityWarning,
                stacklevel=4,
            )

    def init(self, shape: LayerShape, kernel: Kernel, *, key: Key) -> Arrays:
        """Returns ``first``, uniform, and ``second``, zero."""
        return monarch.init(self.monarch_shape(shape), key=key)._asdict()

    def term(self, x: AnyArray, shape: LayerShape, arrays: Arrays, shared: Arrays) -> Array:
        """Returns the vectors times the product."""
        return monarch.product(x, self._factors(arrays, shared), shape.outputs)

    def delta(self, shape: LayerShape, arrays: Arrays, shared: Arrays) -> Array:
        """Returns the product as a dense matrix."""
        return monarch.delta_weight(self._factors(arrays, shared), self.monarch_shape(shape))

    def low_rank(self, shape: LayerShape, arrays: Arrays, shared: Arrays) -> tuple[Array, Array]:
        """Returns the block-diagonal factors with their permutations, of inner width N r."""
        factors = self._factors(arrays, shared)
        down, up = monarch.first_matrix(factors.first), monarch.second_matrix(factors.second)
        return down[: shape.inputs], up[:, : shape.outputs]

    def monarch_shape(self, shape: LayerShape) -> MonarchShape:
        """Returns the sizes of the product for a layer."""
        return MonarchShape(shape.inputs, shape.outputs, self.blocks, self.block_rank)

    def _factors(self, arrays: Arrays, shared: Arrays) -> Monarch:
        return Monarch(arrays["first"], self.scaled(arrays["second"], shared))
