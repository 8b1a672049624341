"""DoRA: a low-rank direction and a trained magnitude for each column (Liu et al., "DoRA", 2024)."""

import dataclasses

import jax
import jax.numpy as jnp

from zsml_jax.models.quantized import dequantize
from zsml_jax.peft.lora import LoRA
from zsml_jax.peft.method import Arrays, Kernel, LayerShape
from zsml_jax.typing import AnyArray, Array, Key


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoRA(LoRA):
    r"""Replaces the kernel W by :math:`m \odot (W + \Delta) / \|W + \Delta\|`, with the norms of the columns.

    The gradient does not flow through the norms (section 4.3 of the paper). Dropout acts on all that is added to the
    layer's output.
    """

    def init(self, shape: LayerShape, kernel: Kernel, *, key: Key) -> Arrays:
        """Returns LoRA's arrays and ``magnitude``, the norms of the kernel's columns."""
        return {**super().init(shape, kernel, key=key), "magnitude": _norms(_array(kernel).astype(jnp.float32))}

    def extra(
        self, x: AnyArray, y: AnyArray, kernel: Kernel, bias: AnyArray | None, arrays: Arrays, shared: Arrays
    ) -> Array:
        """Returns ``(g - 1) x W + g x Delta``, with g the magnitudes over the norms."""
        shape = LayerShape(*kernel.shape)
        gain = self._gain(_array(kernel), shape, arrays, shared)
        plain = jnp.asarray(y if bias is None else y - bias)
        return (gain - 1) * plain + gain * self.term(x, shape, arrays, shared)

    def merged(self, kernel: Array, bias: Array | None, arrays: Arrays, shared: Arrays) -> tuple[Array, Array | None]:
        """Returns the kernel with its new columns, and the bias."""
        shape = LayerShape(*kernel.shape)
        return self._gain(kernel, shape, arrays, shared) * (kernel + self.delta(shape, arrays, shared)), bias

    def low_rank(self, shape: LayerShape, arrays: Arrays, shared: Arrays) -> tuple[Array, Array]:
        """Refuses, since what is added depends on the kernel."""
        raise ValueError("config must be of a low-rank method, such as MoRe, LoRA or VeRA, got DoRA")

    def delta(self, shape: LayerShape, arrays: Arrays, shared: Arrays) -> Array:
        """Returns the low-rank part."""
        return jnp.matmul(arrays["a"], self.scaled(arrays["b"], shared), precision=jax.lax.Precision.HIGHEST)

    def _gain(self, kernel: Array, shape: LayerShape, arrays: Arrays, shared: Arrays) -> Array:
        return arrays["magnitude"] / jax.lax.stop_gradient(_norms(kernel + self.delta(shape, arrays, shared)))


def _array(kernel: Kernel) -> Array:
    return jnp.asarray(dequantize(kernel))


def _norms(kernel: Array) -> Array:
    return jnp.linalg.norm(kernel, axis=0)
