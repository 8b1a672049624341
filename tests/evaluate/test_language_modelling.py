import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import tiny_decoders
from tests.models.conftest import DECODERS
from zsml_jax import evaluate, models

VOCAB = 11


def reader(params, tokens_BxT):
    """A causal model whose scores depend on all that it reads, and on where the reading began."""
    return jnp.cumsum(params[tokens_BxT] * (1 + jnp.arange(tokens_BxT.shape[1]))[:, None], axis=1)


@pytest.fixture
def params():
    return jnp.asarray(np.random.default_rng(0).normal(size=(VOCAB, VOCAB)) / 9, jnp.float32)


@pytest.fixture
def documents():
    rng = np.random.default_rng(1)
    return [rng.integers(0, VOCAB, length) for length in (1, 4, 5, 6, 17, 30)]


def plain(params, document, context, stride):
    """The definition, token by token, with one unpadded pass in numpy for each."""
    table, inputs = np.asarray(params, np.float64), np.concatenate([[3], document[:-1]])
    found = []
    for t in range(len(document)):
        window = 0 if t < context else math.ceil((t + 1 - context) / stride)
        read = table[inputs[window * stride : t + 1]]
        logits = (read * (1 + np.arange(len(read)))[:, None]).sum(axis=0)
        found.append(np.logaddexp.reduce(logits) - logits[document[t]])
    return np.array(found)


@pytest.mark.parametrize(("context", "stride", "batch_size"), [(40, 40, 4), (5, 5, 3), (6, 2, 4), (4, 1, 7), (1, 1, 8)])
def test_each_token_has_the_score_of_the_first_window_that_holds_it(params, documents, context, stride, batch_size):
    options = {"start_token": 3, "context": context, "stride": stride, "batch_size": batch_size}
    scores = evaluate.token_nats(reader, params, documents, **options)
    for document, score in zip(documents, scores, strict=True):
        np.testing.assert_allclose(score, plain(params, document, context, stride), rtol=2e-5, atol=2e-5)


def test_half_the_context_is_the_default_stride(params, documents):
    default = evaluate.token_nats(reader, params, documents, start_token=0, context=6)
    half = evaluate.token_nats(reader, params, documents, start_token=0, context=6, stride=3)
    assert all(map(np.array_equal, default, half))


def test_a_model_that_knows_nothing_needs_eight_bits_a_byte_and_has_a_perplexity_of_256():
    text = "naïve café".encode()
    uniform = lambda params, tokens: jnp.zeros((*tokens.shape, 256))
    (nats,) = evaluate.token_nats(uniform, {}, [np.frombuffer(text, np.uint8)], start_token=0, context=8)
    total, size = np.array([nats.sum()]), np.array([len(text)])
    assert float(evaluate.bits_per_byte(total, size)) == pytest.approx(8)
    assert float(evaluate.perplexity_per_token(total, size)) == pytest.approx(256)


def test_documents_count_by_their_length_and_are_what_a_bootstrap_draws():
    nats, size = np.array([10.0, 90.0, 20.0]), np.array([10, 30, 10])
    assert float(evaluate.bits_per_byte(nats, size)) == pytest.approx(120 / math.log(2) / 50)
    interval = evaluate.bootstrap_interval(evaluate.perplexity_per_token, nats, size, key=jax.random.key(0))
    assert math.e <= interval.low < interval.estimate < interval.high <= math.e**3


def test_the_same_function_is_compiled_once_for_all_parameters(params, documents):
    traces = []

    def counted(params, tokens):
        traces.append(tokens.shape)
        return reader(params, tokens)

    for scale in (1.0, 0.5):
        evaluate.token_nats(counted, scale * params, documents, start_token=0, context=4, batch_size=2)
    assert traces == [(2, 4)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": 0, "stride": 1}, "must have 1 <= stride <= context, got 1 and 0"),
        ({"stride": 9}, "must have 1 <= stride <= context, got 9 and 8"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"documents": [np.array([1]), np.array([], int)]}, "document 1 holds none"),
        ({"params": jnp.full((VOCAB, VOCAB), jnp.nan)}, "document 0 are not"),
    ],
)
def test_what_cannot_be_scored_is_refused(params, changes, message):
    arguments = {"params": params, "documents": [np.arange(5)], "start_token": 0, "context": 8, **changes}
    with pytest.raises(ValueError, match=message):
        evaluate.token_nats(reader, arguments.pop("params"), arguments.pop("documents"), **arguments)


def test_sums_that_do_not_fit_are_refused(unchecked_types):
    with pytest.raises(ValueError, match=r"nats and num_bytes must share one axis, got shapes \(2,\) and \(3,\)"):
        evaluate.bits_per_byte(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="num_tokens must be positive, got 0"):
        evaluate.perplexity_per_token(np.ones(2), np.array([3, 0]))


@pytest.mark.slow
@pytest.mark.oracle
def test_windows_score_as_a_loop_over_transformers_does(tmp_path):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    peer = tiny_decoders.save_tiny_decoder(tmp_path, "gpt2")
    pretrained = models.load(tmp_path)
    apply_fn = lambda params, tokens: pretrained.apply(params, tokens)
    document = np.random.default_rng(0).integers(1, tiny_decoders.VOCAB, 100)
    context, stride = 32, 12
    (scores,) = evaluate.token_nats(
        apply_fn, pretrained.params, [document], start_token=5, context=context, stride=stride, batch_size=3
    )
    whole = np.concatenate([[5], document])
    total, scored = 0.0, 0
    for begin in range(0, 100, stride):
        end = min(begin + context, 100)
        ids = torch.tensor(whole[None, begin : end + 1])
        with torch.no_grad():
            logits = peer(input_ids=ids[:, :-1]).logits[0]
        fresh = end - scored
        total += torch.nn.functional.cross_entropy(logits[-fresh:], ids[0, -fresh:], reduction="sum").item()
        scored = end
        if end == 100:
            break
    assert len(scores) == scored
    assert scores.sum() == pytest.approx(total, rel=1e-5)


def test_a_document_that_fits_is_scored_as_by_one_pass():
    pretrained = models.load(DECODERS / "gpt2")
    document = tiny_decoders.rows()[0]
    (scores,) = evaluate.token_nats(
        pretrained.apply, pretrained.params, [document], start_token=1, context=16, batch_size=1
    )
    inputs = np.concatenate([[1], document[:-1]])[None]
    log_probs = jax.nn.log_softmax(pretrained.apply(pretrained.params, inputs)[0])
    np.testing.assert_allclose(scores, -log_probs[np.arange(len(document)), document], atol=1e-5)
