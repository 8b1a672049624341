import collections
import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsml_jax.data import splits

KEYS = [f"text {i}" for i in range(1000)]
LABELS = [i % 10 for i in range(1000)]


def test_the_three_splits_are_a_partition_of_all_in_60_20_20():
    divided = splits.assign(KEYS, LABELS, [])
    assert {name: len(part) for name, part in divided.items()} == {
        "all": 1000,
        "train": 600,
        "validation": 200,
        "test": 200,
    }
    parts = np.concatenate([divided[name] for name in ("train", "validation", "test")])
    assert sorted(parts) == sorted(divided["all"]) == list(range(1000))


def test_every_stratum_is_divided_alike():
    for name, share in (("train", 60), ("validation", 20), ("test", 20)):
        counts = collections.Counter(LABELS[i] for i in splits.assign(KEYS, LABELS, [])[name])
        assert set(counts.values()) == {share}


def test_the_order_and_the_division_are_those_of_sha256_and_so_the_same_on_every_machine():
    def by_hash(salt):
        return sorted(range(1000), key=lambda i: hashlib.sha256(f"{salt}:text {i}".encode()).hexdigest())

    divided = splits.assign(KEYS, LABELS, [], seed=7)
    assert divided["all"].tolist() == by_hash("7 shuffle")
    in_test = set()
    for label in range(10):
        in_test |= set([i for i in by_hash("7 divide") if LABELS[i] == label][80:])
    assert divided["test"].tolist() == [i for i in by_hash("7 shuffle") if i in in_test]


def test_the_division_does_not_depend_on_the_order_of_the_source():
    reversed_split = splits.assign(KEYS[::-1], LABELS[::-1], [])["test"]
    assert [KEYS[::-1][i] for i in reversed_split] == [KEYS[i] for i in splits.assign(KEYS, LABELS, [])["test"]]


def test_another_seed_gives_another_division():
    first, second = (splits.assign(KEYS, LABELS, [], seed=seed)["test"] for seed in (0, 1))
    assert len(set(first) & set(second)) < 100  # 40 are expected


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(0, 2)), min_size=1, max_size=60))
def test_what_shares_a_unit_directly_or_through_others_shares_a_split(rows):
    documents, texts, strata = map(np.asarray, zip(*rows, strict=True))
    divided = splits.assign([f"{i}" for i in range(len(rows))], strata.tolist(), [documents, texts])
    split_of = {int(i): name for name in ("train", "validation", "test") for i in divided[name]}
    assert len(split_of) == len(rows)
    for i in range(len(rows)):
        for j in range(i):
            if documents[i] == documents[j] or texts[i] == texts[j]:
                assert split_of[i] == split_of[j]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("train", list(range(10))),
        ("train[:3]", [0, 1, 2]),
        ("train[-2:]", [8, 9]),
        ("train[2:4]", [2, 3]),
        ("train[20%:50%]", [2, 3, 4]),
        ("train[:-80%]", [0, 1]),
        ("test + train[9:]", [10, 11, 9]),
        ("train[:]", list(range(10))),
        ("train[50:]", []),
    ],
)
def test_a_split_string_selects_as_python_slices_do(expression, expected):
    divided = {"train": np.arange(10), "test": np.arange(10, 12)}
    assert splits.select(expression, divided, "toy").tolist() == expected


def test_an_unknown_split_lists_those_that_exist():
    with pytest.raises(ValueError, match="toy has no split 'valid'; it has train, test"):
        splits.select("valid[:3]", {"train": np.arange(3), "test": np.arange(3)}, "toy")


@pytest.mark.parametrize("expression", ["", "train[", "train[1:2:3]", "train[a:]", "train,test", "train[3]"])
def test_a_split_string_that_cannot_be_read_is_refused(expression):
    with pytest.raises(ValueError, match="split must look like"):
        splits.select(expression, {"train": np.arange(3)}, "toy")
