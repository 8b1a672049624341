import numpy as np

from zsml_jax.models.causal_mask import causal_mask, last_tokens, positions_of, window_mask


def test_positions_count_tokens_wherever_the_padding_is():
    mask = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 1, 0, 1]])
    positions = np.asarray(positions_of(mask))
    assert [row[m == 1].tolist() for row, m in zip(positions, mask, strict=True)] == [[0, 1, 2]] * 3
    assert positions.min() == 0


def test_positions_go_on_from_the_tokens_seen_before():
    assert positions_of(np.array([[1, 1], [0, 1]]), np.array([5, 2])).tolist() == [[5, 6], [1, 2]]


def test_the_last_token_of_a_row_is_found_before_and_behind_padding():
    x = np.arange(12.0).reshape(3, 4, 1)
    mask = np.array([[0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    assert last_tokens(x, mask).tolist() == [[[3]], [[5]], [[8]]]
    assert last_tokens(x, None).tolist() == [[[3]], [[7]], [[11]]]


def test_a_query_sees_tokens_up_to_its_own_slot():
    mask = causal_mask(np.array([1, 2]), np.array([[1, 1, 1, 1], [0, 1, 1, 0]]), 4)
    assert mask[0, 0].tolist() == [[True, True, False, False], [True, True, True, False]]
    assert mask[1, 0].tolist() == [[False, True, False, False], [False, True, True, False]]
    assert causal_mask(np.arange(3), None, 3)[0, 0].tolist() == np.tril(np.ones((3, 3), bool)).tolist()


def test_a_window_counts_tokens_and_holds_the_query_itself():
    positions = np.array([[0, 1, 1, 2]])
    assert window_mask(positions, positions, 1)[0, 0].tolist()[3] == [False, False, False, True]
    assert window_mask(positions, positions, 2)[0, 0].tolist()[3] == [False, True, True, True]
