import pytest

from zsml_jax.models.tokenizer import load_tokenizer
from zsml_jax.models.tokenizer_training import train_byte_bpe

TEXTS = ["the cat sat on the mat", "the dog sat on the cat", "a cat and a dog"] * 3


@pytest.fixture
def tokenizer():
    return train_byte_bpe(TEXTS, vocab_size=280)


def test_any_text_is_written_in_its_tokens_and_read_back(tokenizer):
    for text in ("the cat", "naïve 猫 \x00\n\n tab\t", "", " two  spaces "):
        assert tokenizer.decode(tokenizer.encode_plain(text), keep_special=True) == text


def test_frequent_words_become_tokens_and_the_end_token_is_the_first(tokenizer):
    assert tokenizer.vocab_size <= 280
    assert len(tokenizer.encode_plain(" cat")) == 1 < len(tokenizer.encode_plain(" xyz"))
    assert tokenizer.token_id("<|endoftext|>") == 0
    assert tokenizer.encode_plain("<|endoftext|>the") == [0, *tokenizer.encode_plain("the")]
    assert tokenizer.special["eos_token"] == "<|endoftext|>"


def test_it_comes_back_from_its_files_and_is_learned_alike_each_time(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path, model_type="gpt2", max_length=99)
    again = train_byte_bpe(TEXTS, vocab_size=280)
    for text in TEXTS:
        assert loaded.encode_plain(text) == tokenizer.encode_plain(text) == again.encode_plain(text)
    assert loaded.special == tokenizer.special and loaded.max_length == 99


@pytest.mark.slow
@pytest.mark.oracle
def test_transformers_reads_its_files_and_cuts_alike(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    tokenizer.save(tmp_path)
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert peer(TEXTS)["input_ids"] == [tokenizer.encode_plain(text) for text in TEXTS]
    assert peer.eos_token_id == 0


def test_a_vocabulary_without_room_for_the_bytes_is_refused():
    with pytest.raises(ValueError, match="vocab_size must be more than 256, for all bytes and the end token, got 256"):
        train_byte_bpe(TEXTS, vocab_size=256)
