"""Times the selective scan: ``python -m benchmarks.mamba_scan`` (needs the oracle extra).

Ours against the same recurrence by one :func:`jax.lax.associative_scan` over the whole length, whose gradient JAX
derives, and against the slow path of transformers' Mamba, the loop over time that it takes where no kernels of its own
are installed. Forward, and forward with the gradients of all inputs. Batch 8, length 1,024, inner width 512, state 16,
float32. The peak memory is that of a fresh process that does nothing else; what the imports alone take is printed
beside it. The backward pass of transformers' loop writes an array of the size of all states for each step, which takes
minutes at this length: ``--slow-repeats 0`` leaves it out, ``--length 128`` shows it at a length where it is short.
``--forms`` compares forms that the scan could have within its chunks, forward only.
"""

import argparse
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from transformers.models.mamba import modeling_mamba

from benchmarks import measure
from zsml_jax.models.selective_scan import selective_scan

BATCH, INNER, STATE = 8, 512, 16


def inputs(length: int) -> tuple[np.ndarray, ...]:
    """Returns x, delta, A, B, C and D, as a Mamba has them at its start."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    steps = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), (BATCH, length, INNER))).astype(np.float32)
    a = -np.tile(np.arange(1, STATE + 1, dtype=np.float32), (INNER, 1))
    return draw(BATCH, length, INNER), steps, a, draw(BATCH, length, STATE), draw(BATCH, length, STATE), draw(INNER)


def naive(x, delta, a, b, c, skip) -> jax.Array:
    """The whole sequence at once."""
    decay = jnp.exp(delta[..., None] * a)
    _, states = jax.lax.associative_scan(_combine, (decay, (delta * x)[..., None] * b[:, :, None]), axis=1)
    return jnp.einsum("btds,bts->btd", states, c) + skip * x


def chunked(x, delta, a, b, c, skip, *, chunk: int) -> jax.Array:
    """Associative scans within chunks, one chunk after another."""
    split = lambda value: value.reshape(BATCH, -1, chunk, value.shape[-1]).swapaxes(0, 1)

    def run(state, chunks):
        x, delta, b, c = chunks
        decay = jnp.exp(delta[..., None] * a)
        pushed = ((delta * x)[..., None] * b[:, :, None]).at[:, 0].add(decay[:, 0] * state)
        _, states = jax.lax.associative_scan(_combine, (decay, pushed), axis=1)
        return states[:, -1], jnp.einsum("btds,bts->btd", states, c)

    _, y = jax.lax.scan(run, jnp.zeros((BATCH, INNER, STATE)), tuple(map(split, (x, delta, b, c))))
    return y.swapaxes(0, 1).reshape(x.shape) + skip * x


def peer(x, delta, a, b, c, skip) -> torch.Tensor:
    """The slow path of transformers; its arrays have time last."""
    slow = modeling_mamba.mamba_selective_scan
    slow = getattr(slow, "__wrapped__", slow)
    return slow(*(value.transpose(1, 2) for value in (x, delta)), a, b.transpose(1, 2), c.transpose(1, 2), D=skip)


def jax_run(scan: Callable[..., jax.Array], length: int, *, backward: bool) -> Callable[[], object]:
    arrays = tuple(map(jnp.asarray, inputs(length)))
    if not backward:
        return functools.partial(jax.jit(scan), *arrays)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=arrays[0].shape), jnp.float32)
    loss = lambda arrays: jnp.vdot(scan(*arrays), weights)
    return functools.partial(jax.jit(jax.value_and_grad(loss)), arrays)


def torch_run(length: int, *, backward: bool) -> Callable[[], object]:
    torch.set_num_threads(os.cpu_count() or 1)
    tensors = [torch.from_numpy(value).requires_grad_(backward) for value in inputs(length)]
    if not backward:
        return torch.inference_mode()(lambda: [peer(*tensors).mT.numpy()])
    weights = torch.from_numpy(np.random.default_rng(1).normal(size=tensors[0].shape).astype(np.float32)).mT

    def run() -> list[np.ndarray]:
        loss = (peer(*tensors) * weights).sum()
        return [grad.numpy() for grad in torch.autograd.grad(loss, tensors)]

    return run


def ours(*arrays: jax.Array) -> jax.Array:
    return selective_scan(*arrays).y


def memory(which: str, direction: str, length: str) -> None:
    """Runs one side once, for the peak memory of its process."""
    backward = direction == "backward"
    runs = {
        "imports": lambda: lambda: None,
        "ours": lambda: jax_run(ours, int(length), backward=backward),
        "naive": lambda: jax_run(naive, int(length), backward=backward),
        "transformers": lambda: torch_run(int(length), backward=backward),
    }
    jax.block_until_ready(runs[which]()())


def compare_forms(length: int, repeats: int) -> None:
    for chunk in (8, 32, 128):
        single = jax_run(lambda *arrays, chunk=chunk: selective_scan(*arrays, chunk=chunk).y, length, backward=False)
        other = jax_run(functools.partial(chunked, chunk=chunk), length, backward=False)
        jax.block_until_ready(other())
        measure.compare(f"chunks of {chunk}", single, other, peer_name="associative within chunks", repeats=repeats)


def compare_scans(length: int, repeats: int, slow_repeats: int) -> None:
    for direction, peer_repeats in (("forward", repeats), ("backward", slow_repeats)):
        backward = direction == "backward"
        label = "forward and backward" if backward else "forward"
        mine, whole = (jax_run(scan, length, backward=backward) for scan in (ours, naive))
        _print_difference("whole associative_scan", _arrays(mine()), _arrays(whole()))
        measure.compare(label, mine, whole, peer_name="whole associative_scan", repeats=repeats)
        if peer_repeats:
            theirs, seen = torch_run(length, backward=backward), []
            measure.compare(
                label,
                mine,
                lambda theirs=theirs, seen=seen: seen.append(theirs()),
                peer_name="transformers",
                repeats=peer_repeats,
            )
            _print_difference("transformers", _arrays(mine()), seen[-1])


def compare_memory(length: int, sides: Sequence[str]) -> None:
    peak = lambda which, direction: measure.peak_memory("benchmarks.mamba_scan:memory", which, direction, str(length))
    print(f"peak memory of a process, of which imports take {peak('imports', 'forward'):.2f} GB:")
    for direction in ("forward", "backward"):
        for which in sides:
            print(f"    {direction}, {which}: {peak(which, direction):.2f} GB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--slow-repeats", type=int, default=1, help="of transformers' backward pass; 0 leaves it out")
    parser.add_argument("--forms", action="store_true")
    args = parser.parse_args()
    print(f"{measure.machine('torch', 'transformers')}; batch {BATCH}, length {args.length}, {INNER} x {STATE}")
    if args.forms:
        compare_forms(args.length, args.repeats)
        return
    compare_memory(args.length, ("ours", "naive", "transformers") if args.slow_repeats else ("ours", "naive"))
    compare_scans(args.length, args.repeats, args.slow_repeats)


def _combine(left: tuple[jax.Array, jax.Array], right: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    return left[0] * right[0], right[0] * left[1] + right[1]


def _arrays(result: Any) -> tuple[Any, ...]:
    """The output of a forward pass, or the gradients."""
    return result[1] if isinstance(result, tuple) else (result,)


def _print_difference(name: str, mine: Sequence[Any], others: Sequence[Any]) -> None:
    relative = [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(mine, others, strict=True)]
    print(f"    largest difference from {name}, relative to the largest entry: {max(relative):.0e}", flush=True)


if __name__ == "__main__":
    main()
