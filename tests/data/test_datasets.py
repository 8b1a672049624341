import collections
import gzip
import json
import subprocess
import sys

import numpy as np
import pytest

from zsml_jax import data
from zsml_jax.data.assets import AssetError

CLASSES = {"bbc_news": 5, "trec_coarse": 6, "trec_fine": 50, "sentiment_domains": 2, "digits": 10}


def load(name, **options):
    try:
        return data.load(name, **options)
    except AssetError as error:
        if "within reach" in str(error):
            pytest.skip("no package index within reach")
        raise


def rows_of(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize("name", CLASSES)
def test_the_splits_of_a_built_in_set_are_a_partition_with_the_label_distribution_of_all(name):
    everything = load(name)
    assert len(everything.class_names) == CLASSES[name]
    parts = [load(name, split=split) for split in ("train", "validation", "test")]
    assert sorted(sum((part.ids for part in parts), ())) == sorted(everything.ids)
    for part, share in zip(parts, (0.6, 0.2, 0.2), strict=True):
        assert len(part) / len(everything) == pytest.approx(share, abs=0.01)
        assert np.abs(part.label_distribution - everything.label_distribution).max() < 0.02
    inputs = [{str(x) for x in part.inputs} for part in parts]
    assert not (inputs[0] & inputs[1] or inputs[0] & inputs[2] or inputs[1] & inputs[2])


@pytest.mark.parametrize("name", CLASSES)
def test_a_slice_is_the_start_of_its_split_and_a_fair_sample(name):
    test = load(name, split="test")
    part = load(name, split="test[:150]")
    assert set(part.ids) <= set(test.ids[:150])
    assert part.split == "test[:150]"
    # A fair sample of 150 has an expected total variation of at most sqrt(k / (2 pi 150)): 0.23 for 50 classes.
    k = len(test.class_names)
    assert np.abs(part.label_distribution - test.label_distribution).sum() / 2 < 1.3 * np.sqrt(k / (2 * np.pi * 150))


def test_bbc_news_has_the_released_counts_and_no_broken_letters():
    news = load("bbc_news")
    assert dict(zip(news.class_names, np.bincount(news.labels).tolist(), strict=True)) == {
        "business": 510,
        "entertainment": 386,
        "politics": 417,
        "sports": 511,
        "tech": 401,
    }
    assert len(set(news.inputs)) == 2127
    labels_of = collections.defaultdict(set)
    for text, label in zip(news.inputs, news.labels.tolist(), strict=True):
        labels_of[text].add(label)
    assert max(map(len, labels_of.values())) == 1
    assert not any("\ufffd" in text for text in news.inputs)
    assert "£15.8m" in news.inputs[news.ids.index("sports/199")]


def test_trec_is_the_deduplicated_set_of_the_shared_folder(shared_data):
    rows = rows_of(shared_data / "text" / "trec_questions.jsonl.gz")
    for labels in ("coarse", "fine"):
        trec = load("trec", labels=labels)
        at = np.argsort(trec.ids)
        assert [trec.inputs[i] for i in at] == [row["text"] for row in rows]
        assert [trec.class_names[trec.labels[i]] for i in at] == [row[labels] for row in rows]


def test_coarse_and_fine_trec_share_their_splits_and_their_hierarchy():
    coarse, fine = load("trec_coarse", split="test"), load("trec_fine", split="test")
    assert coarse.ids == fine.ids and coarse.inputs == fine.inputs
    above = [name.split(":")[0] for name in fine.class_names]
    assert [above[y] for y in fine.labels] == [coarse.class_names[y] for y in coarse.labels]


def test_sentiment_is_the_set_of_the_shared_folder_cut_at_the_threshold(shared_data):
    rows = rows_of(shared_data / "text" / "sentiment_domains.jsonl.gz")
    for threshold in (0.0, 0.5, 1.5):
        sentiment = load("sentiment_domains", threshold=threshold)
        expected = {
            f"{row['domain']}/{row['id']}": (row["text"], row["domain"], "positive" if row["score"] > 0 else "negative")
            for row in rows
            if abs(row["score"]) > threshold
        }
        columns = (sentiment.inputs, sentiment.groups, sentiment.labels)
        found = {
            identity: (text, sentiment.group_names[group], sentiment.class_names[label])
            for identity, text, group, label in zip(sentiment.ids, *columns, strict=True)
        }
        assert found == expected


def test_sentences_of_one_document_share_a_split_and_the_threshold_moves_none():
    parts = {split: load("sentiment_domains", split=split, threshold=0.0) for split in ("train", "validation", "test")}
    documents = {
        split: {i.rpartition("_")[0] for i in part.ids if i.startswith(("amazon", "nyt"))}
        for split, part in parts.items()
    }
    assert not documents["train"] & documents["validation"] and not documents["test"] & documents["train"]
    strict = load("sentiment_domains", split="test", threshold=2.0)
    assert set(strict.ids) < set(parts["test"].ids)


def test_labels_of_trec_are_coarse_or_fine(unchecked_types):
    with pytest.raises(ValueError, match="labels must be 'coarse' or 'fine', got 'finer'"):
        data.load("trec", labels="finer")


@pytest.mark.parametrize("threshold", [-0.1, 4.0, float("nan")])
def test_a_threshold_off_the_scale_is_refused(threshold):
    with pytest.raises(ValueError, match=r"threshold must lie in \[0, 4\)"):
        load("sentiment_domains", threshold=threshold)


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    source, digits = load_digits(), data.load("digits")
    at = np.argsort(digits.ids)
    assert np.array_equal(digits.inputs[at], source.images) and np.array_equal(digits.labels[at], source.target)
    assert digits.inputs.dtype == np.float32


@pytest.mark.parametrize("name", ["bbc_news", "trec_coarse", "trec_fine", "sentiment_domains"])
def test_every_class_has_a_description_of_its_own_in_the_order_of_the_labels(name):
    dataset, described = load(name), data.class_descriptions(name)
    assert set(described) == set(dataset.class_names)
    assert dataset.class_descriptions == tuple(described[c] for c in dataset.class_names)
    assert len(set(described.values())) == len(described)


def test_a_set_without_descriptions_says_which_have_some():
    with pytest.raises(ValueError, match="'digits' have no descriptions. The described data sets are: bbc_news"):
        data.class_descriptions("digits")


def test_a_tfds_set_is_read_by_name_with_its_own_classes(tiny_tfds, tiny_images):
    images, labels = tiny_images
    tiny = data.load("tiny_digits", split="train", data_dir=tiny_tfds)
    assert np.array_equal(tiny.inputs, images[:8]) and np.array_equal(tiny.labels, labels[:8])
    assert tiny.class_names[3] == "digit 3"
    assert np.array_equal(data.load("tiny_digits:1.0.0", data_dir=tiny_tfds).labels, labels)
    assert data.load("tiny_digits", split="test[1:]+train[:1]", data_dir=tiny_tfds).labels.tolist() == [9, 0, 1, 0]


def test_the_default_data_dir_is_that_of_tfds(tiny_tfds, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tiny_tfds))
    assert len(data.load("tiny_digits")) == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "trec_corse"}, r"no data set 'trec_corse'\. Did you mean 'trec_coarse' or 'trec_fine'\?"),
        (
            {"name": "no_such"},
            r"The built-in data sets are: bbc_news, trec, .*: tiny_digits; `python -m zsml_jax.data.prep",
        ),
        ({"name": "tiny_digits", "split": "validation"}, r"has no split 'validation'; it has train \(8\), test \(4\)"),
        (
            {"name": "tiny_digits", "label_key": "lable"},
            "label_key of 'tiny_digits' must be one of image, label, got",
        ),
        ({"name": "tiny_digits", "label_key": "image"}, "must name a class label, but 'image' is Image"),
        ({"name": "tiny_digits", "threshold": 1.0}, "no option 'threshold'. The options are: input_key, label_key"),
        ({"name": "digits"}, "data_dir is for TFDS sets"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(tiny_tfds, arguments, message):
    with pytest.raises(ValueError, match=message):
        data.load(**({"data_dir": tiny_tfds} | arguments))


def test_an_unknown_option_or_split_of_a_built_in_set_is_refused():
    with pytest.raises(ValueError, match=r"no option 'split_sed'. Did you mean 'split_seed'\?"):
        data.load("digits", split_sed=1)
    with pytest.raises(ValueError, match="digits has no split 'valid'; it has all, train, validation, test"):
        data.load("digits", split="valid")


def test_cifar10_of_the_shared_folder_has_only_its_test_split(shared_data):
    with pytest.raises(ValueError, match=r"no split 'train'; it has test \(10,000\)"):
        data.load("cifar10", split="train", data_dir=shared_data / "tfds")
    part = data.load("cifar10", split="test[:50]", data_dir=shared_data / "tfds")
    assert part.inputs.shape == (50, 32, 32, 3) and part.class_names[0] == "airplane"


def test_importing_the_package_imports_none_of_its_heavy_dependencies():
    heavy = ("jax", "tensorflow_datasets", "grain", "scipy", "sklearn")
    code = f"import sys, zsml_jax.data; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    assert set(dir(data)) >= {"load", "assets", "pipeline"}
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        _ = data.laod
