"""The selective state-space scan of Mamba, in memory linear in the length of a chunk.

Gu and Dao (2023), "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", section 3 and algorithm 2.

Name suffixes: ``B`` batch, ``T`` time, ``D`` channels, ``S`` state, ``N`` chunks, ``C`` time within a chunk.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from zsml_jax.typing import AnyArray, Array


class ScanOutput(NamedTuple):
    """What the scan computes.

    Attributes:
      y: the outputs, ``(b, t, d)``, in the dtype of the inputs ``x``.
      state: the state after the last step, ``(b, s, d)``, float32; the ``initial`` of what comes next.
    """

    y: Array
    state: Array


def selective_scan(
    x: Float[AnyArray, "b t d"],
    delta: Float[AnyArray, "b t d"],
    a: Float[AnyArray, "d s"],
    b: Float[AnyArray, "b t s"],
    c: Float[AnyArray, "b t s"],
    skip: Float[AnyArray, " d"] | None = None,
    *,
    initial: Float[AnyArray, "b s d"] | None = None,
    chunk: int = 32,
) -> ScanOutput:
    r"""Runs a diagonal state-space model whose step, input and output depend on the input.

    .. math::
        h_t = e^{\delta_t A} h_{t-1} + \delta_t B_t x_t, \qquad y_t = C_t h_t + D x_t

    Gu and Dao (2023), equations 2 and 4 with algorithm 2; the input is discretised by Euler's rule, as in their code.

    The state is float32 whatever the inputs are. Reverse-mode gradients keep the states between chunks only and compute
    those inside a chunk again, so that ``t / chunk + chunk`` states are held at once instead of ``t``; about the root
    of the length is best for memory. Forward mode (``jax.jvp``) is not defined. On CPU a loop over single steps is
    faster than an associative scan, within chunks and over the whole (``benchmarks/mamba_scan.py``).

    Decoding is a scan of one step from the last state. A step whose ``delta`` is 0 leaves the state as it is; so does
    padding on the left whose ``x`` is 0.

    Args:
      x: the inputs.
      delta: the step sizes, at least 0.
      a: the continuous-time transition :math:`A`, diagonal for each channel, negative for a state that decays.
      b: the input projections :math:`B_t`, shared by the channels.
      c: the output projections :math:`C_t`, shared by the channels.
      skip: the direct path :math:`D`; none if None.
      initial: the state before the first step; 0 if None.
      chunk: steps between the states that are kept for the gradient; any number, also one that does not divide ``t``.

    Returns:
      The outputs and the last state.

    Raises:
      ValueError: if shapes do not fit, or ``chunk`` is less than 1.

    Example:
      >>> import jax.numpy as jnp
      >>> one = jnp.ones((1, 3, 1))
      >>> out = selective_scan(one, one, jnp.zeros((1, 1)), one, one)  # without decay the state counts the steps
      >>> out.y.ravel().tolist(), out.state.ravel().tolist()
      ([1.0, 2.0, 3.0], [3.0])
    """
    return scan_with(_scan, x, delta, a, b, c, skip, initial=initial, chunk=chunk)


def scan_with(
    recurrence: Callable[..., tuple[Array, Array]],
    x: Float[AnyArray, "b t d"],
    delta: Float[AnyArray, "b t d"],
    a: Float[AnyArray, "d s"],
    b: Float[AnyArray, "b t s"],
    c: Float[AnyArray, "b t s"],
    skip: Float[AnyArray, " d"] | None,
    *,
    initial: Float[AnyArray, "b s d"] | None,
    chunk: int,
) -> ScanOutput:
    """What is around the recurrence, whoever computes it; arguments and errors as for :func:`selective_scan`.

    Args:
      recurrence: ``(x, delta, b, c, a, initial) -> (y, state)``, of which the first four and ``y`` are time-major
        chunks ``(n, chunk, b, f)`` and ``a`` is ``(s, d)``.
      x: the inputs.
      delta: the step sizes.
      a: the transition.
      b: the input projections.
      c: the output projections.
      skip: the direct path.
      initial: the state before the first step.
      chunk: steps of a chunk.
    """
    _check(x, delta, a, b, c, skip, initial, chunk)
    x = jnp.asarray(x)
    batch, length, channels = x.shape
    a_SxD = jnp.asarray(a, jnp.float32).T
    if initial is None:
        initial = jnp.zeros((batch, *a_SxD.shape), jnp.float32)
    chunk = min(chunk, length)
    # A step of size 0 does nothing, so that the last chunk can be filled up with them.
    steps = [_time_major_chunks(jnp.asarray(value), chunk) for value in (x, delta, b, c)]
    y_NxCxBxD, state = recurrence(*steps, a_SxD, jnp.asarray(initial, jnp.float32))
    y = y_NxCxBxD.reshape(-1, batch, channels)[:length].swapaxes(0, 1)
    if skip is not None:
        y += jnp.asarray(skip, jnp.float32) * x
    return ScanOutput(y.astype(x.dtype), state)


def scan_backward(residuals: tuple[Array, ...], cotangents: tuple[Array, Array]) -> tuple[Array, ...]:
    r"""The adjoint recurrence :math:`g_t = C_t \bar y_t + e^{\delta_{t+1} A} g_{t+1}`, chunk by chunk from the last.

    Args:
      residuals: the arguments of the recurrence as :func:`scan_with` has them, but for ``initial`` the states before
        each chunk, ``(n, b, s, d)``.
      cotangents: of the outputs and of the last state.

    Returns:
      The cotangents of the arguments of the recurrence.
    """
    x, delta, b, c, a_SxD, starts_NxBxSxD = residuals
    y_bar, g_last = cotangents

    def advance(h_BxSxD: Array, inputs: tuple[Array, ...]) -> tuple[Array, Array]:
        return _advance(a_SxD, h_BxSxD, *(value.astype(jnp.float32) for value in inputs)), h_BxSxD

    def step_back(carry: tuple[Array, Array, Array], inputs: tuple[Array, ...]) -> tuple[Any, tuple[Array, ...]]:
        g_BxSxD, a_bar_BxSxD, h_BxSxD = carry
        x_BxD, delta_BxD, b_BxS, c_BxS, y_bar_BxD, before_BxSxD = (value.astype(jnp.float32) for value in inputs)
        g_BxSxD = g_BxSxD + c_BxS[:, :, None] * y_bar_BxD[:, None]
        g_before_BxSxD = jnp.exp(delta_BxD[:, None] * a_SxD) * g_BxSxD
        through_decay_BxSxD = g_before_BxSxD * before_BxSxD
        through_input_BxD = (g_BxSxD * b_BxS[:, :, None]).sum(axis=1)
        x_bar_BxD = delta_BxD * through_input_BxD
        delta_bar_BxD = x_BxD * through_input_BxD + (through_decay_BxSxD * a_SxD).sum(axis=1)
        b_bar_BxS = (g_BxSxD * (delta_BxD * x_BxD)[:, None]).sum(axis=2)
        c_bar_BxS = (h_BxSxD * y_bar_BxD[:, None]).sum(axis=2)
        a_bar_BxSxD = a_bar_BxSxD + through_decay_BxSxD * delta_BxD[:, None]
        bars = (x_bar_BxD, delta_bar_BxD, b_bar_BxS, c_bar_BxS)
        bars = tuple(bar.astype(like.dtype) for bar, like in zip(bars, (x, delta, b, c), strict=True))
        return (g_before_BxSxD, a_bar_BxSxD, before_BxSxD), bars

    def run_chunk(carry: tuple[Array, Array], inputs: tuple[Any, ...]) -> tuple[tuple[Array, Array], Any]:
        (x_CxBxD, delta_CxBxD, b_CxBxS, c_CxBxS, y_bar_CxBxD), start_BxSxD = inputs
        end_BxSxD, before_CxBxSxD = jax.lax.scan(advance, start_BxSxD, (x_CxBxD, delta_CxBxD, b_CxBxS))
        steps = (x_CxBxD, delta_CxBxD, b_CxBxS, c_CxBxS, y_bar_CxBxD, before_CxBxSxD)
        (g_BxSxD, a_bar_BxSxD, _), bars = jax.lax.scan(step_back, (*carry, end_BxSxD), steps, reverse=True)
        return (g_BxSxD, a_bar_BxSxD), bars

    carry = (g_last, jnp.zeros_like(g_last))
    (initial_bar, a_bar_BxSxD), bars = jax.lax.scan(
        run_chunk, carry, ((x, delta, b, c, y_bar), starts_NxBxSxD), reverse=True
    )
    return (*bars, a_bar_BxSxD.sum(axis=0), initial_bar)


def _check(x: Any, delta: Any, a: Any, b: Any, c: Any, skip: Any, initial: Any, chunk: int) -> None:
    """Raises a ValueError that names the argument whose shape does not fit the others."""
    if x.ndim != 3 or x.size == 0:
        raise ValueError(f"x must be (b, t, d) of non-zero size, got {x.shape}")
    if a.ndim != 2 or a.shape[0] != x.shape[2]:
        raise ValueError(f"a must be (d, s) with d = {x.shape[2]}, got {a.shape}")
    (batch, length, channels), states = x.shape, a.shape[1]
    expected = {
        "delta": (delta, (batch, length, channels)),
        "b": (b, (batch, length, states)),
        "c": (c, (batch, length, states)),
        "skip": (skip, (channels,)),
        "initial": (initial, (batch, states, channels)),
    }
    for name, (value, shape) in expected.items():
        if value is not None and value.shape != shape:
            raise ValueError(f"{name} must be {shape}, got {value.shape}")
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")


def _time_major_chunks(value_BxTxF: Array, chunk: int) -> Array:
    """``(n, chunk, b, f)``, filled up with zeros."""
    value_TxBxF = value_BxTxF.swapaxes(0, 1)
    missing = -value_TxBxF.shape[0] % chunk
    if missing:
        value_TxBxF = jnp.pad(value_TxBxF, ((0, missing), (0, 0), (0, 0)))
    return value_TxBxF.reshape(-1, chunk, *value_TxBxF.shape[1:])


# Channels are the last axis of a state, so that the few states of a channel never fill a vector register on their own.
def _step(a_SxD: Array, h_BxSxD: Array, inputs: tuple[Array, ...]) -> tuple[Array, Array]:
    x_BxD, delta_BxD, b_BxS, c_BxS = (value.astype(jnp.float32) for value in inputs)
    h_BxSxD = _advance(a_SxD, h_BxSxD, x_BxD, delta_BxD, b_BxS)
    return h_BxSxD, (h_BxSxD * c_BxS[:, :, None]).sum(axis=1)


def _advance(a_SxD: Array, h_BxSxD: Array, x_BxD: Array, delta_BxD: Array, b_BxS: Array) -> Array:
    return jnp.exp(delta_BxD[:, None] * a_SxD) * h_BxSxD + b_BxS[:, :, None] * (delta_BxD * x_BxD)[:, None]


@jax.custom_vjp
def _scan(x: Array, delta: Array, b: Array, c: Array, a_SxD: Array, initial: Array) -> tuple[Array, Array]:
    """The outputs ``(n, c, b, d)`` in float32 and the last state."""
    return _forward(x, delta, b, c, a_SxD, initial)[0]


def _forward(x: Array, delta: Array, b: Array, c: Array, a_SxD: Array, initial: Array) -> tuple[Any, Any]:
    def run_chunk(h_BxSxD: Array, inputs: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array]]:
        h_next, y_CxBxD = jax.lax.scan(functools.partial(_step, a_SxD), h_BxSxD, inputs)
        return h_next, (y_CxBxD, h_BxSxD)

    state, (y, starts_NxBxSxD) = jax.lax.scan(run_chunk, initial, (x, delta, b, c))
    return (y, state), (x, delta, b, c, a_SxD, starts_NxBxSxD)


_scan.defvjp(_forward, scan_backward)
