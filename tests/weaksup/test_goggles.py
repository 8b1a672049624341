import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sklearn.mixture import GaussianMixture

from tests.weaksup.partly import KEY, blobs
from zsml_jax.weaksup import affinity, goggles, kmeans, mixtures


def problem(k=2, n=120, seed=0):
    x, truth, labels = blobs(n=n, k=k, labelled=30, seed=seed, spread=0.4)
    return affinity.cosine(x, x[:30])[None], truth, labels


def test_free_gaussians_are_scikit_learns():
    x, _, _ = blobs(k=3, spread=0.7)
    start = kmeans.assignments(x, 3, key=KEY)
    ours = mixtures.fit_gaussians(x, start, clamped=jnp.zeros(len(x), bool), steps=200)
    means = np.asarray(start).T @ np.asarray(x) / np.asarray(start).sum(axis=0)[:, None]
    peer = GaussianMixture(3, covariance_type="diag", means_init=means, tol=1e-9, max_iter=500, random_state=0)
    peer.fit(np.asarray(x, np.float64))
    assert float(ours.log_likelihood[-1]) == pytest.approx(peer.score(np.asarray(x, np.float64)), abs=0.02)
    assert (np.diff(ours.log_likelihood) > -1e-4).all()


def test_densities_and_variances_of_narrow_components_are_numpys_in_float64():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 500)
    x = (rng.uniform(size=(3, 100))[truth] + 3e-3 * rng.normal(size=(500, 100))).astype(np.float32)
    start = jax.nn.one_hot(jnp.asarray(truth), 3)
    found = mixtures.fit_gaussians(jnp.asarray(x), start, clamped=jnp.ones(500, bool), steps=1, floor=0.0).mixture
    wide = x.astype(float)
    np.testing.assert_allclose(found.variances, [wide[truth == c].var(axis=0) for c in range(3)], rtol=1e-4)
    means, deviations = np.asarray(found.means, float), np.sqrt(np.asarray(found.variances, float))
    expected = scipy.stats.norm.logpdf(wide[:, None], means, deviations).sum(axis=2) + np.asarray(found.log_weights)
    np.testing.assert_allclose(found.log_joint(jnp.asarray(x)), expected, rtol=2e-5)


def test_narrow_clusters_far_from_zero_are_those_near_it():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 200)
    x = (1000 + 0.5 * rng.uniform(size=(3, 5))[truth] + 0.02 * rng.normal(size=(200, 5))).astype(np.float32)
    near, far = (kmeans.assignments(jnp.asarray(points), 3, key=KEY) for points in (x - 1000, x))
    np.testing.assert_array_equal(near, far)


def test_clamped_examples_keep_their_class_in_every_step():
    affinities, truth, labels = problem()
    clamped = jnp.asarray(labels != -1)
    start = jnp.where(clamped[:, None], jax.nn.one_hot(jnp.asarray(truth), 2), 0.5)
    found = mixtures.fit_gaussians(affinities[0], start, clamped=clamped, steps=5)
    np.testing.assert_array_equal(found.responsibilities[:30], jax.nn.one_hot(jnp.asarray(truth[:30]), 2))


def test_bernoullis_are_the_weighted_shares_of_ones():
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (20, 3)), jnp.float32)
    r = jnp.asarray(np.random.default_rng(1).dirichlet(np.ones(2), 20), jnp.float32)
    found = mixtures.fit_bernoullis(x, r, clamped=jnp.ones(20, bool), steps=1)
    expected = np.asarray(r).T @ np.asarray(x) / np.asarray(r).sum(axis=0)[:, None]
    np.testing.assert_allclose(found.mixture.rates, expected, atol=1e-4)
    np.testing.assert_allclose(np.exp(found.mixture.log_weights), np.asarray(r).mean(axis=0), atol=1e-4)


@pytest.mark.parametrize("variant", ["clamped", "unclamped"])
@pytest.mark.parametrize("k", [2, 3])
def test_both_variants_label_what_is_apart(variant, k):
    affinities, truth, labels = problem(k)
    fitted = goggles.fit(affinities, labels, goggles.Config(variant=variant, steps=30, restarts=4), key=KEY)
    posterior = fitted.posterior(affinities)
    np.testing.assert_allclose(posterior.sum(axis=1), 1, atol=1e-5)
    assert (posterior.argmax(axis=1) == truth).mean() > 0.75


def test_the_clamped_variant_learns_from_examples_without_labels_and_the_other_does_not():
    affinities, _, labels = problem()
    moved = affinities.at[:, 100:].set(-affinities[:, 100:])
    for variant, changes in (("clamped", True), ("unclamped", False)):
        config = goggles.Config(variant=variant, steps=5, restarts=2)
        first, second = (goggles.fit(a, labels, config, key=KEY) for a in (affinities, moved))
        assert bool(jnp.any(first.bases.means != second.bases.means)) is changes


def test_components_are_matched_with_classes_by_the_best_one_to_one_map():
    responsibilities = jnp.asarray([[0.1, 0.9, 0.0], [0.2, 0.8, 0.0], [0.0, 0.1, 0.9], [0.7, 0.2, 0.1]])
    classes = jax.nn.one_hot(jnp.array([0, 0, 1, 2]), 3)
    assert goggles.matching(responsibilities, classes).tolist() == [1, 2, 0]


def test_the_affinity_by_a_prototype_is_the_largest_cosine_with_any_patch():
    rng = np.random.default_rng(0)
    patches = rng.normal(size=(5, 6, 4)).astype(np.float32)
    found = affinity.prototypes(patches, patches[:2], count=3)
    unit = patches / np.linalg.norm(patches, axis=-1, keepdims=True)
    for p in range(2):
        channels = np.argsort(-patches[p].max(axis=0))[:3]
        for a, channel in enumerate(channels):
            prototype = unit[p, patches[p][:, channel].argmax()]
            np.testing.assert_allclose(found[a, :, p], (unit @ prototype).max(axis=1), atol=1e-5)


@pytest.mark.slow
def test_jit_and_vmap_over_keys():
    affinities, _, labels = problem(n=40)
    config = goggles.Config(variant="unclamped", steps=5, restarts=2)
    run = lambda key: goggles.fit(affinities, labels, config, key=key).posterior(affinities)
    keys = jax.random.split(KEY, 2)
    looped = jnp.stack([run(key) for key in keys])
    np.testing.assert_allclose(jax.jit(jax.vmap(run))(keys), looped, atol=1e-3)


def test_bad_input_is_refused(unchecked_types):
    affinities, _, labels = problem()
    with pytest.raises(ValueError, match="affinities must have shape"):
        goggles.fit(affinities[0], labels, key=KEY)
    with pytest.raises(ValueError, match="affinities must be finite"):
        goggles.fit(affinities.at[0, 0, 0].set(jnp.nan), labels, key=KEY)
    with pytest.raises(ValueError, match="variant must be"):
        goggles.Config(variant="vgg")
    with pytest.raises(ValueError, match="share their channels, at least 9"):
        affinity.prototypes(np.ones((2, 3, 4)), np.ones((1, 3, 4)), count=9)
