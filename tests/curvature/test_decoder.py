import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.curvature import decoder


def test_the_probability_is_that_of_fermi_and_dirac():
    d2 = jnp.array([0.0, 2.0, 5.0])
    found = 1 / (1 + jnp.exp(-decoder.logits(decoder.init(2.0, 0.5), d2)))
    np.testing.assert_allclose(found, 1 / (np.exp((d2 - 2.0) / 0.5) + 1), rtol=1e-5)


def test_a_collapsed_model_has_the_loss_that_the_published_baselines_sit_at():
    np.testing.assert_allclose(decoder.collapsed_loss(decoder.init()), 2.25386, atol=1e-5)
    s = 1 / (1 + np.exp(-3.0 / 2.0))
    np.testing.assert_allclose(decoder.collapsed_loss(decoder.init(3.0, 2.0)), -np.log(s) - np.log(1 - s), rtol=1e-5)


def test_constant_scores_are_warned_of_and_others_not():
    with pytest.warns(decoder.CollapseWarning, match=r"GCN gives all pairs one score .*2\.2539"):
        assert decoder.warn_if_collapsed("GCN", np.full(5, 2.0), decoder.init())
    assert not decoder.warn_if_collapsed("GCN", np.array([2.0, 1.9]), decoder.init())


def test_a_temperature_must_be_positive():
    with pytest.raises(ValueError, match="temperature must be positive, got 0.0"):
        decoder.init(temperature=0.0)
