"""The static shape of a decoder with attention."""

import dataclasses

from zsml_jax.models.config_checks import check_activation, check_dtype, check_heads, check_sizes
from zsml_jax.models.layer_stack import Remat
from zsml_jax.models.norms import NORMS
from zsml_jax.models.rotary import Rotary


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The static shape of a decoder; the defaults are those of a Llama.

    Attributes:
      vocab_size: rows of the word embedding.
      width: model width D.
      num_layers: number of layers.
      num_heads: query heads.
      mlp_width: hidden width F of the MLP.
      max_positions: the longest sequence that the model was made for; rows of the position embedding if it has one.
      num_kv_heads: heads of keys and values, which divide the query heads; as many as these if None.
      head_width: width of a head; ``width / num_heads`` if None.
      rotary: how queries and keys are rotated; learned positions are added to the word embeddings if None.
      attention_scale: the factor on scores; ``head_width ** -0.5`` if None.
      window: how many tokens a query sees, its own included; all of the past if None.
      full_layers: layers that see all of the past in spite of ``window``.
      query_bias: whether queries, keys and values have a bias.
      out_bias: whether the attention's output has a bias.
      query_norm: whether queries and keys are normalised within each head, before they are rotated.
      mlp_bias: whether the MLP has biases.
      gated: whether the MLP's activation gates a second projection (Shazeer, 2020).
      activation: a key of :data:`~zsml_jax.models.activations.ACTIVATIONS`.
      norm: "rms" or "layer".
      norm_eps: epsilon of the norms.
      parallel: whether attention and MLP both start from the layer's input, and are added to it together.
      tied: whether the head is the word embedding.
      head_bias: whether an untied head has a bias.
      dtype: name of the dtype of activations; norms, softmax, rotations and logits are float32.
      remat: what the backward pass computes again instead of keeping it, see :data:`.layer_stack.Remat`.
      unroll: whether the layers are compiled one by one instead of as a loop.
    """

    vocab_size: int
    width: int
    num_layers: int
    num_heads: int
    mlp_width: int
    max_positions: int
    num_kv_heads: int | None = None
    head_width: int | None = None
    rotary: Rotary | None = None
    attention_scale: float | None = None
    window: int | None = None
    full_layers: tuple[int, ...] = ()
    query_bias: bool = False
    out_bias: bool = False
    query_norm: bool = False
    mlp_bias: bool = False
    gated: bool = True
    activation: str = "silu"
    norm: str = "rms"
    norm_eps: float = 1e-6
    parallel: bool = False
    tied: bool = False
    head_bias: bool = False
    dtype: str = "float32"
    remat: Remat = False
    unroll: bool = False

    def __post_init__(self):
        check_sizes(self, "vocab_size", "width", "num_layers", "num_heads", "mlp_width", "max_positions")
        check_sizes(self, "key_heads", *(name for name in ("head_width", "window") if getattr(self, name) is not None))
        check_activation(self.activation)
        check_dtype(self.dtype)
        if self.norm not in NORMS:
            raise ValueError(f"norm must be one of {NORMS}, got {self.norm!r}")
        if self.num_heads % self.key_heads:
            raise ValueError(f"num_kv_heads must divide the {self.num_heads} heads, got {self.key_heads}")
        if self.head_width is None:
            check_heads(self.width, self.num_heads)
        if self.rotary is not None and self.rotary.width > self.key_width:
            raise ValueError(f"rotary must rotate at most {self.key_width} features, got {self.rotary.width}")
        if outside := [layer for layer in self.full_layers if not 0 <= layer < self.num_layers]:
            raise ValueError(f"full_layers must lie in 0 ... {self.num_layers - 1}, got {outside}")

    @property
    def max_length(self) -> int:
        """The longest sequence, in tokens."""
        return self.max_positions

    @property
    def key_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def key_width(self) -> int:
        """Width of a head."""
        return self.width // self.num_heads if self.head_width is None else self.head_width
