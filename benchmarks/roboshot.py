"""RoboShot's closed form against the loop of the paper's algorithm 1, in numpy, in one process.

    python -m benchmarks.roboshot

Two ways to use the edit are measured on the same float32 embeddings: editing every embedding, and folding the edit into
the class vectors once. The loop is our own version of what the released code does: one projection, one outer product
and one normalisation of all embeddings for each of the insight vectors. Runs alternate, so that a busy machine slows
both; the ratio is the median over the repeats, with the lowest and the highest.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from zsml_jax.zeroshot import roboshot
from zsml_jax.zeroshot.head import ClassHead


def loop(x: np.ndarray, harmful: np.ndarray, helpful: np.ndarray) -> np.ndarray:
    """Removes and boosts one orthonormal vector after the other."""
    x = x.copy()
    for insights, sign in ((harmful, -1), (helpful, 1)):
        for v in np.linalg.qr(insights.T)[0].T:
            x += sign * np.outer(x @ v, v)
            x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


def seconds(f: Callable[[], object]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(f())
    return time.perf_counter() - start


def compare(name: str, ours: Callable[[], object], peer: Callable[[], object], repeats: int) -> None:
    jax.block_until_ready(ours())
    pairs = [(seconds(ours), seconds(peer)) for _ in range(repeats)]
    ratios = [b / a for a, b in pairs]
    ours_s, peer_s = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(
        f"{name:<34} ours {1e3 * ours_s:9.2f} ms   loop {1e3 * peer_s:9.1f} ms   "
        f"ratio {statistics.median(ratios):8.1f} ({min(ratios):.1f} to {max(ratios):.1f})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=100_000, help="embeddings")
    parser.add_argument("--d", type=int, default=768, help="dimensions")
    parser.add_argument("--harmful", type=int, default=10, help="harmful insights")
    parser.add_argument("--helpful", type=int, default=6, help="helpful insights")
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 1000], help="class counts of the heads")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    draw = lambda rows: rng.standard_normal((rows, args.d), dtype=np.float32)
    x, harmful, helpful = draw(args.n), draw(args.harmful), draw(args.helpful)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    insights = {"harmful": harmful, "helpful": helpful}
    on_device = jnp.asarray(x)

    error = np.abs(np.asarray(roboshot.edit_embeddings(x[:1000], **insights)) - loop(x[:1000], harmful, helpful)).max()
    device = jax.devices()[0].device_kind
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, jax {jax.__version__} on {device}")
    print(
        f"n={args.n}, d={args.d}, {args.harmful} harmful and {args.helpful} helpful, float32; largest gap {error:.1e}"
    )
    edit = lambda: roboshot.edit_embeddings(on_device, **insights)
    compare("edit_embeddings", edit, lambda: loop(x, harmful, helpful), args.repeats)
    for k in args.classes:
        head = ClassHead(jnp.asarray(draw(k)), jnp.float32(100.0), jnp.zeros(k))
        fold = lambda head=head: roboshot.edit_head(head, **insights).vectors
        compare(f"edit_head, K={k}", fold, lambda: loop(x, harmful, helpful), args.repeats)


if __name__ == "__main__":
    main()
