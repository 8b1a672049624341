"""Thresholds, confidence functions, queries and whole simulated runs of auto-labelling."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.contract.case import Case, whole
from zsml_jax.autolabel import Config, Outputs, Roles, Training, confidence, mlp, objectives, queries, tbal, thresholds

N, K, D = 80, 3, 4
LABELS = jnp.asarray(np.arange(N) % K)
KEY = jax.random.key(3)
CONFIG = Config(
    mlp(D, (6,), K), K, Roles(selection=6, calibration=12, threshold=20, audit=6), seed=12, batch=6, budget=18,
    error=0.2, method="sigma", min_count=2, training=Training(epochs=4, batch_size=8),
)  # fmt: skip
FITTED = (
    "Softmax", "Margin", "Energy", "TemperatureScaling", "VectorScaling", "Dirichlet", "TopLabelHistogram",
    "ScalingBinning", "Isotonic",
)  # fmt: skip


def logits(seed):
    noise = np.random.default_rng(seed).normal(size=(N, K))
    return jnp.asarray(2 * np.eye(K)[np.asarray(LABELS)] + 1.5 * noise, jnp.float32)


def features(seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(N, D)) + np.asarray(LABELS)[:, None], jnp.float32)


def scored(name, **options):
    """The scores of a confidence function that was fitted on the same outputs."""
    function = getattr(confidence, name)(**options)

    def call(x):
        outputs = Outputs(x, jnp.tanh(x))
        fitted = function.fit(outputs, LABELS, weights=jnp.ones(N), key=KEY)
        return function.score(fitted, outputs)

    return call


def thresholds_by(method):
    def call(x):
        predicted = jnp.argmax(x, axis=1)
        return thresholds.estimate(
            jnp.max(x, axis=1), predicted, predicted == LABELS, error=0.2, n_classes=K, method=method, min_count=2
        )

    return call


CASES = [
    *(Case(f"thresholds_{name}", thresholds_by(name), logits) for name in ("certified", "sigma", "hoeffding", "none")),
    *(Case(f"confidence_{name}", scored(name), logits) for name in FITTED),
    # Its 500 steps overfit so few points, and make a thousand times more of a rounding than 100 do.
    Case("confidence_AdaptiveTemperature", scored("AdaptiveTemperature", steps=100), logits, is_network=True),
    Case("confidence_Colander", scored("Colander"), logits, is_network=True),
    Case("squentropy", lambda x: objectives.squentropy(x, LABELS), logits, whole),
    Case(
        "query_entropy",
        lambda x: queries.select(
            "entropy", Outputs(x, x), jnp.ones(N, bool), (jnp.arange(4), jnp.int32(4)), 5, key=KEY, widening=2
        ),
        logits,
    ),
    Case("tbal", lambda x: tbal.simulate(x, LABELS, CONFIG, key=KEY).auto_labels, features, is_network=True),
]

SEEDED = {"tbal": lambda key: tbal.simulate(features(0), LABELS, CONFIG, key=key).held}
