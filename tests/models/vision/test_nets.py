"""The image nets: published sizes, batch statistics as arguments, and what they refuse."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.models import vision
from zsml_jax.models.vision.convolution import Norm
from zsml_jax.models.vision.resnet import RESNET20, ResNet, ResNetConfig
from zsml_jax.models.vision.wide_resnet import WideResNet, WideResNetConfig


def count(module, shape):
    variables = jax.eval_shape(lambda key: vision.init(module, key, shape), jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(variables.params))


@pytest.mark.parametrize(
    ("name", "num_classes", "shape", "published"),
    [
        ("lenet5", 10, (28, 28, 1), 61_706),
        ("cifar-net", 10, (32, 32, 3), 5_851_338),
        ("resnet18", 1000, (224, 224, 3), 11_689_512),
        ("resnet20", 10, (32, 32, 3), 269_722),
        ("wrn-28-10", 10, (32, 32, 3), 36_479_194),
        ("efficientnet-lite0", 1000, (224, 224, 3), 4_652_008),
        ("mlp", 10, (28, 28, 1), 784 * 128 + 128 + 128 * 10 + 10),
    ],
)
def test_a_net_has_as_many_parameters_as_published(name, num_classes, shape, published):
    assert count(vision.named(name, num_classes=num_classes), shape) == published


def test_resnet20_with_projections_has_as_many_parameters_as_published():
    net = ResNet(dataclasses.replace(RESNET20, shortcut="projection"))
    assert count(net, (32, 32, 3)) == 272_474


@pytest.mark.parametrize(("depth", "widening"), [(16, 1), (16, 4), (40, 2)])
def test_a_wide_net_has_the_size_of_its_formula(depth, widening):
    n, widths = (depth - 4) // 6, [16, 16 * widening, 32 * widening, 64 * widening]
    expected = 9 * 3 * 16 + 2 * widths[-1] + 10 * widths[-1] + 10
    for before, after in itertools.pairwise(widths):
        expected += 9 * before * after + (2 * n - 1) * 9 * after**2  # convolutions
        expected += before * after if before != after else 0  # shortcut
        expected += 2 * before + (2 * n - 1) * 2 * after  # norms
    assert count(WideResNet(WideResNetConfig(depth, widening)), (32, 32, 3)) == expected


def test_a_net_for_32_pixels_needs_no_padding():
    assert count(vision.LeNet5(vision.LeNet5Config(padding=0)), (32, 32, 1)) == 61_706


run = jax.jit(vision.apply, static_argnums=0, static_argnames="train")
SMALL = ResNetConfig(3, (4, 8), (1, 1))


@pytest.fixture(scope="module")
def images():
    return 2 + 3 * jax.random.normal(jax.random.key(1), (6, 8, 8, 3))


@pytest.fixture(scope="module")
def small(images):
    module = ResNet(SMALL)
    return module, vision.init(module, jax.random.key(0), images.shape[1:])


def test_training_returns_new_statistics_and_evaluation_the_old_ones(small, images):
    module, variables = small
    logits, after = run(module, variables, images, train=True)
    again, same = run(module, variables, images, train=True)
    np.testing.assert_array_equal(logits, again)
    stem = jax.lax.conv_general_dilated(
        images, variables.params["stem"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    mean, var = stem.mean((0, 1, 2)), stem.var((0, 1, 2))
    np.testing.assert_allclose(after["stem_norm"]["mean"], 0.1 * mean, atol=1e-5)
    np.testing.assert_allclose(after["stem_norm"]["var"], 0.9 + 0.1 * var, rtol=1e-5)
    assert jax.tree.structure(after) == jax.tree.structure(same) == jax.tree.structure(variables.batch_stats)
    _, unchanged = run(module, variables, images)
    jax.tree.map(np.testing.assert_array_equal, unchanged, variables.batch_stats)
    assert not np.allclose(run(module, variables._replace(batch_stats=after), images)[0], logits)


def test_running_statistics_converge_to_those_of_the_batch(small, images):
    module, variables = small
    moved = variables
    for _ in range(150):
        moved = moved._replace(batch_stats=run(module, moved, images, train=True)[1])
    expected, _ = run(module, variables, images, train=True)
    np.testing.assert_allclose(run(module, moved, images)[0], expected, atol=1e-4)


def test_group_norm_judges_each_image_alone_and_has_no_statistics(images):
    module = ResNet(dataclasses.replace(SMALL, norm=Norm("group", num_groups=2)))
    variables = vision.init(module, jax.random.key(0), images.shape[1:])
    assert variables.batch_stats == {}
    logits, stats = run(module, variables, images, train=True)
    assert stats == {}
    np.testing.assert_allclose(run(module, variables, images[:1])[0], logits[:1], atol=1e-5)


def test_half_precision_nets_keep_float32_parameters_and_logits(images):
    module = ResNet(dataclasses.replace(SMALL, dtype="bfloat16"))
    variables = vision.init(module, jax.random.key(0), images.shape[1:])
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    logits, _ = run(module, variables, images)
    expected, _ = run(ResNet(SMALL), variables, images)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, expected, atol=0.1 * np.abs(expected).max())


def test_a_net_trains_under_vmap_with_its_own_statistics(small, images):
    module, _ = small
    keys = jax.random.split(jax.random.key(3), 2)
    many = jax.jit(jax.vmap(lambda key: vision.init(module, key, images.shape[1:])))(keys)
    batches = jnp.stack([images, 2 * images])
    logits, stats = jax.vmap(lambda v, x: run(module, v, x, train=True))(many, batches)
    one = jax.tree.map(lambda leaf: leaf[1], many)
    expected, expected_stats = run(module, one, batches[1], train=True)
    np.testing.assert_allclose(logits[1], expected, atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, atol=1e-4), stats, expected_stats)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vision.named("resnet19", num_classes=10), "there is no net 'resnet19'.*resnet18"),
        (lambda: vision.named("mlp", num_classes=0), "num_classes must be at least 1, got 0"),
        (lambda: vision.named("mlp", num_classes=2, norm=Norm()), "norm must be None for mlp"),
        (lambda: vision.named("wrn-27-1", num_classes=10), r"depth must be 6 n \+ 4 for a positive n, got 27"),
        (lambda: WideResNetConfig(16, 0), "widening must be at least 1, got 0"),
        (lambda: Norm("layer"), "kind must be 'batch' or 'group', got 'layer'"),
        (lambda: Norm(num_groups=0), "num_groups must be at least 1, got 0"),
        (lambda: ResNetConfig(2, (4,), (1, 1)), "widths and depths must name the same stages"),
        (lambda: ResNetConfig(2, (4,), (1,), stem="vgg"), "stem must be one of"),
        (lambda: vision.LeNet5Config(activation="gelu"), r"activation must be one of \['relu', 'tanh'\], got 'gelu'"),
        (lambda: vision.init(ResNet(SMALL), jax.random.key(0), (8, 8)), "image_shape must be height, width"),
        (lambda: vision.init(vision.named("lenet5", num_classes=2), jax.random.key(0), (8, 8, 1)), "16 pixels"),
        (lambda: vision.init(vision.named("cifar-net", num_classes=2), jax.random.key(0), (7, 9, 3)), "8 pixels"),
        (lambda: vision.preprocess(np.zeros((2, 4, 4, 1))), r"images must be \(b, height, width, 3\)"),
        (lambda: vision.preprocess(np.zeros((2, 4, 4, 3)), size=0), "size must be at least 1"),
    ],
)
def test_bad_shapes_are_refused_by_name(unchecked_types, make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_images_without_a_batch_are_refused(small, unchecked_types):
    with pytest.raises(ValueError, match=r"images must be \(b, height, width, channels\), got the shape \(8, 8, 3\)"):
        vision.apply(*small, np.zeros((8, 8, 3)))
