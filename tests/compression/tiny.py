"""Tiny models with random parameters, and their calibration data."""

import jax
import numpy as np

from zsml_jax.compression import Calibration
from zsml_jax.models.bert import Bert, BertConfig
from zsml_jax.models.decoder import Decoder, DecoderConfig
from zsml_jax.models.mamba import Mamba, MambaConfig
from zsml_jax.models.pretrained import Pretrained
from zsml_jax.models.rotary import Rotary
from zsml_jax.models.t5 import T5
from zsml_jax.models.t5_config import T5Config

VOCAB, WIDTH = 23, 8
SHAPE = (VOCAB, WIDTH, 2, 2, 12, 32)
MODULES = {
    "llama": Decoder(DecoderConfig(*SHAPE, num_kv_heads=1, rotary=Rotary(4))),
    "mamba": Mamba(MambaConfig(VOCAB, WIDTH, 2, state_size=3)),
    "bert": Bert(BertConfig(*SHAPE, masked_lm=True, pooler=False)),
    "albert": Bert(BertConfig(*SHAPE, num_groups=1, embedding_width=4)),
    "t5": T5(T5Config(VOCAB, WIDTH, 2, 2, 2, 4, 12)),
}


def model(name: str, seed: int = 0) -> Pretrained:
    """A model in which no parameter is zero."""
    module = MODULES[name]
    tokens = np.ones((1, 2), np.int32)
    inputs = {"decoder_tokens_BxT": tokens} if name == "t5" else {}
    shapes = jax.eval_shape(module.init, jax.random.key(0), tokens, **inputs)["params"]
    leaves, treedef = jax.tree.flatten(shapes)
    rng = np.random.default_rng(seed)
    params = treedef.unflatten([rng.normal(size=leaf.shape).astype(np.float32) / 2 for leaf in leaves])
    return Pretrained(params, module, module.config, model_type=name)


def calibration(pretrained: Pretrained, rows: int = 5, length: int = 9, seed: int = 1) -> Calibration:
    """Random tokens in batches of which the last is smaller."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, VOCAB, (rows, length)).astype(np.int32)
    decoder = rng.integers(1, VOCAB, (rows, 4)).astype(np.int32) if pretrained.model_type == "t5" else None
    return Calibration(pretrained, tokens, decoder, batch_size=3)
