r"""Kernels of dense layers as small integers: a pytree that stands in a model's parameters where an array stood.

.. math:: W_{io} \approx s_{g(i) o} \, (c_{io} - z_{g(i) o})

Inputs i are in groups g that share a scale s and, where the range is not symmetric, a zero point z; the codes c have 8
or 4 bits, and 4 bits are stored two to a byte. In nf4 (Dettmers et al., "QLoRA", 2023) the code is the number of a
quantile of the normal distribution instead. The models of this package take such kernels as they are
(:class:`~zsml_jax.models.dense.Dense`), in scanned layers too, so that ``apply``, ``generate`` and all transforms run
on quantised parameters without further ado. Word embeddings, and with them heads that are tied to them, are no dense
layers and stay arrays.

>>> import jax.numpy as jnp
>>> array = jnp.array([[1.0, 0.5], [-0.25, 0.2]])
>>> kernel = quantize(array, "int8", group="channel")
>>> kernel.shape, kernel.codes.tolist(), bool(abs(dequantize(kernel) - array).max() < 0.004)
((2, 2), [[127, 127], [-32, 51]], True)
"""

import functools
import math
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Num

from zsml_jax.typing import AnyArray, Array, PyTree

Format = Literal["int8", "int4", "nf4"]
#: What a product does with the activations: leaves them as they are, or rounds them to integers. ``"tensor"`` is the
#: dynamic mode of PyTorch, 7 bits between the least and the greatest of all of them; ``"token"`` gives each row 8 bits.
Activations = Literal["float", "tensor", "token"]
#: Inputs that share a scale with each output: a number, all of them, or all of them and all outputs.
Group = int | Literal["channel", "tensor"]

#: Quantiles of the normal distribution, scaled to one, with an exact zero (Dettmers et al., 2023, appendix E).
NF4 = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
        *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
        *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941),
        *(0.7229568362236023, 1.0),
    ],
    np.float32,
)
#: The least and the greatest integer code.
LIMITS = {"int8": (-128, 127), "int4": (-8, 7)}
FORMATS = (*LIMITS, "nf4")


@flax.struct.dataclass
class Quantized:
    """A kernel, or the kernels of all layers of a stack, ``(*l, d_in, d_out)``.

    Attributes:
      codes: of 8 bits ``(*l, d_in, d_out)`` int8; of 4 bits ``(*l, ceil(d_in / 2), d_out)`` uint8, input 2i in the low
        half of byte i and input 2i + 1 in the high half, both plus 8 where they are integers.
      scale: ``(*l, g, d_out)``, or ``(*l, 1, 1)`` for one scale a kernel; float32.
      zero: the code that stands for 0, int8 of the shape of ``scale``; None if that is 0.
      format: "int8", "int4" or "nf4".
      inputs: d_in.
      dtype: name of the dtype of the array that it stands for.
      activations: what products do with activations.
      input_scale: what inputs are multiplied by before all else, ``(*l, d_in)``; None for one.
    """

    codes: PyTree
    scale: PyTree
    zero: PyTree
    format: str = flax.struct.field(pytree_node=False)
    inputs: int = flax.struct.field(pytree_node=False)
    dtype: str = flax.struct.field(pytree_node=False)
    activations: str = flax.struct.field(pytree_node=False, default="float")
    input_scale: PyTree = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array that it stands for."""
        return *self.codes.shape[:-2], self.inputs, self.codes.shape[-1]

    @property
    def ndim(self) -> int:
        """The number of axes of the array that it stands for."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes that are stored: codes, scales and zero points, and the scales of inputs."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self))


def quantize(
    kernel: Float[AnyArray, "*l i o"],
    format: Format = "int8",
    *,
    group: Group = "channel",
    symmetric: bool = True,
    activations: Activations = "float",
) -> Quantized:
    """Rounds a kernel to the nearest codes; no entry moves by more than half a scale.

    Args:
      kernel: of a dense layer, or of those of a stack.
      format: the codes.
      group: inputs that share a scale. A number divides the inputs, and is even for codes of 4 bits.
      symmetric: whether the codes' range lies evenly around 0; else it is that of the group's weights and 0.
      activations: what products do with activations; integers need one scale a kernel or one for each output.

    Returns:
      The codes with their scales.

    Raises:
      ValueError: if an argument is out of range or does not fit another, or the kernel is not finite.
    """
    scale, zero = grid(kernel, format, group=group, symmetric=symmetric)
    codes = encode(kernel, scale, zero, format)
    return from_codes(codes, scale, zero, format, dtype=kernel.dtype, activations=activations)


def dequantize(params: PyTree) -> PyTree:
    """Returns parameters, or one kernel, with arrays in the place of quantised kernels."""
    is_quantized = lambda node: isinstance(node, Quantized)
    return jax.tree.map(lambda x: _array(x) if is_quantized(x) else x, params, is_leaf=is_quantized)


def product(x: Float[AnyArray, "*b i"], kernel: Quantized, *, precision: Any = None) -> Float[Array, "*b o"]:
    """Multiplies activations by a kernel, ``x @ dequantize(kernel)``, without making the array in float32 first.

    Gradients reach the activations. Where these are rounded, their gradient is that of the product without rounding
    (the straight-through estimator).

    Args:
      x: the activations.
      kernel: of one layer.
      precision: of the matrix product of floats.

    Returns:
      The products, accumulated in float32, or in the dtype of the activations if that is wider.

    Raises:
      ValueError: if the kernel is a stack, or the shapes do not fit.
    """
    if kernel.ndim != 2 or x.shape[-1] != kernel.inputs:
        raise ValueError(f"kernel must be ({x.shape[-1]}, d_out) for activations {x.shape}, got {kernel.shape}")
    x = jnp.asarray(x)
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    if kernel.input_scale is not None:
        rows = (rows * kernel.input_scale).astype(x.dtype)
    if kernel.activations != "float":
        y = _integer_product(kernel.activations, rows, kernel.codes, jax.lax.stop_gradient(kernel.scale))
        return y.reshape(*x.shape[:-1], y.shape[-1])
    dot = functools.partial(
        jnp.matmul, precision=precision, preferred_element_type=jnp.promote_types(x.dtype, jnp.float32)
    )
    # Even and odd inputs are two products: to bring their codes into one array costs more than the product itself.
    parts = _parts(kernel)
    many_groups = kernel.scale.shape[-2] > 1
    y: Any = 0.0
    for i, codes in enumerate(parts):
        values = _values(codes, kernel)
        values = _scaled(values, kernel.scale) if many_groups else values
        own = rows[:, i :: len(parts)]
        own = jnp.pad(own, ((0, 0), (0, values.shape[0] - own.shape[1])))
        y += dot(own, values.astype(x.dtype))
    y = y if many_groups else y * kernel.scale[0]
    return y.reshape(*x.shape[:-1], y.shape[-1])


def grid(
    kernel: Float[AnyArray, "*l i o"], format: Format, *, group: Group = "channel", symmetric: bool = True
) -> tuple[Float[Array, "*l g _"], Int[Array, "*l g _"] | None]:
    """Returns the scales and zero points with which codes just cover a kernel.

    A symmetric scale is the largest magnitude over half the number of steps, 127.5 or 7.5 (the observers of PyTorch).

    Args:
      kernel: of a dense layer, or of those of a stack.
      format: the codes.
      group: inputs that share a scale.
      symmetric: whether zero points are all 0.

    Returns:
      Scales and zero points, None for all 0; ``(*l, 1, 1)`` for a group ``"tensor"``.

    Raises:
      ValueError: if an argument is out of range or does not fit another, or the kernel is not finite.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {FORMATS}, got {format!r}")
    if format == "nf4" and not symmetric:
        raise ValueError("symmetric must be True for nf4, whose codes have no zero point")
    if not isinstance(kernel, jax.core.Tracer) and not np.all(np.isfinite(kernel)):
        raise ValueError("kernel must be finite, got nan or infinite entries")
    return _grid(kernel, format, _group_size(group, kernel.shape[-2], format), group == "tensor", symmetric)


@functools.partial(jax.jit, static_argnames="format")
def encode(
    kernel: Float[AnyArray, "*l i o"],
    scale: Float[AnyArray, "*l g _"],
    zero: Int[AnyArray, "*l g _"] | None,
    format: Format,
) -> Int[Array, "*l i o"]:
    """Returns the nearest code of each weight, as :func:`from_codes` takes them.

    Args:
      kernel: of a dense layer, or of those of a stack; or some inputs of it that are one group.
      scale: of :func:`grid`.
      zero: of :func:`grid`.
      format: the codes.
    """
    spread = lambda x: jnp.repeat(x, kernel.shape[-2] // x.shape[-2], axis=-2)
    units = jnp.asarray(kernel, jnp.float32) / spread(scale)
    if format == "nf4":
        between = (NF4[1:] + NF4[:-1]) / 2
        return jnp.searchsorted(between, units).astype(jnp.int8)
    codes = jnp.round(units) + (0 if zero is None else spread(zero))
    return jnp.clip(codes, *LIMITS[format]).astype(jnp.int8)


def from_codes(
    codes: Int[AnyArray, "*l i o"],
    scale: Float[AnyArray, "*l g _"],
    zero: Int[AnyArray, "*l g _"] | None,
    format: Format,
    *,
    dtype: jax.typing.DTypeLike = jnp.float32,
    activations: Activations = "float",
) -> Quantized:
    """Returns the kernel of given codes.

    Args:
      codes: in the limits of the format; numbers of :data:`NF4` for nf4.
      scale: as :class:`Quantized` has it.
      zero: as :class:`Quantized` has it.
      format: the codes.
      dtype: of the array that it stands for.
      activations: what products do with activations.

    Raises:
      ValueError: if integer activations do not fit the codes.
    """
    if activations not in ("float", "tensor", "token"):
        raise ValueError(f"activations must be 'float', 'tensor' or 'token', got {activations!r}")
    if activations != "float" and (format != "int8" or zero is not None or scale.shape[-2] > 1):
        raise ValueError(
            f"activations must be 'float' unless codes are int8, symmetric, and of one scale for each output or for "
            f"all; got {activations!r} with {format}, {scale.shape[-2]} groups, zero points {zero is not None}"
        )
    stored = jnp.asarray(codes)
    if format != "int8":
        stored = _pack(stored if format == "nf4" else stored + 8)
    return Quantized(stored, scale, zero, format, codes.shape[-2], str(jnp.dtype(dtype)), activations)


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _grid(kernel: AnyArray, format: str, size: int, one_scale: bool, symmetric: bool) -> tuple[Array, Array | None]:
    grouped = jnp.asarray(kernel, jnp.float32).reshape(*kernel.shape[:-2], -1, size, kernel.shape[-1])
    over = (-3, -2, -1) if one_scale else (-2,)
    low = jnp.minimum(grouped.min(over, keepdims=True), 0.0).squeeze(-2)
    high = jnp.maximum(grouped.max(over, keepdims=True), 0.0).squeeze(-2)
    if format == "nf4":
        return _nonzero(jnp.maximum(-low, high)), None
    least, greatest = LIMITS[format]
    if symmetric:
        return _nonzero(jnp.maximum(-low, high) / ((greatest - least) / 2)), None
    scale = _nonzero((high - low) / (greatest - least))
    return scale, jnp.clip(jnp.round(least - low / scale), least, greatest).astype(jnp.int8)


@jax.jit
def _array(kernel: Quantized) -> Array:
    parts = [_values(codes, kernel) for codes in _parts(kernel)]
    values = jnp.stack(parts, axis=-2).reshape(*kernel.shape[:-2], -1, kernel.shape[-1])[..., : kernel.inputs, :]
    array = _scaled(values, kernel.scale)
    array = array if kernel.input_scale is None else array * kernel.input_scale[..., :, None]
    return array.astype(kernel.dtype)


def _parts(kernel: Quantized) -> list[Array]:
    """The codes of all inputs; where two are in a byte, those of even ones and those of odd ones."""
    if kernel.format == "int8":
        return [kernel.codes]
    halves = [kernel.codes & 15, kernel.codes >> 4]
    return halves if kernel.format == "nf4" else [half.astype(jnp.int8) - 8 for half in halves]


def _values(codes: Array, kernel: Quantized) -> Array:
    """What the codes stand for, before the scale, float32."""
    if kernel.format == "nf4":
        return jnp.asarray(NF4)[codes]
    values = codes.astype(jnp.float32)
    return values if kernel.zero is None else _by_group(values, kernel.zero.astype(jnp.float32), jnp.subtract)


def _scaled(values: Array, scale: Array) -> Array:
    return _by_group(values, scale, jnp.multiply)


def _by_group(values: Array, per_group: Array, operation: Any) -> Array:
    grouped = values.reshape(*values.shape[:-2], per_group.shape[-2], -1, values.shape[-1])
    return operation(grouped, per_group[..., None, :]).reshape(values.shape)


def _pack(nibbles: Array) -> Array:
    odd = nibbles.shape[-2] % 2
    padded = jnp.pad(nibbles, [(0, 0)] * (nibbles.ndim - 2) + [(0, odd), (0, 0)]).astype(jnp.uint8)
    return padded[..., 0::2, :] | (padded[..., 1::2, :] << 4)


def _group_size(group: Group, inputs: int, format: str) -> int:
    if group in ("channel", "tensor"):
        return inputs
    step = 1 if format == "int8" else 2
    if not isinstance(group, int) or group < 1 or inputs % group or group % step:
        even = "" if step == 1 else "be even, and "
        raise ValueError(f"group must {even}divide the {inputs} inputs, or be 'channel' or 'tensor', got {group!r}")
    return group


def _nonzero(scale: Array) -> Array:
    return jnp.where(scale == 0, 1.0, scale)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _integer_product(activations: str, x: Num[Array, "n i"], codes: Array, scale: Array) -> Array:
    if activations == "tensor":
        step, codes_of_x = _affine_7_bits(x)
    else:
        step = _nonzero(jnp.abs(x).max(axis=-1, keepdims=True).astype(jnp.float32) / 127)
        codes_of_x = jnp.round(x / step)
    codes_of_x = codes_of_x.astype(jnp.int8)
    # XLA's CPU product of one row of integers is many times slower than that of two.
    padded = jnp.pad(codes_of_x, ((0, int(len(x) == 1)), (0, 0)))
    sums = jnp.matmul(padded, codes, preferred_element_type=jnp.int32)[: len(x)]
    return (sums.astype(jnp.float32) * (step * scale)).astype(jnp.promote_types(x.dtype, jnp.float32))


@_integer_product.defjvp
def _straight_through(activations: str, primals: Any, tangents: Any) -> tuple[Array, Array]:
    x, codes, scale = primals
    y = _integer_product(activations, x, codes, scale)
    return y, (jnp.matmul(tangents[0], codes.astype(x.dtype)) * scale).astype(y.dtype)


def _affine_7_bits(x: Array) -> tuple[Array, Array]:
    """Steps of 1/127 of the range of all of ``x`` and 0, and codes less their zero point, which fit into int8.

    PyTorch's dynamic mode with ``reduce_range``; there the zero point is subtracted from the sums instead.
    """
    low = jnp.minimum(x.min(), 0.0).astype(jnp.float32)
    high = jnp.maximum(x.max(), 0.0).astype(jnp.float32)
    step = (high - low) / 127
    step = jnp.where(step == 0, 0.1, step)
    zero = jnp.clip(jnp.round(-low / step), 0, 127)
    return step, jnp.clip(jnp.round(x / step) + zero, 0, 127) - zero
