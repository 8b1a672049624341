import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.zeroshot.prior_matching_released import initial_multipliers, match_as_released, tune_as_released


def _problem(n=60, k=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    scores = rng.normal(size=(n, k)) + 2 * np.eye(k)[labels] + rng.normal(size=k)
    return scores, labels, np.bincount(labels, minlength=k) / n


def test_the_first_multipliers_are_a_distribution(key):
    multipliers = initial_multipliers(key, 7)
    assert (multipliers > 0).all()
    np.testing.assert_allclose(multipliers.sum(), 1, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("steps", [1, 2, 10, 300])
def test_every_step_is_that_of_torch_adamw(steps, key, x64):
    torch = pytest.importorskip("torch")
    scores, _, target = _problem()
    temperature, learning_rate = 0.05, 0.01
    probabilities = torch.tensor(np.array(jax.nn.softmax(jnp.asarray(scores))))
    multipliers = torch.tensor(np.array(initial_multipliers(key, 4)), requires_grad=True)
    optimizer = torch.optim.AdamW([multipliers], lr=learning_rate)
    for _ in range(steps):
        predictions = torch.softmax(multipliers * probabilities / temperature, dim=1)
        loss = torch.nn.functional.mse_loss(predictions.mean(dim=0), torch.tensor(target))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    output = match_as_released(
        scores,
        target,
        key=key,
        temperature=temperature,
        learning_rate=learning_rate,
        tolerance=0.0,
        max_iterations=steps,
    )
    assert output.iterations == steps
    np.testing.assert_allclose(output.multipliers, multipliers.detach().numpy(), rtol=1e-9)


def test_the_fit_stops_once_the_loss_is_below_the_tolerance(key):
    scores, _, target = _problem()
    output = match_as_released(scores, target, key=key, temperature=0.1, learning_rate=0.01, tolerance=1e-6)
    assert output.converged
    assert output.iterations < 10_000
    predictions = jax.nn.softmax(output.multipliers * jax.nn.softmax(jnp.asarray(scores)) / 0.1)
    np.testing.assert_allclose(jnp.square(predictions.mean(axis=0) - target).mean(), output.loss, rtol=1e-3)
    assert output.loss < 1e-6


def test_too_few_steps_are_reported_as_not_converged(key):
    scores, _, target = _problem()
    output = match_as_released(scores, target, key=key, max_iterations=5)
    assert not output.converged
    assert output.iterations == 5


def test_tuning_selects_the_fit_with_the_best_validation_accuracy(key):
    scores, labels, target = _problem(n=200)
    temperatures, learning_rates = np.array([1e-3, 0.1, 1.0]), np.array([1e-4, 1e-2])
    tuned = tune_as_released(
        scores,
        target,
        scores[:50],
        labels[:50],
        key=key,
        temperatures=temperatures,
        learning_rates=learning_rates,
        max_iterations=300,
    )
    accuracy = np.zeros((3, 2))
    for i, temperature in enumerate(temperatures):
        for j, learning_rate in enumerate(learning_rates):
            output = match_as_released(
                scores, target, key=key, temperature=temperature, learning_rate=learning_rate, max_iterations=300
            )
            accuracy[i, j] = np.mean(output.predict(scores[:50]) == labels[:50])
    np.testing.assert_allclose(tuned.validation_accuracy, accuracy, atol=1e-6)
    row, column = np.unravel_index(accuracy.argmax(), accuracy.shape)
    assert tuned.temperature == pytest.approx(temperatures[row])
    assert tuned.learning_rate == pytest.approx(learning_rates[column])
    assert np.mean(tuned.fitted.predict(scores[:50]) == labels[:50]) == pytest.approx(accuracy.max())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log_probs": np.array([[np.nan, 0.0]])}, "log_probs must hold neither NaN"),
        ({"label_distribution": np.array([0.2, 0.2])}, "label_distribution must sum to 1"),
        ({"temperature": 0.0}, "temperature must be positive and finite, got 0"),
        ({"learning_rate": -1.0}, "learning_rate must be positive"),
    ],
)
def test_unsound_input_is_refused_by_name(change, message, key):
    arguments = {"log_probs": np.zeros((1, 2)), "label_distribution": np.array([0.5, 0.5])} | change
    with pytest.raises(ValueError, match=message):
        match_as_released(**arguments, key=key)


def test_validation_scores_of_other_classes_are_refused(key, unchecked_types):
    with pytest.raises(ValueError, match="validation_log_probs must have 2 columns as log_probs, got 3"):
        tune_as_released(
            np.zeros((1, 2)),
            np.array([0.5, 0.5]),
            np.zeros((1, 3)),
            np.array([0]),
            key=key,
            temperatures=np.array([1.0]),
            learning_rates=np.array([1.0]),
        )
