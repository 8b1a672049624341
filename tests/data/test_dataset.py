import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.data import Dataset


def texts(**changes):
    fields = {
        "name": "four",
        "split": "all",
        "inputs": ["a", "b", "c", "d"],
        "labels": np.array([0, 1, 1, 2]),
        "class_names": ("x", "y", "z"),
        "groups": np.array([0, 0, 1, 1]),
        "group_names": ("left", "right"),
        "ids": ("0", "1", "2", "3"),
    }
    return Dataset(**(fields | changes))


@pytest.mark.parametrize("indices", [[3, 1, 1], np.array([3, 1, 1]), jnp.array([3, 1, 1])])
def test_a_subset_takes_inputs_labels_groups_and_ids_in_the_order_of_its_indices(indices):
    part = texts().subset(indices)
    assert part.inputs == ["d", "b", "b"] and part.ids == ("3", "1", "1")
    assert part.labels.tolist() == [2, 1, 1] and part.groups.tolist() == [1, 0, 0]
    assert part.class_names == ("x", "y", "z") and part.group_names == ("left", "right")
    assert len(part) == 3


def test_a_subset_of_arrays_is_an_array_and_an_empty_one_keeps_its_shape():
    images = Dataset("images", "all", np.arange(12.0).reshape(3, 2, 2), np.array([0, 1, 0]), ("a", "b"))
    assert images.subset([2]).inputs.tolist() == [[[8.0, 9.0], [10.0, 11.0]]]
    assert images.subset([]).inputs.shape == (0, 2, 2)


@pytest.mark.parametrize("indices", [[4], [-1], [0.0], [[0]], [True, False, True, False]])
def test_indices_that_are_no_positions_are_refused(unchecked_types, indices):
    with pytest.raises(ValueError, match="indices must"):
        texts().subset(indices)


def test_the_label_distribution_counts_every_class_also_an_absent_one():
    assert texts().label_distribution.tolist() == [0.25, 0.5, 0.25]
    assert texts().subset([0, 1]).label_distribution.tolist() == [0.5, 0.5, 0.0]
    with pytest.raises(ValueError, match="no label distribution"):
        _ = texts().subset([]).label_distribution


def test_the_repr_names_size_classes_and_groups():
    assert repr(texts()) == "Dataset('four', 'all': 4 texts; 3 classes: x, y, z; 2 groups: left, right)"
    images = Dataset("i", "test[:1]", np.zeros((1, 8, 8), np.uint8), np.array([0]), tuple("abcdefghij"))
    shown = "Dataset('i', 'test[:1]': 1 arrays (8, 8) uint8; 10 classes: a, b, c, d, e, f, g, h, ...)"
    assert repr(images) == shown


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": ["a"]}, "inputs must have one entry per label: got 1 and 4 labels"),
        ({"ids": ("0",)}, "ids must have one entry per label"),
        ({"labels": np.array([0, 1, 1, 3])}, r"labels must index the 3 class_names, got 0\.\.3"),
        ({"labels": np.array([-1, 1, 1, 2])}, r"labels must index the 3 class_names, got -1\.\.2"),
        ({"labels": np.array([0.0, 1, 1, 2])}, "labels must be a one-axis integer array"),
        ({"groups": np.array([0, 0, 1, 2])}, "groups must index the 2 group_names"),
        ({"class_names": ("x", "y", "x")}, "class_names must differ"),
        ({"class_descriptions": ("one",)}, "class_descriptions must have 3 entries, got 1"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(unchecked_types, changes, message):
    with pytest.raises(ValueError, match=message):
        texts(**changes)
