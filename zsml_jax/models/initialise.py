"""Models with random parameters, to be trained from scratch."""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from zsml_jax.models.decoder_config import DecoderConfig
from zsml_jax.models.pretrained import FAMILIES, Pretrained
from zsml_jax.models.tokenizer import Tokenizer
from zsml_jax.typing import Array, Key, PyTree

_STD = 0.02
#: What is added to the residual stream of a decoder.
_RESIDUAL = ("attention/out/kernel", "mlp/down/kernel")


def initialise(hub: Mapping[str, Any], *, key: Key, tokenizer: Tokenizer | None = None) -> Pretrained:
    """Makes a model that nobody has trained yet; :func:`zsml_jax.models.save` writes it like any other.

    Decoders with attention are drawn as GPT-2 was (Radford et al., 2019, section 2.3): weights of standard deviation
    0.02, and those that add to the residual stream divided by the root of its number of additions, two a layer. Other
    families are drawn as their modules say.

    >>> small = {"model_type": "gpt2", "vocab_size": 50, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 16}
    >>> model = initialise(small, key=jax.random.key(0))
    >>> model.apply(model.params, jnp.ones((1, 3), int)).shape
    (1, 3, 50)

    Args:
      hub: the fields of a ``config.json``, ``model_type`` among them; those left out have the family's defaults.
      key: the random key.
      tokenizer: the model's tokenizer.

    Returns:
      The model, in float32.

    Raises:
      ValueError: if the model's type or a field is not supported.
    """
    model_type = hub.get("model_type")
    if model_type not in FAMILIES:
        raise ValueError(f"hub must have a model_type of {sorted(FAMILIES)}, got {model_type!r}")
    family = FAMILIES[model_type]
    config = family.config(hub, (), "float32")
    module = family.module(config)
    abstract = {} if family.inputs is None else family.inputs(config)
    inputs = {name: jnp.zeros(value.shape, value.dtype) for name, value in abstract.items()}
    tokens = jnp.zeros((1, 2), jnp.int32)
    if isinstance(config, DecoderConfig):
        shapes = jax.eval_shape(module.init, key, tokens)["params"]
        params = _decoder_params(shapes, config.num_layers, key)
    else:
        params = jax.jit(module.init)(key, tokens, **inputs)["params"]
    return Pretrained(
        params=params,
        module=module,
        config=config,
        tokenizer=tokenizer,
        model_type=model_type,
        hub_config=json.dumps(dict(hub)),
    )


def _decoder_params(shapes: PyTree, num_layers: int, key: Key) -> PyTree:
    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> Array:
        name = "/".join(entry.key for entry in path)
        if name.endswith("scale"):
            return jnp.ones(leaf.shape, leaf.dtype)
        if name.endswith("bias"):
            return jnp.zeros(leaf.shape, leaf.dtype)
        std = _STD / (2 * num_layers) ** 0.5 if name.endswith(_RESIDUAL) else _STD
        # By its name, so that a parameter more or less changes no other.
        return std * jax.random.normal(jax.random.fold_in(key, zlib.crc32(name.encode())), leaf.shape, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)
