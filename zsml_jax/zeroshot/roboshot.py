r"""RoboShot: more robust zero-shot predictions, from what a language model knows about the task.

An *insight* is a direction of the embedding space, the difference of the embeddings of two texts. Harmful insights
(land against water behind a bird) are removed from an embedding, helpful ones (webbed against clawed feet) are boosted:

.. math:: x' \propto (I + \beta U^\top U)(I - V^\top V)\, x

with orthonormal bases V of the harmful and U of the helpful insights, by rows. A positive factor of an embedding
changes no prediction, so the edit folds into the class vectors, :math:`c' = (I - V^\top V)(I + \beta U^\top U)\, c`,
and costs nothing per example: :func:`edit_head`. :func:`fit` returns the edit itself, for use on both.

Adila, Shin, Cai and Sala, "Zero-shot robustification of zero-shot models" (ICLR 2024), algorithm 1. The paper's loop
removes and adds one basis vector after the other and normalises in between; by the orthonormality of each basis this is
the same map up to the length of the result.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from zsml_jax.typing import AnyArray, Array, Scalar
from zsml_jax.zeroshot.head import ClassHead
from zsml_jax.zeroshot.subspace import (
    changed_within,
    check_insights,
    check_vectors,
    dimension,
    orthonormal_basis,
    unit_rows,
)


@flax.struct.dataclass
class InsightEdit:
    """The linear map of RoboShot, a pytree.

    Attributes:
      harmful: an orthonormal basis of the directions to remove, ``(q, d)``; zero rows where insights are dependent.
      helpful: an orthonormal basis of the directions to boost, ``(p, d)``, likewise.
      boost: how much is added along the helpful directions; 1 doubles them, as in the paper.
    """

    harmful: Float[AnyArray, "*batch q d"]
    helpful: Float[AnyArray, "*batch p d"]
    boost: Float[AnyArray, "*batch"]

    @property
    def harmful_dimension(self) -> Array:
        """How many directions are removed."""
        return dimension(self.harmful)

    @property
    def helpful_dimension(self) -> Array:
        """How many directions are boosted."""
        return dimension(self.helpful)

    def edit_embeddings(self, x: Float[AnyArray, "*n d"], *, renormalize: bool = True) -> Float[Array, "*n d"]:
        """Returns the edited embeddings, as :func:`edit_embeddings` does."""
        check_vectors(x, "x", self.harmful.shape[-1])
        return _edited(self, x, renormalize)

    def edit_head(self, head: ClassHead) -> ClassHead:
        """Returns the head with the edit folded into its class vectors, as :func:`edit_head` does."""
        check_vectors(head.vectors, "head.vectors", self.harmful.shape[-1])
        return dataclasses.replace(head, vectors=_folded(self, head.vectors))

    def scaled(self, boost: Scalar) -> "InsightEdit":
        """Returns the edit with another boost strength."""
        return dataclasses.replace(self, boost=jnp.asarray(boost, dtype=self.helpful.dtype))


def edit_embeddings(
    x: Float[AnyArray, "*n d"],
    *,
    harmful: Float[AnyArray, "m d"] | None = None,
    helpful: Float[AnyArray, "p d"] | None = None,
    boost: Scalar = 1.0,
    orthogonal: bool = False,
    renormalize: bool = True,
    rtol: Scalar | None = None,
) -> Float[Array, "*n d"]:
    r"""Removes harmful insights from embeddings and boosts helpful ones (the paper's algorithm 1, in closed form).

    Args:
      x: embeddings.
      harmful: insight vectors to remove, any length; dependent ones are fine.
      helpful: insight vectors to boost, likewise.
      boost: the strength :math:`\beta` of the boost; 1 as in the paper.
      orthogonal: makes the helpful span orthogonal to the harmful one first, so that boosting brings nothing harmful
        back; the paper does not.
      renormalize: divides each edited embedding by its length; one that the edit leaves at zero stays zero.
      rtol: the rank tolerance of :func:`zsml_jax.zeroshot.subspace.orthonormal_basis`.

    Returns:
      The edited embeddings, of the shape of ``x`` and of at least float32.

    Raises:
      ValueError: as :func:`fit`, or if ``x`` is not finite or of another dimension.
    """
    edit = fit(harmful=harmful, helpful=helpful, boost=boost, orthogonal=orthogonal, rtol=rtol)
    return edit.edit_embeddings(x, renormalize=renormalize)


def edit_head(
    head: ClassHead,
    *,
    harmful: Float[AnyArray, "m d"] | None = None,
    helpful: Float[AnyArray, "p d"] | None = None,
    boost: Scalar = 1.0,
    orthogonal: bool = False,
    rtol: Scalar | None = None,
) -> ClassHead:
    """Folds the edit of embeddings into the class vectors of a head; its logit scale and bias are kept.

    The new head gives unedited embeddings the logits that the old head gives embeddings edited with
    ``renormalize=False``. With ``renormalize=True`` the predictions are still the same where the bias is.

    To edit both inputs and class embeddings, as the paper's text says and its released code does not, pass a head whose
    vectors went through :func:`edit_embeddings`.

    Args:
      head: the head to edit.
      harmful: insight vectors to remove, any length; dependent ones are fine.
      helpful: insight vectors to boost, likewise.
      boost: the strength of the boost; 1 as in the paper.
      orthogonal: makes the helpful span orthogonal to the harmful one first.
      rtol: the rank tolerance of :func:`zsml_jax.zeroshot.subspace.orthonormal_basis`.

    Returns:
      The edited head. Its vectors are not normalised: their lengths are part of the edit.

    Raises:
      ValueError: as :func:`fit`, or if the class vectors are not finite or of another dimension.
    """
    return fit(harmful=harmful, helpful=helpful, boost=boost, orthogonal=orthogonal, rtol=rtol).edit_head(head)


def fit(
    *,
    harmful: Float[AnyArray, "m d"] | None = None,
    helpful: Float[AnyArray, "p d"] | None = None,
    boost: Scalar = 1.0,
    orthogonal: bool = False,
    rtol: Scalar | None = None,
) -> InsightEdit:
    """Returns the edit that the insights ask for: orthonormal bases of both spans and the boost strength.

    Args:
      harmful: insight vectors to remove, any length; dependent ones are fine.
      helpful: insight vectors to boost, likewise.
      boost: the strength of the boost, not negative; 1 as in the paper.
      orthogonal: makes the helpful span orthogonal to the harmful one first.
      rtol: the rank tolerance of :func:`zsml_jax.zeroshot.subspace.orthonormal_basis`.

    Returns:
      The edit.

    Raises:
      ValueError: if no insights are given, an insight is zero or not finite, the dimensions differ, or ``boost`` is
        negative or not finite.
    """
    if harmful is None and helpful is None:
        raise ValueError("harmful or helpful must be given; both are None")
    d = check_insights(harmful, helpful)
    if not isinstance(boost, jax.core.Tracer) and not (np.ndim(boost) == 0 and 0 <= float(boost) < np.inf):
        raise ValueError(f"boost must be a finite number that is not negative, got {boost}")
    return _fit(harmful, helpful, boost, rtol, d=d, orthogonal=orthogonal)


@jax.jit(static_argnames=("d", "orthogonal"))
def _fit(
    harmful: Array | None, helpful: Array | None, boost: Array, rtol: Array | None, *, d: int, orthogonal: bool
) -> InsightEdit:
    dtype = jnp.result_type(jnp.float32, *(a for a in (harmful, helpful) if a is not None))
    none = jnp.zeros((0, d), dtype)
    v = none if harmful is None else orthonormal_basis(harmful, rtol=rtol)
    u = none if helpful is None else orthonormal_basis(helpful, orthogonal_to=v if orthogonal else None, rtol=rtol)
    return InsightEdit(harmful=v.astype(dtype), helpful=u.astype(dtype), boost=jnp.asarray(boost, dtype))


@jax.jit(static_argnames="renormalize")
def _edited(edit: InsightEdit, x: Array, renormalize: bool) -> Array:
    x = changed_within(x, *_basis_and_mixing(edit))
    return unit_rows(x) if renormalize else x


@jax.jit
def _folded(edit: InsightEdit, vectors: Array) -> Array:
    basis, mixing = _basis_and_mixing(edit)
    return changed_within(vectors, basis, mixing.T)


@jax.default_matmul_precision("highest")
def _basis_and_mixing(edit: InsightEdit) -> tuple[Array, Array]:
    """The edit as one map of few coordinates, which passes over the embeddings half as often as two projections."""
    v, u = jnp.asarray(edit.harmful), jnp.asarray(edit.helpful)
    removed, boosted = -jnp.eye(len(v), dtype=v.dtype), edit.boost * jnp.eye(len(u), dtype=u.dtype)
    mixing = jnp.block([[removed, -edit.boost * v @ u.T], [jnp.zeros((len(u), len(v)), v.dtype), boosted]])
    return jnp.concatenate([v, u]), mixing
