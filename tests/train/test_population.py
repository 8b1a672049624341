"""Exploit and explore against what truncation selection says."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.train.population import exploit

LOSS = jnp.asarray([0.5, 0.1, math.nan, 0.4, 0.2, 0.9, 0.3, 0.6, 0.7, 0.8])
STATE = {"w": jnp.arange(20.0).reshape(10, 2), "step": jnp.arange(10)}
RATES = {"rate": 1.0 + jnp.arange(10.0), "decay": jnp.full(10, 0.5)}


def test_the_worst_become_copies_of_the_best_with_perturbed_hyperparameters(key):
    result = jax.jit(lambda key: exploit(key, STATE, RATES, LOSS, fraction=0.3))(key)
    worst, best = [2, 5, 9], {1, 4, 6}  # NaN, 0.9, 0.8 and 0.1, 0.2, 0.3
    for i, source in enumerate(result.source.tolist()):
        assert source in best if i in worst else source == i
    jax.tree.map(lambda new, old: np.testing.assert_array_equal(new, old[result.source]), result.state, STATE)
    for name, values in RATES.items():
        factors = np.asarray(result.hyperparameters[name] / values[result.source])
        np.testing.assert_allclose(np.delete(factors, worst), 1)
        assert set(np.round(10 * factors[worst]).tolist()) <= {8, 12}


def test_parents_and_factors_are_drawn_alike(key):
    draw = lambda key: exploit(key, STATE, RATES, LOSS, fraction=0.2)
    many = jax.vmap(draw)(jax.random.split(key, 2000))
    parents = np.asarray(many.source)[:, 2]
    assert set(parents) == {1, 4}
    assert np.mean(parents == 1) == pytest.approx(0.5, abs=0.05)
    up = np.asarray(many.hyperparameters["rate"])[:, 2] / (1.0 + parents) > 1
    assert np.mean(up) == pytest.approx(0.5, abs=0.05)


def test_a_population_too_small_for_the_fraction_stays_as_it_is(key):
    result = exploit(key, STATE["w"][:3], {"rate": RATES["rate"][:3]}, LOSS[:3], fraction=0.2)
    np.testing.assert_array_equal(result.state, STATE["w"][:3])
    assert result.source.tolist() == [0, 1, 2]


def test_wrong_fractions_and_factors_are_refused(key):
    for fraction in (0.0, 0.6):
        with pytest.raises(ValueError, match=r"fraction must lie in \(0, 0.5\]"):
            exploit(key, STATE, RATES, LOSS, fraction=fraction)
    with pytest.raises(ValueError, match="at least one factor"):
        exploit(key, STATE, RATES, LOSS, factors=())
