"""What every method of the zero-shot wing promises, checked over one table of calls.

A case is a pure function of one float array. Under jit and vmap it gives what it gives without, its gradient is finite
and that of finite differences, it repeats itself bit by bit, it is traced once for each shape, and its output is a
pytree that survives jit and a checkpoint.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.zeroshot.matmul_precision import products_of_low_precision
from zsml_jax import evaluate
from zsml_jax.train import checkpoint
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


@dataclasses.dataclass(frozen=True)
class Case:
    """A call of a method, and the part of its output that has a derivative."""

    name: str
    call: Callable[[jax.Array], Any]
    inputs: Callable[[int], jax.Array] = scores
    smooth: Callable[[Any], Any] | None = None


def whole(output):
    return output


CASES = [
    Case("otter", lambda x: otter.solve(x, NU, epsilon=0.5), smooth=lambda o: (o.dual, o.cost)),
    Case("otter_near", lambda x: otter.solve(x, otter.Near(NU, 0.3), epsilon=0.5), smooth=lambda o: (o.dual, o.cost)),
    Case(
        "otter_between",
        lambda x: otter.solve(x, otter.Between(0.9 * NU, 1.2 * NU), epsilon=0.5),
        smooth=lambda o: (o.dual, o.cost),
    ),
    Case("otter_prediction", lambda x: otter.solve(SOURCE, NU, epsilon=0.5).log_probs(x), smooth=whole),
    Case("online_otter", lambda x: online_otter.update(STATE, x, NU, tolerance=1e-5), smooth=lambda o: o.dual),
    Case("prior_matching", lambda x: prior_matching.match(x, NU), smooth=lambda o: o.dual),
    Case(
        "prior_matching_released",
        lambda x: prior_matching_released.match_as_released(x, NU, key=KEY, learning_rate=0.01, **RELEASED),
    ),
    Case(
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
    Case("bbse_hard", lambda x: label_shift.bbse(SOURCE, LABELS, x)),
    Case(
        "bbse_soft",
        lambda x: label_shift.bbse(SOURCE, LABELS, x, soft=True),
        smooth=lambda o: (o.label_distribution, o.importance_weights),
    ),
    Case("rlls", lambda x: label_shift.rlls(SOURCE, LABELS, x, soft=True)),
    Case("mlls", lambda x: label_shift.mlls(SOURCE, LABELS, x)),
    Case("mlls_uncalibrated", lambda x: label_shift.mlls(SOURCE, None, x, calibration="none")),
    Case("histogram", lambda x: label_shift.histogram(x)),
    Case("reweight", lambda x: label_shift.reweight(x, np.full(K, 1 / K, np.float32), NU), smooth=whole),
    Case("temperature", lambda x: calibration.fit_temperature(x, LABELS)),
    Case("bias_corrected_temperature", lambda x: calibration.fit_bias_corrected_temperature(x, LABELS)),
    Case("vector_scaling", lambda x: calibration.fit_vector_scaling(x, LABELS, penalty=0.1)),
    Case(
        "calibrated",
        lambda x: calibration.fit_temperature(SOURCE, LABELS).log_probs(x),
        smooth=whole,
    ),
    Case(
        "roboshot_embeddings",
        lambda x: roboshot.edit_embeddings(x, harmful=INSIGHTS[0], helpful=INSIGHTS[1]),
        embeddings,
        whole,
    ),
    Case(
        "roboshot_head",
        lambda x: roboshot.edit_head(HEAD, harmful=x, helpful=INSIGHTS[1], orthogonal=True),
        directions,
        lambda o: o.vectors,
    ),
    Case("roboshot_fit", lambda x: roboshot.fit(harmful=INSIGHTS[0], helpful=x), directions),
    Case(
        "adaptation",
        lambda x: adaptation.fit(x, harmful=INSIGHTS[0], helpful=INSIGHTS[1], n_steps=40),
        embeddings,
    ),
    Case(
        "adaptation_orthogonal",
        lambda x: adaptation.fit(x, harmful=INSIGHTS[0], constraint="orthogonal", proximity=0.3, n_steps=40),
        embeddings,
    ),
    Case("alignment", lambda x: adaptation.alignment(x, INSIGHTS[0]), embeddings, whole),
    Case("head", lambda x: HEAD.log_probs(x), embeddings, whole),
    Case("loki_tree", lambda x: loki.decode(x, TREE, observed=SEEN), probs),
    Case("loki_euclidean", lambda x: loki.decode(x, EUCLIDEAN, observed="abc"), probs),
    Case("loki_euclidean_points", lambda x: loki.decode(probs(9), EuclideanMetric(x, "abcde"), observed="abc"), points),
    Case("loki_matrix", lambda x: loki.decode(x, MATRIX, observed="abc", exponent=1.0), probs),
    Case("loki_complete", lambda x: loki.decode(x, CompleteMetric("abc")), probs),
    Case("loki_cost_of_a_tree", lambda x: loki.expected_cost(x, TREE, observed=SEEN), probs, whole),
    Case("loki_cost_of_predictions", lambda x: loki.expected_cost(x, MATRIX, GUESSES, observed="abc"), probs, whole),
    Case("accuracy", lambda x: evaluate.accuracy(LABELS, jnp.argmax(x, axis=1))),
    Case("top_2_accuracy", lambda x: evaluate.top_k_accuracy(LABELS, x, top=2)),
    Case("confusion_matrix", lambda x: evaluate.confusion_matrix(LABELS, jnp.argmax(x, axis=1), n_classes=K)),
    Case("group_accuracies", lambda x: evaluate.group_accuracies(LABELS, jnp.argmax(x, axis=1), GUESSES, n_groups=K)),
    Case("negative_log_likelihood", lambda x: evaluate.negative_log_likelihood(LABELS, x), scores, whole),
    Case("brier_score", lambda x: evaluate.brier_score(LABELS, x), probs),
    Case("calibration_error", lambda x: evaluate.expected_calibration_error(LABELS, x, n_bins=5), probs),
    Case("reliability", lambda x: evaluate.reliability(LABELS, x, n_bins=5, binning="equal_mass"), probs),
]

#: Solvers on the host, which refuse to be traced.
HOST_CASES = [
    Case("otter_exact", lambda x: otter.solve(x, NU)),
    Case("otter_exact_between", lambda x: otter.solve(x, otter.Between(0.9 * NU, 1.2 * NU))),
    Case("hierarchical_otter", lambda x: hierarchical_otter.solve(x, NU, np.array([0, 1, 0]))),
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


def each(cases):
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


def assert_same(actual, desired):
    """Equal structure, shapes and dtypes; classes and truth values equal, floats up to the solvers' tolerance.

    How many iterations a solver took is no result: compiled sums round differently, and a step more may be needed.
    """
    chex.assert_trees_all_equal_shapes_and_dtypes(actual, desired)
    leaves = zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(desired), strict=True)
    for (path, a), b in leaves:
        if "iterations" in jax.tree_util.keystr(path):
            continue
        if jnp.issubdtype(jnp.result_type(a), jnp.floating):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-4)
        else:
            np.testing.assert_array_equal(a, b)


@each(CASES)
def test_jit_equals_eager_and_is_traced_once(case):
    traces = []

    @jax.jit
    def counted(x):
        traces.append(x)
        return case.call(x)

    first, second = counted(case.inputs(0)), counted(case.inputs(1))
    assert len(traces) == 1
    chex.assert_trees_all_equal_shapes_and_dtypes(first, second)
    assert_same(first, case.call(case.inputs(0)))


@each(CASES)
def test_vmap_equals_a_loop(case):
    xs = [case.inputs(seed) for seed in range(3)]
    looped = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(case.call, xs))
    assert_same(jax.jit(jax.vmap(case.call))(jnp.stack(xs)), looped)


@each([case for case in CASES if case.smooth])
def test_gradients_are_finite_and_those_of_differences(case):
    x = case.inputs(0)
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda x: case.smooth(case.call(x)), x)
    weights = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)
    direction = jnp.asarray(rng.normal(size=x.shape), x.dtype)

    @jax.jit
    def value(x):
        return sum(jax.tree.leaves(jax.tree.map(lambda a, w: jnp.sum(a * w), case.smooth(case.call(x)), weights)))

    slope = jax.jit(jax.grad(value))(x)
    assert jnp.isfinite(slope).all()
    assert jnp.any(slope != 0)
    step = 1e-2
    difference = (value(x + step * direction) - value(x - step * direction)) / (2 * step)
    np.testing.assert_allclose(jnp.vdot(slope, direction), difference, rtol=2e-2, atol=2e-3)


@each(CASES + HOST_CASES)
def test_a_second_call_gives_the_same_bits(case):
    chex.assert_trees_all_equal(case.call(case.inputs(0)), case.call(case.inputs(0)))


@pytest.mark.parametrize("name", SEEDED)
def test_the_key_alone_decides_what_is_drawn(name):
    draw = SEEDED[name]
    first = draw(jax.random.key(1))
    chex.assert_trees_all_equal(first, draw(jax.random.key(1)))
    others = zip(jax.tree.leaves(first), jax.tree.leaves(draw(jax.random.key(2))), strict=True)
    assert any(bool(jnp.any(a != b)) for a, b in others)


def test_outputs_of_all_methods_survive_jit_and_a_checkpoint(tmp_path):
    outputs = {case.name: case.call(case.inputs(0)) for case in CASES + HOST_CASES}
    chex.assert_trees_all_equal(jax.jit(lambda tree: tree)(outputs), outputs)
    checkpoint.save(tmp_path / "outputs", outputs)
    restored = checkpoint.restore(tmp_path / "outputs", like=jax.tree.map(jnp.zeros_like, outputs))
    assert jax.tree.structure(restored) == jax.tree.structure(outputs)
    chex.assert_trees_all_equal_shapes_and_dtypes(restored, outputs)
    chex.assert_trees_all_equal(restored, outputs)


@pytest.mark.parametrize("metric", [TREE, EUCLIDEAN, MATRIX], ids=lambda metric: type(metric).__name__)
def test_metric_spaces_survive_jit_and_a_checkpoint(metric, tmp_path):
    checkpoint.save(tmp_path / "metric", metric)
    observed = metric.classes[:K]
    desired = loki.decode(probs(0), metric, observed=observed)
    for copy in (jax.jit(lambda tree: tree)(metric), checkpoint.restore(tmp_path / "metric", like=metric)):
        assert type(copy) is type(metric)
        assert copy.classes == metric.classes
        np.testing.assert_array_equal(loki.decode(probs(0), copy, observed=observed), desired)


@each([case for case in HOST_CASES if case.name.startswith("otter")])
def test_exact_solvers_refuse_to_be_traced(case):
    with pytest.raises(ValueError, match="epsilon = 0 is solved outside of jit"):
        jax.jit(case.call)(scores(0))


@each(CASES)
def test_no_matrix_product_is_left_to_an_accelerators_low_precision(case):
    function = jax.jacrev(lambda x: case.smooth(case.call(x))) if case.smooth else case.call
    assert products_of_low_precision(function, case.inputs(0))[1] == 0
