"""The oracle is the definition, read off every candidate by a loop, with scipy's binomial distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from zsml_jax.autolabel import thresholds

METHODS = ("certified", "sigma", "hoeffding", "none")


def by_definition(scores, predicted, correct, *, error, k, method, candidates, failure, looks, c1, n0):
    found = []
    for y in range(k):
        best, running = (np.inf, 0, 0), True
        for t in sorted(set(candidates), reverse=True):
            above = (predicted == y) & (scores >= t)
            n, wrong = above.sum(), (above & ~correct).sum()
            share = wrong / max(n, 1)
            if method == "certified":
                level = failure / (k * looks)
                if (1 - error) ** n > level:
                    continue
                running &= scipy.stats.binom.cdf(wrong, n, error) <= level
                admissible = running
            else:
                u = {"sigma": np.sqrt(share * (1 - share)), "hoeffding": 1 / np.sqrt(max(n, 1)), "none": 0}[method]
                admissible = n > n0 and share + c1 * u <= error
            if admissible:
                best = (t, n, wrong)
        found.append(best)
    return np.array(found)


def problem(seed, n=400, k=3, ties=False):
    rng = np.random.default_rng(seed)
    scores = rng.random(n).astype(np.float32)
    if ties:
        scores = np.round(scores * 20) / np.float32(20)
    return scores, rng.integers(0, k, n), rng.random(n) < 0.55 + 0.45 * scores


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("fixed", [False, True])
def test_the_thresholds_are_those_of_the_definition(method, ties, fixed):
    settings = {"failure": 0.3, "looks": 2, "error": 0.15}
    for seed in range(4):
        scores, predicted, correct = problem(seed, ties=ties)
        candidates = np.random.default_rng(seed).random(31).astype(np.float32) if fixed else None
        ours = thresholds.estimate(
            scores, predicted, correct, n_classes=3, method=method, candidates=candidates, **settings
        )
        values, counts, errors = by_definition(
            scores, predicted, correct, k=3, method=method, c1=0.25, n0=10,
            candidates=scores if candidates is None else candidates, **settings,
        ).T  # fmt: skip
        np.testing.assert_array_equal(ours.values, values.astype(np.float32))
        np.testing.assert_array_equal(ours.counts, counts)
        np.testing.assert_array_equal(ours.errors, errors)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_rows_without_weight_are_as_if_they_were_not_there(method):
    scores, predicted, correct = problem(9)
    keep = np.random.default_rng(1).random(len(scores)) < 0.6
    options = {"error": 0.2, "n_classes": 3, "method": method, "failure": 0.3}
    masked = thresholds.estimate(scores, predicted, correct, weights=keep, **options)
    alone = thresholds.estimate(scores[keep], predicted[keep], correct[keep], **options)
    jax.tree.map(np.testing.assert_array_equal, masked, alone)


def test_a_shared_threshold_is_that_of_one_class_for_all():
    scores, predicted, correct = problem(3)
    shared = thresholds.estimate(scores, predicted, correct, error=0.2, n_classes=3, shared=True)
    one = thresholds.estimate(scores, 0 * predicted, correct, error=0.2, n_classes=1)
    for ours, single in zip(shared, one, strict=True):
        np.testing.assert_array_equal(ours, np.repeat(single, 3))


@pytest.mark.parametrize(("errors", "count"), [(0, 50), (3, 100), (17, 400), (180, 4000), (5, 5), (90, 4096)])
def test_the_binomial_tail_is_scipys(errors, count):
    for share in (0.01, 0.05, 0.3):
        ours = thresholds.binomial_tail(jnp.float32(errors), jnp.float32(count), jnp.float32(share))
        np.testing.assert_allclose(ours, scipy.stats.binom.cdf(errors, count, share), rtol=5e-3, atol=1e-12)


@pytest.mark.parametrize("count", [10_000, 1_000_000])
def test_the_tail_of_many_draws_is_never_below_the_exact_one(count):
    for errors in (0.04 * count, 0.047 * count, 0.049 * count, 0.06 * count):
        exact = scipy.stats.binom.cdf(int(errors), count, 0.05)
        ours = float(thresholds.binomial_tail(jnp.float32(int(errors)), jnp.float32(count), jnp.float32(0.05)))
        assert ours >= exact * (1 - 1e-2) - 1e-38


def test_the_bound_is_the_clopper_pearson_bound():
    scores, predicted, correct = problem(5, n=2000)
    found = thresholds.estimate(scores, predicted, correct, error=0.2, n_classes=3, failure=0.3)
    assert np.isfinite(found.values).all()
    exact = scipy.stats.beta.ppf(1 - 0.1, found.errors + 1, found.counts - found.errors)
    np.testing.assert_allclose(found.bound, exact, rtol=1e-4)
    assert (found.bound <= 0.2 + 1e-5).all()


@pytest.mark.slow
def test_certified_thresholds_exceed_the_error_as_seldom_as_they_say_and_the_papers_rule_does_not():
    """200 vmapped simulations; correctness is drawn with a known probability, so that the error above t is known."""

    def one(key, method):
        keys = jax.random.split(key, 3)
        scores = jax.random.uniform(keys[0], (400,))
        predicted = jax.random.randint(keys[1], (400,), 0, 2)
        correct = jax.random.uniform(keys[2], (400,)) < 1 - 0.3 * (1 - scores)
        found = thresholds.estimate(scores, predicted, correct, error=0.1, n_classes=2, method=method, failure=0.2)
        # The mean of 0.3 (1 - s) above t.
        return jnp.any(0.15 * (1 - found.values) > 0.1) & jnp.isfinite(found.values).any(), found.values

    violated = {}
    for method in ("certified", "sigma", "none"):
        keys = jax.random.split(jax.random.key(0), 200)
        over, values = jax.jit(jax.vmap(lambda key, method=method: one(key, method)))(keys)
        violated[method] = float(over.mean())
        assert np.isfinite(values).mean() > 0.5
    # Three standard deviations of a share of 0.2 over 200 simulations are 0.085.
    assert violated["certified"] <= 0.2 + 0.085
    assert violated["none"] > 0.5


def test_the_fewest_points_to_certify_are_just_enough():
    needed = thresholds.fewest_to_certify(error=0.05, n_classes=4, failure=0.1, looks=3)
    for n, certified in ((needed - 1, False), (needed, True)):
        found = thresholds.estimate(
            np.linspace(0, 1, n), np.zeros(n, int), np.ones(n, bool), error=0.05, n_classes=4, looks=3
        )
        assert bool(np.isfinite(found.values[0])) == certified
    assert 0.95**needed <= 0.1 / 12 < 0.95 ** (needed - 1)


def test_the_fewest_points_without_an_error_are_enough_at_every_level():
    # Near the level float32's incomplete beta function is off by more than the level's distance.
    grid = [(e, f / (k * r)) for e in (0.005, 0.01, 0.02, 0.05, 0.1) for f in (0.05, 0.1, 0.2)
            for k in (1, 2, 3, 5, 10) for r in range(1, 11)]  # fmt: skip
    fewest = np.array([thresholds.fewest_to_certify(error=e, n_classes=1, failure=f) for e, f in grid])
    rows = np.arange(2000)
    scores, predicted, correct = np.linspace(0, 1, 2000, dtype=np.float32), 0 * rows, rows >= 0
    call = lambda e, f, w: thresholds.estimate(scores, predicted, correct, error=e, failure=f, n_classes=1, weights=w)
    errors, failures = np.array(grid, np.float32).T
    assert fewest.max() < 2000
    for points, certified in ((fewest, True), (np.full_like(fewest, 2000), True), (fewest - 2, False)):
        found = jax.vmap(call)(errors, failures, rows < points[:, None])
        assert (np.isfinite(found.values[:, 0]) == certified).all()


def test_jit_vmap_and_a_loop_agree_and_other_numbers_do_not_retrace():
    scores, predicted, correct = problem(1)
    errors = jnp.array([0.1, 0.2, 0.3])
    call = lambda e: thresholds.estimate(scores, predicted, correct, error=e, n_classes=3, method="sigma")
    loop = [call(e) for e in errors]
    together = jax.vmap(call)(errors)
    for i, one in enumerate(loop):
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5), together, one)
    before = thresholds._estimate._cache_size()
    call(0.17)
    assert thresholds._estimate._cache_size() == before


def test_no_points_of_a_class_give_an_infinite_threshold_and_label_nothing():
    found = thresholds.estimate(np.array([0.9]), np.array([0]), np.array([True]), error=0.1, n_classes=2)
    assert np.isinf(found.values).all() and (found.bound == 1).all()
    assert not found.accepts(np.array([1e9, np.inf]), np.array([1, 1])).any()


@pytest.mark.parametrize("method", METHODS)
def test_without_a_number_of_classes_there_are_as_many_as_are_predicted(method):
    scores, predicted, correct = problem(1)
    told = thresholds.estimate(scores, predicted, correct, error=0.2, n_classes=3, method=method)
    seen = thresholds.estimate(scores, predicted, correct, error=0.2, method=method)
    jax.tree.map(np.testing.assert_array_equal, told, seen)
    assert not seen.accepts(np.array([1e9]), np.array([3])).any()
    with pytest.raises(ValueError, match="n_classes must be given where predicted is traced"):
        jax.jit(lambda p: thresholds.estimate(scores, p, correct, error=0.2, method=method))(predicted)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"error": 1.5}, "error must lie between 0 and 1, got 1.5"),
        ({"failure": -0.1}, "failure must lie between 0 and 1, got -0.1"),
        ({"looks": 0}, "looks must lie between 1 and inf, got 0"),
        ({"method": "exact"}, "method must be one of certified, sigma, hoeffding, none, got 'exact'"),
        ({"scores": np.array([0.1, np.nan])}, "scores must be a row of numbers without NaN"),
        ({"predicted": np.array([0, 2])}, "predicted must lie between 0 and 1, got 2"),
        ({"correct": np.array([1, 0])}, "correct must hold booleans, got dtype int"),
        ({"correct": np.array([True])}, r"correct must have shape \(2,\) as scores, got shape \(1,\)"),
        ({"scores": np.zeros((0,))}, r"scores must have shape \(n,\) with n >= 1"),
    ],
)
def test_bad_input_is_told(unchecked_types, changed, message):
    good = {"scores": np.array([0.1, 0.2]), "predicted": np.array([0, 1]), "correct": np.array([True, False])}
    options = {"error": 0.1, "n_classes": 2, **good, **changed}
    args = [options.pop(name) for name in ("scores", "predicted", "correct")]
    with pytest.raises(ValueError, match=message):
        thresholds.estimate(*args, **options)
