import jax
import numpy as np
import pytest

from tests.zeroshot.transport_problems import exact_plan, frequencies, scores
from zsml_jax.zeroshot import hierarchical_otter, otter

SUPERCLASS = np.array([0, 1, 0, 2, 1, 2])


def problem(n=600, seed=0):
    log_probs, labels = scores(n, 6, seed)
    return log_probs, labels, frequencies(labels, 6)


def test_both_levels_are_those_of_pot():
    log_probs, _, nu = problem()
    fitted = hierarchical_otter.solve(log_probs, nu, SUPERCLASS)
    upper_scores = np.stack([np.logaddexp.reduce(log_probs[:, s == SUPERCLASS], axis=1) for s in range(3)], axis=1)
    upper = exact_plan(upper_scores, frequencies(SUPERCLASS[np.repeat(np.arange(6), (600 * nu).astype(int))], 3))
    np.testing.assert_array_equal(SUPERCLASS[fitted.assignment], upper.argmax(axis=1))
    for s in range(3):
        rows, classes = np.flatnonzero(upper.argmax(axis=1) == s), np.flatnonzero(s == SUPERCLASS)
        lower = exact_plan(log_probs[np.ix_(rows, classes)], nu[classes] / nu[classes].sum())
        np.testing.assert_array_equal(fitted.assignment[rows], classes[lower.argmax(axis=1)])


@pytest.mark.parametrize("seed", range(4))
def test_every_class_gets_its_number_of_examples(seed):
    log_probs, labels, nu = problem(seed=seed)
    fitted = hierarchical_otter.solve(log_probs, nu, SUPERCLASS)
    np.testing.assert_array_equal(np.bincount(fitted.assignment, minlength=6), np.bincount(labels, minlength=6))
    assert fitted.converged


@pytest.mark.parametrize(
    "superclass_of",
    [pytest.param(np.arange(6), id="own", marks=pytest.mark.slow), pytest.param(np.zeros(6, int), id="one")],
)
def test_a_hierarchy_without_two_levels_is_plain_otter(superclass_of):
    log_probs, _, nu = problem()
    plain = otter.solve(log_probs, nu)
    fitted = hierarchical_otter.solve(log_probs, nu, superclass_of)
    np.testing.assert_array_equal(fitted.assignment, plain.assignment)
    np.testing.assert_array_equal(fitted.predict(log_probs), plain.predict(log_probs))


def test_the_duals_repeat_the_assignment():
    log_probs, _, nu = problem()
    fitted = hierarchical_otter.solve(log_probs, nu, SUPERCLASS)
    predicted = jax.jit(lambda fitted, x: fitted.predict(x))(fitted, log_probs)
    assert np.mean(predicted == fitted.assignment) > 0.99  # but for the rows of zero margin


def test_superclass_scores_of_their_own_decide_the_upper_level():
    log_probs, labels, nu = problem()
    certain = np.log(np.where(np.eye(3)[SUPERCLASS[labels]] == 1, 0.98, 0.01))
    fitted = hierarchical_otter.solve(log_probs, nu, SUPERCLASS, superclass_log_probs=certain)
    np.testing.assert_array_equal(SUPERCLASS[fitted.assignment], SUPERCLASS[labels])
    without = hierarchical_otter.solve(log_probs, nu, SUPERCLASS)
    assert np.mean(fitted.assignment == labels) > np.mean(without.assignment == labels) + 0.05
    np.testing.assert_array_equal(SUPERCLASS[fitted.predict(log_probs, certain)], SUPERCLASS[labels])


def test_classes_and_superclasses_of_zero_mass_are_never_predicted():
    log_probs, _, _ = problem()
    nu = np.array([0.3, 0.0, 0.1, 0.6, 0.0, 0.0])  # nothing of superclass 1, half of superclass 2
    fitted = hierarchical_otter.solve(log_probs, nu, SUPERCLASS)
    np.testing.assert_array_equal(np.bincount(fitted.assignment, minlength=6), 600 * nu)
    assert np.isin(fitted.predict(log_probs), [0, 2, 3]).all()


@pytest.mark.slow
def test_the_entropic_levels_near_the_exact_ones():
    log_probs, _, nu = problem()
    exact = hierarchical_otter.solve(log_probs, nu, SUPERCLASS)
    entropic = hierarchical_otter.solve(log_probs, nu, SUPERCLASS, epsilon=0.01)
    assert np.mean(entropic.assignment == exact.assignment) > 0.98


@pytest.mark.parametrize("superclass_of", [[0, 1, 0], [0, 2, 0, 2, 0, 2], [-1, 0, 0, 0, 0, 0]])
def test_a_wrong_hierarchy_is_refused(superclass_of, unchecked_types):
    log_probs, _, nu = problem(30)
    with pytest.raises(ValueError, match="superclass_of must name the superclass of each of the 6 classes"):
        hierarchical_otter.solve(log_probs, nu, np.array(superclass_of))
