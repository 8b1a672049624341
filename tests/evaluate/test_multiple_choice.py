import jax
import numpy as np
import pytest

from tests.evaluate.tiny_texts import tiny_gpt2
from tests.models.conftest import GOLDEN
from zsml_jax import models
from zsml_jax.evaluate.multiple_choice import next_word_log_probs, question

PROMPTS = ["The capital of", "The language of Brazil is", "The"]


def test_words_have_the_log_probabilities_of_one_pass_over_each_prompt():
    tiny = tiny_gpt2()
    words = ["is", "of", "capital"]
    found = next_word_log_probs(tiny, PROMPTS, words, batch_tokens=40)
    tokens = [tiny.tokenizer.encode_plain(f" {word}")[0] for word in words]
    for prompt, row in zip(PROMPTS, found, strict=True):
        ids = np.array([tiny.tokenizer.encode_plain(prompt)])
        expected = jax.nn.log_softmax(tiny.apply(tiny.params, ids)[0, -1])[np.array(tokens)]
        np.testing.assert_allclose(row, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("prompts", "words", "message"),
    [
        (PROMPTS, ["is", "zebra"], "words must be one token each, 'zebra' is not"),
        (["word " * 60], ["is"], "prompts must have at most 48 tokens"),
        ([], ["is"], "prompts must hold at least one"),
    ],
)
def test_what_cannot_be_asked_is_refused(prompts, words, message):
    with pytest.raises(ValueError, match=message):
        next_word_log_probs(tiny_gpt2(), prompts, words)


def test_other_models_and_too_few_options_are_refused():
    with pytest.raises(ValueError, match="must be a causal language model"):
        next_word_log_probs(models.load(GOLDEN / "bert"), PROMPTS, ["the"])
    with pytest.raises(ValueError, match="options must be 2 to 10, got 1"):
        question("x", ["a"])
