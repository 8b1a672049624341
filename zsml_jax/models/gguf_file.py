"""GGUF files of the Llama family as a hub folder would hold them: configuration, tensors by name, tokenizer.

The format is that of llama.cpp; quantised tensors are read through the ``gguf`` package and dequantised to float32
when they are asked for. Numbers of the metadata become fields of ``config.json``, and names of tensors those of the
hub, so that everything after that is the same as for a folder.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np

from zsml_jax.models.gguf_tokenizer import read_gguf_tokenizer
from zsml_jax.models.lazy_tensor import LazyTensor
from zsml_jax.models.rotary import Rotary, frequencies
from zsml_jax.models.tokenizer_files import TokenizerFiles

#: Architectures of GGUF files that are read.
GGUF_ARCHITECTURES = ("llama", "qwen2", "qwen3")


class _Reader(gguf.GGUFReader):
    """The package's reader on a plain array over the mapped file, whose slices cost a third of a map's own."""

    def _get(self, *args: Any, **kwargs: Any) -> Any:
        self.data: Any = np.asarray(self.data)
        return super()._get(*args, **kwargs)


class GgufModel(NamedTuple):
    """What a GGUF file holds.

    Attributes:
      hub: the fields of ``config.json``.
      tensors: the tensors, by their names on the hub.
      tokenizer: None if the file's kind of tokenizer is not supported.
    """

    hub: dict[str, Any]
    tensors: Mapping[str, LazyTensor]
    tokenizer: TokenizerFiles | None


def find_gguf(path: Path) -> Path | None:
    """Returns the GGUF file that a path means: itself, or the only one in a folder without ``config.json``.

    Raises:
      ValueError: if such a folder holds several.
    """
    if path.is_file():
        return path
    if (path / "config.json").is_file():
        return None
    files = sorted(path.glob("*.gguf"))
    if len(files) > 1:
        raise ValueError(f"{path} holds several GGUF files; load one of them: {[file.name for file in files]}")
    return files[0] if files else None


def read_gguf(path: Path) -> GgufModel:
    """Reads a GGUF file.

    Args:
      path: the file.

    Returns:
      Configuration, tensors that are dequantised when read, and tokenizer.

    Raises:
      ValueError: if the file is damaged, or its architecture or rotary embedding is not supported.
    """
    try:
        reader = _Reader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError) as error:
        raise ValueError(f"{path} is damaged, or not a GGUF file: {error}") from error
    architecture = metadata.get("general.architecture")
    if architecture not in GGUF_ARCHITECTURES:
        raise ValueError(f"{path}: architecture {architecture!r} is not supported; supported: {GGUF_ARCHITECTURES}")
    stored = {tensor.name: tensor for tensor in reader.tensors}
    factors = stored.pop("rope_freqs.weight", None)
    hub = _config(metadata, architecture, stored, path)
    if factors is not None:
        hub["rope_parameters"] |= _llama3_parameters(_lazy(factors, 0).read(), hub, path)
    # llama.cpp rotates neighbouring features, so its converter permuted the rows of Llama's queries and keys.
    heads = {"attn_q": hub["num_attention_heads"], "attn_k": hub["num_key_value_heads"]}
    tensors = {}
    for name, tensor in stored.items():
        part = name.split(".")[2] if name.startswith("blk.") else ""
        permuted = heads.get(part, 0) if architecture == "llama" else 0
        tensors[_hub_name(name)] = _lazy(tensor, permuted)
    return GgufModel(hub, tensors, read_gguf_tokenizer(metadata))


def _config(metadata: Mapping[str, Any], architecture: str, stored: Mapping[str, Any], path: Path) -> dict[str, Any]:
    def get(field: str, default: Any = None) -> Any:
        value = metadata.get(f"{architecture}.{field}", default)
        if value is None:
            raise ValueError(f"{path} has no metadata {architecture}.{field}")
        return value

    heads = get("attention.head_count")
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": float(get("rope.freq_base", 10_000.0))}
    scaling = get("rope.scaling.type", "none")
    if scaling != "none":
        rope |= {"rope_type": scaling, "factor": get("rope.scaling.factor")}
        rope["original_max_position_embeddings"] = get("rope.scaling.original_context_length", 0) or None
    vocab_size = len(metadata.get("tokenizer.ggml.tokens", ())) or get("vocab_size")
    return {
        "model_type": architecture,
        "vocab_size": vocab_size,
        "hidden_size": (width := get("embedding_length")),
        "num_hidden_layers": get("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": get("attention.head_count_kv", heads),
        "head_dim": get("attention.key_length", width // heads),
        "intermediate_size": get("feed_forward_length"),
        "max_position_embeddings": get("context_length"),
        "rms_norm_eps": float(get("attention.layer_norm_rms_epsilon")),
        "rope_parameters": rope,
        "attention_bias": architecture == "llama" and "blk.0.attn_q.bias" in stored,
        "tie_word_embeddings": "output.weight" not in stored,
        **{
            f"{role}_token_id": metadata[f"tokenizer.ggml.{name}_token_id"]
            for role, name in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
            if f"tokenizer.ggml.{name}_token_id" in metadata
        },
    }


def _llama3_parameters(factors: np.ndarray, hub: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The scheme of Llama 3.1 whose divisors of the frequencies a file holds; their largest is its factor."""
    theta, width = hub["rope_parameters"]["rope_theta"], hub["head_dim"]
    found = {"rope_type": "llama3", "factor": float(factors.max()), "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    found["original_max_position_embeddings"] = 8192
    scaled = Rotary(width, theta, "llama3", found["factor"], 8192)
    if not np.allclose(frequencies(Rotary(width, theta)) / frequencies(scaled), factors, rtol=1e-3):
        raise ValueError(f"{path}: rope_freqs.weight is not the scheme of Llama 3.1, and no other is supported")
    return found


def _lazy(tensor: gguf.ReaderTensor, permuted_heads: int) -> LazyTensor:
    shape = tuple(int(size) for size in reversed(tensor.shape))

    def read() -> np.ndarray:
        value = np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type), np.float32).reshape(shape)
        if np.may_share_memory(value, tensor.data):  # parameters must outlive the file
            value = value.copy()
        if permuted_heads:
            pairs = value.reshape(permuted_heads, -1, 2, *shape[1:])
            value = pairs.swapaxes(1, 2).reshape(shape)
        return value

    return LazyTensor(shape, np.dtype(np.float32), read)


_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def _hub_name(name: str) -> str:
    """The name on the hub; one that is not known stays, and is reported with all that do not fit."""
    layer, part, leaf = re.fullmatch(r"(?:blk\.(\d+)\.)?(.*?)(\.\w+)?", name).groups("")  # pyrefly: ignore
    if part not in _NAMES:
        return name
    return (f"model.layers.{layer}." if layer else "") + _NAMES[part] + leaf
