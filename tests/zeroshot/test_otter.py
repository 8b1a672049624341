import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment, linprog

from tests.zeroshot.transport_problems import exact_plan, frequencies, scores
from zsml_jax.zeroshot import otter
from zsml_jax.zeroshot.transport import exact, network_simplex


@pytest.fixture
def large_path(monkeypatch):
    """Sends even small problems through annealing, undecided rows and certificate."""
    monkeypatch.setattr(exact, "_SMALL_PROBLEM_ENTRIES", 0)
    monkeypatch.setattr(exact, "_SMALL_PROBLEM_ROWS", 64)


@pytest.mark.parametrize(("n", "k", "seed"), [(200, 3, 0), (2000, 20, 1), (3000, 2, 2)])
def test_the_exact_solution_is_that_of_pot(n, k, seed, large_path):
    log_probs, labels = scores(n, k, seed)
    nu = frequencies(labels, k)
    fitted = otter.solve(log_probs, nu)
    plan = exact_plan(log_probs, nu)
    assert fitted.cost == pytest.approx(-np.sum(plan * log_probs), rel=1e-6)
    np.testing.assert_array_equal(fitted.assignment, plan.argmax(1))
    np.testing.assert_array_equal(np.bincount(fitted.assignment, minlength=k), np.bincount(labels, minlength=k))
    assert fitted.converged
    assert abs(fitted.duality_gap) < 1e-7


def test_the_cost_of_a_fractional_label_distribution_is_that_of_pot(large_path):
    log_probs, _ = scores(997, 13, 3)
    nu = np.random.default_rng(0).dirichlet(np.ones(13))
    fitted = otter.solve(log_probs, nu)
    plan = exact_plan(log_probs, nu)
    assert fitted.cost == pytest.approx(-np.sum(plan * log_probs), rel=1e-6)
    counts = np.bincount(fitted.assignment, minlength=13)
    assert np.all((counts == np.floor(997 * nu)) | (counts == np.ceil(997 * nu)))
    whole = plan.max(1) > 0.999 / 997
    assert whole.sum() >= 997 - 12
    np.testing.assert_array_equal(np.asarray(fitted.assignment)[whole], plan.argmax(1)[whole])


def test_sample_weights_are_row_masses(large_path):
    log_probs, labels = scores(1500, 10, 4)
    weights = np.random.default_rng(1).gamma(2.0, size=1500)
    nu = frequencies(labels, 10)
    fitted = otter.solve(log_probs, nu, sample_weights=weights)
    plan = exact_plan(log_probs, nu, weights / weights.sum())
    assert fitted.cost == pytest.approx(-np.sum(plan * log_probs), rel=1e-6)
    whole = plan.max(1) > 0.999 * weights / weights.sum()
    np.testing.assert_array_equal(np.asarray(fitted.assignment)[whole], plan.argmax(1)[whole])


def test_a_balanced_problem_is_a_linear_assignment():
    log_probs, _ = scores(60, 3, 5)
    fitted = otter.solve(log_probs, np.full(3, 1 / 3))
    row, column = linear_sum_assignment(-np.repeat(log_probs, 20, axis=1))
    np.testing.assert_array_equal(fitted.assignment, column[np.argsort(row)] // 20)


@pytest.mark.parametrize("epsilon", [0.0, 0.5])
def test_the_zero_shot_histogram_gives_back_the_zero_shot_predictions(epsilon):
    log_probs, _ = scores(800, 6, 6)
    zero_shot = log_probs.argmax(1)
    soft = np.exp(log_probs / max(epsilon, 1e-9)) if epsilon else np.eye(6)[zero_shot]
    nu = (soft / soft.sum(1, keepdims=True)).mean(0)
    fitted = otter.solve(log_probs, nu, epsilon=epsilon, tolerance=1e-6)
    np.testing.assert_array_equal(fitted.assignment, zero_shot)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 100.0))
def test_row_and_column_constants_and_scale_do_not_change_the_exact_assignment(seed, scale):
    rng = np.random.default_rng(seed)
    log_probs, labels = scores(120, 4, seed)
    nu = frequencies(labels, 4)
    changed = scale * (log_probs + rng.normal(size=(120, 1)) + rng.normal(size=4))
    np.testing.assert_array_equal(otter.solve(log_probs, nu).assignment, otter.solve(changed, nu).assignment)


def test_the_dual_repeats_the_assignment_and_carries_over_to_new_points(large_path):
    log_probs, labels = scores(6000, 10, 7, shift=2.0)
    fitted = otter.solve(log_probs[:3000], frequencies(labels[:3000], 10))
    np.testing.assert_array_equal(fitted.predict(log_probs[:3000]), fitted.assignment)
    held_out, truth = log_probs[3000:], labels[3000:]
    zero_shot = np.mean(held_out.argmax(1) == truth)
    together = otter.solve(held_out, frequencies(truth, 10))
    gain = np.mean(np.asarray(together.assignment) == truth) - zero_shot
    assert gain > 0.1
    assert np.mean(np.asarray(fitted.predict(held_out)) == truth) > zero_shot + 0.9 * gain


def test_intervals_solve_their_linear_programme(large_path):
    log_probs, labels = scores(300, 5, 8, shift=2.0)
    nu = frequencies(labels, 5)
    lower, upper = 0.9 * nu, np.minimum(1.15 * nu, 1.0)
    fitted = otter.solve(log_probs, otter.Between(lower, upper))
    rows = np.kron(np.eye(300), np.ones(5))
    columns = np.kron(np.ones(300), np.eye(5))
    optimum = linprog(
        -log_probs.ravel(),
        A_ub=np.vstack([columns, -columns]),
        b_ub=np.concatenate([upper, -lower]),
        A_eq=rows,
        b_eq=np.full(300, 1 / 300),
    )
    assert fitted.cost == pytest.approx(optimum.fun, rel=1e-6)
    assert abs(fitted.duality_gap) < 1e-7
    counts = np.bincount(fitted.assignment, minlength=5)
    assert np.all(counts >= np.floor(300 * lower + 1e-6))
    assert np.all(counts <= np.ceil(300 * upper - 1e-6))


def test_an_interval_that_holds_the_zero_shot_histogram_changes_nothing():
    log_probs, _ = scores(400, 4, 9)
    zero_shot = log_probs.argmax(1)
    nu = frequencies(zero_shot, 4)
    fitted = otter.solve(log_probs, otter.Between(0.5 * nu, np.minimum(1.5 * nu, 1.0)))
    np.testing.assert_array_equal(fitted.assignment, zero_shot)
    np.testing.assert_allclose(fitted.dual, 0.0, atol=1e-6)


def test_equal_rows_are_divided_and_certified():
    fitted = otter.solve(np.log(np.full((40, 4), 0.25)), np.array([0.5, 0.25, 0.25, 0.0]))
    np.testing.assert_array_equal(np.bincount(fitted.assignment, minlength=4), [20, 10, 10, 0])
    assert fitted.converged
    assert fitted.dual[3] == -np.inf


def test_float32_frequencies_count_as_the_whole_numbers_that_they_round():
    log_probs, labels = scores(1234, 7, 10)
    nu = frequencies(labels, 7).astype(np.float32)
    fitted = otter.solve(log_probs.astype(np.float32), nu)
    np.testing.assert_array_equal(np.bincount(fitted.assignment, minlength=7), np.bincount(labels, minlength=7))


def test_zero_probabilities_are_avoided_or_refused():
    with np.errstate(divide="ignore"):
        log_probs = np.log(np.array([[1.0, 0.0], [0.9, 0.1], [0.8, 0.2], [0.4, 0.6]]))
    assert otter.solve(log_probs, np.array([0.25, 0.75])).assignment.tolist() == [0, 1, 1, 1]
    with pytest.raises(ValueError, match="-inf"):
        otter.solve(log_probs, np.array([0.0, 1.0]))


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
@pytest.mark.parametrize("size", [100, 256, 1000])
def test_a_stream_of_chunks_gives_the_result_of_the_whole(epsilon, size, large_path):
    log_probs, labels = scores(1000, 8, 11)
    nu = frequencies(labels, 8)
    whole = otter.solve(log_probs, nu, epsilon=epsilon)

    def chunks():
        return (log_probs[i : i + size] for i in range(0, 1000, size))

    streamed = otter.solve_stream(chunks, nu, epsilon=epsilon)
    np.testing.assert_array_equal(streamed.assignment, whole.assignment)
    assert streamed.cost == pytest.approx(float(whole.cost), rel=1e-5)
    assert streamed.converged


def test_a_stream_that_is_used_up_is_refused():
    log_probs, labels = scores(100, 3, 12)
    generator = iter([log_probs[:50], log_probs[50:]])
    with pytest.raises(ValueError, match="pass"):
        otter.solve_stream(lambda: generator, frequencies(labels, 3))
    with pytest.raises(ValueError, match="number of classes"):
        otter.solve_stream([log_probs, log_probs[:, :2]], frequencies(labels, 3))


def test_split_rows_are_rounded_to_neighbouring_counts():
    plan = network_simplex.SparsePlan(
        np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 2, 2]), np.array([0.4, 0.6, 0.9, 0.1, 1.0])
    )
    mass = np.array([0.4, 1.5, 1.1])
    assignment = network_simplex.rounded_assignment(plan, np.array([1, 1, 2]), mass, mass, mass)
    assert np.bincount(assignment, minlength=3).tolist() in ([0, 2, 1], [1, 1, 1], [0, 1, 2], [1, 2, 0])
    assert assignment[2] == 2


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"log_probs": np.full((4, 2), np.nan)}, "log_probs"),
        ({"log_probs": np.zeros((2, 4, 2))}, "log_probs"),
        ({"log_probs": np.zeros((0, 2))}, "log_probs"),
        ({"label_distribution": np.array([0.6, 0.6])}, "sum to 1"),
        ({"label_distribution": np.array([1.5, -0.5])}, "negative"),
        ({"label_distribution": np.ones(3) / 3}, "shape"),
        ({"label_distribution": otter.Between(np.array([0.6, 0.6]), np.ones(2))}, "sum of lower"),
        ({"label_distribution": otter.Between(np.array([0.6, 0.1]), np.array([0.5, 1.0]))}, "exceed"),
        ({"label_distribution": otter.Near(np.array([0.5, 0.5]), 1.0)}, "epsilon > 0"),
        ({"label_distribution": otter.Near(np.array([0.5, 0.5]), 0.0), "epsilon": 1.0}, "penalty"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"epsilon": np.nan}, "epsilon"),
        ({"sample_weights": np.zeros(4)}, "sample_weights"),
        ({"sample_weights": np.ones(3)}, "sample_weights"),
    ],
)
def test_bad_input_is_named(arguments, message):
    good = {"log_probs": np.log(np.full((4, 2), 0.5)), "label_distribution": np.array([0.5, 0.5])}
    with pytest.raises(ValueError, match=message):
        otter.solve(**{**good, **arguments})


def test_the_exact_solver_says_that_it_cannot_be_traced():
    with pytest.raises(ValueError, match="epsilon > 0"):
        jax.jit(lambda x: otter.solve(x, jnp.array([0.5, 0.5])).cost)(jnp.zeros((4, 2)))
