"""Made-up classification scores for the optimal-transport tests, and POT as their oracle."""

import os

import numpy as np

for backend in ("TENSORFLOW", "PYTORCH", "JAX", "CUPY"):
    os.environ.setdefault(f"POT_BACKEND_DISABLE_{backend}", "1")
import ot  # noqa: E402


def scores(n, k, seed=0, shift=1.0):
    """Log-probabilities (n, k) of noisy class scores with a biased prior, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(k, n, p=rng.dirichlet(np.full(k, 3.0)))
    logits = 2.0 * np.eye(k)[labels] + rng.normal(size=(n, k)) + shift * rng.normal(size=k)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True)), labels


def frequencies(labels, k):
    return np.bincount(labels, minlength=k) / len(labels)


def exact_plan(log_probs, label_distribution, weights=None):
    n = len(log_probs)
    weights = np.full(n, 1 / n) if weights is None else weights
    return ot.emd(weights, label_distribution, -log_probs, numItermax=10**7)


def sinkhorn_plan(log_probs, label_distribution, epsilon):
    n = len(log_probs)
    return ot.bregman.sinkhorn_log(
        np.full(n, 1 / n), label_distribution, -log_probs, epsilon, numItermax=50_000, stopThr=1e-12
    )
