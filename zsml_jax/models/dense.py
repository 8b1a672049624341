"""The dense layer of all models here: Linen's, whose kernel may also be quantised."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from zsml_jax.models.quantized import Quantized, product
from zsml_jax.typing import Array


class Dense(nn.Dense):
    """A dense layer that takes a :class:`~zsml_jax.models.quantized.Quantized` in the place of its kernel."""

    # Linen's annotation of this field is a protocol that cannot be checked when tests check types.
    promote_dtype: Callable[..., Any] = promote_dtype

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """Returns ``inputs @ kernel + bias``."""
        shape = inputs.shape[-1], self.features
        stored: Any = self.get_variable("params", "kernel")
        is_quantized = isinstance(stored, Quantized)
        if is_quantized and stored.shape != shape:
            raise ValueError(f"kernel must be {shape}, got {stored.shape}")
        # Linen's own call is not used for arrays, since interceptors would see that layer twice.
        kernel = stored if is_quantized else self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype) if self.use_bias else None
        array: Any = jnp.zeros((), kernel.dtype) if is_quantized else kernel
        x, array, bias = self.promote_dtype(inputs, array, bias, dtype=self.dtype)
        dot_general = self.dot_general_cls() if self.dot_general_cls else self.dot_general or jax.lax.dot_general
        axes = ((inputs.ndim - 1,), (0,)), ((), ())
        dot = functools.partial(dot_general, dimension_numbers=axes, precision=self.precision)
        if is_quantized:
            # In the dtype that the product of arrays would have, which the layer's own may choose.
            dtype = jax.eval_shape(dot, x, jax.ShapeDtypeStruct(shape, x.dtype)).dtype
            y = product(x, stored, precision=self.precision).astype(dtype)
        else:
            y = dot(x, array)
        return y if bias is None else y + bias
