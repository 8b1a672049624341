import jax
import numpy as np
import pytest

from tests.evaluate.tiny_texts import tiny_gpt2
from tests.golden import record_t5
from tests.models.conftest import GOLDEN
from zsml_jax import models
from zsml_jax.evaluate import Continuation, score_continuations

RNG = np.random.default_rng(0)
ROWS = [
    Continuation(RNG.integers(1, 30, context).tolist(), RNG.integers(1, 30, tokens).tolist())
    for context, tokens in [(1, 1), (5, 3), (30, 2), (17, 17), (2, 1)]
]


def check(scored, rows, log_probs_of):
    for row, found in zip(rows, scored, strict=True):
        log_probs = np.asarray(log_probs_of(row))
        targets = np.array(row.tokens)
        np.testing.assert_allclose(found.log_probs, log_probs[np.arange(len(targets)), targets], atol=1e-4)
        np.testing.assert_array_equal(found.is_best, log_probs.argmax(axis=1) == targets)
        assert found.total == pytest.approx(found.log_probs.sum())


@pytest.mark.slow
def test_a_batch_scores_each_row_as_one_pass_of_its_own():
    tiny = tiny_gpt2()

    def alone(row):
        ids = np.array([[*row.context, *row.tokens][:-1]])
        return jax.nn.log_softmax(tiny.apply(tiny.params, ids)[0])[len(row.context) - 1 :]

    check(score_continuations(tiny, ROWS, batch_tokens=64), ROWS, alone)
    assert score_continuations(tiny, []) == []


@pytest.mark.slow
def test_what_greedy_decoding_writes_is_greedy():
    tiny = tiny_gpt2()
    ids = [3, 8]
    for _ in range(3):
        ids.append(int(tiny.apply(tiny.params, np.array([ids]))[0, -1].argmax()))
    other = [*ids[2:4], (ids[4] + 1) % 30]
    first, second = score_continuations(tiny, [Continuation(ids[:2], ids[2:]), Continuation(ids[:2], other)])
    assert first.is_greedy and not second.is_greedy and second.is_best.tolist() == [True, True, False]


def test_contexts_that_are_too_long_lose_their_beginning():
    tiny = tiny_gpt2()
    long = Continuation([*range(1, 60)], [5, 6])
    short = Continuation(long.context[-7:], [5, 6])  # eight tokens are read, the last target is not among them
    first, second = (score_continuations(tiny, [row], max_length=8)[0] for row in (long, short))
    np.testing.assert_allclose(first.log_probs, second.log_probs, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v1_0", "v1_1"])
def test_an_encoder_decoder_reads_the_context_as_its_source(version):
    t5 = models.load(record_t5.HERE / version)

    def alone(row):
        decoder = np.array([[0, *row.tokens[:-1]]])
        return jax.nn.log_softmax(t5.apply(t5.params, np.array([row.context]), decoder_tokens=decoder)[0])

    check(score_continuations(t5, ROWS, batch_tokens=128), ROWS, alone)


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        (Continuation([], [1]), {}, "got 0 and 1 at 0"),
        (Continuation([1], []), {}, "got 1 and 0 at 0"),
        (Continuation([1], [1] * 9), {"max_length": 8}, "1 ... 8 tokens, got 1 and 9"),
        (Continuation([1], [1]), {"batch_tokens": 0}, "batch_tokens and max_length must be at least 1"),
    ],
)
def test_what_cannot_be_scored_is_refused(row, options, message):
    with pytest.raises(ValueError, match=message):
        score_continuations(tiny_gpt2(), [row], **options)


def test_encoders_and_broken_parameters_are_refused():
    with pytest.raises(ValueError, match="must be a causal language model, got a Bert"):
        score_continuations(models.load(GOLDEN / "bert"), ROWS)
    tiny = tiny_gpt2()
    with pytest.raises(ValueError, match="params must give finite scores; those of continuation 0 are not"):
        score_continuations(tiny, ROWS, params=jax.tree.map(lambda leaf: leaf * np.nan, tiny.params))
