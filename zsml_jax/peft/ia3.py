"""(IA)^3: trained factors on activations (Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning", 2022)."""

import dataclasses

import jax.numpy as jnp

from zsml_jax.peft.layer_patterns import describes
from zsml_jax.peft.method import Arrays, Kernel, LayerShape, Method
from zsml_jax.transform.patterns import Patterns
from zsml_jax.typing import AnyArray, Array, Key


@dataclasses.dataclass(frozen=True, kw_only=True)
class IA3(Method):
    """Multiplies the output of a layer, or the input of a feed-forward layer, by one trained factor a number.

    Attributes:
      feedforward: patterns of the layers whose input is multiplied; if None, those called ``down``, the last of an
        MLP, as in the paper.
    """

    targets: Patterns = ("key", "value", "down")
    feedforward: Patterns | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.feedforward is not None:
            given = (self.feedforward,) if isinstance(self.feedforward, str) else tuple(self.feedforward)
            self._set("feedforward", given)

    def at(self, path: str) -> "IA3":
        """Returns the method as it is at this layer, where ``feedforward`` is the layer's path or empty."""
        patterns = ("down",) if self.feedforward is None else self.feedforward
        on_input = any(describes(pattern, path) for pattern in patterns)
        return dataclasses.replace(self, feedforward=(path,) if on_input else ())

    def patterns(self) -> dict[str, tuple[str, ...]]:
        """Returns the patterns of ``feedforward``."""
        return {"feedforward": tuple(self.feedforward or ())}

    def init(self, shape: LayerShape, kernel: Kernel, *, key: Key) -> Arrays:
        """Returns ``scale``, all 1."""
        return {"scale": jnp.ones(shape.inputs if self.feedforward else shape.outputs)}

    def before(self, x: AnyArray, arrays: Arrays, shared: Arrays) -> AnyArray:
        """Returns the scaled input of a feed-forward layer."""
        return x * arrays["scale"] if self.feedforward else x

    def extra(
        self, x: AnyArray, y: AnyArray, kernel: Kernel, bias: AnyArray | None, arrays: Arrays, shared: Arrays
    ) -> Array | None:
        """Returns what makes the scaled output of the output."""
        return None if self.feedforward else jnp.asarray(y) * (arrays["scale"] - 1)

    def merged(self, kernel: Array, bias: Array | None, arrays: Arrays, shared: Arrays) -> tuple[Array, Array | None]:
        """Returns the kernel with scaled rows, or with its columns and the bias scaled."""
        scale = arrays["scale"]
        if self.feedforward:
            return kernel * scale[:, None], bias
        return kernel * scale, None if bias is None else bias * scale
