import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from zsml_jax.models.sampling import Sampling, check_sampling, next_tokens, warped

LOGITS = np.log(np.array([[0.5, 0.2, 0.2, 0.1], [0.05, 0.05, 0.3, 0.6]], np.float32))


def kept(**settings):
    return np.isfinite(warped(LOGITS, Sampling(temperature=1.0, **settings))).tolist()


def test_cuts_keep_what_their_definitions_say():
    assert kept(top_k=2) == [[True, True, True, False], [False, False, True, True]]  # with the tie
    assert kept(top_p=0.55) == [[True, True, True, False], [False, False, False, True]]
    assert kept(top_p=0.45) == [[True, False, False, False], [False, False, False, True]]
    assert kept(min_p=0.4) == [[True, True, True, False], [False, False, True, True]]
    assert kept(top_k=np.array([1, 2]), min_p=0.0) == [[True, False, False, False], [False, False, True, True]]


def test_each_row_has_its_own_settings():
    both = warped(LOGITS, Sampling(temperature=np.array([0.5, 2.0]), top_p=np.array([1.0, 0.7])))
    for row, (temperature, top_p) in enumerate([(0.5, 1.0), (2.0, 0.7)]):
        alone = warped(LOGITS[row : row + 1], Sampling(temperature=temperature, top_p=top_p))
        np.testing.assert_array_equal(both[row], alone[0])


def test_the_penalty_makes_seen_tokens_less_likely_whatever_their_sign():
    logits = np.array([[2.0, -2.0, 1.0]])
    seen = np.array([[True, True, False]])
    scores = warped(logits, Sampling(repetition_penalty=2.0), seen)
    np.testing.assert_allclose(scores, [[1.0, -4.0, 1.0]])


@pytest.mark.parametrize("settings", [{}, {"top_p": 0.9}, {"top_k": 3}, {"min_p": 0.15}])
def test_draws_follow_the_distribution(settings, key):
    sampling = Sampling(temperature=0.7, **settings)
    probs = scipy.special.softmax(np.asarray(warped(LOGITS[:1], sampling), np.float64))[0]
    keys = jax.random.split(key, 4000)
    tokens, log_probs = next_tokens(np.repeat(LOGITS[:1], 4000, axis=0), sampling, keys)
    counts = np.bincount(tokens, minlength=4)
    assert counts[probs == 0].sum() == 0
    assert scipy.stats.chisquare(counts[probs > 0], 4000 * probs[probs > 0]).pvalue > 1e-3
    np.testing.assert_allclose(log_probs, LOGITS[0][tokens], atol=1e-6)


def test_without_a_temperature_the_best_token_is_taken_and_the_first_on_ties(key):
    tokens, _ = next_tokens(np.array([[0.0, 1.0, 1.0], [3.0, 1.0, 2.0]]), Sampling(), jax.random.split(key, 2))
    np.testing.assert_array_equal(tokens, [1, 0])


def test_a_change_of_settings_compiles_nothing():
    traces = []

    @jax.jit
    def cut(logits, sampling):
        traces.append(logits)
        return warped(logits, sampling)

    cut(LOGITS, Sampling(temperature=0.5, top_k=2))
    cut(LOGITS, Sampling(temperature=0.9, top_k=3))
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"temperature": 1.0, "top_p": 1.5}, r"top_p must be in \(0, 1\], got 1.5"),
        ({"temperature": 1.0, "top_k": 0}, "top_k must be at least 1"),
        ({"top_k": 5}, "top_k needs a temperature"),
        ({"temperature": np.ones(3)}, "temperature must be one number or one for each of the 2 rows"),
        ({"repetition_penalty": -1.0}, "repetition_penalty must be positive"),
    ],
)
def test_unsound_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        check_sampling(Sampling(**settings), 2)


@pytest.mark.oracle
@pytest.mark.parametrize("seed", range(3))
def test_cuts_and_penalty_are_those_of_transformers(seed):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    process = pytest.importorskip("transformers.generation.logits_process", reason="the oracle extra is not installed")
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(4, 50), scale=2).astype(np.float32)
    prompt = rng.integers(0, 50, (4, 7))
    seen = np.zeros((4, 50), bool)
    seen[np.arange(4)[:, None], prompt] = True
    settings = {"temperature": 0.8, "top_k": 20, "top_p": 0.85, "min_p": 0.05}
    peers = [
        process.RepetitionPenaltyLogitsProcessor(1.3),
        process.TemperatureLogitsWarper(0.8),
        process.TopKLogitsWarper(20),
        process.TopPLogitsWarper(0.85),
        process.MinPLogitsWarper(0.05),
    ]
    expected = torch.from_numpy(logits.copy())
    for peer in peers:
        expected = peer(torch.from_numpy(prompt), expected)
    actual = warped(jnp.asarray(logits), Sampling(**settings, repetition_penalty=1.3), seen)
    np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-5)
