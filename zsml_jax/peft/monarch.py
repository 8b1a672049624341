r"""The rectangular Monarch product: a matrix of two block-diagonal factors and two fixed permutations.

.. math:: \Delta W = P_1 \, L \, P_2 \, R

Tan, Roberts, Huang, Zhao, Cooper, Guo, Duan and Sala, "MoRe Fine-Tuning with 10x Fewer Parameters", 2024, after Dao
et al., "Monarch: Expressive Structured Matrices", 2022. N blocks of rank r cost r (n + m) parameters, as much as LoRA
of rank r does, and reach rank min(N r, m, n). Which is the better use of them depends on the matrix: the best
approximation of a matrix (:func:`project`) leaves the tails of the singular values of its N x N interleaved sub-blocks,
that of LoRA the tail of its own.

Everything is two matrix products and reshapes. ``p`` is the width n / N of an input block, ``s`` the width m / N of an
output block. Column ``k p + i`` of the input belongs to block k; row ``s' N + l`` of the output to block l, so that the
output blocks are interleaved. Between the two, feature ``k r + q`` goes to output block ``(k r + q) mod N``.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from zsml_jax.typing import AnyArray, Array, Key

#: Up to so many features the second factor is a dense matrix, zeros and all: its blocks alone are fewer operations, but
#: write outputs of whole blocks, which must then be interleaved (``benchmarks/peft.py``).
_WIDEST_DENSE = 64


class Monarch(NamedTuple):
    """The two factors; a pytree.

    Attributes:
      first: R, ``(N, r, p)``: what each block keeps of its columns.
      second: L, ``(N, s, r)``: what each block makes of it.
    """

    first: Float[AnyArray, "*b N r p"]
    second: Float[AnyArray, "*b N s r"]


@dataclasses.dataclass(frozen=True)
class MonarchShape:
    """The sizes of a product from n to m numbers.

    Where the number of blocks does not divide n, the last block is filled up with zeros, and where they do not divide
    m the last rows are left out.

    Attributes:
      inputs: n.
      outputs: m.
      blocks: N as wanted; see :attr:`block_count`.
      block_rank: r.
    """

    inputs: int
    outputs: int
    blocks: int
    block_rank: int

    def __post_init__(self):
        for name in ("inputs", "outputs", "blocks", "block_rank"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.blocks > self.inputs:
            raise ValueError(f"blocks must be at most the {self.inputs} inputs, got {self.blocks}")

    @property
    def input_width(self) -> int:
        """Columns p of a block."""
        return -(-self.inputs // self.blocks)

    @property
    def block_count(self) -> int:
        """Blocks N; fewer than ``blocks`` where blocks of width p cover the inputs sooner."""
        return -(-self.inputs // self.input_width)

    @property
    def output_width(self) -> int:
        """Rows s of a block."""
        return -(-self.input_width * self.outputs // self.inputs)

    @property
    def first(self) -> tuple[int, int, int]:
        """The shape of R."""
        return self.block_count, self.block_rank, self.input_width

    @property
    def second(self) -> tuple[int, int, int]:
        """The shape of L."""
        return self.block_count, self.output_width, self.block_rank

    @property
    def parameters(self) -> int:
        """How many numbers the factors hold: r (n + m) where N divides n and m."""
        return math.prod(self.first) + math.prod(self.second)

    @property
    def rank(self) -> int:
        """The largest rank of the product, min(N r, n, m)."""
        return min(self.block_count * self.block_rank, self.inputs, self.outputs)

    @property
    def density(self) -> float:
        """The share of the N x N sub-blocks that are not zero whatever the factors are; 1 if N divides r."""
        return float(np.mean(sub_block_ranks(self.block_count, self.block_rank) > 0))


def sub_block_ranks(blocks: int, block_rank: int) -> Int[np.ndarray, "N N"]:
    """Returns the largest rank of each sub-block: rows of output block l, columns of input block k.

    >>> sub_block_ranks(2, 3).tolist()
    [[2, 1], [1, 2]]

    Args:
      blocks: N.
      block_rank: r.

    Returns:
      ``(N, N)``, indexed by l and k: how many of the features k r ... k r + r - 1 are l modulo N.
    """
    feature = np.arange(blocks * block_rank)
    ranks = np.zeros((blocks, blocks), int)
    np.add.at(ranks, (feature % blocks, feature // block_rank), 1)
    return ranks


def init(shape: MonarchShape, *, key: Key, dtype: jax.typing.DTypeLike = jnp.float32) -> Monarch:
    r"""Returns factors whose product is zero: R uniform in :math:`\pm 1 / \sqrt p`, L zero.

    Args:
      shape: the sizes.
      key: a PRNG key.
      dtype: of the factors.
    """
    bound = shape.input_width**-0.5
    first = jax.random.uniform(key, shape.first, dtype, -bound, bound)
    return Monarch(first, jnp.zeros(shape.second, dtype))


def product(x: Float[AnyArray, "*b n"], factors: Monarch, outputs: int | None = None) -> Float[Array, "*b m"]:
    """Multiplies vectors by the matrix.

    Args:
      x: the vectors. The last block of R may be wider than what is left of them.
      factors: R and L.
      outputs: m; N s if None.

    Returns:
      The products, in the dtype that ``x`` and the factors promote to.

    Raises:
      ValueError: if the factors fit neither each other nor the vectors.
    """
    blocks, block_rank, width = _checked(factors, x.shape[-1])
    outputs = blocks * factors.second.shape[-2] if outputs is None else outputs
    x = jnp.asarray(x)
    missing = blocks * width - x.shape[-1]
    if missing:
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])
    lead = x.shape[:-1]
    kept = jnp.einsum("...kp,kqp->...kq", x.reshape(*lead, blocks, width), factors.first)
    if blocks * block_rank <= _WIDEST_DENSE:
        made = kept.reshape(*lead, -1) @ second_matrix(factors.second)
    else:
        made = jnp.einsum("...al,lsa->...sl", kept.reshape(*lead, block_rank, blocks), factors.second)
        made = made.reshape(*lead, -1)
    return made[..., :outputs]


def first_matrix(first: Float[AnyArray, "N r p"]) -> Float[Array, "Np Nr"]:
    """Returns R as a matrix to multiply by from the right: ``N p`` inputs to ``N r`` features."""
    blocks, block_rank, width = first.shape
    diagonal = jnp.eye(blocks, dtype=first.dtype)
    return jnp.einsum("kqp,kj->kpjq", first, diagonal).reshape(blocks * width, blocks * block_rank)


def second_matrix(second: Float[AnyArray, "N s r"]) -> Float[Array, "Nr Ns"]:
    """Returns L and both permutations as a matrix to multiply by from the right: ``N r`` features to ``N s``."""
    blocks, rows, block_rank = second.shape
    diagonal = jnp.eye(blocks, dtype=second.dtype)
    return jnp.einsum("lsa,lj->alsj", second, diagonal).reshape(block_rank * blocks, rows * blocks)


def delta_weight(factors: Monarch, shape: MonarchShape) -> Float[Array, "n m"]:
    """Returns the matrix as the kernel of a dense layer, ``x @ kernel``: transposed against the paper's W.

    Args:
      factors: R and L.
      shape: the sizes.

    Raises:
      ValueError: if the factors do not have these sizes.
    """
    if (factors.first.shape, factors.second.shape) != (shape.first, shape.second):
        raise ValueError(
            f"factors must have the shapes {shape.first} and {shape.second}, got {factors.first.shape} and "
            f"{factors.second.shape}"
        )
    with jax.default_matmul_precision("highest"):
        return product(jnp.eye(shape.inputs, dtype=factors.first.dtype), factors, shape.outputs)


def project(kernel: Float[AnyArray, "n m"], *, blocks: int, block_rank: int) -> Monarch:
    r"""Returns the factors whose product is nearest to a kernel in the Frobenius norm.

    Each sub-block is the truncated singular value decomposition of that of the kernel, its singular values shared
    out evenly over both factors. The squared error is :math:`\sum_{l,k} \sum_{i > \rho_{lk}} \sigma_i^2(W_{lk})`.

    Args:
      kernel: of a dense layer, ``x @ kernel``.
      blocks: N.
      block_rank: r.

    Returns:
      The factors.
    """
    inputs, outputs = kernel.shape
    shape = MonarchShape(inputs, outputs, blocks, block_rank)
    count, width, rows = shape.block_count, shape.input_width, shape.output_width
    padding = [(0, count * width - shape.inputs), (0, count * rows - shape.outputs)]
    parts = jnp.pad(jnp.asarray(kernel), padding).reshape(count, width, rows, count)
    left, sigma, right = jnp.linalg.svd(parts.transpose(3, 0, 2, 1), full_matrices=False)  # (l, k, s, p)
    k, q = np.divmod(np.arange(count * block_rank), block_rank)
    slot, block = np.divmod(np.arange(count * block_rank), count)
    # The singular value that a feature carries: how many earlier features of its column block go to its row block.
    order = np.array([np.sum(block[f - q_f : f] == block[f]) for f, q_f in enumerate(q)])
    held = order < min(rows, width)
    order = np.where(held, order, 0)
    root = jnp.where(held, jnp.sqrt(sigma[block, k, order]), 0)[:, None]
    first = jnp.zeros(shape.first, sigma.dtype).at[k, q].set(root * right[block, k, order])
    second = jnp.zeros(shape.second, sigma.dtype).at[block, :, slot].set(root * left[block, k, :, order])
    return Monarch(first, second)


def to_gralora(factors: Monarch) -> tuple[Float[Array, "N p r"], Float[Array, "N r s"]]:
    """Returns the same map in the form of GraLoRA (Jung et al., 2025); its output is in contiguous blocks.

    Entry ``l s + s'`` of GraLoRA's output is entry ``s' N + l`` of ours.

    Args:
      factors: R and L, with N dividing r.

    Returns:
      GraLoRA's A, ``(N, p, r)``, and B, ``(N, r, s)``, for a factor of 1.

    Raises:
      ValueError: if N does not divide r.
    """
    blocks, block_rank, _ = _checked(factors)
    order = _gralora_order(blocks, block_rank)
    return jnp.asarray(factors.first)[:, order].transpose(0, 2, 1), jnp.asarray(factors.second).transpose(0, 2, 1)


def from_gralora(a: Float[AnyArray, "N p r"], b: Float[AnyArray, "N r s"]) -> Monarch:
    """Returns the factors of which :func:`to_gralora` gives these two.

    Raises:
      ValueError: if N does not divide r.
    """
    order = np.argsort(_gralora_order(a.shape[0], a.shape[2]))
    return Monarch(jnp.asarray(a).transpose(0, 2, 1)[:, order], jnp.asarray(b).transpose(0, 2, 1))


def _gralora_order(blocks: int, block_rank: int) -> Int[np.ndarray, " r"]:
    """For each feature of an input block of GraLoRA, that of ours; the slots of output blocks are ordered alike."""
    if block_rank % blocks:
        raise ValueError(f"blocks must divide block_rank, got {blocks} and {block_rank}")
    # GraLoRA's feature (l, j) goes to output block l, ours to its number modulo N.
    l, j = np.divmod(np.arange(block_rank), block_rank // blocks)
    return j * blocks + l


def _checked(factors: Monarch, inputs: int | None = None) -> tuple[int, int, int]:
    """N, r and p of factors that fit each other, and vectors if there are any."""
    (blocks, block_rank, width), second = factors.first.shape, factors.second.shape
    if (second[0], second[2]) != (blocks, block_rank):
        raise ValueError(f"second must be ({blocks}, s, {block_rank}), as first is {factors.first.shape}, got {second}")
    if inputs is not None and not (blocks - 1) * width < inputs <= blocks * width:
        raise ValueError(f"x must have {blocks * width} columns, {blocks} blocks of {width}, got {inputs}")
    return blocks, block_rank, width
