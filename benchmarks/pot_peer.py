"""POT's network simplex as a user would call it, without JAX or this library, so that its memory is its own."""

import os
import time

import numpy as np

for _backend in ("TENSORFLOW", "PYTORCH", "JAX", "CUPY"):  # POT imports every framework it finds
    os.environ.setdefault(f"POT_BACKEND_DISABLE_{_backend}", "1")


def plan(log_probs: np.ndarray, nu: np.ndarray) -> np.ndarray:
    import ot

    n = len(log_probs)
    return ot.emd(np.full(n, 1 / n), nu, -log_probs, numItermax=10**9)


def run(folder: str) -> None:
    """Solves the problem in ``scores.npy`` and ``nu.npy``; writes seconds, cost and predictions to ``pot.npz``."""
    log_probs = np.load(f"{folder}/scores.npy")
    start = time.perf_counter()
    optimal = plan(log_probs, np.load(f"{folder}/nu.npy"))
    seconds = time.perf_counter() - start
    cost = -np.einsum("nk,nk->", optimal, log_probs)
    np.savez(f"{folder}/pot.npz", seconds=seconds, cost=cost, predictions=optimal.argmax(axis=1))
