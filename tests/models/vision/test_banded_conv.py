import flax.linen as nn
import jax
import numpy as np
import pytest

from zsml_jax.models.vision.banded_conv import BandedConv


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "padding", "width"),
    [(5, 2, 12), (3, 0, 11), (3, 0, 7)],
    ids=["two strips", "three strips", "one strip: 5 columns of features are not divided by 3 or 4"],
)
def test_it_gives_the_values_and_gradients_of_a_convolution_with_the_same_parameters(key, kernel, padding, width):
    x = jax.random.normal(key, (2, 8, width, 3))
    ours = BandedConv(4, kernel, padding)
    peer = nn.Conv(4, (kernel, kernel), padding=padding)
    params = ours.init(key, x)
    params = jax.tree.map(lambda p: p + 0.1, params)  # so that there is a bias
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, peer.init(key, x))

    def results(module):
        loss = lambda params, x: (module.apply(params, x) ** 2).mean()
        return module.apply(params, x), jax.grad(loss, argnums=(0, 1))(params, x)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=2e-5), results(ours), results(peer))


def test_kernels_of_their_own_for_each_trial_give_what_a_loop_gives(key):
    x = jax.random.normal(key, (2, 6, 6, 1))
    module = BandedConv(3, 3, 1)
    stacked = jax.vmap(module.init, (0, None))(jax.random.split(key, 3), x)
    together = jax.vmap(module.apply, (0, None))(stacked, x)
    alone = [module.apply(jax.tree.map(lambda p, i=i: p[i], stacked), x) for i in range(3)]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-6)
