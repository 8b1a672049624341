"""Layers run one at a time give what the whole model gives."""

import jax
import numpy as np
import pytest

from tests.transform.stacks import random_params
from zsml_jax import transform
from zsml_jax.models.bert import Bert, BertConfig
from zsml_jax.models.blocks import stacks
from zsml_jax.models.clip import Clip, ClipConfig, TowerConfig
from zsml_jax.models.decoder import Decoder, DecoderConfig
from zsml_jax.models.mamba import Mamba, MambaConfig
from zsml_jax.models.pretrained import Pretrained
from zsml_jax.models.rotary import Rotary
from zsml_jax.models.t5 import T5
from zsml_jax.models.t5_config import T5Config

SHAPE = (23, 8, 4, 2, 12, 32)
TOKENS = np.random.default_rng(0).integers(1, 23, (2, 7)).astype(np.int32)
slow = lambda *values: pytest.param(*values, marks=pytest.mark.slow)
MODULES = {
    "llama": Decoder(DecoderConfig(*SHAPE, num_kv_heads=1, rotary=Rotary(4))),
    "gpt_neo": Decoder(DecoderConfig(*SHAPE, tied=True, norm="layer", window=3, full_layers=(0, 2))),
    "mamba": Mamba(MambaConfig(23, 8, 2, state_size=3)),
    "bert": Bert(BertConfig(*SHAPE)),
    "albert": Bert(BertConfig(*SHAPE, num_groups=2, embedding_width=4)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", slow("gpt_neo"), slow("mamba"), slow("bert"), "albert"])
def test_the_layers_one_by_one_end_where_the_whole_model_does(name):
    module = MODULES[name]
    pretrained = Pretrained(random_params(module, TOKENS), module, module.config)
    (stack,) = stacks(pretrained)
    state = stack.enter(pretrained.params, TOKENS)
    for i in range(stack.length):
        state = stack.run(stack.take(pretrained.params, i), state, i)
    if name in ("bert", "albert"):
        expected = pretrained.hidden_states(pretrained.params, TOKENS)
        np.testing.assert_allclose(state.carry, expected, atol=1e-5)
        return
    apply = lambda params: module.apply({"params": params}, TOKENS)
    _, captured = jax.jit(transform.capture(apply, "layers"))(pretrained.params)
    last = captured["layers"][0][0] if name != "mamba" else captured["layers"][0]
    carry = state.carry if name == "mamba" else state.carry[0]
    np.testing.assert_allclose(carry, last[-1], atol=1e-5)


@pytest.mark.slow
def test_the_decoder_of_a_t5_is_entered_behind_its_encoder():
    module = T5(T5Config(23, 8, 2, 3, 2, 4, 12))
    shapes = jax.eval_shape(module.init, jax.random.key(0), TOKENS, decoder_tokens_BxT=TOKENS)["params"]
    leaves, treedef = jax.tree.flatten(shapes)
    rng = np.random.default_rng(0)
    params = treedef.unflatten([0.5 * rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves])
    pretrained = Pretrained(params, module, module.config)
    encoder, decoder = stacks(pretrained)
    assert (encoder.length, decoder.length) == (2, 3)
    state = decoder.enter(params, TOKENS, decoder_tokens_BxT=TOKENS[:, :4])
    for i in range(3):
        state = decoder.run(decoder.take(params, i), state, i)
    norm = params["decoder"]["norm"]["scale"]
    hidden = state.carry[0]
    scaled = hidden / np.sqrt(np.square(hidden).mean(-1, keepdims=True) + 1e-6) * norm
    expected = module.apply({"params": params}, TOKENS, decoder_tokens_BxT=TOKENS[:, :4]).last
    np.testing.assert_allclose(scaled, expected, atol=1e-5)


def test_other_models_are_refused():
    tower = TowerConfig(8, 2, 2, 12)
    module = Clip(ClipConfig(tower, tower))
    with pytest.raises(ValueError, match="pretrained must be a decoder, a Mamba, a T5 or a BERT, got a Clip"):
        stacks(Pretrained({}, module, module.config))
