r"""The span of a few directions: an orthonormal basis by SVD with a rank tolerance.

Directions given by text pairs are often dependent: fifteen differences of six concepts span five dimensions. A QR
without pivoting completes the null part with arbitrary directions outside of the span; here they are zero rows, so that
shapes stay static under ``jit`` and ``vmap``.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from zsml_jax.typing import AnyArray, Array, Scalar


@jax.default_matmul_precision("highest")
def orthonormal_basis(
    directions: Float[AnyArray, "m d"],
    *,
    orthogonal_to: Float[AnyArray, "r d"] | None = None,
    rtol: Scalar | None = None,
) -> Float[Array, "q d"]:
    r"""Returns an orthonormal basis of the span of the directions, by rows; the rows beyond its dimension are zero.

    For the basis B, :math:`B^\top B` is the orthogonal projector onto the span. Derivatives of that projector, and of
    whatever depends on B by it alone, are exact and finite, also at equal singular values and for dependent directions
    (where they are those at constant rank): the left singular vectors W are held constant, and
    :math:`B = L^{-1} W V` with the Cholesky factor L of :math:`W V V^\top W^\top`, which is the identity.

    Args:
      directions: one direction per row, any length; a row of zeros adds nothing.
      orthogonal_to: an orthonormal basis (zero rows allowed); its span is taken out of the directions first.
      rtol: singular values of the unit directions up to ``rtol * sqrt(m)`` count as zero; max(m, d) times the machine
        epsilon where omitted.

    Returns:
      The basis, of ``q = min(m, d)`` rows.
    """
    unit = unit_rows(at_least_float32(directions))
    m, d = unit.shape
    if orthogonal_to is not None:
        unit = remove(unit, orthogonal_to)
    if rtol is None:
        rtol = max(m, d) * jnp.finfo(unit.dtype).eps
    u, s, _ = jnp.linalg.svd(jax.lax.stop_gradient(unit), full_matrices=False)
    kept = s > rtol * np.sqrt(m)
    whitening = jnp.where(kept, 1 / jnp.where(kept, s, 1), 0)[:, None] * u.T
    rows = whitening @ unit
    factor = jnp.linalg.cholesky(rows @ rows.T + jnp.diag(jnp.where(kept, 0, 1).astype(rows.dtype)))
    return jax.scipy.linalg.solve_triangular(factor, rows, lower=True)


def dimension(basis: Float[AnyArray, "*batch q d"]) -> Array:
    """Returns how many rows of a basis are not zero: the dimension of its span."""
    return jnp.sum(jnp.any(jnp.asarray(basis) != 0, axis=-1), axis=-1)


@jax.default_matmul_precision("highest")
def remove(x: Float[AnyArray, "*n d"], basis: Float[AnyArray, "q d"]) -> Float[Array, "*n d"]:
    r"""Returns :math:`x (I - B^\top B)`: each row of x without its part in the span of the orthonormal basis."""
    x, basis = jnp.asarray(x), jnp.asarray(basis)
    return x - (x @ basis.T) @ basis


@jax.default_matmul_precision("highest")
def changed_within(
    x: Float[AnyArray, "*n d"], basis: Float[AnyArray, "q d"], mixing: Float[AnyArray, "q q"]
) -> Float[Array, "*n d"]:
    r"""Returns :math:`x (I + B^\top C B)` by rows, for a basis B and a mixing C of coordinates, in at least float32.

    The transposed map has the mixing :math:`C^\top`: what edits embeddings by C edits class vectors by its transpose.
    """
    x = at_least_float32(x)
    return x + (x @ basis.T @ mixing) @ basis


def unit_rows(x: Float[AnyArray, "*n d"]) -> Float[Array, "*n d"]:
    """Returns each row divided by its length; a row of zeros stays zero, with derivative zero."""
    x = jnp.asarray(x)
    square = jnp.sum(x**2, axis=-1, keepdims=True)
    return x / jnp.sqrt(jnp.where(square > 0, square, 1))


def at_least_float32(x: AnyArray) -> Array:
    """Returns a JAX array of float32, or of the wider type that x has."""
    return jnp.asarray(x, dtype=jnp.promote_types(jnp.result_type(x), jnp.float32))


def check_insights(harmful: AnyArray | None, helpful: AnyArray | None) -> int:
    """Checks insight vectors of which at least one kind is given, and returns their dimension.

    Args:
      harmful: insight vectors ``(m, d)``, or None.
      helpful: insight vectors ``(p, d)``, or None.

    Returns:
      The dimension d.

    Raises:
      ValueError: if an array is empty or of another rank, an insight is zero or not finite, or the dimensions differ.
    """
    dimensions = {}
    for name, insights in (("harmful", harmful), ("helpful", helpful)):
        if insights is None:
            continue
        shape = np.shape(insights)
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"{name} must have shape (m, d) with m >= 1, one insight per row, got shape {shape}")
        check_vectors(insights, name, shape[1])
        if not isinstance(insights, jax.core.Tracer) and (zero := ~np.any(np.asarray(insights), axis=1)).any():
            raise ValueError(f"{name} must hold insights that are not zero; row {int(zero.argmax())} is")
        dimensions[name] = shape[1]
    if len(set(dimensions.values())) != 1:
        raise ValueError(f"harmful and helpful must have the same dimension d, got {dimensions}")
    return next(iter(dimensions.values()))


def check_vectors(x: AnyArray, name: str, d: int) -> None:
    """Checks finite floats whose last axis has the dimension d.

    Args:
      x: vectors, ``(..., d)``.
      name: what the caller names the argument, for the message.
      d: the dimension.

    Raises:
      ValueError: if the dimension is another, or the values are no floats or not finite.
    """
    if np.ndim(x) == 0 or np.shape(x)[-1] != d:
        raise ValueError(f"{name} must have the dimension {d} of the insights last, got shape {np.shape(x)}")
    if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
        raise ValueError(f"{name} must hold floats, got dtype {jnp.result_type(x)}")
    if isinstance(x, jax.core.Tracer):
        return
    # Embeddings that lie on an accelerator are checked there, known ones also inside another function's trace.
    library = jnp if isinstance(x, jax.Array) else np
    with jax.ensure_compile_time_eval():
        finite = bool(library.isfinite(x).all())
    if not finite:
        raise ValueError(f"{name} must be finite, got NaN or infinity")
