"""A short name for the weights of a model, by which an adapter knows its base again."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zsml_jax.models.quantized import dequantize
from zsml_jax.peft.adapter import flatten
from zsml_jax.typing import Array, Params


def weights_hash(params: Params) -> str:
    """Returns a hash of all parameters: of their paths, shapes and numbers, rounded to bfloat16.

    Of each parameter a checksum in integers is taken where it lies, in one pass; their sum does not depend on an order,
    so that the hash of a sharded model is that of the whole one. A checkpoint gives the same hash whether it was loaded
    in float32 or in bfloat16, and quantised kernels that of the arrays that they stand for.

    Args:
      params: the parameters, floating-point arrays or quantised kernels.

    Returns:
      ``"sha256:"`` and 64 hexadecimal digits.
    """
    flat = {path: leaf for path, leaf in flatten(params).items() if jax.tree.leaves(leaf)}
    sums = jax.device_get({path: _checksum(leaf) for path, leaf in flat.items()})
    digest = hashlib.sha256()
    for path in sorted(flat):
        digest.update(f"{path} {tuple(flat[path].shape)} {np.asarray(sums[path]).tolist()}\n".encode())
    return f"sha256:{digest.hexdigest()}"


@jax.jit
def _checksum(leaf: Any) -> Array:
    """Two sums modulo 2^32 of the numbers' bits, mixed with where they are."""
    numbers = jnp.asarray(dequantize(leaf), jnp.float32)
    rounded = jax.lax.reduce_precision(numbers, exponent_bits=8, mantissa_bits=7)
    # Some devices take numbers this small for zero, and zero has two signs.
    rounded = jnp.where(jnp.abs(rounded) < jnp.finfo(jnp.float32).tiny, 0.0, rounded)
    bits = jax.lax.bitcast_convert_type(rounded, jnp.uint32)
    strides = np.cumprod([1, *numbers.shape[:0:-1]])[::-1] % 2**32
    axes = (jax.lax.broadcasted_iota(jnp.uint32, numbers.shape, i) for i in range(numbers.ndim))
    place = sum((axis * np.uint32(stride) for axis, stride in zip(axes, strides, strict=False)), jnp.uint32(0))
    mixed = [_mixed(bits ^ _mixed(place + np.uint32(seed))) for seed in (0x9E3779B9, 0x7F4A7C15)]
    return jnp.stack([jnp.sum(each, dtype=jnp.uint32) for each in mixed])


def _mixed(x: Array) -> Array:
    """A bijection of 32 bits in which each bit of ``x`` changes about half of the result's."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)
