"""Tokenizers out of the files that hub folders hold, old and new, and back into files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from zsml_jax.models.json_file import read_json, read_optional_json, write_json

_BERT_SPECIAL = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
_ROBERTA_SPECIAL = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
_CLIP_SPECIAL = {
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
}


class TokenizerFiles(NamedTuple):
    """What the files say.

    Attributes:
      tokenizer: the tokenizer.
      pad_id: id of the padding token, None if none is declared.
      max_length: the declared longest sequence in tokens, None if none is declared.
      special: the special tokens by role, such as ``{"eos_token": "</s>"}``.
      chat_template: the Jinja template that turns messages into a prompt, None if there is none.
      settings: what ``tokenizer_config.json`` says.
    """

    tokenizer: tokenizers.Tokenizer
    pad_id: int | None
    max_length: int | None
    special: Mapping[str, str] = MappingProxyType({})
    chat_template: str | None = None
    settings: Mapping[str, Any] = MappingProxyType({})


def read_tokenizer_files(folder: Path, model_type: str) -> TokenizerFiles:
    """Reads or builds the tokenizer of a folder.

    Raises:
      FileNotFoundError: if there is no ``tokenizer.json``, no ``vocab.txt`` and no ``vocab.json`` with ``merges.txt``.
      ValueError: if a file is malformed.
    """
    settings = read_optional_json(folder / "tokenizer_config.json")
    named = read_optional_json(folder / "special_tokens_map.json")
    declared = {key: value for key, value in {**settings, **named}.items() if key.endswith("_token") and value}
    # A special token is a string, or a dict with its content and how it matches.
    special = {key: value["content"] if isinstance(value, Mapping) else value for key, value in declared.items()}
    if (folder / "tokenizer.json").is_file():
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises bare Exception
            raise ValueError(f"{folder / 'tokenizer.json'} is not a tokenizer file: {error}") from error
    elif (folder / "vocab.txt").is_file():
        special = {**_BERT_SPECIAL, **special}
        tokenizer = _word_piece(folder, settings, special)
        _add_special(tokenizer, special, set())
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file() and model_type == "clip":
        special = {**_CLIP_SPECIAL, **special}
        tokenizer = _word_end_bpe(folder, special)
        _add_special(tokenizer, special, set())
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        special = {**(_ROBERTA_SPECIAL if model_type == "roberta" else {}), **special}
        tokenizer = _byte_bpe(folder, settings, special, model_type)
        # A mask takes the space before it, as in RoBERTa's training, unless its declaration says otherwise.
        mask = declared.get("mask_token")
        lstrip = mask.get("lstrip", False) if isinstance(mask, Mapping) else True
        _add_special(tokenizer, special, {special.get("mask_token")} if lstrip else set())
    else:
        raise FileNotFoundError(
            f"{folder} has no tokenizer: there is no tokenizer.json, no vocab.txt, and no vocab.json with merges.txt"
        )
    pad_id = tokenizer.token_to_id(special["pad_token"]) if "pad_token" in special else None
    longest = settings.get("model_max_length")
    # Files without a limit say 1e30.
    limit = int(longest) if isinstance(longest, int | float) and longest < 1e9 else None
    return TokenizerFiles(tokenizer, pad_id, limit, special, _chat_template(folder, settings), {**settings, **declared})


def write_tokenizer_files(folder: Path, files: TokenizerFiles) -> None:
    """Writes ``tokenizer.json``, ``tokenizer_config.json`` and the chat template into a folder."""
    files.tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **files.special, **files.settings}
    settings.pop("chat_template", None)
    if files.max_length is not None:
        settings["model_max_length"] = files.max_length
    write_json(folder / "tokenizer_config.json", settings)
    if files.chat_template is not None:
        (folder / "chat_template.jinja").write_text(files.chat_template, encoding="utf-8")


def byte_bpe(
    vocab: Mapping[str, int], merges: Sequence[tuple[str, str]], *, prefix_space: bool = False
) -> tokenizers.Tokenizer:
    """Returns a byte-level BPE tokenizer (Radford et al., 2019, section 2.2) without special tokens.

    Args:
      vocab: ids of tokens.
      merges: pairs in order of their rank.
      prefix_space: whether a text gets a space in front.
    """
    tokenizer = tokenizers.Tokenizer(models.BPE(dict(vocab), list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The template of the file, else of the settings, which may name several; then the one called default."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, Sequence) and not isinstance(template, str):
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    return template


def _word_piece(folder: Path, settings: Mapping[str, Any], special: Mapping[str, str]) -> tokenizers.Tokenizer:
    words = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    vocab = {word.rstrip("\r"): i for i, word in enumerate(words) if word or i + 1 < len(words)}
    _require(vocab, folder / "vocab.txt", special["unk_token"], special["cls_token"], special["sep_token"])
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token=special["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=settings.get("do_lower_case", True),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cls, sep = special["cls_token"], special["sep_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, vocab[cls]), (sep, vocab[sep])],
    )
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _byte_bpe(
    folder: Path, settings: Mapping[str, Any], special: Mapping[str, str], model_type: str
) -> tokenizers.Tokenizer:
    vocab = read_json(folder / "vocab.json")
    prefix_space = settings.get("add_prefix_space", False)
    tokenizer = byte_bpe(vocab, _merges(folder), prefix_space=prefix_space)
    if model_type == "roberta":
        cls, sep = special["cls_token"], special["sep_token"]
        _require(vocab, folder / "vocab.json", cls, sep)
        tokenizer.post_processor = processors.RobertaProcessing(
            (sep, vocab[sep]), (cls, vocab[cls]), trim_offsets=True, add_prefix_space=prefix_space
        )
    return tokenizer


def _word_end_bpe(folder: Path, special: Mapping[str, str]) -> tokenizers.Tokenizer:
    """CLIP's byte BPE: lowercase, and a word's last part is marked instead of its first."""
    vocab = read_json(folder / "vocab.json")
    start, end = special["bos_token"], special["eos_token"]
    _require(vocab, folder / "vocab.json", start, end)
    model = models.BPE(vocab, _merges(folder), end_of_word_suffix="</w>", unk_token=special["unk_token"])
    tokenizer = tokenizers.Tokenizer(model)
    spaces = normalizers.Replace(tokenizers.Regex(r"\s+"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    words = tokenizers.Regex(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, behavior="removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.post_processor = processors.RobertaProcessing(
        (end, vocab[end]), (start, vocab[start]), trim_offsets=False, add_prefix_space=False
    )
    # In bytes' letters a space is Ġ.
    tokenizer.decoder = decoders.Sequence([decoders.Replace("</w>", "Ġ"), decoders.ByteLevel()])
    return tokenizer


def _merges(folder: Path) -> list[tuple[str, str]]:
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    pairs = [tuple(line.split()) for line in lines if line.strip() and not line.startswith("#version")]
    if wrong := [pair for pair in pairs if len(pair) != 2]:
        raise ValueError(f"{folder / 'merges.txt'} must hold two parts a line, got {' '.join(wrong[0])!r}")
    return [(left, right) for left, right in pairs]


def _add_special(tokenizer: tokenizers.Tokenizer, special: Mapping[str, str], lstrip: set[str | None]) -> None:
    """Makes special tokens match as a whole in texts; those that the vocabulary lacks are left out."""
    known = [token for token in dict.fromkeys(special.values()) if tokenizer.token_to_id(token) is not None]
    tokenizer.add_special_tokens([tokenizers.AddedToken(token, lstrip=token in lstrip) for token in known])


def _require(vocab: Mapping[str, int], path: Path, *tokens: str) -> None:
    if absent := [token for token in tokens if token not in vocab]:
        raise ValueError(f"{path} does not hold the special tokens {absent}")
