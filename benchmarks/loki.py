"""Loki on trees without a matrix, against the dense product that a user would write in numpy, in one process.

    python -m benchmarks.loki

The large tree has as many classes as LSHTC, where the dense matrix of squared distances would not fit; the comparison
is on the largest size whose matrix does. Peak memory is that of a fresh process that decodes the large tree.
"""

import argparse

import jax
import numpy as np

from benchmarks import measure
from zsml_jax.zeroshot import loki
from zsml_jax.zeroshot.metric_space import EuclideanMetric, TreeMetric

LSHTC = 325_056  # classes of the paper's largest data set


def problem(k: int, n: int, m: int) -> tuple[TreeMetric, np.ndarray, list[int]]:
    """A random tree of k classes, probabilities ``(n, m)`` and the m observed classes."""
    rng = np.random.default_rng(0)
    edges = [(i, int(rng.integers(max(0, i // 8 - 1), max(1, i // 8 + 1))), 1.0) for i in range(1, k)]
    tree = TreeMetric(edges)
    observed = [tree.classes[i] for i in rng.choice(k, m, replace=False)]
    return tree, rng.dirichlet(np.full(m, 0.1), size=n).astype(np.float32), observed


def run_large() -> None:
    tree, probs, observed = problem(LSHTC, 1000, 300)
    np.asarray(loki.decode(probs, tree, observed=observed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=20_000, help="of the dense comparison")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print(measure.machine())

    tree, probs, observed = problem(LSHTC, 1000, 300)
    decode = lambda: jax.block_until_ready(loki.decode(probs, tree, observed=observed))
    first, again = measure.seconds(decode), measure.seconds(decode)
    peak = measure.peak_memory("benchmarks.loki:run_large")
    print(
        f"tree of {LSHTC:,} classes, 1,000 x 300: {first:.2f} s first, {again:.3f} s again, peak {peak:.2f} GB in all"
    )

    tree, probs, observed = problem(args.classes, 1000, 300)
    columns = tree.class_ids.indices(observed, "observed")
    squared = np.asarray(tree.distances(np.arange(args.classes)[:, None], columns[None, :])) ** 2
    name = f"tree, {args.classes:,} classes"
    ours = lambda: loki.decode(probs, tree, observed=observed)
    measure.compare(name, ours, lambda: (probs @ squared.T).argmin(1), peer_name="numpy dense", repeats=args.repeats)

    rng = np.random.default_rng(0)
    x = rng.normal(size=(args.classes, 256)).astype(np.float32)
    metric = EuclideanMetric(x, range(args.classes))
    chosen = rng.choice(args.classes, 300, replace=False)
    gram = x @ x[chosen].T
    squared = (x**2).sum(1)[:, None] + (x[chosen] ** 2).sum(1) - 2 * gram
    ours = lambda: loki.decode(probs, metric, observed=chosen.tolist())
    name = f"Euclidean, {args.classes:,} classes, d 256"
    measure.compare(name, ours, lambda: (probs @ squared.T).argmin(1), peer_name="numpy dense", repeats=args.repeats)


if __name__ == "__main__":
    main()
