import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.models.rotary import Rotary, cos_sin, frequencies, rotate, yarn_attention_factor
from zsml_jax.models.rotary_hub import read_rotary, write_rotary


def test_rotation_is_the_product_with_a_unit_complex_number(key):
    """Feature j and j + f are the real and imaginary part of a number that is turned by position times frequency."""
    x = np.asarray(jax.random.normal(key, (2, 5, 3, 8)), np.float64)
    positions = np.array([[0, 1, 2, 3, 4], [7, 0, 2, 9, 100]])
    rotary = Rotary(width=6, theta=50.0)
    angles = positions[..., None] * 50.0 ** -(np.arange(3) / 3)
    turned = (x[..., :3] + 1j * x[..., 3:6]) * np.exp(1j * angles)[:, :, None]
    expected = np.concatenate([turned.real, turned.imag, x[..., 6:]], axis=-1)
    out = rotate(jnp.asarray(x, jnp.float32), cos_sin(rotary, jnp.asarray(positions)))
    np.testing.assert_allclose(out, expected, atol=1e-4)


def test_scores_depend_on_the_distance_of_positions_alone(key):
    q, k = jax.random.normal(key, (2, 1, 1, 1, 16))
    turn = lambda x, p: rotate(x, cos_sin(Rotary(16), jnp.array([[p]])))[0, 0, 0]
    np.testing.assert_allclose(turn(q, 9) @ turn(k, 4), turn(q, 105) @ turn(k, 100), atol=1e-5)


def test_rotation_keeps_half_precision_but_turns_in_float32():
    x = jnp.ones((1, 1, 1, 4), jnp.bfloat16)
    out = rotate(x, cos_sin(Rotary(4), jnp.array([[1000]])))
    assert out.dtype == jnp.bfloat16
    exact = rotate(x.astype(jnp.float32), cos_sin(Rotary(4), jnp.array([[1000]])))
    np.testing.assert_array_equal(out, exact.astype(jnp.bfloat16))


SCHEMES = {
    "default": {"rope_theta": 10000.0},
    "linear": {"rope_theta": 10000.0, "factor": 3.0},
    "llama3": {"rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 8192},
    "yarn": {"rope_theta": 1000000.0, "factor": 4.0, "original_max_position_embeddings": 32768},
}  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("kind", sorted(SCHEMES))
def test_frequencies_of_published_settings_equal_transformers(kind):
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    fields = {"rope_type": kind, **SCHEMES[kind]}
    config = transformers.LlamaConfig(
        hidden_size=512, num_attention_heads=4, max_position_embeddings=131072, rope_parameters=dict(fields)
    )
    peer = LlamaRotaryEmbedding(config)
    rotary = read_rotary({"rope_parameters": fields}, 128, 131072)
    np.testing.assert_allclose(frequencies(rotary), peer.inv_freq.numpy(), rtol=1e-6)
    np.testing.assert_allclose(rotary.attention_factor, peer.attention_scaling, rtol=1e-6)


def test_llama3_keeps_short_wavelengths_and_divides_long_ones():
    plain = frequencies(Rotary(128, 500000.0))
    scaled = frequencies(Rotary(128, 500000.0, "llama3", 8.0, 8192))
    wavelengths = 2 * np.pi / plain
    np.testing.assert_array_equal(scaled[wavelengths < 8192 / 4], plain[wavelengths < 8192 / 4])
    np.testing.assert_allclose(scaled[wavelengths > 8192], plain[wavelengths > 8192] / 8, rtol=1e-6)
    between = (wavelengths > 8192 / 4) & (wavelengths < 8192)
    assert between.any()
    assert np.all((scaled < plain)[between] & (scaled > plain / 8)[between])


def test_yarn_s_attention_factor_is_the_published_one():
    """Peng et al. (2023), equation 22: 0.1 ln s + 1."""
    assert yarn_attention_factor(16.0) == pytest.approx(0.1 * np.log(16) + 1)
    assert yarn_attention_factor(0.5) == 1.0
    assert yarn_attention_factor(16.0, 1.0, 1.0) == 1.0


@pytest.mark.parametrize(
    ("hub", "expected"),
    [
        ({}, Rotary(8, 10000.0)),
        ({"rope_theta": 500}, Rotary(8, 500.0)),
        ({"rotary_emb_base": 500, "rotary_pct": 0.5}, Rotary(4, 500.0)),
        ({"rope_parameters": {"rope_theta": 500, "partial_rotary_factor": 0.25}}, Rotary(2, 500.0)),
        ({"rope_scaling": {"type": "linear", "factor": 2}, "rope_theta": 5}, Rotary(8, 5.0, "linear", 2.0)),
        ({"rope_scaling": {"rope_type": "yarn", "original_max_position_embeddings": 16}},
         Rotary(8, 10000.0, "yarn", 4.0, 16, attention_factor=float(0.1 * np.log(4) + 1))),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2, "low_freq_factor": 1, "high_freq_factor": 2}},
         Rotary(8, 10000.0, "llama3", 2.0, 64, high_freq_factor=2.0)),
    ],
)  # fmt: skip
def test_older_and_newer_spellings_are_read_and_written_back(hub, expected):
    rotary = read_rotary(hub, 8, 64)
    assert rotary == expected
    assert read_rotary({"rope_parameters": write_rotary(rotary, 8)}, 8, 99) == rotary


def test_schemes_that_are_not_supported_are_refused():
    with pytest.raises(ValueError, match="rope_parameters of type 'dynamic' are not supported"):
        read_rotary({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, 8, 64)
    with pytest.raises(ValueError, match="are not supported"):
        read_rotary({"rope_parameters": {"full_attention": {"rope_theta": 5.0}}}, 8, 64)
    with pytest.raises(ValueError, match="must have a rotary embedding"):
        write_rotary(None, 8)
    with pytest.raises(ValueError, match="kind must be one of .*, got 'spiral'"):
        frequencies(Rotary(8, kind="spiral"))
    with pytest.raises(ValueError, match="width must be an even number of features, got 3"):
        frequencies(Rotary(3))
