r"""Weights changed one input after another, the error of each made up for by the inputs still to come.

The optimal brain surgeon for the squared error of a layer's output, in the order of the inputs (Frantar and Alistarh,
"SparseGPT", 2023; Frantar et al., "GPTQ", 2023). With the upper Cholesky factor U of the inverse Hessian,
:math:`H^{-1} = U^T U`, what input i loses, :math:`e_i = (w_i - \hat w_i) / U_{ii}`, is made up for by

.. math:: w_j \leftarrow w_j - U_{ij} e_i \qquad (j > i).

The result is that of a new least-squares fit of all later inputs after each change. Inputs are treated in blocks, whose
changes reach the rest in one matrix product.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from zsml_jax.compression.selection import order_bits, smallest, smallest_of_each
from zsml_jax.models import quantized
from zsml_jax.models.quantized import Format, Group
from zsml_jax.typing import AnyArray, Array

#: Called with a block of rows ``(b, d_out)``, the diagonal ``(b,)`` and the number of the block; it returns what
#: belongs to each row, with a leading axis b.
Plan = Callable[[Array, Array, Array], Any]
#: Called with a row and what belongs to it; it returns the new row.
Change = Callable[[Array, Any], Array]


def inverse_factor(hessian: Float[AnyArray, "d d"], damping: float) -> Float[Array, "d d"]:
    """Returns the upper Cholesky factor of the inverse of a damped Hessian.

    Features that never were anything but zero are on the diagonal as one.

    Args:
      hessian: the Hessian.
      damping: what is added to the diagonal, as a share of its mean.
    """
    hessian = jnp.asarray(hessian)
    diagonal = jnp.diagonal(hessian)
    diagonal = jnp.where(diagonal == 0, 1.0, diagonal)
    damped = jnp.fill_diagonal(hessian, diagonal + damping * diagonal.mean(), inplace=False)
    # H = M M^T with an upper M, from the Cholesky factor of H with its axes reversed; the inverse of M is the factor.
    reversed_factor = jnp.linalg.cholesky(damped[::-1, ::-1])
    upper = reversed_factor[::-1, ::-1]
    return jax.scipy.linalg.solve_triangular(upper, jnp.eye(len(upper), dtype=upper.dtype), lower=False)


def sweep(
    kernel: Float[AnyArray, "i o"], factor: Float[AnyArray, "i i"], *, block: int, plan: Plan, change: Change
) -> tuple[Float[Array, "i o"], Any]:
    """Changes the rows of a kernel in their order.

    Args:
      kernel: the kernel.
      factor: of :func:`inverse_factor`.
      block: rows that are planned together; it divides the inputs.
      plan: looks at a block, as the rows before it have left it.
      change: changes a row.

    Returns:
      The changed kernel, and what was planned, ``(i / block, block, ...)``.
    """
    inputs = kernel.shape[0]

    def treat_block(kernel: Array, number: Array) -> tuple[Array, Any]:
        start = number * block
        rows = jax.lax.dynamic_slice_in_dim(kernel, start, block)
        factor_rows = jax.lax.dynamic_slice_in_dim(factor, start, block)
        within = jax.lax.dynamic_slice_in_dim(factor_rows, start, block, axis=1)
        planned = plan(rows, jnp.diagonal(within), number)

        def treat_row(carry: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], None]:
            rows, errors = carry
            new = change(rows[i], jax.tree.map(lambda x: x[i], planned))
            error = (rows[i] - new) / within[i, i]
            later = jnp.where(jnp.arange(block) > i, within[i], 0.0)
            rows = (rows - later[:, None] * error).at[i].set(new)
            return (rows, errors.at[i].set(error)), None

        (rows, errors), _ = jax.lax.scan(treat_row, (rows, jnp.zeros_like(rows)), jnp.arange(block))
        rest = jnp.where(jnp.arange(inputs) >= start + block, factor_rows, 0.0)
        kernel = kernel - jnp.matmul(rest.T, errors, precision="highest")
        return jax.lax.dynamic_update_slice_in_dim(kernel, rows, start, axis=0), planned

    return jax.lax.scan(treat_block, jnp.asarray(kernel), jnp.arange(inputs // block))


def sparsegpt(
    kernel: Float[AnyArray, "i o"],
    hessian: Float[AnyArray, "i i"],
    sparsity: float,
    *,
    pattern: tuple[int, int] | None = None,
    damping: float = 0.01,
    block: int = 128,
) -> tuple[Float[Array, "i o"], Bool[Array, "i o"]]:
    r"""Prunes a kernel: the weights with the smallest :math:`w^2 / U_{ii}^2` of each block of inputs, over all outputs.

    Frantar and Alistarh, "SparseGPT", 2023, algorithm 1, with the released code's defaults.

    Args:
      kernel: of one layer.
      hessian: of the layer's inputs.
      sparsity: the share to remove; exact to one weight over the whole kernel.
      pattern: n and m, to keep n of each m consecutive inputs of an output instead.
      damping: share of the mean of the Hessian's diagonal that is added to it.
      block: inputs whose weights are compared together.

    Returns:
      The pruned kernel, its other weights adjusted, and True where a weight was kept.
    """
    inputs, outputs = kernel.shape
    rows = pattern[1] if pattern else _divisor(inputs, block)
    ends = np.array([round(sparsity * end * outputs) for end in range(0, inputs + 1, rows)])
    counts = jnp.asarray(np.diff(ends), jnp.uint32)

    def plan(tile: Array, diagonal: Array, number: Array) -> Array:
        scores = jnp.square(tile / diagonal[:, None])
        if pattern:
            return ~smallest_of_each(scores, pattern[1] - pattern[0], pattern[1])
        return ~smallest([order_bits(scores)], counts[number])[0]

    alive = jnp.diagonal(jnp.asarray(hessian)) != 0
    weights = jnp.where(alive[:, None], jnp.asarray(kernel, jnp.float32), 0.0)
    factor = inverse_factor(hessian, damping)
    new, kept = sweep(weights, factor, block=rows, plan=plan, change=lambda row, keep: jnp.where(keep, row, 0.0))
    return new.astype(kernel.dtype), kept.reshape(inputs, outputs)


def gptq(
    kernel: Float[AnyArray, "i o"],
    hessian: Float[AnyArray, "i i"],
    format: Format,
    *,
    group: Group = "channel",
    symmetric: bool = True,
    damping: float = 0.01,
    block: int = 128,
    mask: Bool[AnyArray, "i o"] | None = None,
) -> quantized.Quantized:
    """Quantises a kernel.

    Frantar et al., "GPTQ", 2023, with the released code's defaults and without reordering of the inputs. Scales of
    groups are those of their weights when their turn comes; the released code, where a group is less than a block, has
    them from before the block.

    Args:
      kernel: of one layer.
      hessian: of the layer's inputs.
      format: "int8" or "int4".
      group: inputs that share a scale.
      symmetric: whether zero points are all 0.
      damping: share of the mean of the Hessian's diagonal that is added to it.
      block: inputs that are treated together, where they are not a group.
      mask: False where a weight was removed and must stay zero; what it loses so is made up for as well.

    Returns:
      The quantised kernel.
    """
    inputs, outputs = kernel.shape
    by_group = isinstance(group, int)
    rows = group if by_group else _divisor(inputs, block)
    weights = jnp.asarray(kernel, jnp.float32)
    fixed = quantized.grid(weights, format, group=group, symmetric=symmetric)

    kept = jnp.ones(kernel.shape, bool) if mask is None else jnp.asarray(mask)

    def plan(tile: Array, diagonal: Array, number: Array) -> Any:
        del diagonal
        found = quantized.grid(tile, format, symmetric=symmetric) if by_group else fixed
        scale, zero = jax.tree.map(lambda x: jnp.broadcast_to(x, (rows, outputs)), found)
        return scale, zero, jax.lax.dynamic_slice_in_dim(kept, number * rows, rows)

    def codes_of(row: Array, planned: Any) -> Array:
        scale, zero, keep = planned
        first = lambda x: None if x is None else x[None]
        row = jnp.where(keep, row, 0.0)
        return quantized.encode(row[None], scale[None], first(zero), format)[0]

    def change(row: Array, planned: Any) -> Array:
        scale, zero, _ = planned
        return scale * (codes_of(row, planned).astype(jnp.float32) - (0 if zero is None else zero.astype(jnp.float32)))

    new, planned = sweep(weights, inverse_factor(hessian, damping), block=rows, plan=plan, change=change)
    codes = jax.vmap(codes_of)(new, jax.tree.map(lambda x: x.reshape(inputs, outputs), planned))
    scale, zero = jax.tree.map(lambda x: x[:, 0], planned[:2]) if by_group else fixed
    return quantized.from_codes(codes, scale, zero, format, dtype=kernel.dtype)


def _divisor(inputs: int, block: int) -> int:
    """The largest number up to ``block`` that divides the inputs."""
    return next(size for size in range(min(block, inputs), 0, -1) if inputs % size == 0)
