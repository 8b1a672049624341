"""Untied heads: the same outputs, and an embedding that no longer follows its head."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from tests.models import tiny_decoders, tiny_models
from tests.transform.stacks import random_params
from zsml_jax import models
from zsml_jax.models.bert import Bert, BertConfig
from zsml_jax.models.decoder import Decoder, DecoderConfig
from zsml_jax.models.initialise import initialise
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

_BERT = {"vocab_size": 23, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12,
         "max_position_embeddings": 32, "pad_token_id": 0}  # fmt: skip
HUBS = {
    "bert": {"model_type": "bert", **_BERT},
    "roberta": {"model_type": "roberta", **_BERT},
    "distilbert": {"model_type": "distilbert", "vocab_size": 23, "dim": 8, "n_layers": 2, "n_heads": 2,
                   "hidden_dim": 12, "max_position_embeddings": 32},
    "albert": {"model_type": "albert", "embedding_size": 4, **_BERT},
    "t5": {"model_type": "t5", "vocab_size": 23, "d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 2, "num_heads": 2},
}  # fmt: skip


def tied(name):
    module, path = TIED[name]
    return Pretrained(random_params(module, TOKENS), module, module.config, model_type=name), path


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "albert", "t5"])
def test_an_untied_model_with_a_head_over_words_comes_back_from_its_folder(name, tmp_path):
    tied = initialise(HUBS[name], key=jax.random.key(0))
    if name != "t5":
        tied = headed(tied)
    untied = untie(tied)
    changed = jax.tree.map(lambda x: x + 0.1, untied.params["head"])
    untied = dataclasses.replace(untied, params={**untied.params, "head": changed})
    models.save(untied, tmp_path / "untied")
    again = models.load(tmp_path / "untied")
    assert again.config == untied.config and not again.config.tied
    chex.assert_trees_all_equal(again.params, untied.params)


def headed(pretrained):
    """The same encoder with a head for masked words."""
    config = dataclasses.replace(pretrained.config, masked_lm=True, pooler=False)
    module = type(pretrained.module)(config)
    return dataclasses.replace(pretrained, params=random_params(module, TOKENS), module=module, config=config)


@pytest.mark.slow
@pytest.mark.oracle
def test_transformers_computes_with_an_untied_encoder_what_we_do(tmp_path):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    tiny_models.save_tiny_model(tmp_path / "tied", "bert", masked_lm=True)
    untied = untie(models.load(tmp_path / "tied"))
    kernel = untied.params["head"]["decoder"]["kernel"]
    untied.params["head"]["decoder"]["kernel"] = kernel.at[:, 3].set(0.0)
    models.save(untied, tmp_path / "untied")
    peer = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "untied").eval()
    with torch.no_grad():
        expected = peer(torch.tensor(TOKENS).long()).logits.numpy()
    np.testing.assert_allclose(untied.apply(untied.params, TOKENS), expected, atol=2e-5)
