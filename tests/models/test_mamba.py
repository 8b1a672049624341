import dataclasses
import json
import math
from pathlib import Path

import chex
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import tiny_decoders, tiny_mambas
from zsml_jax import models
from zsml_jax.models.mamba import Mamba, MambaConfig, init_mamba_cache
from zsml_jax.models.mamba_weights import FAMILIES

GOLDEN = Path(__file__).parent.parent / "golden" / "mamba"


@pytest.fixture(scope="module")
def tiny():
    return models.load(GOLDEN)


def check_parity(pretrained, sequences, expected):
    """Logits of all positions under both paddings, at once and from a cache: a prompt, then a token."""
    variables, run = {"params": pretrained.params}, jax.jit(pretrained.module.apply)
    for side in ("left", "right"):
        ids, mask = tiny_decoders.padded(sequences, side)
        logits = run(variables, ids, mask).logits
        assert logits.dtype == jnp.float32
        assert np.isfinite(logits).all()
        for row, is_token, torchs in zip(np.asarray(logits), mask, expected, strict=True):
            np.testing.assert_allclose(row[is_token == 1], torchs, atol=1e-5)
        ids, mask = tiny_decoders.padded([row[:-1] for row in sequences], side)
        out = run(variables, ids, mask, cache=init_mamba_cache(pretrained.config, len(ids)))
        out = run(variables, np.array([row[-1] for row in sequences])[:, None], cache=out.cache)
        np.testing.assert_allclose(out.logits[:, 0], [e[-1] for e in expected], atol=1e-5)
    np.testing.assert_allclose(run(variables, sequences[0][None]).logits[0], expected[0], atol=1e-5)


def test_logits_equal_the_recorded_torch_numbers_under_both_paddings_and_from_a_cache(tiny):
    """Golden numbers of transformers for each row without padding."""
    with np.load(GOLDEN / "expected.npz") as recorded:
        expected = [recorded[f"logits_{i}"] for i in range(len(tiny_decoders.LENGTHS))]
    check_parity(tiny, tiny_decoders.rows(), expected)


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize(
    "fields",
    [
        {"tie_word_embeddings": False, "conv_kernel": 2},
        {"use_bias": True, "use_conv_bias": False},
        {"time_step_rank": "auto", "expand": 3, "num_hidden_layers": 1, "layer_norm_epsilon": 1e-3},
        {"backbone": True, "residual_in_fp32": False},
    ],
)
def test_logits_equal_transformers_without_padding_under_both_paddings_and_from_a_cache(fields, tmp_path):
    pytest.importorskip("transformers", reason="the oracle extra is not installed")
    model = tiny_mambas.save_tiny_mamba(tmp_path, seed=5, **fields)
    sequences = tiny_decoders.rows(seed=5)
    check_parity(models.load(tmp_path), sequences, tiny_decoders.torch_logits(model, sequences))


@pytest.mark.slow
@pytest.mark.oracle
def test_padded_batches_and_a_decoded_token_equal_transformers_given_the_same_padding(tmp_path):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    pytest.importorskip("transformers", reason="the oracle extra is not installed")
    model = tiny_mambas.save_tiny_mamba(tmp_path, seed=6)
    pretrained = models.load(tmp_path)
    run = jax.jit(pretrained.module.apply)
    for side in ("left", "right"):
        ids, mask = tiny_decoders.padded(tiny_decoders.rows(seed=6), side, extra=2)
        with torch.no_grad():
            tensors = {"input_ids": torch.tensor(ids).long(), "attention_mask": torch.tensor(mask)}
            peer = model(**tensors, use_cache=True)
            first = peer.logits.numpy()
            token = torch.tensor([[3], [4], [5]])
            second = model(input_ids=token, cache_params=peer.cache_params).logits.numpy()
        out = run({"params": pretrained.params}, ids, mask, cache=init_mamba_cache(pretrained.config, 3))
        np.testing.assert_allclose(out.logits[mask == 1], first[mask == 1], atol=1e-5)
        if side == "left":  # transformers lets padding on the right into its cache
            out = run({"params": pretrained.params}, token.numpy(), cache=out.cache)
            np.testing.assert_allclose(out.logits, second, atol=1e-5)


def test_a_prompt_in_pieces_with_padding_between_them_equals_the_whole(tiny):
    variables, run = {"params": tiny.params}, jax.jit(tiny.module.apply)
    tokens = tiny_decoders.rows()[0][None]
    whole = run(variables, tokens, cache=init_mamba_cache(tiny.config, 1))
    cache, logits = init_mamba_cache(tiny.config, 1), []
    for piece, before, after in ((slice(0, 2), 1, 2), (slice(2, 3), 4, 0), (slice(3, 3), 2, 3), (slice(3, 9), 0, 1)):
        part = tokens[:, piece]
        mask = np.pad(np.ones_like(part), ((0, 0), (before, after)))
        out = run(variables, np.pad(part, ((0, 0), (before, after))), mask, cache=cache)
        cache = out.cache
        logits.append(out.logits[:, before : before + part.shape[1]])
    np.testing.assert_allclose(np.concatenate(logits, axis=1), whole.logits, atol=1e-5)
    for ours, expected in zip(cache, whole.cache, strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_only_the_last_token_s_logits_are_computed_when_asked(tiny):
    ids, mask = tiny_decoders.padded(tiny_decoders.rows(), "right")
    variables = {"params": tiny.params}
    full = tiny.apply(tiny.params, ids, mask)
    last = tiny.module.apply(variables, ids, mask, only_last=True).logits
    np.testing.assert_allclose(last[:, 0], full[np.arange(3), np.array(tiny_decoders.LENGTHS) - 1], atol=1e-6)


@pytest.mark.slow
def test_scanned_unrolled_and_rematerialised_layers_have_the_same_parameters_numbers_and_gradients(tiny):
    ids, mask = tiny_decoders.padded(tiny_decoders.rows(), "left")

    def loss(params, config):
        logits = Mamba(config).apply({"params": params}, ids, mask).logits
        return (jax.nn.log_softmax(logits)[..., 1] * mask).sum()

    value_and_grad = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    expected, expected_grads = value_and_grad(tiny.params, tiny.config)
    for fields in ({"unroll": True}, {"remat": True}):
        value, grads = value_and_grad(tiny.params, dataclasses.replace(tiny.config, **fields))
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        for ours, theirs in zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_saving_and_loading_is_exact(tiny, tmp_path):
    models.save(tiny, tmp_path / "saved")
    again = models.load(tmp_path / "saved")
    assert again.config == tiny.config
    assert jax.tree.structure(again.params) == jax.tree.structure(tiny.params)
    for ours, expected in zip(jax.tree.leaves(again.params), jax.tree.leaves(tiny.params), strict=True):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.oracle
def test_transformers_loads_what_is_saved(tiny, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    models.save(tiny, tmp_path / "saved")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    (peer,) = tiny_decoders.torch_logits(model, tiny_decoders.rows()[:1])
    ours = tiny.module.apply({"params": tiny.params}, tiny_decoders.rows()[0][None]).logits[0]
    np.testing.assert_allclose(ours, peer, atol=1e-5)


def test_a_configuration_reads_back_as_it_was_written_and_the_ranks_of_both_spellings_are_read():
    family = FAMILIES["mamba"]
    config = MambaConfig(11, 32, 2, step_rank=5, conv_width=3, tied=False, dense_bias=True)
    assert family.config(json.loads(json.dumps(family.write(config))), (), "float32") == config
    assert family.config({"hidden_size": 40, "time_step_rank": "auto"}, (), "float32").rank == math.ceil(40 / 16)
    assert family.config({"hidden_size": 40, "time_step_rank": 7}, (), "float32").rank == 7


@pytest.mark.parametrize(
    ("name", "shape", "count"), [("130m", (768, 24), 129_135_360), ("370m", (1024, 48), 371_516_416)]
)
def test_published_sizes_have_the_published_number_of_parameters(name, shape, count):
    """Counts of state-spaces/mamba-130m-hf and mamba-370m-hf, as transformers builds them (test below)."""
    width, layers = shape
    abstract = jax.eval_shape(Mamba(MambaConfig(50280, width, layers)).init, jax.random.key(0), np.zeros((1, 2), int))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract)) == count


@pytest.mark.oracle
@pytest.mark.parametrize(("shape", "count"), [((768, 24), 129_135_360), ((1024, 48), 371_516_416)])
def test_the_published_numbers_of_parameters_are_those_of_transformers(shape, count):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    config = transformers.MambaConfig(vocab_size=50280, hidden_size=shape[0], num_hidden_layers=shape[1])
    with torch.device("meta"):
        assert transformers.MambaForCausalLM(config).num_parameters() == count


@pytest.mark.slow
def test_fresh_parameters_start_as_the_paper_has_them(key):
    config = MambaConfig(50, 64, 2, state_size=4)
    params = Mamba(config).init(key, np.zeros((1, 2), int))["params"]
    mixer = params["layers"]["mixer"]
    steps = np.sort(jax.nn.softplus(mixer["dt_proj"]["bias"]).ravel())
    uniform = np.log(steps / 1e-3) / np.log(100)  # the steps are log-uniform between 0.001 and 0.1
    np.testing.assert_allclose(uniform, np.linspace(0, 1, uniform.size), atol=0.15)
    np.testing.assert_allclose(mixer["A_log"], np.broadcast_to(np.log([1, 2, 3, 4]), (2, 128, 4)), rtol=1e-6)
    assert np.all(mixer["D"] == 1)
    for name, limit in {"in_proj": 64**-0.5, "dt_proj": 4**-0.5, "out_proj": (128 * 2) ** -0.5}.items():
        np.testing.assert_allclose(np.abs(mixer[name]["kernel"]).max(), limit, rtol=0.05)
    assert not np.array_equal(mixer["in_proj"]["kernel"][0], mixer["in_proj"]["kernel"][1])


def test_bfloat16_keeps_what_recurs_and_states_and_logits_float32_near_float32(tiny, tmp_path):
    half = models.load(GOLDEN, dtype=jnp.bfloat16)
    kept = {"layers/mixer/A_log", "layers/mixer/D"}
    for path, leaf in flax.traverse_util.flatten_dict(half.params, sep="/").items():
        assert leaf.dtype == (jnp.float32 if path in kept else jnp.bfloat16), path
    chex.assert_trees_all_equal(*(model.params["layers"]["mixer"]["A_log"] for model in (half, tiny)))
    ids, mask = tiny_decoders.padded(tiny_decoders.rows(), "left")
    out = half.module.apply({"params": half.params}, ids, mask, cache=init_mamba_cache(half.config, 3))
    assert (out.logits.dtype, out.cache.state.dtype, out.cache.window.dtype) == (jnp.float32, jnp.float32, jnp.bfloat16)
    full = np.asarray(tiny.module.apply({"params": tiny.params}, ids, mask).logits)[mask == 1]
    error = np.abs(np.asarray(out.logits)[mask == 1] - full)
    assert error.mean() < 0.05 * np.abs(full).mean()  # bfloat16 keeps 8 bits: 0.4 % a rounding
    models.save(half, tmp_path / "half")
    chex.assert_trees_all_equal(models.load(tmp_path / "half", dtype=jnp.bfloat16).params, half.params)


@pytest.mark.usefixtures("unchecked_types")
def test_a_cache_of_another_batch_and_an_unknown_activation_are_refused(tiny):
    with pytest.raises(ValueError, match="tokens must have 2 rows, as the cache, got 1"):
        tiny.module.apply({"params": tiny.params}, np.ones((1, 3), int), cache=init_mamba_cache(tiny.config, 2))
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        init_mamba_cache(tiny.config, 0)
    with pytest.raises(ValueError, match="activation must be one of"):
        MambaConfig(10, 8, 1, activation="step")
