import dataclasses
import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsml_jax import data
from zsml_jax.data import documents, token_store

ONE = {"process_index": 0, "process_count": 1}


def letters(text):
    return [ord(letter) for letter in text]


def stream(texts, **options):
    options = {"length": 5, "batch_size": 2, "threads": 0} | ONE | options
    return data.token_batches(texts, letters, **options)


@pytest.mark.parametrize("packing", ["concatenate", "whole", "pad"])
@settings(max_examples=8, deadline=None)
@given(texts=st.lists(st.text("abcdef", min_size=1, max_size=11), min_size=6, max_size=12), position=st.integers(0, 4))
def test_a_resumed_stream_goes_on_exactly(packing, texts, position):
    whole = stream(texts, packing=packing, length=3)
    for _ in range(position):
        next(whole)
    resumed = stream(texts, packing=packing, length=3)
    resumed.set_state(json.loads(json.dumps(whole.get_state())))
    for _ in range(4):
        expected, got = next(whole), next(resumed)
        assert all(np.array_equal(expected[name], got[name]) for name in expected)


@pytest.mark.parametrize("packing", ["concatenate", "whole", "pad"])
@settings(max_examples=8, deadline=None)
@given(
    texts=st.lists(st.text("abcdef", min_size=1, max_size=11), min_size=8, max_size=12), count=st.sampled_from([2, 4])
)
def test_the_parts_of_the_processes_are_disjoint_and_together_complete(packing, texts, count):
    # Tokens are numbered through, so that a row's first token tells the row.
    store = token_store.tokenize(texts, letters)
    store = dataclasses.replace(store, tokens=np.arange(1, len(store.tokens) + 1, dtype=np.int32))
    options = {"length": 2, "batch_size": 4, "packing": packing, "epochs": 1, "threads": 0}
    parts = [data.token_batches(store, process_index=i, process_count=count, **options) for i in range(count)]
    alone = data.token_batches(store, **ONE, **options)
    firsts = [[int(first) for batch in part for first in batch["tokens"][:, 0]] for part in parts]
    together = sorted(first for part in firsts for first in part)
    assert len(set(together)) == len(together)
    assert together == sorted(int(first) for batch in alone for first in batch["tokens"][:, 0])


def test_an_epoch_that_drops_nothing_holds_every_token():
    texts = ["abc", "de", "fghij", "klm", "n"]
    batches = list(stream(texts, end_token=46, epochs=1, drop_remainder=False))
    tokens = np.concatenate([batch["tokens"][batch["segments"] > 0] for batch in batches])
    assert sorted(tokens.tolist()) == sorted(letters("".join(texts) + "....."))


def test_batches_have_the_shapes_of_their_rows_and_masks():
    batch = next(stream(["hello world", "and more"], end_token=0))
    assert {name: value.shape for name, value in batch.items()} == dict.fromkeys(
        ["tokens", "segments", "positions", "targets", "loss_mask"], (2, 5)
    )
    assert data.document_mask(batch["segments"]).shape == (2, 5, 5)


def test_arguments_that_do_not_go_together_are_refused():
    store = token_store.tokenize(["abc"], letters)
    with pytest.raises(ValueError, match="tokenizer and end_token must be None for a store"):
        data.token_batches(store, letters, length=2, batch_size=1)
    with pytest.raises(ValueError, match="tokenizer must be given for texts"):
        data.token_batches(["abc"], length=2, batch_size=1)


def test_a_store_comes_back_from_its_folder_and_a_broken_one_is_refused(tmp_path):
    store = token_store.tokenize(["abc", "", "de"], letters)
    assert store.lengths.tolist() == [3, 2] and len(store) == 2 and store.tokens.dtype == np.uint16
    assert store.document(1).tolist() == letters("de")
    token_store.save(tmp_path, store)
    loaded = token_store.load(tmp_path)
    assert isinstance(loaded.tokens, np.memmap)
    for before, after in ((store.tokens, loaded.tokens), (store.starts, loaded.starts)):
        assert np.array_equal(before, after) and before.dtype == after.dtype
    np.save(tmp_path / "starts.npy", np.array([0, 3]))
    with pytest.raises(ValueError, match="must have starts up to 5 tokens, has 3"):
        token_store.load(tmp_path)
    (tmp_path / "starts.npy").unlink()
    with pytest.raises(ValueError, match=r"must hold tokens.npy and starts.npy"):
        token_store.load(tmp_path)


def test_ids_beyond_two_bytes_take_four_and_impossible_ids_are_refused():
    assert token_store.tokenize(["x"], lambda _: [70_000]).tokens.dtype == np.int32
    with pytest.raises(ValueError, match=r"ids of 0\.\.2\^31 - 1, gave -1\.\.3"):
        token_store.tokenize(["x"], lambda _: [3, -1])
    with pytest.raises(ValueError, match="documents must hold tokens; the 2 given hold none"):
        token_store.tokenize(["", ""], letters)


def test_text_files_are_documents_whole_or_by_a_separator(tmp_path):
    (tmp_path / "b.txt").write_text("three", encoding="utf-8")
    (tmp_path / "a.txt").write_text("öne\n\ntwo\n\n", encoding="utf-8")
    assert list(documents.TextFiles(tmp_path)) == ["öne\n\ntwo\n\n", "three"]
    assert list(documents.TextFiles([tmp_path / "a.txt"], separator="\n\n")) == ["öne", "two"]
    with pytest.raises(ValueError, match="paths must exist; .*c.txt does not"):
        documents.TextFiles(tmp_path / "c.txt")
    with pytest.raises(ValueError, match="separator must not be empty"):
        documents.TextFiles(tmp_path, separator="")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="paths must hold text"):
        documents.TextFiles(tmp_path / "empty")


def test_packed_text_files_and_patterns_are_read_and_what_is_no_text_is_named(tmp_path):
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress("zwö".encode()))
    (tmp_path / "a.txt").write_text("one", encoding="utf-8")
    (tmp_path / "c.md").write_text("three", encoding="utf-8")
    assert list(documents.TextFiles(tmp_path)) == ["one", "zwö"]
    assert list(documents.TextFiles([str(tmp_path / "*.md"), tmp_path / "a*"])) == ["three", "one"]
    with pytest.raises(ValueError, match=r"paths must exist; .*\*.rst does not"):
        documents.TextFiles(str(tmp_path / "*.rst"))
    (tmp_path / "d.txt.gz").write_text("not packed")
    (tmp_path / "e.txt").write_bytes(b"\xff\xfe")
    for name in ("d.txt.gz", "e.txt"):
        with pytest.raises(ValueError, match=f"{name} must be UTF-8 text, packed if its name ends in .gz"):
            documents.TextFiles(tmp_path / name)


@settings(max_examples=60, deadline=None)
@given(text=st.text("ab .\n", max_size=60), longest=st.integers(1, 20))
def test_passages_are_short_enough_and_joined_the_text_again(text, longest):
    found = documents.passages(text, longest)
    assert "".join(found) == text
    assert all(0 < len(passage) <= longest for passage in found)


def test_passages_end_at_the_best_place_that_leaves_half_of_them():
    assert documents.passages("aa\n\nbb cc\ndd. ee ff", 10) == ["aa\n\nbb cc\n", "dd. ee ff"]
    assert documents.passages("aaaa\n\nbb cc\ndd", 10) == ["aaaa\n\n", "bb cc\ndd"]
    assert documents.passages("aaaaaaaaaaaa", 5) == ["aaaaa", "aaaaa", "aa"]
    with pytest.raises(ValueError, match="longest must be at least 1, got 0"):
        documents.passages("a", 0)


def test_json_lines_are_read_one_by_one_and_a_bad_one_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "öne"}\n\n{"text": "two"}\n{"body": "x"}\n{"text": 3}\nno json', encoding="utf-8")
    source = documents.JsonLines(path)
    assert len(source) == 5 and source[1] == "two" and source[0] == "öne"
    for index, line, message in (
        (2, 4, "an object with 'text'"),
        (3, 5, "a string in 'text', has 3"),
        (4, 6, "an object"),
    ):
        with pytest.raises(ValueError, match=f"line {line} must (be|have) {message}"):
            source[index]
    (tmp_path / "b.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="paths must hold JSON lines"):
        documents.JsonLines(tmp_path / "b.jsonl")


def test_tfds_texts_are_decoded_and_a_feature_that_is_no_text_is_refused(monkeypatch, tiny_tfds):
    rows = [{"text": "öne".encode(), "label": 3}, {"text": b"two", "label": 4}]
    monkeypatch.setattr(documents.tfds_source, "open_source", lambda *_, **__: rows)
    assert list(map(documents.TfdsTexts("x", split="train").__getitem__, range(2))) == ["öne", "two"]
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"field must be a text feature of tiny_digits, one of \[\]; got 'label'"):
        documents.TfdsTexts("tiny_digits", split="train", field="label", data_dir=tiny_tfds)
