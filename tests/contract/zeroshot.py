"""The zero-shot wing and the measures of :mod:`zsml_jax.evaluate`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.contract.case import Case, whole
from zsml_jax import evaluate
from zsml_jax.zeroshot import (
    adaptation,
    calibration,
    hierarchical_otter,
    label_shift,
    loki,
    online_otter,
    otter,
    prior_matching,
    prior_matching_released,
    roboshot,
)
from zsml_jax.zeroshot.head import ClassHead
from zsml_jax.zeroshot.metric_space import CompleteMetric, EuclideanMetric, MatrixMetric, TreeMetric

N, K, D = 32, 3, 6
RNG = np.random.default_rng(0)
LABELS = np.arange(N) % K
GUESSES = (LABELS + (RNG.random(N) < 0.3)) % K
NU = np.array([0.5, 0.3, 0.2], np.float32)
KEY = jax.random.key(7)
EMBEDDINGS = RNG.normal(size=(N, D)).astype(np.float32)
INSIGHTS = RNG.normal(size=(2, 2, D)).astype(np.float32)
HEAD = ClassHead(RNG.normal(size=(K, D)).astype(np.float32), np.array(2.0, np.float32), np.float32([0.1, 0.0, -0.1]))
TREE = TreeMetric([("root", "pet", 1.0), ("pet", "cat", 1.0), ("pet", "dog", 1.5), ("root", "car", 3.0)])
SEEN = ("cat", "dog", "car")
POINTS = RNG.normal(size=(K + 2, 2)).astype(np.float32)
EUCLIDEAN = EuclideanMetric(POINTS, "abcde")
MATRIX = MatrixMetric(np.abs(POINTS[:, None] - POINTS).sum(axis=-1), "abcde")


def scores(seed):
    """Scores of N examples, ``(N, K)``, that are right more often than not."""
    noise = np.random.default_rng(seed).normal(size=(N, K))
    return jax.nn.log_softmax(jnp.asarray(1.5 * np.eye(K)[LABELS] + noise, jnp.float32))


def probs(seed):
    return jnp.exp(scores(seed))


def embeddings(seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(N, D)), jnp.float32)


def directions(seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(2, D)), jnp.float32)


def points(seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=POINTS.shape), jnp.float32)


SOURCE = scores(100)
STATE = online_otter.update(online_otter.init(NU, window=2 * N), scores(101), NU, tolerance=1e-5)
RELEASED: dict[str, Any] = {"temperature": 0.1, "max_iterations": 20}


def case(name, call, inputs=scores, smooth=None):
    return Case(name, call, inputs, smooth)


CASES = [
    case("otter", lambda x: otter.solve(x, NU, epsilon=0.5), smooth=lambda o: (o.dual, o.cost)),
    case("otter_near", lambda x: otter.solve(x, otter.Near(NU, 0.3), epsilon=0.5), smooth=lambda o: (o.dual, o.cost)),
    case(
        "otter_between",
        lambda x: otter.solve(x, otter.Between(0.9 * NU, 1.2 * NU), epsilon=0.5),
        smooth=lambda o: (o.dual, o.cost),
    ),
    case("otter_prediction", lambda x: otter.solve(SOURCE, NU, epsilon=0.5).log_probs(x), smooth=whole),
    case("online_otter", lambda x: online_otter.update(STATE, x, NU, tolerance=1e-5), smooth=lambda o: o.dual),
    case("prior_matching", lambda x: prior_matching.match(x, NU), smooth=lambda o: o.dual),
    case(
        "prior_matching_released",
        lambda x: prior_matching_released.match_as_released(x, NU, key=KEY, learning_rate=0.01, **RELEASED),
    ),
    case(
        "prior_matching_released_tuned",
        lambda x: prior_matching_released.tune_as_released(
            x,
            NU,
            SOURCE,
            LABELS,
            key=KEY,
            temperatures=np.array([0.1, 1.0]),
            learning_rates=np.array([0.01, 0.1]),
            max_iterations=20,
        ),
    ),
    case("bbse_hard", lambda x: label_shift.bbse(SOURCE, LABELS, x)),
    case(
        "bbse_soft",
        lambda x: label_shift.bbse(SOURCE, LABELS, x, soft=True),
        smooth=lambda o: (o.label_distribution, o.importance_weights),
    ),
    case("rlls", lambda x: label_shift.rlls(SOURCE, LABELS, x, soft=True)),
    case("mlls", lambda x: label_shift.mlls(SOURCE, LABELS, x)),
    case("mlls_uncalibrated", lambda x: label_shift.mlls(SOURCE, None, x, calibration="none")),
    case("histogram", lambda x: label_shift.histogram(x)),
    case("reweight", lambda x: label_shift.reweight(x, np.full(K, 1 / K, np.float32), NU), smooth=whole),
    case("temperature", lambda x: calibration.fit_temperature(x, LABELS)),
    case("bias_corrected_temperature", lambda x: calibration.fit_bias_corrected_temperature(x, LABELS)),
    case("vector_scaling", lambda x: calibration.fit_vector_scaling(x, LABELS, penalty=0.1)),
    case(
        "calibrated",
        lambda x: calibration.fit_temperature(SOURCE, LABELS).log_probs(x),
        smooth=whole,
    ),
    case(
        "roboshot_embeddings",
        lambda x: roboshot.edit_embeddings(x, harmful=INSIGHTS[0], helpful=INSIGHTS[1]),
        embeddings,
        whole,
    ),
    case(
        "roboshot_head",
        lambda x: roboshot.edit_head(HEAD, harmful=x, helpful=INSIGHTS[1], orthogonal=True),
        directions,
        lambda o: o.vectors,
    ),
    case("roboshot_fit", lambda x: roboshot.fit(harmful=INSIGHTS[0], helpful=x), directions),
    case(
        "adaptation",
        lambda x: adaptation.fit(x, harmful=INSIGHTS[0], helpful=INSIGHTS[1], n_steps=40),
        embeddings,
    ),
    case(
        "adaptation_orthogonal",
        lambda x: adaptation.fit(x, harmful=INSIGHTS[0], constraint="orthogonal", proximity=0.3, n_steps=40),
        embeddings,
    ),
    case("alignment", lambda x: adaptation.alignment(x, INSIGHTS[0]), embeddings, whole),
    case("head", lambda x: HEAD.log_probs(x), embeddings, whole),
    case("loki_tree", lambda x: loki.decode(x, TREE, observed=SEEN), probs),
    case("loki_euclidean", lambda x: loki.decode(x, EUCLIDEAN, observed="abc"), probs),
    case("loki_euclidean_points", lambda x: loki.decode(probs(9), EuclideanMetric(x, "abcde"), observed="abc"), points),
    case("loki_matrix", lambda x: loki.decode(x, MATRIX, observed="abc", exponent=1.0), probs),
    case("loki_complete", lambda x: loki.decode(x, CompleteMetric("abc")), probs),
    case("loki_cost_of_a_tree", lambda x: loki.expected_cost(x, TREE, observed=SEEN), probs, whole),
    case("loki_cost_of_predictions", lambda x: loki.expected_cost(x, MATRIX, GUESSES, observed="abc"), probs, whole),
    case("accuracy", lambda x: evaluate.accuracy(LABELS, jnp.argmax(x, axis=1))),
    case("top_2_accuracy", lambda x: evaluate.top_k_accuracy(LABELS, x, top=2)),
    case("confusion_matrix", lambda x: evaluate.confusion_matrix(LABELS, jnp.argmax(x, axis=1), n_classes=K)),
    case("group_accuracies", lambda x: evaluate.group_accuracies(LABELS, jnp.argmax(x, axis=1), GUESSES, n_groups=K)),
    case("negative_log_likelihood", lambda x: evaluate.negative_log_likelihood(LABELS, x), scores, whole),
    case("brier_score", lambda x: evaluate.brier_score(LABELS, x), probs),
    case("calibration_error", lambda x: evaluate.expected_calibration_error(LABELS, x, n_bins=5), probs),
    case("reliability", lambda x: evaluate.reliability(LABELS, x, n_bins=5, binning="equal_mass"), probs),
]

#: Solvers on the host, which refuse to be traced.
HOST_CASES = [
    case("otter_exact", lambda x: otter.solve(x, NU)),
    case("otter_exact_between", lambda x: otter.solve(x, otter.Between(0.9 * NU, 1.2 * NU))),
    case("hierarchical_otter", lambda x: hierarchical_otter.solve(x, NU, np.array([0, 1, 0]))),
]

#: Draws of a key: another key gives another result.
SEEDED = {
    "prior_matching_released": lambda key: prior_matching_released.match_as_released(
        scores(0), NU, key=key, **RELEASED
    ),
    "label_shift_bootstrap": lambda key: label_shift.bootstrap(
        lambda source, target: label_shift.bbse(
            SOURCE, LABELS, scores(0), soft=True, source_weights=source, target_weights=target
        ),
        N,
        N,
        key=key,
        resamples=8,
    ),
    "bootstrap_distribution": lambda key: evaluate.bootstrap_distribution(
        evaluate.accuracy, LABELS, GUESSES, key=key, n_resamples=8
    ),
}
