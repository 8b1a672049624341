import jax
import numpy as np
import pytest

from zsml_jax import models
from zsml_jax.models.initialise import initialise

GPT2 = {"model_type": "gpt2", "vocab_size": 500, "n_embd": 64, "n_layer": 8, "n_head": 4, "n_positions": 32}
MAMBA = {"model_type": "mamba", "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "time_step_rank": 1}


def test_a_decoder_is_drawn_as_gpt2_was(key):
    params = initialise(GPT2, key=key).params
    layers = params["layers"]
    for kernel, std in (
        (params["embeddings"]["word"]["embedding"], 0.02),
        (layers["attention"]["query"]["kernel"], 0.02),
        (layers["mlp"]["up"]["kernel"], 0.02),
        (layers["attention"]["out"]["kernel"], 0.02 / 4),
        (layers["mlp"]["down"]["kernel"], 0.02 / 4),
    ):
        assert np.std(kernel) == pytest.approx(std, rel=0.03)
        assert abs(np.mean(kernel)) < std / 30
    assert np.all(layers["attention_norm"]["scale"] == 1) and np.all(layers["mlp"]["up"]["bias"] == 0)
    # No two layers alike, nor two parameters.
    assert np.std(layers["mlp"]["up"]["kernel"], axis=0).min() > 0
    assert not np.allclose(layers["attention"]["query"]["kernel"], layers["attention"]["key"]["kernel"])


@pytest.mark.parametrize("hub", [GPT2, MAMBA], ids=lambda hub: hub["model_type"])
def test_what_is_made_here_is_saved_and_loaded_as_it_is(hub, key, tmp_path):
    fresh = initialise({**hub, "eos_token_id": 7}, key=key)
    models.save(fresh, tmp_path / "out")
    loaded = models.load(tmp_path / "out")
    assert loaded.config == fresh.config and loaded.model_type == hub["model_type"]
    jax.tree.map(np.testing.assert_array_equal, loaded.params, fresh.params)
    assert '"eos_token_id": 7' in (tmp_path / "out" / "config.json").read_text()


def test_the_key_decides_the_draw(key):
    first, again, other = (initialise(MAMBA, key=k).params for k in (key, key, jax.random.key(1)))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    kernel = lambda params: params["layers"]["mixer"]["in_proj"]["kernel"]
    assert not np.allclose(kernel(first), kernel(other))


def test_an_unknown_family_is_refused(key):
    with pytest.raises(ValueError, match=r"hub must have a model_type of \[.*'gpt2'.*\], got 'gpt9'"):
        initialise({"model_type": "gpt9"}, key=key)
