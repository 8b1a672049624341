"""The selective scan as a Pallas kernel, whose state never leaves the chip within a chunk.

Gu and Dao (2023), section 3.3.2. Opt-in: nothing in the package calls it. It has been run in Pallas' interpret mode
only, where it equals :func:`zsml_jax.models.selective_scan.selective_scan`; on a GPU or TPU, first see that it compiles
for the shapes at hand and is faster.

Name suffixes: ``B`` batch, ``C`` time within a chunk, ``D`` channels, ``S`` state, ``N`` chunks, ``P`` channels of a
program.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Float

from zsml_jax.models.selective_scan import ScanOutput, scan_backward, scan_with
from zsml_jax.typing import AnyArray, Array


def selective_scan_pallas(
    x: Float[AnyArray, "b t d"],
    delta: Float[AnyArray, "b t d"],
    a: Float[AnyArray, "d s"],
    b: Float[AnyArray, "b t s"],
    c: Float[AnyArray, "b t s"],
    skip: Float[AnyArray, " d"] | None = None,
    *,
    initial: Float[AnyArray, "b s d"] | None = None,
    chunk: int = 128,
    block: int = 128,
    interpret: bool = False,
) -> ScanOutput:
    """Computes what :func:`~zsml_jax.models.selective_scan.selective_scan` does, each chunk by one kernel.

    A program of the kernel has one row and ``block`` channels, and keeps their state in registers from step to step.
    The gradient is that of the plain scan, in XLA, from the states between chunks.

    Args:
      x: the inputs.
      delta: the step sizes, at least 0.
      a: the continuous-time transition.
      b: the input projections.
      c: the output projections.
      skip: the direct path; none if None.
      initial: the state before the first step; 0 if None.
      chunk: steps of one kernel. TPUs want a multiple of 8.
      block: channels of one program, which divide ``d``; all channels where ``d`` is less. GPUs want a power of two,
        and so the state size; TPUs a multiple of 128.
      interpret: whether to run the kernel as plain JAX, on any platform, slowly.

    Returns:
      The outputs and the last state.

    Raises:
      ValueError: if shapes do not fit, ``chunk`` is less than 1, or ``block`` does not divide the channels.
    """
    channels = x.shape[-1]
    block = min(block, channels)
    if block < 1 or channels % block:
        raise ValueError(f"block must divide the {channels} channels, got {block}")
    recurrence = functools.partial(_scan, block, interpret)
    return scan_with(recurrence, x, delta, a, b, c, skip, initial=initial, chunk=chunk)


def _run_chunk(block: int, interpret: bool, a_SxD: Array, h_BxSxD: Array, inputs: tuple[Array, ...]) -> tuple[Any, Any]:
    x_BxCxD, delta_BxCxD, b_BxCxS, c_BxCxS = (value.swapaxes(0, 1) for value in inputs)
    batch, chunk, channels = x_BxCxD.shape
    states = a_SxD.shape[0]
    per_channel = pl.BlockSpec((None, chunk, block), lambda row, part: (row, 0, part))
    # With an axis for the channels the projections of one time are a column, ready to be broadcast.
    shared = pl.BlockSpec((None, chunk, states, 1), lambda row, part: (row, 0, 0, 0))
    state = pl.BlockSpec((None, states, block), lambda row, part: (row, 0, part))
    transition = pl.BlockSpec((states, block), lambda row, part: (0, part))
    y_BxCxD, end_BxSxD = pl.pallas_call(
        _kernel,
        grid=(batch, channels // block),
        in_specs=[per_channel, per_channel, shared, shared, transition, state],
        out_specs=[per_channel, state],
        out_shape=[
            jax.ShapeDtypeStruct(x_BxCxD.shape, jnp.float32),
            jax.ShapeDtypeStruct(h_BxSxD.shape, jnp.float32),
        ],
        interpret=interpret,
        name="selective_scan",
    )(x_BxCxD, delta_BxCxD, b_BxCxS[..., None], c_BxCxS[..., None], a_SxD, h_BxSxD)
    return end_BxSxD, (y_BxCxD.swapaxes(0, 1), h_BxSxD)


def _kernel(x_CxP, delta_CxP, b_CxSx1, c_CxSx1, a_SxP, start_SxP, y_CxP, end_SxP) -> None:
    """One row and block of channels through one chunk; the arguments are references."""
    decay_SxP = a_SxP[...]

    def step(t: Array, h_SxP: Array) -> Array:
        now = pl.ds(t, 1)
        x_1xP, delta_1xP = x_CxP[now, :].astype(jnp.float32), delta_CxP[now, :].astype(jnp.float32)
        b_Sx1, c_Sx1 = b_CxSx1[t].astype(jnp.float32), c_CxSx1[t].astype(jnp.float32)
        h_SxP = jnp.exp(delta_1xP * decay_SxP) * h_SxP + b_Sx1 * (delta_1xP * x_1xP)
        y_CxP[now, :] = (h_SxP * c_Sx1).sum(axis=0, keepdims=True)
        return h_SxP

    end_SxP[...] = jax.lax.fori_loop(0, x_CxP.shape[0], step, start_SxP[...])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scan(
    block: int, interpret: bool, x: Array, delta: Array, b: Array, c: Array, a_SxD: Array, initial: Array
) -> tuple[Array, Array]:
    """The outputs ``(n, c, b, d)`` in float32 and the last state."""
    return _forward(block, interpret, x, delta, b, c, a_SxD, initial)[0]


def _forward(
    block: int, interpret: bool, x: Array, delta: Array, b: Array, c: Array, a_SxD: Array, initial: Array
) -> tuple[Any, Any]:
    run_chunk = functools.partial(_run_chunk, block, interpret, a_SxD)
    state, (y, starts_NxBxSxD) = jax.lax.scan(run_chunk, initial, (x, delta, b, c))
    return (y, state), (x, delta, b, c, a_SxD, starts_NxBxSxD)


def _backward(
    block: int, interpret: bool, residuals: tuple[Array, ...], cotangents: tuple[Array, Array]
) -> tuple[Array, ...]:
    del block, interpret
    return scan_backward(residuals, cotangents)


_scan.defvjp(_forward, _backward)
