"""Untied heads: the same outputs, and an embedding that no longer follows its head."""

import numpy as np
import pytest

from tests.models import tiny_decoders, tiny_models
from tests.transform.stacks import random_params
from zsml_jax import models
from zsml_jax.models.bert import Bert, BertConfig
from zsml_jax.models.decoder import Decoder, DecoderConfig
from zsml_jax.models.mamba import Mamba, MambaConfig
from zsml_jax.models.pretrained import Pretrained
from zsml_jax.models.untied import untie

SHAPE = (23, 8, 2, 2, 12, 32)
TOKENS = np.random.default_rng(0).integers(1, 23, (2, 5)).astype(np.int32)
TIED = {
    "gpt2": (Decoder(DecoderConfig(*SHAPE, tied=True)), ("head",)),
    "mamba": (Mamba(MambaConfig(23, 8, 2, state_size=3)), ("head",)),
    "bert": (Bert(BertConfig(*SHAPE, masked_lm=True, pooler=False, embedding_width=4)), ("head", "decoder")),
}


def tied(name):
    module, path = TIED[name]
    return Pretrained(random_params(module, TOKENS), module, module.config, model_type=name), path


@pytest.mark.parametrize("name", TIED)
def test_an_untied_head_gives_the_same_scores_and_is_its_own(name):
    pretrained, path = tied(name)
    untied = untie(pretrained)
    expected = pretrained.apply(pretrained.params, TOKENS)
    np.testing.assert_allclose(untied.apply(untied.params, TOKENS), expected, atol=1e-5)
    head = untied.params
    for part in path:
        head = head[part]
    head["kernel"] = head["kernel"].at[:, 3].set(0.0)
    changed = untied.apply(untied.params, TOKENS)
    np.testing.assert_allclose(np.delete(changed, 3, -1), np.delete(np.asarray(expected), 3, -1), atol=1e-5)
    assert not np.allclose(changed[..., 3], expected[..., 3])
    with pytest.raises(ValueError, match="pretrained must be a model whose head over words is its word embedding"):
        untie(untied)


def test_a_model_without_a_head_cannot_be_untied():
    module = Bert(BertConfig(*SHAPE))
    with pytest.raises(ValueError, match="got a 'bert' with no head"):
        untie(Pretrained({}, module, module.config, model_type="bert"))


@pytest.mark.oracle
def test_an_untied_decoder_is_saved_as_one(tmp_path):
    pytest.importorskip("transformers", reason="the oracle extra is not installed")
    tiny_decoders.save_tiny_decoder(tmp_path / "tied", "gpt2")
    untied = untie(models.load(tmp_path / "tied"))
    models.save(untied, tmp_path / "untied")
    again = models.load(tmp_path / "untied")
    assert not again.config.tied
    np.testing.assert_array_equal(again.params["head"]["kernel"], untied.params["head"]["kernel"])


@pytest.mark.oracle
def test_an_untied_encoder_is_not_saved_as_if_it_were_tied(tmp_path):
    pytest.importorskip("transformers", reason="the oracle extra is not installed")
    tiny_models.save_tiny_model(tmp_path / "tied", "bert", masked_lm=True)
    with pytest.raises(ValueError, match="head/decoder/kernel has no name in the checkpoint"):
        models.save(untie(models.load(tmp_path / "tied")), tmp_path / "untied")
