"""How fast a run is: units a second, and the share of the device's peak that the model's arithmetic makes up."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp

#: A gradient step costs three forward passes (Chowdhery et al., 2022, appendix B), recomputation not counted.
_PASSES, _PASSES_WITH_FROZEN = 3, 2


class Throughput:
    """A clock that stands still while something other than training is done.

    Args:
      clock: seconds from any start; for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self._units, self._steps, self._seconds, self._since = 0.0, 0, 0.0, clock()
        self._is_paused = False

    def count(self, units: float) -> None:
        """Counts one step of so many units."""
        self._units, self._steps = self._units + units, self._steps + 1

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out the time of its body."""
        self._seconds += self._clock() - self._since
        self._is_paused = True
        try:
            yield
        finally:
            self._since, self._is_paused = self._clock(), False

    def rates(self) -> tuple[float, float]:
        """Returns units and steps a second since the last call, and starts anew."""
        now = self._clock()
        seconds = max(self._seconds + (0.0 if self._is_paused else now - self._since), 1e-9)
        rates = self._units / seconds, self._steps / seconds
        self._units, self._steps, self._seconds, self._since = 0.0, 0, 0.0, now
        return rates


def step_flops(loss_fn: Callable[..., Any], *arguments: Any, any_frozen: bool = False) -> float:
    """Returns the floating-point operations of one gradient step of a loss, by its forward pass.

    Three times the matrix products of the forward pass; twice where most parameters are frozen, whose gradients are
    not computed. XLA's own cost analysis is not used, since it counts the body of a scan once and recomputation too.

    Args:
      loss_fn: the loss.
      *arguments: its arguments, abstract or concrete, for the batch of all devices together.
      any_frozen: whether most parameters are frozen.
    """
    return (_PASSES_WITH_FROZEN if any_frozen else _PASSES) * matmul_flops(loss_fn, *arguments)


def matmul_flops(fn: Callable[..., Any], *arguments: Any) -> float:
    """Returns the floating-point operations of a function's matrix products and convolutions, scans unrolled.

    >>> matmul_flops(lambda a, b: a @ b, jnp.zeros((2, 3)), jnp.zeros((3, 5)))
    60.0

    Args:
      fn: a function that JAX can trace. Kernels that hide their products, such as fused attention, count nothing, and
        a while loop counts once.
      *arguments: its arguments, abstract or concrete.
    """
    return _flops(jax.make_jaxpr(fn)(*arguments).jaxpr)


def peak_flops(dtype: jax.typing.DTypeLike = jnp.bfloat16, *, size: int | None = None, repeats: int = 10) -> float:
    """Measures the operations a second of one device in a large matrix product.

    Args:
      dtype: of the factors.
      size: rows and columns of the factors; by default 8,192, and 1,024 on a CPU.
      repeats: products in a row.
    """
    size = size or (1024 if jax.default_backend() == "cpu" else 8192)
    a = jnp.ones((size, size), dtype)
    chain = jax.jit(lambda a: jax.lax.fori_loop(0, repeats, lambda _, x: (x @ a) / size, a))
    chain(a).block_until_ready()
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        chain(a).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2.0 * size**3 * repeats / min(seconds)


def _flops(jaxpr: Any) -> float:
    return sum((_equation_flops(equation) for equation in jaxpr.eqns), 0.0)


def _equation_flops(equation: Any) -> float:
    match equation.primitive.name:
        case "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            depth = 1
            for axis in contracted:
                depth *= equation.invars[0].aval.shape[axis]
            return 2.0 * equation.outvars[0].aval.size * depth
        case "conv_general_dilated":
            kernel = equation.invars[1].aval
            features = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
            return 2.0 * equation.outvars[0].aval.size * kernel.size / features
        case "cond":
            return max(_flops(branch.jaxpr) for branch in equation.params["branches"])
    repeats = equation.params["length"] if equation.primitive.name == "scan" else 1
    return repeats * sum((_flops(inner) for inner in _inner_jaxprs(equation.params)), 0.0)


def _inner_jaxprs(params: Any) -> Iterator[Any]:
    """Yields the programs in an equation; a custom rule's own program is a function and not among them."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(item, "jaxpr", item)
            if hasattr(inner, "eqns"):
                yield inner
