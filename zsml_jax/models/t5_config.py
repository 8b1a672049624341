"""The static shape of a T5."""

import dataclasses

from zsml_jax.models.config_checks import check_activation, check_dtype, check_sizes
from zsml_jax.models.layer_stack import Remat


@dataclasses.dataclass(frozen=True)
class T5Config:
    """The static shape of a T5.

    Attributes:
      vocab_size: rows of the word embedding, which both stacks share.
      width: model width D.
      num_encoder_layers: layers of the encoder.
      num_layers: layers of the decoder.
      num_heads: attention heads.
      key_width: width of a head; heads times this need not be the model's width.
      mlp_width: hidden width F of the MLP.
      max_positions: the longest sequence that the model was made for, in tokens; nothing in it ends there.
      num_buckets: buckets of distances.
      max_distance: the distance from which on all share a bucket.
      gated: whether the MLP's activation gates a second projection.
      activation: a key of :data:`~zsml_jax.models.activations.ACTIVATIONS`.
      norm_eps: epsilon of the norms.
      tied: whether the head is the word embedding.
      scale_outputs: whether hidden states are divided by the root of the width before the head, as version 1.0 does.
      dtype: name of the dtype of activations; norms, softmax and logits are float32.
      remat: what the backward pass computes again instead of keeping it, see :data:`.layer_stack.Remat`.
      unroll: whether the layers are compiled one by one instead of as a loop.
    """

    vocab_size: int
    width: int
    num_encoder_layers: int
    num_layers: int
    num_heads: int
    key_width: int
    mlp_width: int
    max_positions: int = 512
    num_buckets: int = 32
    max_distance: int = 128
    gated: bool = False
    activation: str = "relu"
    norm_eps: float = 1e-6
    tied: bool = True
    scale_outputs: bool = True
    dtype: str = "float32"
    remat: Remat = False
    unroll: bool = False

    def __post_init__(self):
        check_sizes(self, "vocab_size", "width", "num_encoder_layers", "num_layers", "num_heads", "key_width")
        check_sizes(self, "mlp_width", "max_positions")
        check_activation(self.activation)
        check_dtype(self.dtype)
        if self.num_buckets < 4 or self.num_buckets % 4 or self.max_distance <= self.num_buckets // 2:
            raise ValueError(
                "num_buckets must be a multiple of 4, and max_distance larger than half of it, "
                f"got {self.num_buckets} and {self.max_distance}"
            )

    @property
    def max_length(self) -> int:
        """The longest sequence, in tokens."""
        return self.max_positions

    @property
    def key_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_heads
