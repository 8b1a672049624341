import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

from zsml_jax.models.vision.depthwise_conv import depthwise_conv


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [((7, 6), 3, 1, "SAME"), ((8, 7), 5, 2, "SAME"), ((9, 8), 3, 2, 1), ((6, 6), 3, 1, "VALID")],
)
def test_shifted_sums_have_the_values_and_gradients_of_xlas_convolution(key, size, kernel, stride, padding):
    x = jax.random.normal(key, (2, *size, 3))
    conv = functools.partial(nn.Conv, 3, (kernel, kernel), stride, padding, feature_group_count=3)
    ours, peer = conv(conv_general_dilated=depthwise_conv), conv()
    params = ours.init(key, x)

    def results(module):
        loss = lambda params, x: (module.apply(params, x) ** 2).mean()
        return jax.jit(module.apply)(params, x), jax.jit(jax.grad(loss, argnums=(0, 1)))(params, x)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5), results(ours), results(peer))


def test_an_accelerator_keeps_xlas_convolution(key):
    x, kernel = jax.random.normal(key, (1, 6, 6, 4)), jax.random.normal(key, (3, 3, 1, 4))
    names = ("NHWC", "HWIO", "NHWC")
    run = jax.jit(lambda x, k: depthwise_conv(x, k, (1, 1), "SAME", dimension_numbers=names, feature_group_count=4))
    lowered = run.trace(x, kernel).lower(lowering_platforms=("cuda",)).as_text()
    assert "stablehlo.convolution" in lowered
    assert "stablehlo.convolution" not in run.lower(x, kernel).as_text()
