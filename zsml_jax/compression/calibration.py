"""Calibration data, and what layer-wise methods learn from it about the inputs of a dense layer."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Num

from zsml_jax.models.pretrained import Pretrained
from zsml_jax.typing import AnyArray, Array


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """Sequences of tokens, and the model that reads them.

    Attributes:
      pretrained: the model; its parameters are not used but those that a method is given.
      tokens: token ids ``(n, t)``.
      decoder_tokens: what the decoder of an encoder-decoder reads, ``(n, u)``, without padding.
      batch_size: sequences at once.
      mask: non-zero at tokens, zero at padding, which counts for nothing; all are tokens if None.
    """

    pretrained: Pretrained
    tokens: Int[AnyArray, "n t"]
    decoder_tokens: Int[AnyArray, "n u"] | None = None
    batch_size: int = 8
    mask: Integer[AnyArray, "n t"] | Bool[AnyArray, "n t"] | None = None

    def __post_init__(self):
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        _check(self.tokens, "tokens", self.pretrained.config.vocab_size)
        if self.decoder_tokens is not None:
            _check(self.decoder_tokens, "decoder_tokens", self.pretrained.config.vocab_size)
            if len(self.decoder_tokens) != len(self.tokens):
                raise ValueError(f"decoder_tokens must have {len(self.tokens)} rows, got {len(self.decoder_tokens)}")

        if self.mask is not None:
            mask = np.asarray(self.mask) != 0
            if mask.shape != np.shape(self.tokens) or not mask.any(axis=1).all():
                raise ValueError(f"mask must be {np.shape(self.tokens)} with a token in each row, got {mask.shape}")

    @classmethod
    def of_stream(
        cls, pretrained: Pretrained, stream: Int[AnyArray, " s"], *, block: int = 512, limit: int = 128, **options: Any
    ) -> "Calibration":
        """Cuts a stream of tokens into sequences.

        Args:
          pretrained: the model.
          stream: token ids of texts one after another.
          block: tokens of a sequence.
          limit: the most sequences, of which the first are taken; what is left over is not used.
          **options: further attributes.

        Raises:
          ValueError: if the stream is shorter than one block, or a number is not positive.
        """
        if block < 1 or limit < 1:
            raise ValueError(f"block and limit must be at least 1, got {block} and {limit}")
        count = min(len(stream) // block, limit)
        if count == 0:
            raise ValueError(f"stream must have at least one block of {block} tokens, got {len(stream)}")
        return cls(pretrained, np.asarray(stream[: count * block]).reshape(count, block), **options)

    def batches(self) -> list[tuple[AnyArray, dict[str, AnyArray]]]:
        """Returns tokens and further arguments of ``Stack.enter`` of each batch; the last may be smaller."""
        given = {"mask": self.mask, "decoder_tokens_BxT": self.decoder_tokens}
        rows = [slice(start, start + self.batch_size) for start in range(0, len(self.tokens), self.batch_size)]
        return [(self.tokens[r], {name: x[r] for name, x in given.items() if x is not None}) for r in rows]


class InputStatistics(NamedTuple):
    """What is kept of the inputs of a dense layer over all calibration tokens.

    Attributes:
      count: how many inputs there were.
      gram: the sum of :math:`x x^T`, ``(d, d)``; None where only its diagonal is wanted.
      squares: the sum of squares of each feature, ``(d,)``.
      magnitudes: the sum of magnitudes of each feature, ``(d,)``.
      largest: the largest magnitude of each feature, ``(d,)``.
    """

    count: Float[Array, ""]
    gram: Float[Array, "d d"] | None
    squares: Float[Array, " d"]
    magnitudes: Float[Array, " d"]
    largest: Float[Array, " d"]

    @property
    def hessian(self) -> Float[Array, "d d"]:
        """The Hessian of the squared error of an output, ``2 / count * gram``."""
        if self.gram is None:
            raise ValueError("gram must have been collected for the Hessian")
        return 2 * self.gram / self.count


def statistics_of(
    x: Float[AnyArray, "*b d"], mask: Num[AnyArray, "*b"] | Bool[AnyArray, "*b"] | None = None, *, gram: bool
) -> InputStatistics:
    """Returns the statistics of some inputs, accumulated in float32.

    Args:
      x: the inputs.
      mask: zero at those that do not count; all do if None.
      gram: whether to return the Gram matrix.
    """
    rows = jnp.asarray(x, jnp.float32).reshape(-1, x.shape[-1])
    kept = None if mask is None else jnp.asarray(mask).reshape(-1, 1) != 0
    rows = rows if kept is None else jnp.where(kept, rows, 0.0)
    magnitudes = jnp.abs(rows)
    product = jnp.matmul(rows.T, rows, precision="highest") if gram else None
    largest = magnitudes.max(axis=0)
    count = jnp.asarray(float(len(rows))) if kept is None else kept.sum(dtype=jnp.float32)
    return InputStatistics(count, product, jnp.square(rows).sum(axis=0), magnitudes.sum(axis=0), largest)


def add(first: InputStatistics, second: InputStatistics) -> InputStatistics:
    """Returns the statistics of both inputs together."""
    total: InputStatistics = jax.tree.map(jnp.add, first, second)
    return total._replace(largest=jnp.maximum(first.largest, second.largest))


def _check(tokens: Any, name: str, rows: int) -> None:
    ids = np.asarray(tokens)
    if ids.ndim != 2 or ids.size == 0 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"{name} must be integers (n, t) of non-zero size, got {ids.dtype} {ids.shape}")
    if ids.min() < 0 or ids.max() >= rows:
        raise ValueError(f"{name} must lie in 0 ... {rows - 1}, got {ids.min()} ... {ids.max()}")
