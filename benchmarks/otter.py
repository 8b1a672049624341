"""OTTER at epsilon = 0 against POT's network simplex on the same float64 scores, in one process.

    python -m benchmarks.otter                       # 10k x 100, 50k x 1,000 and 1M x 100; about 10 minutes
    python -m benchmarks.otter --sizes 10000x100     # seconds

Both solve the same linear programme to the same cost; the relative difference is printed, with the share of equal
predictions. Peak memory is that of a fresh process for each solver, imports and scores included. The largest size is
solved by ``otter.solve_stream`` from a memory-mapped file in chunks. Entropic rows compare with ott-jax's Sinkhorn at
the same tolerance.
"""

import argparse
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


def chunks(log_probs: np.ndarray) -> Iterator[np.ndarray]:
    return (np.array(log_probs[i : i + STREAM_ROWS]) for i in range(0, len(log_probs), STREAM_ROWS))


def run_in_memory(folder: str) -> None:
    otter.solve(np.load(f"{folder}/scores.npy"), np.load(f"{folder}/nu.npy")).assignment.block_until_ready()


def run_stream(folder: str) -> None:
    log_probs = np.load(f"{folder}/scores.npy", mmap_mode="r")
    otter.solve_stream(lambda: chunks(log_probs), np.load(f"{folder}/nu.npy")).assignment.block_until_ready()


def exact(n: int, k: int, repeats: int, stream: bool) -> None:
    log_probs, nu = scores(n, k)
    results = {}

    def ours() -> jax.Array:
        results["ours"] = otter.solve_stream(lambda: chunks(log_probs), nu) if stream else otter.solve(log_probs, nu)
        return results["ours"].assignment

    def pot() -> None:
        plan = pot_peer.plan(log_probs, nu)
        results["pot"] = -np.einsum("nk,nk->", plan, log_probs), plan.argmax(axis=1)

    name = f"exact, {n:,} x {k:,}" + (", stream" if stream else "")
    measure.compare(name, ours, pot, peer_name="POT emd", repeats=repeats)
    fitted, (cost, predictions) = results["ours"], results["pot"]
    agreement = np.mean(np.asarray(fitted.assignment) == predictions)
    print(
        f"    cost {fitted.cost:.6f}, relative difference {abs(float(fitted.cost) / cost - 1):.0e}, "
        f"duality gap {fitted.duality_gap:.0e}, {agreement:.4%} equal predictions, {fitted.n_iterations} passes"
    )
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "scores.npy", log_probs)
        np.save(Path(folder) / "nu.npy", nu)
        ours_gb = measure.peak_memory(f"benchmarks.otter:{'run_stream' if stream else 'run_in_memory'}", folder)
        pot_gb = measure.peak_memory("benchmarks.pot_peer:run", folder)
    print(f"    peak memory: ours {ours_gb:.2f} GB, POT {pot_gb:.2f} GB, ratio {ours_gb / pot_gb:.2f}")


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
    args = parser.parse_args()
    print(measure.machine("POT", "ott-jax"))
    for size in args.sizes:
        n, k = (int(x) for x in size.split("x"))
        exact(n, k, args.repeats, stream=n > 200_000)
    for epsilon in args.entropic:
        entropic(10_000, 100, epsilon, args.repeats)


if __name__ == "__main__":
    main()
