import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.zeroshot.matmul_precision import products_of_low_precision
from zsml_jax.zeroshot import label_shift

ESTIMATORS = {
    "bbse_hard": label_shift.bbse,
    "bbse_soft": lambda *args, **kwargs: label_shift.bbse(*args, soft=True, **kwargs),
    "rlls_hard": label_shift.rlls,
    "rlls_soft": lambda *args, **kwargs: label_shift.rlls(*args, soft=True, **kwargs),
    "mlls": lambda *args, **kwargs: label_shift.mlls(*args, calibration="none", **kwargs),
    "mlls_bcts": label_shift.mlls,
}

THREE = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])


def _gaussians(n, source, target, *, seed=0, spread=2.0):
    """Exact source log-posteriors of unit Gaussians in the plane, for a source and a target sample, with labels."""
    rng = np.random.default_rng(seed)
    k = len(source)
    angles = 2 * np.pi * np.arange(k) / k
    means = spread * np.stack([np.cos(angles), np.sin(angles)], axis=1)

    def sample(distribution):
        labels = rng.choice(k, size=n, p=distribution)
        x = means[labels] + rng.normal(size=(n, 2))
        joint = stats.norm.logpdf(x[:, None], means).sum(axis=-1) + np.log(source)
        return joint - np.logaddexp.reduce(joint, axis=1, keepdims=True), labels

    return *sample(source), *sample(target)


def _exact_cells():
    """Predictions and labels as weighted cells, so that the confusion matrix and the shift hold exactly."""
    likelihood = np.array([[0.8, 0.1, 0.1], [0.1, 0.7, 0.3], [0.1, 0.2, 0.6]])  # P(prediction a | label b)
    source, target = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.3, 0.6])
    with np.errstate(divide="ignore"):
        one_hot = np.log(np.eye(3))
    predictions, labels = np.divmod(np.arange(9), 3)
    return {
        "data": (one_hot[predictions], labels, one_hot),
        "source_weights": (likelihood * source).ravel(),
        "target_weights": likelihood @ target,
        "target": target,
        "source": source,
    }


def _distance(output, distribution):
    return 0.5 * np.abs(np.asarray(output.label_distribution) - distribution).sum()


@pytest.mark.parametrize("name", ["bbse_hard", "bbse_soft"])
def test_an_exact_confusion_matrix_gives_the_target_exactly(name):
    cells = _exact_cells()
    output = ESTIMATORS[name](
        *cells["data"], source_weights=cells["source_weights"], target_weights=cells["target_weights"], ridge=0.0
    )
    assert output.converged
    np.testing.assert_allclose(output.label_distribution, cells["target"], atol=1e-6)
    np.testing.assert_allclose(output.importance_weights, cells["target"] / cells["source"], atol=1e-5)
    joint = cells["source_weights"].reshape(3, 3)
    np.testing.assert_allclose(output.condition_number, np.linalg.cond(joint), rtol=1e-4)


def test_rlls_without_a_penalty_inverts_an_exact_confusion_matrix():
    cells = _exact_cells()
    output = label_shift.rlls(
        *cells["data"], source_weights=cells["source_weights"], target_weights=cells["target_weights"], penalty=0.0
    )
    assert output.converged
    np.testing.assert_allclose(output.label_distribution, cells["target"], atol=1e-4)


def test_two_classes_have_a_closed_form():
    labels = np.array([1] * 50 + [0] * 50)
    predictions = np.array([1] * 40 + [0] * 10 + [1] * 5 + [0] * 45)  # hits 0.8, false alarms 0.1
    target_predictions = np.array([1] * 31 + [0] * 69)
    scores = np.array([[1.0, 0.0], [0.0, 1.0]])
    output = label_shift.bbse(scores[predictions], labels, scores[target_predictions], ridge=0.0)
    np.testing.assert_allclose(output.label_distribution[1], (0.31 - 0.1) / (0.8 - 0.1), rtol=1e-5)


@pytest.mark.parametrize("soft", [False, True])
def test_bbse_is_the_clipped_solution_of_the_ridge_equations(soft, x64):
    source_log_probs, labels, target_log_probs, _ = _gaussians(300, np.full(4, 0.25), np.array([0.9, 0.06, 0.04, 0.0]))
    predict = np.exp if soft else lambda log_probs: np.eye(4)[log_probs.argmax(axis=1)]
    confusion = predict(source_log_probs).T @ np.eye(4)[labels] / 300
    weights = np.linalg.solve(
        confusion.T @ confusion + 1e-8 * np.eye(4), confusion.T @ predict(target_log_probs).mean(axis=0)
    )
    mass = np.maximum(weights, 0) * np.bincount(labels) / 300
    output = label_shift.bbse(source_log_probs, labels, target_log_probs, soft=soft)
    np.testing.assert_allclose(output.label_distribution, mass / mass.sum(), atol=1e-9)
    np.testing.assert_allclose(
        output.clipped_mass, -(np.minimum(weights, 0) * np.bincount(labels) / 300).sum(), atol=1e-9
    )


@pytest.mark.slow
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("penalty", [None, 0.05, 0.2])
def test_rlls_reaches_the_least_objective_of_its_constrained_problem(soft, penalty, x64):
    target = np.array([0.85, 0.1, 0.05, 0.0])
    data = _gaussians(300, np.array([0.1, 0.2, 0.3, 0.4]), target, spread=1.0)[:3]
    output = label_shift.rlls(*data, soft=soft, penalty=penalty)
    moments = label_shift.shift_moments(*data, soft=soft)
    confusion = np.asarray(moments.confusion)
    change = np.asarray(moments.target_prediction - moments.source_prediction)
    if penalty is None:
        log_term = np.log(2 * 4 / 0.05)
        penalty = 0.01 * 3 * (2 * log_term / (3 * 300) + np.sqrt(2 * log_term / 300))
    assert output.penalty == pytest.approx(penalty)

    def objective(theta):
        return np.linalg.norm(confusion @ theta - change) + penalty * np.linalg.norm(theta)

    rng = np.random.default_rng(0)
    starts = [rng.uniform(-0.5, 0.5, 4) for _ in range(10)]
    options = {"maxiter": 2000, "ftol": 1e-15}
    peers = [
        scipy.optimize.minimize(objective, start, method="SLSQP", bounds=[(-1, None)] * 4, options=options).fun
        for start in starts
    ]
    assert output.converged
    assert (output.raw_weights >= 0).all()
    np.testing.assert_allclose(output.objective, objective(output.raw_weights - 1), rtol=1e-6)
    assert output.objective <= min(peers) + 1e-9
    assert output.objective - output.duality_gap <= min(peers)
    assert output.duality_gap <= 1e-6


def test_a_large_penalty_keeps_the_source_distribution():
    source_log_probs, labels, target_log_probs, _ = _gaussians(
        300, np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
    )
    output = label_shift.rlls(source_log_probs, labels, target_log_probs, penalty=10.0)
    np.testing.assert_allclose(output.label_distribution, np.bincount(labels) / 300, atol=1e-4)
    assert output.converged


@pytest.mark.parametrize("calibration", ["none", "temperature", "bias_corrected", "vector"])
def test_em_ends_where_the_mean_reweighted_posterior_is_the_estimate(calibration):
    source_log_probs, labels, target_log_probs, _ = _gaussians(
        500, np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
    )
    output = label_shift.mlls(source_log_probs, labels, target_log_probs, calibration=calibration)
    assert output.converged
    calibrated = target_log_probs if calibration == "none" else output.calibration.log_probs(target_log_probs)
    posteriors = label_shift.reweight(calibrated, output.source_distribution, output.label_distribution)
    np.testing.assert_allclose(jnp.exp(posteriors).mean(axis=0), output.label_distribution, atol=1e-5)


def test_em_maximises_the_likelihood_within_the_gap_that_it_reports(x64):
    source, target = np.array([0.7, 0.3]), np.array([0.2, 0.8])
    source_log_probs, labels, target_log_probs, _ = _gaussians(200, source, target)
    prior = np.bincount(labels) / 200

    def mean_log_likelihood(q):
        return np.log(np.exp(target_log_probs) @ (np.array([1 - q, q]) / prior)).mean()

    best = scipy.optimize.minimize_scalar(
        lambda q: -mean_log_likelihood(q), bounds=(0, 1), method="bounded", options={"xatol": 1e-12}
    )
    options = {"calibration": "none", "prior": "labels"}
    exact = label_shift.mlls(source_log_probs, labels, target_log_probs, tolerance=1e-13, **options)
    np.testing.assert_allclose(exact.label_distribution[1], best.x, atol=1e-6)
    np.testing.assert_allclose(exact.log_likelihood, -best.fun, rtol=1e-10)
    early = label_shift.mlls(source_log_probs, labels, target_log_probs, max_iterations=2, **options)
    assert not early.converged
    assert 0 < -best.fun - early.log_likelihood <= early.likelihood_gap


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_target_equal_to_the_source_has_no_shift(name):
    log_probs, labels, _, _ = _gaussians(400, *THREE)
    output = ESTIMATORS[name](log_probs, labels, log_probs)
    assert output.converged
    np.testing.assert_allclose(output.importance_weights, 1, atol=2e-3)
    expected = np.exp(log_probs).mean(axis=0) if name == "mlls" else np.bincount(labels) / 400
    np.testing.assert_allclose(output.label_distribution, expected, atol=1e-3)


# Standard errors of the estimates at these sizes are 0.005 to 0.01.
@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_label_distribution_of_shifted_gaussians_is_recovered(name):
    source, target = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.1, 0.15, 0.25, 0.5])
    source_log_probs, labels, target_log_probs, target_labels = _gaussians(10_000, source, target)
    output = ESTIMATORS[name](source_log_probs, labels, target_log_probs)
    assert output.converged
    assert _distance(output, np.bincount(target_labels) / 10_000) < 0.02
    naive = label_shift.histogram(target_log_probs)
    assert _distance(naive, np.bincount(target_labels) / 10_000) > 0.05


def test_bias_correction_repairs_what_miscalibration_does_to_em():
    source, target = np.array([0.6, 0.3, 0.1]), np.array([0.1, 0.3, 0.6])
    source_log_probs, labels, target_log_probs, target_labels = _gaussians(10_000, source, target, spread=1.2)
    distort = lambda log_probs: 3 * log_probs + np.array([0.0, 1.0, -1.0])
    frequencies = np.bincount(target_labels) / 10_000
    plain = label_shift.mlls(distort(source_log_probs), labels, distort(target_log_probs), calibration="none")
    corrected = label_shift.mlls(distort(source_log_probs), labels, distort(target_log_probs))
    assert _distance(plain, frequencies) > 0.05
    assert _distance(corrected, frequencies) < 0.02
    np.testing.assert_allclose(corrected.source_distribution, np.bincount(labels) / 10_000, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), name=st.sampled_from(sorted(ESTIMATORS)))
def test_estimates_are_distributions_and_follow_permuted_classes_and_shifted_rows(seed, name):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(120, 3)) * 1.5
    labels = np.argmax(scores[:60] + rng.gumbel(size=(60, 3)), axis=1)
    labels[:3] = [0, 1, 2]
    order = rng.permutation(3)
    permuted = (scores + 5 * rng.normal(size=(120, 1)))[:, order]
    output = ESTIMATORS[name](scores[:60], labels, scores[60:])
    other = ESTIMATORS[name](permuted[:60], np.argsort(order)[labels], permuted[60:])
    assert (output.label_distribution >= 0).all()
    np.testing.assert_allclose(output.label_distribution.sum(), 1, atol=1e-5)
    np.testing.assert_allclose(other.label_distribution, output.label_distribution[order], atol=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ESTIMATORS)
def test_weights_under_vmap_and_jit_mean_repeated_examples(name):
    source_log_probs, labels, target_log_probs, _ = _gaussians(60, *THREE)
    rng = np.random.default_rng(0)
    source_weights, target_weights = rng.integers(0, 3, (2, 2, 60))
    batched = jax.jit(
        jax.vmap(
            lambda s, t: (
                ESTIMATORS[name](
                    source_log_probs, labels, target_log_probs, source_weights=s, target_weights=t
                ).label_distribution
            )
        )
    )(source_weights.astype(np.float32), target_weights.astype(np.float32))
    penalty = {"penalty": label_shift.default_penalty(60, 3)} if name.startswith("rlls") else {}
    for estimate, s, t in zip(batched, source_weights, target_weights, strict=True):
        repeated = (
            np.repeat(source_log_probs, s, axis=0),
            np.repeat(labels, s),
            np.repeat(target_log_probs, t, axis=0),
        )
        output = ESTIMATORS[name](*repeated, **penalty)
        np.testing.assert_allclose(estimate, output.label_distribution, atol=2e-3)


@pytest.mark.parametrize("name", ["bbse_hard", "bbse_soft", "rlls_hard", "mlls"])
def test_a_class_without_labelled_examples_gets_no_mass(name):
    source_log_probs, labels, target_log_probs, _ = _gaussians(
        300, np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
    )
    keep = labels != 1
    options = {"prior": "labels"} if name == "mlls" else {}
    output = ESTIMATORS[name](source_log_probs[keep], labels[keep], target_log_probs, **options)
    np.testing.assert_allclose(output.label_distribution.sum(), 1, atol=1e-5)
    assert output.label_distribution[1] == 0
    assert output.importance_weights[1] == 0
    if name.startswith("bbse"):
        assert not output.converged
        assert output.condition_number > 1e6


def test_few_labels_are_counted_with_dirichlet_smoothing():
    labels = np.array([0, 0, 2])
    np.testing.assert_allclose(label_shift.few_shot(labels, 3).label_distribution, np.array([3, 1, 2]) / 6, rtol=1e-6)
    plain = label_shift.few_shot(labels, 3, smoothing=0.0, source_distribution=np.array([0.5, 0.25, 0.25]))
    np.testing.assert_allclose(plain.label_distribution, np.array([2, 0, 1]) / 3, rtol=1e-6)
    np.testing.assert_allclose(plain.importance_weights, np.array([4, 0, 4]) / 3, rtol=1e-6)


def test_the_histogram_counts_decisions_or_averages_probabilities():
    log_probs = np.log([[0.6, 0.4], [0.9, 0.1], [0.3, 0.7], [0.8, 0.2]])
    np.testing.assert_allclose(label_shift.histogram(log_probs).label_distribution, [0.75, 0.25])
    np.testing.assert_allclose(label_shift.histogram(log_probs, soft=True).label_distribution, [0.65, 0.35], rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_reweighting_is_bayes_rule_and_can_be_undone(seed):
    rng = np.random.default_rng(seed)
    posteriors = rng.dirichlet(np.ones(4), size=10) + 1e-6
    source, target = rng.dirichlet(np.full(4, 5.0), size=2)
    expected = posteriors * target / source
    reweighted = label_shift.reweight(np.log(posteriors), source, target)
    np.testing.assert_allclose(jnp.exp(reweighted), expected / expected.sum(axis=1, keepdims=True), rtol=1e-4)
    back = label_shift.reweight(np.asarray(reweighted), target, source)
    np.testing.assert_allclose(jnp.exp(back), posteriors / posteriors.sum(axis=1, keepdims=True), rtol=1e-4)


def test_reweighting_refuses_what_has_no_answer():
    log_probs = np.log([[0.5, 0.5], [1.0, 1e-30]])
    log_probs[1, 1] = -np.inf
    with pytest.raises(ValueError, match="source_distribution must be positive where target_distribution is; class 1"):
        label_shift.reweight(log_probs, np.array([1.0, 0.0]), np.array([0.5, 0.5]))
    with pytest.raises(ValueError, match="leave each row a class of the target_distribution; row 1 has none"):
        label_shift.reweight(log_probs, np.array([0.5, 0.5]), np.array([0.0, 1.0]))


def test_bootstrap_intervals_of_a_frequency_are_those_of_the_binomial(key):
    labels = np.array([0] * 120 + [1] * 80)
    estimator = lambda source, target: label_shift.few_shot(labels, 2, smoothing=0.0, sample_weights=source)
    output = label_shift.bootstrap(estimator, 200, 1, key=key, resamples=2000)
    deviation = np.sqrt(0.6 * 0.4 / 200)
    np.testing.assert_allclose(output.samples[:, 0].std(), deviation, rtol=0.05)
    np.testing.assert_allclose(output.lower[0], 0.6 - 1.96 * deviation, atol=0.01)
    np.testing.assert_allclose(output.upper[0], 0.6 + 1.96 * deviation, atol=0.01)
    assert output.converged


@pytest.mark.slow
def test_the_bootstrap_depends_on_the_key_and_not_on_the_batch_size(key):
    data = _gaussians(80, *THREE)[:3]
    estimator = lambda source, target: label_shift.bbse(*data, source_weights=source, target_weights=target)
    one = label_shift.bootstrap(estimator, 80, 80, key=key, resamples=6, batch_size=1)
    four = label_shift.bootstrap(estimator, 80, 80, key=key, resamples=6, batch_size=4)
    other = label_shift.bootstrap(estimator, 80, 80, key=jax.random.key(1), resamples=6)
    np.testing.assert_allclose(one.samples, four.samples, atol=1e-5)
    assert np.abs(one.samples - other.samples).max() > 0.01
    assert (one.lower <= one.upper).all()


@pytest.mark.parametrize(
    ("change", "message"), [({"level": 1.0}, "level must lie"), ({"resamples": 0}, "resamples must")]
)
def test_an_unsound_bootstrap_is_refused(change, message, key):
    with pytest.raises(ValueError, match=message):
        label_shift.bootstrap(lambda s, t: label_shift.few_shot(np.array([0]), 1), 1, 1, key=key, **change)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: np.full((2, 2), np.nan)}, "source_log_probs must hold neither NaN"),
        ({1: np.array([0, 2])}, "source_labels must lie between 0 and 1, got 2"),
        ({1: np.array([0])}, r"source_labels must have shape \(2,\)"),
        ({2: np.zeros((0, 2))}, "target_log_probs must have shape"),
        ({2: np.zeros((2, 3))}, "target_log_probs must have 2 columns as source_log_probs, got 3"),
    ],
)
def test_unsound_input_is_refused_by_name(name, change, message, unchecked_types):
    arguments = [change.get(i, default) for i, default in enumerate([np.eye(2), np.array([0, 1]), np.zeros((3, 2))])]
    with pytest.raises(ValueError, match=message):
        ESTIMATORS[name](*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibration": "platt"}, "calibration must be one of .*'platt'"),
        ({"prior": "uniform"}, "prior must be 'predicted' or 'labels', got 'uniform'"),
        ({}, "source_labels must be given"),
        ({"calibration": "none", "prior": "labels"}, "source_labels must be given"),
    ],
)
def test_unknown_options_of_mlls_are_refused(options, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        label_shift.mlls(np.eye(2), None, np.eye(2), **options)


def test_a_negative_penalty_is_refused():
    with pytest.raises(ValueError, match="penalty must be non-negative"):
        label_shift.rlls(np.eye(2), np.array([0, 1]), np.eye(2), penalty=-1.0)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_no_matrix_product_is_left_to_an_accelerators_low_precision(name):
    data = _gaussians(20, *THREE)[:3]
    estimate = lambda source, target: ESTIMATORS[name](*data[:2], target, source_weights=source).label_distribution
    products, low = products_of_low_precision(estimate, jnp.ones(20), jnp.asarray(data[2]))
    assert products > 0
    assert low == 0


class TestPeers:
    """abstention and QuaPy on the same inputs, in float64."""

    pytestmark = pytest.mark.oracle
    source = np.array([0.4, 0.3, 0.2, 0.1])
    target = np.array([0.1, 0.15, 0.25, 0.5])

    @pytest.fixture
    def data(self, x64):
        return _gaussians(1000, self.source, self.target, spread=1.5)[:3]

    @pytest.mark.parametrize("soft", [False, True])
    def test_bbse_is_that_of_abstention(self, data, soft):
        peer = pytest.importorskip("abstention.label_shift")
        source_log_probs, labels, target_log_probs = data
        adapt = peer.BBSEImbalanceAdapter(soft=soft)
        weights = adapt(np.eye(4)[labels], np.exp(target_log_probs), np.exp(source_log_probs)).multipliers
        output = label_shift.bbse(*data, soft=soft, ridge=0.0)
        mass = weights * np.bincount(labels) / 1000
        np.testing.assert_allclose(output.label_distribution, mass / mass.sum(), atol=1e-12)

    @pytest.mark.filterwarnings("ignore")  # abstention multiplies matrices in cvxpy by *
    @pytest.mark.parametrize("soft", [False, True])
    def test_rlls_is_that_of_abstention(self, data, soft):
        pytest.importorskip("cvxpy")
        peer = pytest.importorskip("abstention.label_shift")
        source_log_probs, labels, target_log_probs = data
        adapt = peer.RLLSImbalanceAdapter(soft=soft)
        weights = adapt(np.eye(4)[labels], np.exp(target_log_probs), np.exp(source_log_probs)).multipliers
        output = label_shift.rlls(*data, soft=soft)
        np.testing.assert_allclose(output.raw_weights, weights, atol=1e-5)

    @pytest.mark.parametrize("prior", ["predicted", "labels"])
    def test_em_is_that_of_abstention(self, data, prior):
        peer = pytest.importorskip("abstention.label_shift")
        source_log_probs, labels, target_log_probs = data
        adapt = peer.EMImbalanceAdapter(
            estimate_priors_from_valid_labels=prior == "labels", tolerance=1e-12, max_iterations=10_000
        )
        fitted = adapt(np.exp(target_log_probs), np.exp(source_log_probs), np.eye(4)[labels])
        output = label_shift.mlls(*data, calibration="none", prior=prior, tolerance=1e-12)
        np.testing.assert_allclose(output.importance_weights, fitted.multipliers, atol=1e-8)

    def test_em_is_that_of_quapy(self, data):
        peer = pytest.importorskip("quapy.method.aggregative")
        _, labels, target_log_probs = data
        prior = np.bincount(labels) / 1000
        expected, _ = peer.EMQ.EM(prior, np.exp(target_log_probs), epsilon=1e-12)
        output = label_shift.mlls(*data, calibration="none", prior="labels", tolerance=1e-12)
        np.testing.assert_allclose(output.label_distribution, expected, atol=1e-8)

    @pytest.mark.parametrize("soft", [False, True])
    def test_bbse_is_the_adjusted_count_of_quapy(self, data, soft):
        peer = pytest.importorskip("quapy.method.aggregative")
        source_log_probs, labels, target_log_probs = data
        if soft:
            rates = peer.PACC.getPteCondEstim(np.arange(4), labels, np.exp(source_log_probs))
            counts = np.exp(target_log_probs).mean(axis=0)
        else:
            rates = peer.ACC.getPteCondEstim(np.arange(4), labels, source_log_probs.argmax(axis=1))
            counts = np.bincount(target_log_probs.argmax(axis=1), minlength=4) / 1000
        expected = peer.ACC.solve_adjustment(rates, counts, "inversion", "exact-raise")
        output = label_shift.bbse(*data, soft=soft, ridge=0.0)
        np.testing.assert_allclose(output.label_distribution, expected, atol=1e-12)
