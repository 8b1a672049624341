import json
import os

import numpy as np
import pytest

from zsml_jax.data import cached_embeddings
from zsml_jax.data.cached_embeddings import CachedEmbeddings

RNG = np.random.default_rng(0)
CONTENT = CachedEmbeddings(
    embeddings=RNG.normal(size=(6, 4)).astype(np.float32),
    labels=np.array([0, 1, 2, 0, 1, 2]),
    class_names=("cat", "dog", "fish"),
    class_prompts=(("a cat", "a photo of a cat"), ("a dog",), ("a fish",)),
    class_embeddings=RNG.normal(size=(3, 4)).astype(np.float16),
    groups=np.array([0, 0, 0, 1, 1, 1]),
)


@pytest.fixture
def folder(tmp_path):
    cached_embeddings.save(tmp_path / "clip", CONTENT)
    return tmp_path / "clip"


def test_what_is_saved_is_loaded(folder):
    for memory_map in (False, True):
        loaded = cached_embeddings.load(folder, memory_map=memory_map)
        assert loaded.class_names == CONTENT.class_names and loaded.class_prompts == CONTENT.class_prompts
        for field in ("embeddings", "labels", "class_embeddings", "groups"):
            got, expected = getattr(loaded, field), getattr(CONTENT, field)
            assert np.array_equal(got, expected) and got.dtype == expected.dtype
    assert isinstance(loaded.embeddings, np.memmap)


def test_optional_files_may_be_missing_and_saving_again_removes_them(folder):
    cached_embeddings.save(folder, CONTENT._replace(class_embeddings=None, groups=None))
    loaded = cached_embeddings.load(folder)
    assert loaded.class_embeddings is None and loaded.groups is None
    assert sorted(os.listdir(folder)) == ["classes.json", "embeddings.npy", "labels.npy"]


def test_a_list_of_names_stands_for_its_own_prompts(folder):
    (folder / "classes.json").write_text('["cat", "dog", "fish"]')
    assert cached_embeddings.load(folder).class_prompts == (("cat",), ("dog",), ("fish",))
    (folder / "classes.json").write_text('{"cat": "a cat", "dog": ["a dog"], "fish": ["a fish"]}')
    assert cached_embeddings.load(folder).class_prompts == (("a cat",), ("a dog",), ("a fish",))


def broken(name, content):
    def breaks(folder):
        if content is None:
            (folder / name).unlink()
        elif isinstance(content, np.ndarray):
            np.save(folder / name, content)
        else:
            (folder / name).write_bytes(content)

    return breaks


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (broken("embeddings.npy", None), "embeddings.npy is missing"),
        (broken("labels.npy", None), "labels.npy is missing"),
        (broken("classes.json", None), "classes.json is missing"),
        (broken("embeddings.npy", b"not numpy"), "is no plain array file"),
        (broken("embeddings.npy", b""), "is no plain array file"),
        (broken("embeddings.npy", np.zeros(6)), "embeddings.npy must have 2 axes of floats, has 1 of float64"),
        (broken("embeddings.npy", np.zeros((6, 4), int)), "embeddings.npy must have 2 axes of floats, has 2 of int64"),
        (broken("embeddings.npy", np.array([{}], object)), "is no plain array file"),
        (broken("embeddings.npy", np.zeros((5, 4))), "labels.npy has 6 entries and embeddings.npy 5 rows"),
        (broken("embeddings.npy", np.full((6, 4), np.nan)), "embeddings.npy must be finite, but row 0 is not"),
        (broken("labels.npy", np.zeros(6)), "labels.npy must have 1 axes of integers"),
        (broken("labels.npy", np.array([0, 1, 2, 3, 0, 0])), r"labels.npy holds 0\.\.3, but classes.json names 3"),
        (broken("labels.npy", np.array([0, 1, 2, -1, 0, 0])), r"labels.npy holds -1\.\.2"),
        (
            broken("class_embeddings.npy", np.zeros((3, 5))),
            r"must have shape \(3, 4\), has \(3, 5\)",
        ),
        (broken("class_embeddings.npy", np.full((3, 4), np.inf)), "class_embeddings.npy must be finite"),
        (broken("groups.npy", np.zeros(5, int)), "groups.npy has 5 entries and embeddings.npy 6 rows"),
        (broken("classes.json", b"{"), "is no JSON"),
        (broken("classes.json", b"3"), "must be a list of class names, or an object"),
        (broken("classes.json", b'["a", "a", "b"]'), "names a class twice"),
        (broken("classes.json", b'{"a": "a", "b": [], "c": "c"}'), "has no prompt for b"),
        (broken("classes.json", b'["a"]'), r"labels.npy holds 0\.\.2|at least two classes"),
    ],
)
def test_a_folder_whose_files_are_broken_or_disagree_is_refused(folder, breaks, message):
    breaks(folder)
    with pytest.raises(ValueError, match=message):
        cached_embeddings.load(folder)


def test_a_row_that_is_not_finite_is_found_beyond_the_first_block(tmp_path):
    many = np.zeros((70_000, 2), np.float32)
    many[69_999, 1] = np.inf
    two = ("a", "b")
    cached_embeddings.save(tmp_path, CachedEmbeddings(many, np.zeros(70_000, int), two, (("a",), ("b",))))
    with pytest.raises(ValueError, match="row 69999 is not"):
        cached_embeddings.load(tmp_path, memory_map=True)


def test_a_save_that_fails_leaves_the_older_file_whole(folder, monkeypatch):
    before = (folder / "embeddings.npy").read_bytes()

    def fails(file, *args, **kwargs):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(cached_embeddings.np, "save", fails)
    with pytest.raises(OSError, match="disk full"):
        cached_embeddings.save(folder, CONTENT)
    assert (folder / "embeddings.npy").read_bytes() == before
    assert not [name for name in os.listdir(folder) if name.startswith(".")]
    assert json.loads((folder / "classes.json").read_text())["dog"] == ["a dog"]
