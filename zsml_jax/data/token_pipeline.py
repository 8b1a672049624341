"""Batches of tokens for language models, packed or padded, from any source of documents."""

from collections.abc import Callable, Sequence
from typing import Any

from zsml_jax.data.pipeline import Batches, RandomAccessSource, batches
from zsml_jax.data.token_rows import Packing, TokenRows
from zsml_jax.data.token_store import TokenStore, tokenize


def token_batches(
    documents: TokenStore | RandomAccessSource | Sequence[str],
    tokenizer: Callable[[str], Sequence[int]] | None = None,
    *,
    length: int,
    batch_size: int,
    packing: Packing = "concatenate",
    end_token: int | None = None,
    pad_token: int = 0,
    **options: Any,
) -> Batches:
    r"""Returns an iterator over batches of rows of tokens; its state is a number, as that of all :func:`batches`.

    >>> letters = lambda text: [ord(letter) for letter in text]
    >>> batch = next(token_batches(["abc", "de"], letters, length=4, batch_size=2, end_token=46, shuffle=False))
    >>> batch["tokens"], batch["segments"]
    (array([[ 97,  98,  99,  46],
           [100, 101,  46,   0]], dtype=int32), array([[1, 1, 1, 1],
           [1, 1, 1, 0]], dtype=int32))

    Args:
      documents: texts, such as :class:`~zsml_jax.data.documents.TextFiles`, or a store of tokens. Texts are tokenised
        at once; for a large set, save the store (:mod:`.token_store`).
      tokenizer: a text to its token ids; not for a store.
      length: tokens in a row.
      batch_size: rows in a batch of all processes together.
      packing: how documents are laid into rows; see :mod:`.token_rows`.
      end_token: put after each document; a store has its own already.
      pad_token: id at padding.
      **options: those of :func:`zsml_jax.data.batches`: ``shuffle`` (of rows), ``seed``, ``epochs`` and the rest.

    Returns:
      The iterator over dicts of :class:`~zsml_jax.data.token_rows.Row`'s arrays, each ``(b, t)``.

    Raises:
      ValueError: if texts come without a tokenizer, a store with one, or a number is out of its range.
    """
    if isinstance(documents, TokenStore):
        if tokenizer is not None or end_token is not None:
            raise ValueError("tokenizer and end_token must be None for a store, whose documents are tokenised already")
        store = documents
    elif tokenizer is None:
        raise ValueError("tokenizer must be given for texts, got None")
    else:
        store = tokenize(documents, tokenizer, end_token=end_token)
    rows = TokenRows(store, length=length, packing=packing, pad_token=pad_token)
    return batches(rows, batch_size=batch_size, **options)
