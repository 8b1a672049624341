"""The plans are checked against what they promise, on documents that hypothesis makes up.

Tokens are numbered through, so that a token says where it comes from.
"""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsml_jax.data.token_rows import TokenRows, document_mask
from zsml_jax.data.token_store import TokenStore

PACKINGS = ("concatenate", "whole", "pad")
LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=12)


def numbered(lengths):
    """Documents whose tokens are 1, 2, 3, ... over all."""
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return TokenStore(np.arange(1, starts[-1] + 1, dtype=np.uint16), starts)


def pieces(row):
    """The runs of tokens of one segment of a row."""
    return [row["tokens"][row["segments"] == segment] for segment in range(1, row["segments"].max() + 1)]


@pytest.mark.parametrize("packing", PACKINGS)
@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, length=st.integers(1, 9))
def test_every_token_is_there_once_in_order_and_padding_is_at_the_end(packing, lengths, length):
    store = numbered(lengths)
    rows = list(TokenRows(store, length=length, packing=packing))
    found = [piece for row in rows for piece in pieces(row)]
    assert sorted(np.concatenate(found).tolist()) == store.tokens.tolist()
    for piece in found:
        assert np.all(np.diff(piece) == 1)
        assert np.searchsorted(store.starts, piece[0] - 1, "right") == np.searchsorted(
            store.starts, piece[-1] - 1, "right"
        )
    if packing != "whole":
        assert np.concatenate(found).tolist() == store.tokens.tolist()
    for row in rows:
        count = int((row["segments"] > 0).sum())
        assert count and np.all(row["segments"][:count] > 0) and not np.any(row["tokens"][count:])
        assert all(value.dtype == np.int32 and value.shape == (length,) for value in row.values())
        firsts = [piece[0] for piece in pieces(row)]
        assert firsts == sorted(firsts)


@pytest.mark.parametrize("packing", PACKINGS)
@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, length=st.integers(1, 9))
def test_every_token_but_a_documents_first_is_a_target_once_and_follows_its_token(packing, lengths, length):
    store = numbered(lengths)
    rows = list(TokenRows(store, length=length, packing=packing))
    targets = np.concatenate([row["targets"][row["loss_mask"] == 1] for row in rows])
    assert sorted(targets.tolist()) == sorted(set(store.tokens.tolist()) - set((store.starts[:-1] + 1).tolist()))
    for row in rows:
        has = row["loss_mask"] == 1
        np.testing.assert_array_equal(row["targets"][has], row["tokens"][has] + 1)
        assert not np.any(row["targets"][~has])


@pytest.mark.parametrize("packing", PACKINGS)
@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, length=st.integers(1, 9))
def test_positions_count_from_where_a_document_begins_in_its_row(packing, lengths, length):
    for row in TokenRows(numbered(lengths), length=length, packing=packing):
        for segment in range(1, row["segments"].max() + 1):
            here = row["positions"][row["segments"] == segment]
            assert here.tolist() == list(range(len(here)))
        assert not np.any(row["positions"][row["segments"] == 0])


@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, length=st.integers(1, 9))
def test_packing_whole_cuts_only_what_is_longer_than_a_row_and_fills_rows_well(lengths, length):
    store = numbered(lengths)
    rows = list(TokenRows(store, length=length, packing="whole"))
    for row in rows:
        for piece in pieces(row):
            document = np.searchsorted(store.starts, piece[0] - 1, side="right") - 1
            assert len(piece) == min(store.lengths[document], length) or store.lengths[document] > length
    counts = sorted(int((row["segments"] > 0).sum()) for row in rows)
    # Best fit opens a row only where none has room: no two rows would fit into one.
    assert len(counts) < 2 or counts[0] + counts[1] > length


@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, length=st.integers(1, 9))
def test_concatenation_fills_every_row_but_the_last_and_padding_gives_each_document_its_rows(lengths, length):
    rows = list(TokenRows(numbered(lengths), length=length, packing="concatenate"))
    assert all(np.all(row["segments"] > 0) for row in rows[:-1])
    padded = TokenRows(numbered(lengths), length=length, packing="pad")
    assert len(padded) == sum(-(-count // length) for count in lengths)
    assert all(row["segments"].max() == 1 for row in padded)


def test_the_rows_of_an_example_written_out():
    rows = TokenRows(numbered([3, 4, 2]), length=5, packing="concatenate", pad_token=99)
    assert {name: value.tolist() for name, value in rows[0].items()} == {
        "tokens": [1, 2, 3, 4, 5],
        "segments": [1, 1, 1, 2, 2],
        "positions": [0, 1, 2, 0, 1],
        "targets": [2, 3, 99, 5, 6],
        "loss_mask": [1, 1, 0, 1, 1],
    }
    assert rows[1]["tokens"].tolist() == [6, 7, 8, 9, 99]
    assert rows[1]["segments"].tolist() == [1, 1, 2, 2, 0]
    assert rows[1]["targets"].tolist() == [7, 99, 9, 99, 99]


@settings(max_examples=30, deadline=None)
@given(segments=st.lists(st.integers(0, 3), min_size=1, max_size=6), causal=st.booleans())
def test_the_mask_lets_a_token_see_its_own_document_only(segments, causal):
    array = np.asarray(segments)
    mask = document_mask(array, causal=causal)
    for i, query in enumerate(segments):
        for j, key in enumerate(segments):
            assert mask[i, j] == (query == key and key > 0 and (j <= i or not causal))


def test_the_mask_of_jax_arrays_is_that_of_numpy_arrays():
    segments = np.array([[1, 1, 2, 0], [1, 2, 2, 3]])
    np.testing.assert_array_equal(jax.jit(document_mask)(segments), document_mask(segments))


def test_nonsense_is_refused(unchecked_types):
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        TokenRows(numbered([2]), length=0)
    with pytest.raises(ValueError, match="packing must be one of .* got 'dense'"):
        TokenRows(numbered([2]), length=3, packing="dense")
