"""Every net against its re-implementation in torch, with the same random weights and statistics."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.models import vision
from zsml_jax.models.vision.resnet import RESNET18, RESNET20, ResNet

pytestmark = pytest.mark.oracle
torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
from tests.models.vision import torch_nets  # noqa: E402 (imports torch)


def drawn(module, shape, seed=0):
    """Random variables; unlike fresh ones, no scale is 1 and no bias or statistic 0."""
    variables = jax.eval_shape(lambda: vision.init(module, jax.random.key(0), shape))
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = path[-1].key
        if name == "kernel":
            return (rng.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))).astype(np.float32)
        low, high = (0.5, 1.5) if name in ("scale", "var") else (-0.3, 0.3)
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, variables)


CASES = {
    "mlp": (vision.named("mlp", num_classes=10), (28, 28, 1), torch_nets.mlp, {}),
    "lenet5": (vision.named("lenet5", num_classes=10), (28, 28, 1), torch_nets.lenet5, {}),
    "cifar-net": (vision.named("cifar-net", num_classes=10), (32, 32, 3), torch_nets.cifar_net, {}),
    "resnet18": (ResNet(RESNET18), (64, 64, 3), lambda n, x: torch_nets.resnet(n, x, (2, 2, 2, 2), True), {}),
    "resnet20": (ResNet(RESNET20), (32, 32, 3), lambda n, x: torch_nets.resnet(n, x, (3, 3, 3), False), {}),
    "resnet20, groups": (
        ResNet(dataclasses.replace(RESNET20, norm=vision.Norm("group", num_groups=4))),
        (32, 32, 3),
        lambda n, x: torch_nets.resnet(n, x, (3, 3, 3), False),
        {"num_groups": 4},
    ),
    "wrn-16-2": (
        vision.named("wrn-16-2", num_classes=10),
        (32, 32, 3),
        lambda n, x: torch_nets.wide_resnet(n, x, 2),
        {},
    ),
    "efficientnet-lite0": (
        vision.named("efficientnet-lite0", num_classes=10),
        (65, 64, 3),  # an odd side, so that SAME pads differently
        torch_nets.efficientnet_lite0,
        {"eps": 1e-3},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_logits_equal_those_of_torch(name):
    module, shape, peer, options = CASES[name]
    variables = drawn(module, shape)
    images = np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32)
    logits, _ = jax.jit(lambda v, x: vision.apply(module, v, x))(variables, images)
    expected = peer(torch_nets.Net(*variables, **options), torch_nets.images(images)).numpy()
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(logits, expected, atol=1e-5 * max(1, np.abs(expected).max()))


def test_training_mode_equals_torch_and_its_running_variance_is_the_biased_one():
    module = ResNet(vision.ResNetConfig(3, (4, 8), (1, 1), shortcut="zero_pad"))
    shape = (8, 8, 3)
    variables = drawn(module, shape)
    images = np.random.default_rng(1).normal(size=(5, *shape)).astype(np.float32)
    logits, stats = jax.jit(lambda v, x: vision.apply(module, v, x, train=True))(variables, images)
    net = torch_nets.Net(*variables, train=True)
    expected = torch_nets.resnet(net, torch_nets.images(images), (1, 1), False)
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5 * max(1, np.abs(expected.numpy()).max()))
    mean, var = (part.numpy() for part in net.updated["stem_norm"])
    np.testing.assert_allclose(stats["stem_norm"]["mean"], mean, atol=1e-6)
    n, before = 5 * 8 * 8, variables.batch_stats["stem_norm"]["var"]
    np.testing.assert_allclose(stats["stem_norm"]["var"], 0.9 * before + (var - 0.9 * before) * (n - 1) / n, rtol=1e-5)


@pytest.mark.slow
def test_gradients_equal_those_of_torch():
    module, shape, peer, _ = CASES["lenet5"]
    variables = drawn(module, shape)
    images = np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32)
    ours = jax.grad(lambda x: jnp.sum(vision.apply(module, variables, x)[0] ** 2))(jnp.asarray(images))
    x = torch_nets.images(images).requires_grad_()
    (peer(torch_nets.Net(*variables), x) ** 2).sum().backward()
    np.testing.assert_allclose(ours, x.grad.permute(0, 2, 3, 1).numpy(), atol=1e-5)
