import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zsml_jax.models.batches import pad_rows, plan_batches


@given(
    lengths=st.lists(st.integers(1, 256), min_size=1, max_size=400),
    batch_size=st.integers(1, 40),
    devices=st.integers(1, 5),
)
def test_every_sequence_is_in_one_batch_that_it_fits(lengths, batch_size, devices):
    batches = plan_batches(lengths, max_length=256, batch_size=batch_size, multiple_of=devices)
    rows = np.concatenate([batch.rows for batch in batches])
    assert sorted(rows) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch.rows) <= batch.size
        assert batch.size % devices == 0
        assert max(lengths[row] for row in batch.rows) <= batch.length <= 256
    assert all(len(batch.rows) * 2 > batch.size - devices or batch.size <= 8 + devices for batch in batches)


@given(lengths=st.lists(st.integers(3, 512), min_size=1, max_size=3000))
def test_a_corpus_needs_a_handful_of_shapes(lengths):
    batches = plan_batches(lengths, max_length=512, batch_size=16)
    assert len({(batch.size, batch.length) for batch in batches}) <= 12


def test_batches_hold_about_the_same_number_of_tokens():
    batches = plan_batches([256] * 64 + [20] * 400 + [10] * 600, max_length=256, batch_size=16)
    assert [(batch.size, batch.length) for batch in batches] == [
        *[(16, 256)] * 4,
        *[(128, 24)] * 4,  # 400 - 3 * 128 = 16 texts of 20 tokens are joined by 112 of 10
        *[(256, 16)] * 2,
    ]


def test_a_few_short_texts_make_one_small_batch():
    batches = plan_batches([5, 9, 3], max_length=256, batch_size=16)
    assert [(batch.size, batch.length) for batch in batches] == [(8, 16)]
    assert batches[0].rows.tolist() == [1, 0, 2]


def test_lengths_are_rounded_to_two_sizes_a_doubling_up_to_the_limit():
    rounded = [plan_batches([n], max_length=200, batch_size=1)[0].length for n in (1, 16, 17, 25, 33, 49, 97, 129, 193)]
    assert rounded == [16, 16, 24, 32, 48, 64, 128, 192, 200]


def test_rows_are_padded_and_masked():
    sequences = [np.array([7, 8, 9], np.int32), np.array([5], np.int32)]
    (batch,) = plan_batches([3, 1], max_length=4, batch_size=2)
    ids, mask = pad_rows(sequences, batch, pad_id=1)
    assert ids.tolist() == [[7, 8, 9, 1], [5, 1, 1, 1]]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]
