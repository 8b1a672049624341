"""OFT and BOFT: the input of a layer turned by a trained rotation that is cheap to hold.

Qiu et al., "Controlling Text-to-Image Diffusion by Orthogonal Finetuning", 2023: a rotation of each block of the input.
Liu et al., "Parameter-Efficient Orthogonal Finetuning via Butterfly Factorization", 2024: a product of several such,
between which the input is shuffled, and a trained factor for each output.
"""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from zsml_jax.peft.method import Arrays, Kernel, LayerShape, Method
from zsml_jax.typing import AnyArray, Array, Key


@dataclasses.dataclass(frozen=True, kw_only=True)
class OFT(Method):
    """Turns each block of the input by the Cayley transform of a trained skew-symmetric matrix.

    Attributes:
      block_size: numbers of a block; it divides the inputs of every adapted layer.
      cayley_terms: terms of the Neumann series that stands for the transform, at least 4; the transform itself if None,
        the limit of the series. The series is only nearly a rotation when the matrix is large. The ``peft`` library
        without the series turns the other way, as if the trained numbers had the other sign.
    """

    block_size: int = 32
    cayley_terms: int | None = 5

    def __post_init__(self):
        super().__post_init__()
        _check_block_size(self.block_size)
        if self.cayley_terms is not None and self.cayley_terms < 4:
            raise ValueError(f"cayley_terms must be at least 4, or None, got {self.cayley_terms}")

    def check(self, shapes: Mapping[str, LayerShape]) -> None:
        """Refuses layers that the blocks do not fill."""
        _check_divides(self.block_size, shapes)

    def init(self, shape: LayerShape, kernel: Kernel, *, key: Key) -> Arrays:
        """Returns ``upper``, what is above the diagonal of each block's skew-symmetric matrix, zero."""
        pairs = self.block_size * (self.block_size - 1) // 2
        return {"upper": jnp.zeros((shape.inputs // self.block_size, pairs))}

    def before(self, x: AnyArray, arrays: Arrays, shared: Arrays) -> AnyArray:
        """Returns the turned input."""
        return _turned(jnp.asarray(x), self._rotations(arrays))

    def merged(self, kernel: Array, bias: Array | None, arrays: Arrays, shared: Arrays) -> tuple[Array, Array | None]:
        """Returns the kernel with its rows turned, and the bias."""
        return _turned(kernel.T, self._rotations(arrays).swapaxes(1, 2)).T, bias

    def _rotations(self, arrays: Arrays) -> Array:
        size, terms = self.block_size, self.cayley_terms
        rows, columns = np.triu_indices(size, 1)
        upper = jnp.zeros((arrays["upper"].shape[0], size, size), arrays["upper"].dtype)
        upper = upper.at[:, rows, columns].set(arrays["upper"])
        skew = upper - upper.swapaxes(1, 2)
        if terms is None:
            return cayley(skew)
        # (I - Q)^-1 = I + Q + Q^2 + ..., so that (I + Q) (I - Q)^-1 = I + 2 Q + 2 Q^2 + ...; the last term is halved.
        power, total = skew, jnp.eye(size) + 2 * skew
        for i in range(2, terms):
            power = power @ skew
            total += power if i == terms - 1 else 2 * power
        return total


@dataclasses.dataclass(frozen=True, kw_only=True)
class BOFT(Method):
    """Turns the input by a butterfly of block rotations, and scales the output.

    Attributes:
      block_size: numbers of a block; an even number that divides the inputs of every adapted layer.
      factors: rotations in a row; the inputs are a multiple of ``block_size * 2 ** (factors - 1)``.
    """

    block_size: int = 4
    factors: int = 1

    def __post_init__(self):
        super().__post_init__()
        _check_block_size(self.block_size)
        if self.factors < 1:
            raise ValueError(f"factors must be at least 1, got {self.factors}")
        if self.factors > 1 and self.block_size % 2:
            raise ValueError(f"block_size must be even where there are several factors, got {self.block_size}")

    def check(self, shapes: Mapping[str, LayerShape]) -> None:
        """Refuses layers that the butterfly does not fill."""
        _check_divides(self.block_size * 2 ** (self.factors - 1), shapes)

    def init(self, shape: LayerShape, kernel: Kernel, *, key: Key) -> Arrays:
        """Returns ``rotation``, of which the skew-symmetric parts count, zero, and ``scale``, all 1."""
        blocks = shape.inputs // self.block_size
        rotation = jnp.zeros((self.factors, blocks, self.block_size, self.block_size))
        return {"rotation": rotation, "scale": jnp.ones(shape.outputs)}

    def before(self, x: AnyArray, arrays: Arrays, shared: Arrays) -> AnyArray:
        """Returns the turned input."""
        turned = jnp.asarray(x)
        rotations = _rotations_of(arrays["rotation"])
        for factor in reversed(range(self.factors)):
            order = butterfly_order(x.shape[-1], self.block_size, factor)
            turned = _turned(turned[..., np.argsort(order)], rotations[factor])[..., order]
        return turned

    def extra(
        self, x: AnyArray, y: AnyArray, kernel: Kernel, bias: AnyArray | None, arrays: Arrays, shared: Arrays
    ) -> Array:
        """Returns what makes the scaled output of the output; the bias is not scaled."""
        return jnp.asarray(y if bias is None else y - bias) * (arrays["scale"] - 1)

    def merged(self, kernel: Array, bias: Array | None, arrays: Arrays, shared: Arrays) -> tuple[Array, Array | None]:
        """Returns the turned and scaled kernel, and the bias."""
        turned = kernel.T
        rotations = _rotations_of(arrays["rotation"]).swapaxes(2, 3)
        for factor in range(self.factors):
            order = butterfly_order(kernel.shape[0], self.block_size, factor)
            turned = _turned(turned[..., np.argsort(order)], rotations[factor])[..., order]
        return turned.T * arrays["scale"], bias


def cayley(skew: Float[Array, "*b d d"]) -> Float[Array, "*b d d"]:
    """Returns the rotations ``(I + Q) (I - Q)^-1`` of skew-symmetric matrices Q."""
    eye = jnp.eye(skew.shape[-1], dtype=skew.dtype)
    return jnp.linalg.solve(eye - skew, eye + skew)


def butterfly_order(inputs: int, block_size: int, factor: int) -> Int[np.ndarray, " n"]:
    """Returns the order in which a factor of the butterfly reads its input.

    In groups of ``block_size * 2 ** factor`` numbers, the half blocks at even places come before those at odd places.

    >>> butterfly_order(8, 2, 1).tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    half, pairs = block_size // 2, 2**factor
    if factor == 0:
        return np.arange(inputs)
    return np.arange(inputs).reshape(-1, pairs, 2, half).swapaxes(1, 2).reshape(-1)


def _rotations_of(matrices: Array) -> Array:
    # The paper of BOFT turns the other way, by (I - Q) (I + Q)^-1.
    return cayley((matrices.swapaxes(-1, -2) - matrices) / 2)


def _turned(x: Array, rotations: Array) -> Array:
    """The vectors with each block of them turned, ``x_k R_k``."""
    blocks, size, _ = rotations.shape
    turned = jnp.einsum("...ki,kij->...kj", x.reshape(*x.shape[:-1], blocks, size), rotations)
    return turned.reshape(x.shape)


def _check_block_size(block_size: int) -> None:
    if block_size < 2:
        raise ValueError(f"block_size must be at least 2, got {block_size}")


def _check_divides(size: int, shapes: Mapping[str, LayerShape]) -> None:
    bad = {path: shape.inputs for path, shape in shapes.items() if shape.inputs % size}
    if bad:
        raise ValueError(f"block_size must divide the inputs of every layer into blocks of {size}, got {bad}")
