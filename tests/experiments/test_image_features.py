import jax
import numpy as np
import pytest

from experiments import autows_data, image_features
from zsml_jax.data.dataset import Dataset
from zsml_jax.models import vision
from zsml_jax.models.vision.efficientnet import EfficientNet, EfficientNetConfig, Stage


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_the_features_of_an_image_net_are_what_its_last_layer_reads(monkeypatch, channels):
    module = EfficientNet(EfficientNetConfig(5, (Stage(1, 3, 1, 1, 4),), stem_width=4, head_width=6))
    variables = vision.init(module, jax.random.key(0), (32, 32, 3))
    monkeypatch.setattr(image_features, "load_efficientnet", lambda: (module, variables))
    images = np.random.default_rng(0).random((5, 28, 28, *channels), np.float32)
    features = image_features.image_net(images, batch=2)
    assert features.shape == (5, 6)
    colours = np.broadcast_to(images.reshape(5, 28, 28, -1), (5, 28, 28, 3))
    logits, _ = vision.apply(module, variables, vision.preprocess(255 * colours))
    head = variables.params["head"]
    np.testing.assert_allclose(features @ head["kernel"] + head["bias"], logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "channels"), [("mnist", 1), ("fashion_mnist", 1), ("cifar10", 3)])
def test_images_of_one_channel_have_no_axis_for_it(monkeypatch, tmp_path, name, channels):
    images = np.full((4, 28, 28, channels), 51, np.uint8)
    told = Dataset(name, "train", images, np.arange(4) % 2, ("a", "b"))
    monkeypatch.setattr(autows_data.data, "load", lambda source, *, split, data_dir: told)
    content = autows_data.load(name, data_dir=tmp_path, train_examples=3, test_examples=2)
    assert content.train.shape == ((3, 28, 28) if channels == 1 else (3, 28, 28, 3))
    np.testing.assert_allclose(content.test, 0.2, rtol=1e-6)
