"""The tokenizer in the metadata of a GGUF file, where it is a byte-level BPE."""

from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import models, pre_tokenizers, processors

from zsml_jax.models.tokenizer_files import TokenizerFiles, byte_bpe

_CONTROL, _USER_DEFINED = 3, 4
_ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
# Words, numbers of at most n digits, punctuation with its line breaks, and white space, as Llama 3 and Qwen 2 split.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def read_gguf_tokenizer(metadata: Mapping[str, Any]) -> TokenizerFiles | None:
    """Builds the tokenizer of a GGUF file.

    Args:
      metadata: the file's metadata by name.

    Returns:
      The tokenizer with its special tokens and chat template; None if the file has none, or its kind (such as
      SentencePiece) or its way of splitting texts is not supported.
    """
    splitter = _splitter(metadata.get("tokenizer.ggml.pre", "default"))
    if metadata.get("tokenizer.ggml.model") != "gpt2" or splitter is None:
        return None
    tokens = metadata["tokenizer.ggml.tokens"]
    kinds = metadata.get("tokenizer.ggml.token_type", [1] * len(tokens))
    merges = [(left, right) for left, right in (merge.split(" ") for merge in metadata["tokenizer.ggml.merges"])]
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = byte_bpe(vocab, merges)
    tokenizer.pre_tokenizer = splitter
    if metadata["tokenizer.ggml.pre"] == "llama-bpe" and isinstance(tokenizer.model, models.BPE):
        tokenizer.model.ignore_merges = True
    added = [(token, kind) for token, kind in zip(tokens, kinds, strict=True) if kind in (_CONTROL, _USER_DEFINED)]
    tokenizer.add_special_tokens([tokenizers.AddedToken(t, normalized=False) for t, kind in added if kind == _CONTROL])
    tokenizer.add_tokens([tokenizers.AddedToken(t, normalized=False) for t, kind in added if kind == _USER_DEFINED])
    ids = {role: metadata.get(f"tokenizer.ggml.{name}_token_id") for role, name in _ROLES.items()}
    special = {role: tokens[i] for role, i in ids.items() if i is not None}
    if metadata.get("tokenizer.ggml.add_bos_token", False) and "bos_token" in special:
        bos = special["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, vocab[bos])]
        )
    return TokenizerFiles(tokenizer, ids["pad_token"], None, special, metadata.get("tokenizer.chat_template"))


def _splitter(name: str) -> pre_tokenizers.PreTokenizer | None:
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if name in ("default", "gpt-2"):
        return plain
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), plain])
    digits = {"llama-bpe": "{1,3}", "qwen2": ""}.get(name)
    if digits is None:
        return None
    split = pre_tokenizers.Split(tokenizers.Regex(_SPLIT % digits), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
