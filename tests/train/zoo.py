"""Models of every family: full-size ones by their shapes alone, and tiny random ones with a batch and a loss."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zsml_jax.models import vision
from zsml_jax.models.bert import Bert, BertConfig
from zsml_jax.models.clip import Clip, ClipConfig, TowerConfig
from zsml_jax.models.decoder import Decoder
from zsml_jax.models.decoder_config import DecoderConfig
from zsml_jax.models.mamba import Mamba, MambaConfig
from zsml_jax.models.rotary import Rotary
from zsml_jax.models.t5 import T5, T5Config
from zsml_jax.models.vision.convolution import Norm
from zsml_jax.models.vision.resnet import ResNet, ResNetConfig
from zsml_jax.train import sharding_tables as tables

_TOKENS = jax.ShapeDtypeStruct((1, 2), jnp.int32)
_PLAIN = {"query_bias": True, "out_bias": True, "mlp_bias": True, "gated": False, "norm": "layer"}
_IMAGE = {"lenet5": (28, 28, 1), "mlp": (28, 28, 1), "resnet18": (224, 224, 3), "efficientnet-lite0": (224, 224, 3)}


def _decoder(*sizes, **fields):
    return Decoder(DecoderConfig(*sizes, **fields)), tables.DECODER


#: Published sizes; vocabulary, width, layers, heads, hidden width and positions of decoders and encoders.
FULL = {
    "gpt2": _decoder(50257, 768, 12, 12, 3072, 1024, tied=True, **_PLAIN),
    "head with bias": _decoder(50304, 1024, 24, 16, 4096, 2048, rotary=Rotary(16), head_bias=True, **_PLAIN),
    "smollm2-135m": _decoder(49152, 576, 30, 9, 1536, 8192, num_kv_heads=3, rotary=Rotary(64), tied=True),
    "llama-2-7b": _decoder(32000, 4096, 32, 32, 11008, 4096, rotary=Rotary(128)),
    "llama-3.1-8b": _decoder(128256, 4096, 32, 32, 14336, 131072, num_kv_heads=8, rotary=Rotary(128)),
    "qwen2.5-7b": _decoder(152064, 3584, 28, 28, 18944, 131072, num_kv_heads=4, rotary=Rotary(128), query_bias=True),
    "qwen3-8b": _decoder(151936, 4096, 36, 32, 12288, 40960, num_kv_heads=8, rotary=Rotary(128), query_norm=True),
    "mamba-130m": (Mamba(MambaConfig(50280, 768, 24)), tables.MAMBA),
    "mamba-2.8b, biases, untied": (Mamba(MambaConfig(50280, 2560, 64, tied=False, dense_bias=True)), tables.MAMBA),
    "minilm": (Bert(BertConfig(30522, 384, 6, 12, 1536, 512)), tables.BERT),
    "roberta-large": (Bert(BertConfig(50265, 1024, 24, 16, 4096, 514, 1, 1, masked_lm=True)), tables.BERT),
    "albert-base": (Bert(BertConfig(30000, 768, 12, 12, 3072, 512, embedding_width=128, num_groups=1)), tables.BERT),
    "t5-small": (T5(T5Config(32128, 512, 6, 6, 8, 64, 2048)), tables.T5),
    "t5-v1.1-xl": (T5(T5Config(32128, 2048, 24, 24, 32, 64, 5120, gated=True, tied=False)), tables.T5),
    "clip-vit-b/16": (Clip(ClipConfig(TowerConfig(512, 12, 8, 2048), TowerConfig(768, 12, 12, 3072), patch_size=16)),
                      tables.CLIP),
    **{name: (vision.named(name, num_classes=10), tables.VISION)
       for name in ("mlp", "lenet5", "cifar-net", "resnet18", "resnet20", "wrn-28-10", "efficientnet-lite0")},
}  # fmt: skip


@functools.cache
def shapes(module) -> dict[str, Any]:
    """Returns the abstract parameters of a model."""
    if isinstance(module, Decoder | Mamba | Bert | T5 | Clip):
        extra = {}
        if isinstance(module, T5):
            extra = {"decoder_tokens_BxT": _TOKENS}
        if isinstance(module, Clip):
            size, channels = module.config.image_size, module.config.channels
            extra = {"images_NxYxXxC": jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)}
        return jax.eval_shape(module.init, jax.random.key(0), _TOKENS, **extra)["params"]
    side = next((shape for name, shape in _IMAGE.items() if module == FULL.get(name, (None,))[0]), (32, 32, 3))
    return jax.eval_shape(lambda key: vision.init(module, key, side), jax.random.key(0)).params


def draw(module) -> dict[str, Any]:
    """Returns random parameters, none of which is constant."""
    rng = np.random.default_rng(0)
    normal = lambda path, leaf: (
        rng.standard_normal(leaf.shape) * 0.2 + ("scale" in jax.tree_util.keystr(path))
    ).astype(leaf.dtype)
    return jax.tree_util.tree_map_with_path(normal, shapes(module))


class Tiny(NamedTuple):
    """A tiny model.

    Attributes:
      module: the model.
      table: how its parameters are divided.
      batch: eight examples.
      loss: in fit's form.
    """

    module: Any
    table: tuple
    batch: dict[str, np.ndarray]
    loss: Callable[..., Any]


def _cross_entropy(logits, labels, weights=1.0):
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], axis=-1)[..., 0]
    return -(picked * weights).sum() / (jnp.ones_like(picked) * weights).sum(), {}


def _texts() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    mask = (np.arange(12) < rng.integers(6, 13, (8, 1))).astype(np.int32)
    return {"tokens": rng.integers(1, 37, (8, 12)).astype(np.int32) * mask, "mask": mask}


def _next_word(module, table):
    def loss(params, batch, key):
        logits = module.apply({"params": params}, batch["tokens"], batch["mask"]).logits
        return _cross_entropy(logits[:, :-1], batch["tokens"][:, 1:], batch["mask"][:, 1:])

    return Tiny(module, table, _texts(), loss)


def _masked_word(module, table):
    def loss(params, batch, key):
        logits = module.apply({"params": params}, batch["tokens"], batch["mask"]).logits
        return _cross_entropy(logits, batch["tokens"], batch["mask"])

    return Tiny(module, table, _texts(), loss)


def _translation(module, table):
    def loss(params, batch, key):
        decoded = jnp.roll(batch["tokens"], 1, axis=1)
        variables = {"params": params}
        out = module.apply(variables, batch["tokens"], batch["mask"], decoder_tokens_BxT=decoded)
        return _cross_entropy(out.logits, batch["tokens"], batch["mask"])

    return Tiny(module, table, _texts(), loss)


def _pairs(module, table):
    def loss(params, batch, key):
        out = module.apply({"params": params}, batch["tokens"], batch["mask"], images_NxYxXxC=batch["images"])
        return _cross_entropy(out.logits_per_image, jnp.arange(8))

    images = np.random.default_rng(1).standard_normal((8, 8, 8, 3)).astype(np.float32)
    return Tiny(module, table, {**_texts(), "images": images}, loss)


def _classes(module, table):
    def loss(params, batch, key):
        return _cross_entropy(module.apply({"params": params}, batch["images"], train=True), batch["labels"])

    rng = np.random.default_rng(2)
    images = rng.standard_normal((8, 8, 8, 3)).astype(np.float32)
    return Tiny(module, table, {"images": images, "labels": rng.integers(0, 5, 8)}, loss)


_SIZES = (40, 16, 2, 4, 24, 16)
_TOWER = TowerConfig(16, 2, 4, 24)
#: The odd vocabularies cannot be divided; the Llama has fewer heads of keys than four devices.
TINY = {
    "gpt2": _next_word(*_decoder(37, *_SIZES[1:], tied=True, **_PLAIN)),
    "llama": _next_word(*_decoder(*_SIZES, num_kv_heads=2, rotary=Rotary(4), remat=True)),
    "mamba": _next_word(Mamba(MambaConfig(40, 16, 2, 5, step_rank=3, chunk=4)), tables.MAMBA),
    "bert": _masked_word(Bert(BertConfig(37, 16, 2, 4, 24, 16, masked_lm=True)), tables.BERT),
    "albert": _masked_word(Bert(BertConfig(*_SIZES, embedding_width=8, num_groups=1, masked_lm=True)), tables.BERT),
    "t5": _translation(T5(T5Config(37, 16, 2, 2, 4, 5, 24, num_buckets=8, max_distance=10)), tables.T5),
    "clip": _pairs(
        Clip(ClipConfig(_TOWER, _TOWER, 40, 16, image_size=8, patch_size=4, projection_width=8)), tables.CLIP
    ),
    "resnet": _classes(ResNet(ResNetConfig(5, (8, 16), (1, 1), norm=Norm("group", num_groups=4))), tables.VISION),
}
