"""Texts to token ids and back, on the ``tokenizers`` library."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tokenizers
from jaxtyping import Int, Int32

from zsml_jax.models.tokenizer_files import TokenizerFiles, read_tokenizer_files, write_tokenizer_files
from zsml_jax.typing import AnyArray


class TokenBatch(NamedTuple):
    """A padded batch of texts.

    Attributes:
      ids: token ids, ``(b, t)``.
      mask: 1 at tokens, 0 at padding, ``(b, t)``.
      type_ids: segment ids, ``(b, t)``: 0 in the first text of a pair, 1 in the second.
    """

    ids: Int32[np.ndarray, "b t"]
    mask: Int32[np.ndarray, "b t"]
    type_ids: Int32[np.ndarray, "b t"]


class Tokenizer:
    """A model's own tokenizer; it adds the special tokens that the model was trained with.

    Attributes:
      max_length: longest sequence in tokens, special tokens included, as the model's files declare it.
      pad_id: id of the padding token; 0 for a model that has none, as padding is masked.
      special: the special tokens by role, such as ``{"eos_token": "</s>"}``, as far as the files name them.
      chat_template: the Jinja template that turns messages into a prompt, None if there is none.
    """

    def __init__(self, files: TokenizerFiles, *, max_length: int):
        self._files = files
        self._tokenizer = files.tokenizer
        # A tokenizer file may carry the padding and truncation of some earlier use.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._truncation: int | None = None
        self.pad_id = 0 if files.pad_id is None else files.pad_id
        self.special = dict(files.special)
        self.chat_template = files.chat_template
        self.max_length = min(max_length, files.max_length or max_length)

    @classmethod
    def of(
        cls, tokenizer: tokenizers.Tokenizer, *, max_length: int, chat_template: str | None = None, **special: str
    ) -> "Tokenizer":
        """Returns the tokenizer of a model that is made here, around one of the ``tokenizers`` library.

        Args:
          tokenizer: the library's tokenizer, trained or read from a file.
          max_length: longest sequence in tokens.
          chat_template: the Jinja template that turns messages into a prompt.
          **special: the special tokens by role, such as ``eos_token="</s>"`` and ``pad_token="<pad>"``.

        Raises:
          ValueError: if a special token is not in the vocabulary, or what is no role is given.
        """
        for role, token in special.items():
            if not role.endswith("_token"):
                raise ValueError(f"special tokens must be named by their role, such as eos_token, got {role}")
            if tokenizer.token_to_id(token) is None:
                raise ValueError(f"{role} must be in the tokenizer's vocabulary, got {token!r}")
        pad_id = tokenizer.token_to_id(special["pad_token"]) if "pad_token" in special else None
        return cls(TokenizerFiles(tokenizer, pad_id, None, special, chat_template), max_length=max_length)

    @property
    def vocab_size(self) -> int:
        """The number of tokens, added ones included."""
        return self._tokenizer.get_vocab_size()

    def __call__(
        self,
        texts: Sequence[str],
        *,
        pairs: Sequence[str] | None = None,
        max_length: int | None = None,
        pad_to: int | None = None,
    ) -> TokenBatch:
        """Encodes texts into one padded batch.

        Args:
          texts: the texts.
          pairs: second texts, one for each, for models that read pairs.
          max_length: cuts longer texts; the model's own limit if None.
          pad_to: columns of the result; as many as the longest text needs if None.

        Returns:
          int32 arrays, padded on the right.

        Raises:
          ValueError: if there are no texts, one is not a string, or the lengths do not fit.
        """
        encodings = self._encode(texts, pairs, max_length)
        longest = max(len(encoding) for encoding in encodings)
        columns = longest if pad_to is None else pad_to
        if columns < longest:
            raise ValueError(f"pad_to must be at least {longest}, the longest text in tokens, got {columns}")
        batch = TokenBatch(
            ids=np.full((len(encodings), columns), self.pad_id, np.int32),
            mask=np.zeros((len(encodings), columns), np.int32),
            type_ids=np.zeros((len(encodings), columns), np.int32),
        )
        for row, encoding in enumerate(encodings):
            batch.ids[row, : len(encoding)] = encoding.ids
            batch.mask[row, : len(encoding)] = 1
            batch.type_ids[row, : len(encoding)] = encoding.type_ids
        return batch

    def ragged(self, texts: Sequence[str], *, max_length: int | None = None) -> list[Int32[np.ndarray, " _"]]:
        """Encodes texts without padding.

        Args:
          texts: the texts.
          max_length: cuts longer texts; the model's own limit if None.

        Returns:
          The token ids of each text.

        Raises:
          ValueError: as for a batch.
        """
        return [np.asarray(encoding.ids, np.int32) for encoding in self._encode(texts, None, max_length)]

    def encode_plain(self, text: str) -> list[int]:
        """Returns the token ids of a text as it is: special tokens are those written in it, and nothing is cut."""
        self._tokenizer.no_truncation()
        self._truncation = None
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def added_tokens(self) -> tuple[list[int], list[int]]:
        """Returns the ids of the special tokens that stand before and after every text, as :meth:`ragged` gives it."""
        (whole,) = (ids.tolist() for ids in self.ragged(["a"]))
        plain = self.encode_plain("a")
        starts = [i for i in range(len(whole)) if whole[i : i + len(plain)] == plain]
        if not starts:
            raise ValueError("the tokenizer must put its special tokens before and after a text, which it changes")
        return whole[: starts[0]], whole[starts[0] + len(plain) :]

    def decode(self, ids: Sequence[int] | Int[AnyArray, " t"], *, keep_special: bool = False) -> str:
        """Returns the text of token ids.

        Args:
          ids: token ids of one text.
          keep_special: whether special tokens are written out.
        """
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=not keep_special)

    def token_id(self, token: str) -> int | None:
        """Returns the id of a token, None if there is none."""
        return self._tokenizer.token_to_id(token)

    def save(self, folder: str | Path) -> None:
        """Writes ``tokenizer.json``, ``tokenizer_config.json`` and the chat template into an existing folder."""
        self._tokenizer.no_truncation()
        self._truncation = None
        write_tokenizer_files(Path(folder), self._files)

    def _encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None, max_length: int | None
    ) -> list[tokenizers.Encoding]:
        check_texts(texts, "texts")
        limit = self.max_length if max_length is None else max_length
        special = self._tokenizer.num_special_tokens_to_add(pairs is not None)
        if not special < limit <= self.max_length:
            raise ValueError(f"max_length must lie between {special + 1} and {self.max_length} tokens, got {limit}")
        if pairs is not None:
            check_texts(pairs, "pairs")
            if len(pairs) != len(texts):
                raise ValueError(f"pairs must be as many as texts, {len(texts)}, got {len(pairs)}")
        if limit != self._truncation:
            self._tokenizer.enable_truncation(limit)
            self._truncation = limit
        inputs = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        return self._tokenizer.encode_batch(inputs)


def load_tokenizer(folder: str | Path, *, model_type: str, max_length: int, pad_id: int | None = None) -> Tokenizer:
    """Loads the tokenizer of a model's folder.

    From ``tokenizer.json``, else from ``vocab.txt`` (WordPiece), else from ``vocab.json`` with ``merges.txt`` (BPE).

    Args:
      folder: the model's folder.
      model_type: ``model_type`` of ``config.json``; it decides the special tokens where no tokenizer file does.
      max_length: the model's longest sequence in tokens; ``tokenizer_config.json`` may lower it.
      pad_id: id of the padding token if the tokenizer's files name none.

    Returns:
      The tokenizer.

    Raises:
      FileNotFoundError: if the folder holds none of these.
      ValueError: if a file is malformed.
    """
    files = read_tokenizer_files(Path(folder), model_type)
    return Tokenizer(files if files.pad_id is not None else files._replace(pad_id=pad_id), max_length=max_length)


def check_texts(texts: Sequence[str], name: str) -> None:
    """Checks that an argument is a non-empty sequence of strings.

    Raises:
      ValueError: if it is not; the message names the argument and the first wrong element.
    """
    if isinstance(texts, str):
        raise ValueError(f"{name} must be a sequence of strings, got one string; put it into a list")
    if len(texts) == 0:
        raise ValueError(f"{name} must hold at least one string, got none")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"{name} must hold strings, got {type(text).__name__} at {i}")
