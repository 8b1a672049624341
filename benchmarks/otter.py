"""OTTER at epsilon = 0 against POT's network simplex on the same float64 scores, in one process.

    python -m benchmarks.otter                       # 10k x 100, 50k x 1,000 and 1M x 100
    python -m benchmarks.otter --sizes 10000x100     # seconds

Both solve the same linear programme to the same cost; the relative difference is printed, with the share of equal
predictions. Peak memory is that of a fresh process for each solver, imports and scores included. The largest size is
read from a file, by ``otter.solve_stream`` in chunks, and POT gets a process of its own and a time limit. Entropic
rows compare with ott-jax's Sinkhorn at the same tolerance.
"""

import argparse
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure, pot_peer
from zsml_jax.zeroshot import otter

STREAM_ROWS = 65_536  # rows of a chunk


def scores(n: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities ``(n, k)`` of a biased, noisy classifier of 64-d embeddings, and the label frequencies."""
    rng = np.random.default_rng(seed)
    classes = rng.normal(size=(k, 64))
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    labels = rng.choice(k, n, p=rng.dirichlet(np.full(k, 2.0)))
    bias = 0.7 * rng.normal(size=k)
    log_probs = np.empty((n, k))
    for i in range(0, n, STREAM_ROWS):
        x = classes[labels[i : i + STREAM_ROWS]]
        x = x + 3.0 / 8.0 * rng.normal(size=x.shape)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        part = log_probs[i : i + STREAM_ROWS]
        np.matmul(12.0 * x, classes.T, out=part)
        part += bias
        part -= part.max(axis=1, keepdims=True)
        part -= np.log(np.exp(part).sum(axis=1, keepdims=True))
    return log_probs, np.bincount(labels, minlength=k) / n


def chunks(path: str) -> Iterator[np.ndarray]:
    """Reads each chunk through a mapping of its own, for the pages that a mapping has read count as resident."""
    n = len(np.load(path, mmap_mode="r"))
    return (np.array(np.load(path, mmap_mode="r")[i : i + STREAM_ROWS]) for i in range(0, n, STREAM_ROWS))


def run_in_memory(folder: str) -> otter.OtterOutput:
    return otter.solve(np.load(f"{folder}/scores.npy"), np.load(f"{folder}/nu.npy"))


def run_stream(folder: str) -> otter.OtterOutput:
    return otter.solve_stream(lambda: chunks(f"{folder}/scores.npy"), np.load(f"{folder}/nu.npy"))


def exact(n: int, k: int, repeats: int) -> None:
    log_probs, nu = scores(n, k)
    results = {}

    def ours() -> jax.Array:
        results["ours"] = otter.solve(log_probs, nu)
        return results["ours"].assignment

    def pot() -> None:
        plan = pot_peer.plan(log_probs, nu)
        results["pot"] = -np.einsum("nk,nk->", plan, log_probs), plan.argmax(axis=1)

    measure.compare(f"exact, {n:,} x {k:,}", ours, pot, peer_name="POT emd", repeats=repeats)
    print_agreement(results["ours"], *results["pot"])
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "scores.npy", log_probs)
        np.save(Path(folder) / "nu.npy", nu)
        ours_gb = measure.peak_memory("benchmarks.otter:run_in_memory", folder)
        pot_gb = measure.peak_memory("benchmarks.pot_peer:run", folder)
    print(f"    peak memory: ours {ours_gb:.2f} GB, POT {pot_gb:.2f} GB, ratio {ours_gb / pot_gb:.2f}", flush=True)


def exact_from_file(n: int, k: int, repeats: int, peer_limit: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, array in zip(("scores", "nu"), scores(n, k), strict=True):
            np.save(Path(folder) / f"{name}.npy", array)
        for name, run in ("stream", run_stream), ("in memory", run_in_memory):
            first, *times = (measure.seconds(lambda run=run: run(folder).assignment) for _ in range(1 + repeats))
            peak = measure.peak_memory(f"benchmarks.otter:{run.__name__}", folder)
            print(
                f"{f'exact, {n:,} x {k:,}, {name}':<36} ours {statistics.median(times):.2f} s "
                f"({min(times):.2f} to {max(times):.2f}; first {first:.2f}), peak memory {peak:.2f} GB",
                flush=True,
            )
        try:
            peak = measure.peak_memory("benchmarks.pot_peer:run", folder, limit=peer_limit)
        except subprocess.TimeoutExpired:
            print(f"    POT emd had not returned after {peer_limit:.0f} s", flush=True)
            return
        pot = np.load(f"{folder}/pot.npz")
        print(f"    POT emd {pot['seconds']:.0f} s (one run), peak memory {peak:.2f} GB")
        print_agreement(run_stream(folder), pot["cost"], pot["predictions"])


def print_agreement(fitted: otter.OtterOutput, cost: float, predictions: np.ndarray) -> None:
    print(
        f"    cost {fitted.cost:.6f}, relative difference {abs(float(fitted.cost) / cost - 1):.0e}, duality gap "
        f"{fitted.duality_gap:.0e}, {np.mean(np.asarray(fitted.assignment) == predictions):.4%} equal predictions, "
        f"{fitted.n_iterations} passes",
        flush=True,
    )


def entropic(n: int, k: int, epsilon: float, repeats: int) -> None:
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn

    log_probs, nu = scores(n, k)
    log_probs, nu = jnp.asarray(log_probs, jnp.float32), jnp.asarray(nu, jnp.float32)
    solve = jax.jit(lambda x, nu: otter.solve(x, nu, epsilon=epsilon, tolerance=1e-4))
    peer = jax.jit(
        lambda x, nu: sinkhorn.Sinkhorn(threshold=1e-4, max_iterations=20_000)(
            linear_problem.LinearProblem(geometry.Geometry(cost_matrix=-x, epsilon=epsilon), b=nu)
        )
    )
    jax.block_until_ready(peer(log_probs, nu).g)
    ours = lambda: solve(log_probs, nu).dual
    name = f"epsilon = {epsilon:g}, {n:,} x {k:,}"
    measure.compare(name, ours, lambda: peer(log_probs, nu).g, peer_name="ott-jax", repeats=repeats)
    fitted, output = solve(log_probs, nu), peer(log_probs, nu)
    print(
        f"    ours {int(fitted.n_iterations)} passes, error {float(fitted.marginal_error):.0e}; "
        f"ott-jax {int(output.n_iters)} passes, converged {bool(output.converged)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="*", default=["10000x100", "50000x1000", "1000000x100"])
    parser.add_argument("--entropic", nargs="*", type=float, default=[1.0, 0.1, 0.03], help="temperatures, 10k x 100")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-limit", type=float, default=1800.0, help="seconds for POT at the largest size")
    args = parser.parse_args()
    print(measure.machine("POT", "ott-jax"))
    for size in args.sizes:
        n, k = (int(x) for x in size.split("x"))
        if n <= 200_000:
            exact(n, k, args.repeats)
        else:
            exact_from_file(n, k, args.repeats, args.peer_limit)
    for epsilon in args.entropic:
        entropic(10_000, 100, epsilon, args.repeats)


if __name__ == "__main__":
    main()
