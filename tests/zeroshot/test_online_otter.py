import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.zeroshot.transport_problems import frequencies, scores
from zsml_jax.zeroshot import online_otter, otter

K = 5


def stream(n_batches, size, seed=0):
    """Batches of scores, ``(n_batches, size, K)``, their labels, and the label frequencies of the whole stream."""
    log_probs, labels = scores(n_batches * size, K, seed)
    batches = jnp.asarray(log_probs, jnp.float32).reshape(n_batches, size, K)
    return batches, labels.reshape(n_batches, size), frequencies(labels, K)


def carried(batches, nu, *, window=1000, **settings):
    """Predicts each batch before it updates the state; returns the last state and the predictions."""

    def step(state, batch):
        return online_otter.update(state, batch, nu, **settings), state.predict(batch)

    return jax.jit(lambda batches: jax.lax.scan(step, online_otter.init(nu, window=window), batches))(batches)


def centred(dual):
    return dual - dual.mean()


@pytest.mark.slow
@pytest.mark.parametrize("size", [7, 1000])
def test_the_dual_is_that_of_entropic_otter_on_the_window(size):
    batches, _, nu = stream(2000 // size, size)
    state, _ = carried(batches, nu, tolerance=1e-5)
    n_seen = batches.shape[0] * size
    oracle = otter.solve(batches.reshape(-1, K)[-1000:], otter.Near(nu, n_seen / K), epsilon=0.1)
    assert state.n_seen == n_seen
    assert state.converged
    np.testing.assert_allclose(state.dual, oracle.dual, atol=1e-3)


def test_a_window_that_is_not_full_holds_what_was_seen():
    batches, _, nu = stream(3, 50)
    state, _ = carried(batches, nu, tolerance=1e-5)
    oracle = otter.solve(batches.reshape(-1, K), otter.Near(nu, 150 / K), epsilon=0.1)
    np.testing.assert_allclose(state.dual, oracle.dual, atol=1e-3)


def test_a_batch_larger_than_the_window_leaves_its_last_examples():
    batches, _, nu = stream(1, 300)
    state = online_otter.update(online_otter.init(nu, window=100), batches[0], nu)
    np.testing.assert_array_equal(state.window, batches[0, -100:])


def test_predictions_of_a_long_stream_are_as_good_as_those_of_otter_on_all_of_it():
    batches, labels, nu = stream(1000, 10)
    _, predictions = carried(batches, nu)
    zero_shot = np.mean(batches.argmax(axis=-1) == labels)
    at_once = np.mean(otter.solve(batches.reshape(-1, K), nu).assignment == labels.ravel())
    assert at_once > zero_shot + 0.1
    assert np.mean(predictions == labels) > at_once - 0.01


@pytest.mark.slow
def test_small_batches_alone_predict_worse():
    batches, labels, nu = stream(400, 10, seed=1)
    alone = [otter.solve(batch, nu, epsilon=0.1).assignment for batch in batches[200:]]
    _, predictions = carried(batches, nu)
    accuracy = lambda predictions: np.mean(np.stack(predictions) == labels[200:])
    assert accuracy(predictions[200:]) > accuracy(alone) + 0.05


@pytest.mark.slow
def test_the_dual_follows_a_stream_whose_scores_drift():
    batches, _, nu = stream(40, 50)
    drifted = batches + jnp.array([2.0, 0.0, 0.0, 0.0, -1.0])
    state, _ = carried(jnp.concatenate([batches, drifted]), nu)
    optimal = otter.solve(drifted.reshape(-1, K), nu, epsilon=0.1).dual
    np.testing.assert_allclose(centred(state.dual), centred(optimal), atol=0.3)
    everything, _ = carried(jnp.concatenate([batches, drifted]), nu, window=4000)
    assert np.abs(centred(everything.dual) - centred(optimal)).max() > 0.6


def test_the_label_distribution_may_drift_too():
    batches, _, nu = stream(40, 50)
    other = np.roll(nu, 1)
    state, _ = carried(batches, nu)
    updated = jax.jit(lambda state: online_otter.update(state, batches[0], other))(state)
    mass = np.bincount(updated.predict(updated.window), minlength=K) / 1000
    np.testing.assert_allclose(mass, other, atol=0.05)


def test_a_class_of_zero_mass_is_never_predicted():
    batches, _, _ = stream(20, 50)
    nu = np.array([0.5, 0.0, 0.2, 0.3, 0.0])
    state, predictions = carried(batches, nu)
    np.testing.assert_array_equal(np.isneginf(state.dual), nu == 0)
    assert np.isin(predictions, [0, 2, 3]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"log_probs": np.zeros((4, 3)), "label_distribution": np.full(3, 1 / 3)},
            "3 classes, but the state has 2",
        ),
        ({"log_probs": np.full((4, 2), np.nan)}, "log_probs must hold neither NaN"),
        ({"label_distribution": np.array([0.5, 0.6])}, "label_distribution must sum to 1"),
        ({"epsilon": 0.0}, "epsilon must be positive, got 0.0"),
    ],
)
def test_unsound_input_is_refused_by_name(change, message, unchecked_types):
    nu = np.array([0.5, 0.5])
    arguments = {"log_probs": np.zeros((4, 2)), "label_distribution": nu} | change
    with pytest.raises(ValueError, match=message):
        online_otter.update(online_otter.init(nu), **arguments)


def test_a_window_without_room_is_refused():
    with pytest.raises(ValueError, match="window must be positive, got 0"):
        online_otter.init(np.array([0.5, 0.5]), window=0)
