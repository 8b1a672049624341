"""What a method of fine-tuning is to the rest of the package: a frozen config with a few pure functions.

A method sees one dense layer ``y = x @ kernel + bias`` at a time, never a stack of layers, a batch of adapters or a
model; the package maps it over those. To add one, derive from :class:`Method` (or :class:`LowRank`), say what arrays a
layer has (:meth:`Method.init`), how they change the layer (:meth:`Method.before`, :meth:`Method.extra`) and what kernel
does the same at once (:meth:`Method.merged`). The base may be quantised: the kernel that the first and the third see
is then no array, and :func:`zsml_jax.models.quantized.dequantize` gives its values.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from zsml_jax.models.quantized import Quantized
from zsml_jax.peft.layer_patterns import first_match
from zsml_jax.transform.patterns import Patterns
from zsml_jax.typing import AnyArray, Array, Key

M = TypeVar("M", bound="Method")

#: The arrays of one layer, or what all layers share, by name.
Arrays = Mapping[str, Any]
#: What a layer multiplies by: an array ``(n, m)``, or codes that stand for one.
Kernel: TypeAlias = AnyArray | Quantized
#: How ``alpha`` becomes the factor of a term of rank r: alpha / r, alpha / sqrt(r) (Kalajdzievski, 2023), or alpha.
Scaling = Literal["rank", "root_rank", "none"]


@dataclasses.dataclass(frozen=True)
class LayerShape:
    """The sizes of a dense layer.

    Attributes:
      inputs: numbers n that go in.
      outputs: numbers m that come out.
    """

    inputs: int
    outputs: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """The base of all methods, and the fields that all have; a layer that has only this base stays as it is.

    Patterns are those of :mod:`zsml_jax.transform.patterns`, but describe the end of a path, so that ``"query"`` and
    ``"attention/query"`` mean ``"layers/attention/query"``; and ``"re:"`` is followed by a regular expression of the
    whole path. A pattern that describes nothing is refused.

    Attributes:
      targets: patterns of the Dense layers to adapt, or ``"all-linear"`` for all of them but those of a head.
      exclude: patterns of those among them that stay as they are.
      layers: numbers of the layers of the model that are adapted, counted from 0; all if None. Dense layers that are in
        no numbered layer are left out where it is given.
      train: patterns of parameters, such as ``"head/**"``, that are trained in full beside the adapter.
    """

    targets: Patterns = "all-linear"
    exclude: Patterns = ()
    layers: Sequence[int] | None = None
    train: Patterns = ()

    #: Fields that are numbers of an adapter and no part of its structure: they are traced, and may change and differ.
    traced: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        for name in ("targets", "exclude", "train"):
            patterns = getattr(self, name)
            if not isinstance(patterns, str):
                self._set(name, tuple(patterns))
            elif name != "targets" or patterns != "all-linear":
                self._set(name, (patterns,))
        if self.layers is not None:
            self._set("layers", tuple(sorted(set(map(int, self.layers)))))

    def at(self: M, path: str) -> M:
        """Returns the method as it is at one layer, with what patterns say of it decided."""
        return self

    def patterns(self) -> dict[str, tuple[str, ...]]:
        """Returns further patterns by the name of their field, each of which must describe an adapted layer."""
        return {}

    def check(self, shapes: Mapping[str, LayerShape]) -> None:
        """Raises a ValueError, or warns, of layers that the method cannot adapt well; called once for a model."""

    def init(self, shape: LayerShape, kernel: Kernel, *, key: Key) -> Arrays:
        """Returns the trained arrays of a layer, float32, with which it computes what it did before."""
        raise NotImplementedError

    def shared(self, shapes: Sequence[LayerShape]) -> Arrays:
        """Returns arrays that all layers share and that are not trained, float32."""
        return {}

    def before(self, x: Float[AnyArray, "*b n"], arrays: Arrays, shared: Arrays) -> Float[AnyArray, "*b n"]:
        """Returns what goes into the layer in place of ``x``.

        Args:
          x: the layer's input.
          arrays: those of this layer, of :meth:`init`.
          shared: those of :meth:`shared`, and the traced numbers by the names of their fields.
        """
        return x

    def extra(
        self,
        x: Float[AnyArray, "*b n"],
        y: Float[AnyArray, "*b m"],
        kernel: Kernel,
        bias: Float[AnyArray, " m"] | None,
        arrays: Arrays,
        shared: Arrays,
    ) -> Float[Array, "*b m"] | None:
        """Returns what is added to the layer's output, None for nothing; dropout acts on it.

        Args:
          x: the layer's input, before :meth:`before`.
          y: the layer's output, its bias included.
          kernel: the layer's kernel.
          bias: the layer's bias, or None.
          arrays: as for :meth:`before`.
          shared: as for :meth:`before`.
        """
        return None

    def merged(
        self, kernel: Float[Array, "n m"], bias: Float[Array, " m"] | None, arrays: Arrays, shared: Arrays
    ) -> tuple[Float[Array, "n m"], Float[Array, " m"] | None]:
        """Returns the kernel and the bias of a plain layer that computes the same, float32 as what it is given."""
        return kernel, bias

    def low_rank(
        self, shape: LayerShape, arrays: Arrays, shared: Arrays
    ) -> tuple[Float[Array, "n r"], Float[Array, "r m"]]:
        """Returns two factors whose product is what the method adds to any kernel.

        Raises:
          ValueError: if what it adds depends on the kernel, or is not of low rank.
        """
        raise ValueError(f"config must be of a low-rank method, such as MoRe, LoRA or VeRA, got {type(self).__name__}")

    def numbers(self) -> dict[str, float]:
        """Returns the traced numbers by the names of their fields, as far as they are in use."""
        return {name: float(getattr(self, name)) for name in self.traced if name != "dropout" or getattr(self, name)}

    def without_numbers(self: M) -> M:
        """Returns the method with its traced numbers at 0, so that adapters that differ in them only are alike."""
        return dataclasses.replace(self, **dict.fromkeys(self.traced, 0.0))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowRank(Method):
    r"""Methods that add a product of two factors to the kernel, :math:`f(\alpha, r) \, A B`.

    Attributes:
      alpha: the scale; traced.
      scaling: how ``alpha`` and the rank give the factor: ``"rank"`` for alpha / r, ``"root_rank"`` for
        alpha / sqrt(r), ``"none"`` for alpha.
      dropout: the share of the adapter's output that training leaves out, at least 0 and below 1; traced.
      ranks: ranks of some layers by pattern, in place of the method's own; the first pattern that fits decides.
    """

    alpha: float | int = 1.0
    scaling: Scaling = "none"
    dropout: float | int = 0.0
    ranks: Mapping[str, int] | tuple[tuple[str, int], ...] = ()

    traced: ClassVar[tuple[str, ...]] = ("alpha", "dropout")
    #: The field that ``ranks`` replaces.
    rank_field: ClassVar[str] = "rank"

    def __post_init__(self):
        super().__post_init__()
        ranks = dict(self.ranks)
        self._set("ranks", tuple(ranks.items()))
        for rank in (getattr(self, self.rank_field), *ranks.values()):
            if rank < 1:
                raise ValueError(f"{self.rank_field} must be at least 1, got {rank}")
        if not math.isfinite(self.alpha):
            raise ValueError(f"alpha must be finite, got {self.alpha}")
        if self.scaling not in ("rank", "root_rank", "none"):
            raise ValueError(f"scaling must be 'rank', 'root_rank' or 'none', got {self.scaling!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")

    def at(self: M, path: str) -> M:
        """Returns the method with this layer's rank."""
        method: Any = self
        rank = first_match(method.ranks, path)
        return dataclasses.replace(method, ranks=(), **({} if rank is None else {method.rank_field: rank}))

    def patterns(self) -> dict[str, tuple[str, ...]]:
        """Returns the patterns of ``ranks``."""
        return {"ranks": tuple(dict(self.ranks))}

    def scaled(self, factor: AnyArray, shared: Arrays) -> Array:
        """Returns one of the two factors, which is small, times what ``alpha`` and ``scaling`` say; in its dtype."""
        rank = getattr(self, self.rank_field)
        divisor = {"rank": rank, "root_rank": math.sqrt(rank), "none": 1}[self.scaling]
        # float32 also where the factors are not.
        scale = jnp.asarray(shared["alpha"], jnp.float32) / divisor
        return (scale * factor).astype(factor.dtype)

    def term(self, x: Float[AnyArray, "*b n"], shape: LayerShape, arrays: Arrays, shared: Arrays) -> Array:
        """Returns the vectors times the product."""
        raise NotImplementedError

    def delta(self, shape: LayerShape, arrays: Arrays, shared: Arrays) -> Float[Array, "n m"]:
        """Returns the product, what is added to the kernel."""
        down, up = self.low_rank(shape, arrays, shared)
        return jnp.matmul(down, up, precision=jax.lax.Precision.HIGHEST)

    def extra(
        self, x: AnyArray, y: AnyArray, kernel: Kernel, bias: AnyArray | None, arrays: Arrays, shared: Arrays
    ) -> Array:
        """Returns the vectors times the product."""
        return self.term(x, LayerShape(x.shape[-1], y.shape[-1]), arrays, shared)

    def merged(self, kernel: Array, bias: Array | None, arrays: Arrays, shared: Arrays) -> tuple[Array, Array | None]:
        """Returns the kernel with the product added, and the bias."""
        return kernel + self.delta(LayerShape(*kernel.shape), arrays, shared), bias
