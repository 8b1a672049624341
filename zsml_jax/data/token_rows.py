"""Rows of equal length cut from documents: a plan, which says what lies where, and the rows it gives.

Three plans are offered. All keep every token, in order:

* ``concatenate`` lays the documents end to end and cuts; only the last row has padding, and documents are cut anywhere.
* ``whole`` packs documents side by side without cutting those that fit a row (best fit, longest first); longer ones are
  cut into rows of their own.
* ``pad`` gives each document rows of its own.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypedDict

import numpy as np
from jaxtyping import Bool, Int

from zsml_jax.data.token_store import TokenStore
from zsml_jax.typing import AnyArray

Packing = Literal["concatenate", "whole", "pad"]


class Row(TypedDict):
    """One example of t tokens.

    ``tokens``: ids, the padding's at the end. ``segments``: 1, 2, ... by document, 0 at padding. ``positions``: places
    since the document, or its part in this row, began. ``targets``: the document's next token, also where that lies in
    another row. ``loss_mask``: where there is a target: 1 for each token but the last one of its document.
    """

    tokens: Int[np.ndarray, " t"]
    segments: Int[np.ndarray, " t"]
    positions: Int[np.ndarray, " t"]
    targets: Int[np.ndarray, " t"]
    loss_mask: Int[np.ndarray, " t"]


class Plan(NamedTuple):
    """What lies where: pieces of documents, row after row.

    Attributes:
      begin: first token of each piece in the store.
      end: the token after its last one.
      document_end: the token after the last one of its document.
      rows: the first piece of each row, and at the end the number of pieces.
    """

    begin: Int[np.ndarray, " p"]
    end: Int[np.ndarray, " p"]
    document_end: Int[np.ndarray, " p"]
    rows: Int[np.ndarray, " r_plus_1"]


class TokenRows:
    """The rows of a plan as a random-access source, for :func:`zsml_jax.data.batches`.

    Args:
      store: the documents.
      length: tokens in a row.
      packing: one of the plans.
      pad_token: id at padding.

    Raises:
      ValueError: if ``length`` is not positive, or there is no such plan.
    """

    def __init__(self, store: TokenStore, *, length: int, packing: Packing = "concatenate", pad_token: int = 0):
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}")
        if packing not in _PLANS:
            raise ValueError(f"packing must be one of {list(_PLANS)}, got {packing!r}")
        self._store, self._length, self._pad_token = store, length, pad_token
        self.plan = _PLANS[packing](store, length)

    def __len__(self) -> int:
        return len(self.plan.rows) - 1

    def __getitem__(self, index: int) -> Row:
        row = Row(
            tokens=np.full(self._length, self._pad_token, np.int32),
            segments=np.zeros(self._length, np.int32),
            positions=np.zeros(self._length, np.int32),
            targets=np.full(self._length, self._pad_token, np.int32),
            loss_mask=np.zeros(self._length, np.int32),
        )
        pieces = range(self.plan.rows[index], self.plan.rows[index + 1])
        at = 0
        for segment, piece in enumerate(pieces, start=1):
            begin, end = int(self.plan.begin[piece]), int(self.plan.end[piece])
            following = self._store.tokens[begin + 1 : min(end + 1, int(self.plan.document_end[piece]))]
            here, targets = slice(at, at + end - begin), slice(at, at + len(following))
            row["tokens"][here] = self._store.tokens[begin:end]
            row["segments"][here] = segment
            row["positions"][here] = np.arange(end - begin)
            row["targets"][targets] = following
            row["loss_mask"][targets] = 1
            at += end - begin
        return row


def document_mask(segments: Int[AnyArray, "*b t"], *, causal: bool = True) -> Bool[AnyArray, "*b t t"]:
    """Returns which token (row) may attend to which (column): those of its own document, and no padding.

    >>> document_mask(np.array([1, 1, 2, 0])).astype(int)
    array([[1, 0, 0, 0],
           [1, 1, 0, 0],
           [0, 0, 1, 0],
           [0, 0, 0, 0]])

    Args:
      segments: documents by number, 0 at padding.
      causal: whether only earlier tokens, and the token itself, are seen.
    """
    same = (segments[..., :, None] == segments[..., None, :]) & (segments[..., None, :] > 0)
    length = segments.shape[-1]
    return same & np.tri(length, dtype=bool) if causal else same


def _concatenate(store: TokenStore, length: int) -> Plan:
    """Cuts at every multiple of the length and at every document's end."""
    total = int(store.starts[-1])
    row_starts = np.arange(0, total, length)
    cuts = np.union1d(store.starts, row_starts)
    begin, end = cuts[:-1], cuts[1:]
    owner = np.searchsorted(store.starts, begin, side="right")
    rows = np.append(np.searchsorted(begin, row_starts), len(begin))
    return Plan(begin, end, store.starts[owner], rows)


def _pad(store: TokenStore, length: int) -> Plan:
    pieces = [piece for document in range(len(store)) for piece in _pieces(store, document, length)]
    return _plan([[piece] for piece in pieces])


def _whole(store: TokenStore, length: int) -> Plan:
    """Best fit, longest first: each piece goes into the fullest row that still has room for it."""
    pieces = [piece for document in range(len(store)) for piece in _pieces(store, document, length)]
    rows: list[list[tuple[int, int, int]]] = []
    by_room: list[list[int]] = [[] for _ in range(length + 1)]
    room_used = np.zeros(length + 2, bool)
    for piece in sorted(pieces, key=lambda piece: piece[0] - piece[1]):
        size = piece[1] - piece[0]
        fitting = size + int(np.argmax(room_used[size:]))
        if room_used[fitting]:
            row = by_room[fitting].pop()
            room_used[fitting] = bool(by_room[fitting])
            rows[row].append(piece)
            left = fitting - size
        else:
            row, left = len(rows), length - size
            rows.append([piece])
        by_room[left].append(row)
        room_used[left] = left > 0
    # Rows in the order of their first documents, so that a store that is read in order is read in order.
    return _plan(sorted(sorted(row) for row in rows))


def _pieces(store: TokenStore, document: int, length: int) -> list[tuple[int, int, int]]:
    start, stop = int(store.starts[document]), int(store.starts[document + 1])
    return [(begin, min(begin + length, stop), stop) for begin in range(start, stop, length)]


def _plan(rows: Sequence[Sequence[tuple[int, int, int]]]) -> Plan:
    begin, end, document_end = np.asarray([piece for row in rows for piece in row], np.int64).reshape(-1, 3).T
    return Plan(begin, end, document_end, np.concatenate([[0], np.cumsum([len(row) for row in rows])]))


_PLANS: dict[str, Callable[[TokenStore, int], Plan]] = {"concatenate": _concatenate, "whole": _whole, "pad": _pad}
