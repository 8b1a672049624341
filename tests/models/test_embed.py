import logging

import chex
import jax
import numpy as np
import pytest

from tests.models.conftest import GOLDEN
from zsml_jax import models
from zsml_jax.models import embed
from zsml_jax.zeroshot.head import class_head

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "house", "is", "was", "happy", "very", "!", ","]


@pytest.fixture(autouse=True)
def own_cache(cache_folder):
    """No test sees the embeddings of another."""


@pytest.fixture
def corpus():
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, size=rng.integers(0, 18))) for _ in range(70)]


@pytest.fixture
def count_runs(monkeypatch):
    """Counts the batches that are computed."""
    runs = []
    original = embed._embed
    monkeypatch.setattr(
        embed, "_embed", lambda *args, **kwargs: runs.append(args[1].shape) or original(*args, **kwargs)
    )
    return runs


def one_by_one(pretrained, texts):
    """The definition: each text alone, without padding."""
    rows = []
    apply = jax.jit(pretrained.apply)
    for ids in pretrained.tokenizer.ragged(texts):
        hidden = apply(pretrained.params, ids[None])
        rows.append(models.sentence.pool(hidden, np.ones((1, len(ids)), np.int32), pretrained.sentence)[0])
    return np.stack(rows)


@pytest.mark.slow
def test_a_corpus_equals_its_texts_one_by_one_in_their_order(tiny, corpus):
    distinct = corpus[:6]
    np.testing.assert_allclose(models.encode(tiny, distinct, batch_size=3), one_by_one(tiny, distinct), atol=1e-5)


def test_the_order_the_batch_size_and_repeats_do_not_matter(tiny, corpus):
    together = models.encode(tiny, corpus, cache=False)
    order = np.random.default_rng(1).permutation(len(corpus))
    shuffled = models.encode(tiny, [corpus[i] for i in order], batch_size=3, cache=False)
    np.testing.assert_allclose(shuffled, together[order], atol=1e-5)
    repeated = models.encode(tiny, corpus + corpus, cache=False)
    np.testing.assert_allclose(repeated, np.concatenate([together, together]), atol=1e-5)


def test_a_repeated_text_is_computed_once(tiny, count_runs):
    models.encode(tiny, ["the cat"] * 1000)
    assert count_runs == [(8, 16)]


def test_a_corpus_compiles_a_handful_of_programs_and_another_one_none(tiny, corpus, monkeypatch):
    traced = jax.jit(chex.assert_max_traces(embed._embed.__wrapped__, n=3), static_argnames=("module", "sentence"))
    monkeypatch.setattr(embed, "_embed", traced)
    models.encode(tiny, corpus, cache=False)
    models.encode(tiny, [*corpus[::-1], "a new text"], cache=False)


def test_the_real_encoder_s_cosines_are_the_published_ones(minilm):
    happy, happier, sunny = models.encode(
        minilm, ["That is a happy person", "That is a very happy person", "Today is a sunny day"]
    )
    np.testing.assert_allclose([happy @ happier, happy @ sunny], [0.943, 0.257], atol=5e-4)
    np.testing.assert_allclose(np.linalg.norm([happy, happier, sunny], axis=1), 1, atol=1e-6)


def test_the_real_encoder_s_embeddings_equal_the_recorded_torch_numbers(minilm):
    with np.load(GOLDEN / "minilm.npz") as expected:
        ours = models.encode(minilm, expected["sentences"].tolist())
        np.testing.assert_allclose(ours, expected["embeddings"], atol=1e-6)


def test_texts_are_cut_where_the_sentence_encoder_says(minilm):
    long = "word " * 300
    np.testing.assert_allclose(
        models.encode(minilm, [long]), models.encode(minilm, ["word " * 254 + "other " * 20]), atol=1e-6
    )


def test_a_lowercasing_package_lowercases(tiny):
    tokenizer = models.load_tokenizer(GOLDEN / "roberta", model_type="roberta", max_length=20)
    tokenizer_cased = tiny.replace(tokenizer=tokenizer)  # byte pairs of 290 tokens; only the ids' equality is looked at
    lower = tokenizer_cased.replace(sentence=models.SentenceConfig(lowercase=True))
    assert embed._prepared(["The CAT"], lower.sentence) == ["the cat"]
    assert embed._prepared(["The CAT"], tokenizer_cased.sentence) == ["The CAT"]


def test_embeddings_are_kept_on_disk_whatever_the_order(tiny, corpus, count_runs):
    first = models.encode(tiny, corpus)
    computed = len(count_runs)
    np.testing.assert_array_equal(models.encode(tiny, corpus[::-1], batch_size=5), first[::-1])
    assert len(count_runs) == computed > 0
    models.encode(tiny, corpus, cache=False)
    assert len(count_runs) > computed


def test_other_weights_poolings_and_dtypes_do_not_share_the_cache(tiny, corpus, count_runs):
    first = models.encode(tiny, corpus)
    others = [
        tiny.replace(params=jax.tree.map(lambda x: x * 1.1, tiny.params)),
        tiny.replace(sentence=models.SentenceConfig(("cls",))),
        models.load(GOLDEN / "bert", dtype="bfloat16"),
        tiny.replace(sentence=models.SentenceConfig(max_length=4)),
    ]
    for other in others:
        before = len(count_runs)
        assert not np.array_equal(models.encode(other, corpus), first)
        assert len(count_runs) > before


def test_damaged_cached_embeddings_are_computed_anew(tiny, corpus, cache_folder, caplog):
    first = models.encode(tiny, corpus)
    (file,) = (cache_folder / "embeddings").iterdir()
    file.write_bytes(file.read_bytes()[:-8])
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(models.encode(tiny, corpus), first)
    assert "damaged" in caplog.text
    caplog.clear()
    np.testing.assert_array_equal(models.encode(tiny, corpus), first)
    assert not caplog.text


def test_devices_can_share_the_batches(tiny, corpus):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    np.testing.assert_allclose(
        models.encode(tiny, corpus, cache=False, mesh=mesh), models.encode(tiny, corpus, cache=False), atol=1e-5
    )
    with pytest.raises(ValueError, match="mesh must have Auto axes only"):
        models.encode(tiny, corpus, mesh=jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,)))


def test_a_text_encoder_makes_a_class_head(minilm):
    encoder = models.text_encoder(minilm)
    head = class_head(encoder, ["a news article about sport", "a news article about business"])
    texts = ["The striker scored twice in the final.", "Shares fell after the bank raised its rates."]
    assert head.predict(encoder(texts)).tolist() == [0, 1]


def test_a_text_encoder_loads_a_folder(tiny, corpus):
    np.testing.assert_array_equal(models.text_encoder(GOLDEN / "bert")(corpus), models.encode(tiny, corpus))


@pytest.mark.parametrize(
    ("texts", "settings", "message"),
    [
        ([], {}, "texts must hold at least one string"),
        ("one text", {}, "texts must be a sequence of strings"),
        (["a", b"b"], {}, "texts must hold strings, got bytes at 1"),
        (["a"], {"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_bad_texts_are_refused(texts, settings, message, tiny, unchecked_types):
    with pytest.raises(ValueError, match=message):
        models.encode(tiny, texts, **settings)


def test_a_model_without_tokenizer_cannot_encode_texts(tiny):
    with pytest.raises(ValueError, match="pretrained must have a tokenizer"):
        models.encode(tiny.replace(tokenizer=None), ["a"])


def test_a_tokenizer_of_another_model_is_refused(tiny):
    other = models.load_tokenizer(GOLDEN / "roberta", model_type="roberta", max_length=20)
    with pytest.raises(ValueError, match=r"its tokenizer gives the id 2\d\d, and its embedding has 33 rows"):
        models.encode(tiny.replace(tokenizer=other), ["the cat"])


def test_embeddings_that_are_not_finite_are_neither_returned_nor_kept(tiny, cache_folder):
    broken = tiny.replace(params=jax.tree.map(lambda x: x * np.nan, tiny.params))
    with pytest.raises(ValueError, match="embeddings that are not finite"):
        models.encode(broken, ["the cat"])
    assert not (cache_folder / "embeddings").exists()
