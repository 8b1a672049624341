"""What language models return, alike for attention and state-space models."""

from typing import NamedTuple

from jaxtyping import Float

from zsml_jax.typing import Array, PyTree


class LmOutput(NamedTuple):
    """The output of a causal or encoder-decoder language model, a pytree.

    Attributes:
      logits: scores of the next token at each position, ``(b, t, v)``, float32.
      last: the last layer's normalised hidden states, ``(b, t, d)``.
      cache: what the next call needs to go on from here: keys and values, or the states of a state-space model; None
        if the call was given none.
    """

    logits: Float[Array, "*batch t v"]
    last: Float[Array, "*batch t d"]
    cache: PyTree | None = None
