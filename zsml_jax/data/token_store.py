"""Tokenised documents end to end in one array, so that any run of tokens is read at once and lengths are known."""

import dataclasses
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from zsml_jax.data.pipeline import RandomAccessSource
from zsml_jax.report.progress_bar import progress
from zsml_jax.report.records import write_atomic

_BLOCK = 256


@dataclasses.dataclass(frozen=True, eq=False)
class TokenStore:
    """The tokens of n documents.

    Attributes:
      tokens: all documents, one after the other; uint16 where that is enough.
      starts: where each document begins, and at the end the number of tokens, ``(n + 1,)``.
    """

    tokens: Integer[np.ndarray, " t"]
    starts: Integer[np.ndarray, " n_plus_1"]

    def __len__(self) -> int:
        """The number of documents."""
        return len(self.starts) - 1

    @property
    def lengths(self) -> Integer[np.ndarray, " n"]:
        """The number of tokens of each document."""
        return np.diff(self.starts)

    def document(self, index: int) -> Integer[np.ndarray, " t"]:
        """Returns the tokens of a document."""
        return self.tokens[self.starts[index] : self.starts[index + 1]]


def tokenize(
    documents: RandomAccessSource | Sequence[str],
    tokenizer: Callable[[str], Sequence[int]],
    *,
    end_token: int | None = None,
) -> TokenStore:
    """Tokenises documents, once for all epochs.

    >>> tokenize(["ab", "c"], lambda text: [ord(letter) for letter in text], end_token=0)
    TokenStore(tokens=array([97, 98,  0, 99,  0], dtype=uint16), starts=array([0, 3, 5]))

    Args:
      documents: texts.
      tokenizer: a text to its token ids.
      end_token: put after each document. Without one, nothing tells a model where a text ends.

    Returns:
      The tokens; documents without any are left out.

    Raises:
      ValueError: if an id is negative or larger than int32 holds, or there is no token at all.
    """
    parts: list[np.ndarray] = []
    blocks = range(0, len(documents), _BLOCK)
    end = [] if end_token is None else [end_token]
    for start in progress(blocks, "tokenising", total=len(blocks)) if len(blocks) > 10 else blocks:
        for index in range(start, min(start + _BLOCK, len(documents))):
            ids = np.asarray([*tokenizer(documents[index]), *end], np.int64)
            if len(ids) and (ids.min() < 0 or ids.max() > np.iinfo(np.int32).max):
                raise ValueError(f"tokenizer must give ids of 0..2^31 - 1, gave {ids.min()}..{ids.max()}")
            parts.append(ids.astype(np.int32))
    parts = [part for part in parts if len(part)]
    if not parts:
        raise ValueError(f"documents must hold tokens; the {len(documents)} given hold none")
    tokens = np.concatenate(parts)
    small = tokens.max() <= np.iinfo(np.uint16).max
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    return TokenStore(tokens.astype(np.uint16) if small else tokens, starts)


def save(folder: str | os.PathLike, store: TokenStore) -> None:
    """Writes ``tokens.npy`` and ``starts.npy``; the folder is readable only when both are whole."""
    folder = Path(folder)
    (folder / "starts.npy").unlink(missing_ok=True)
    write_atomic(folder / "tokens.npy", _npy(store.tokens))
    write_atomic(folder / "starts.npy", _npy(store.starts))


def load(folder: str | os.PathLike) -> TokenStore:
    """Maps the tokens that :func:`save` wrote into memory; nothing is read before it is asked for.

    Raises:
      ValueError: if the folder is no whole store.
    """
    folder = Path(folder)
    if not ((folder / "starts.npy").is_file() and (folder / "tokens.npy").is_file()):
        raise ValueError(f"folder must hold tokens.npy and starts.npy, {folder} does not")
    store = TokenStore(np.load(folder / "tokens.npy", mmap_mode="r"), np.load(folder / "starts.npy"))
    if store.starts[-1] != len(store.tokens):
        raise ValueError(f"{folder} must have starts up to {len(store.tokens)} tokens, has {store.starts[-1]}")
    return store


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()
