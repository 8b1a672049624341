import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden import record_t5
from tests.models import tiny_t5
from zsml_jax import models
from zsml_jax.models.t5 import T5, init_t5_cache
from zsml_jax.models.t5_config import T5Config
from zsml_jax.models.t5_position import relative_buckets

GOLDEN = record_t5.HERE


@pytest.fixture(scope="module")
def v1_1():
    """The golden model of version 1.1."""
    return models.load(GOLDEN / "v1_1")


@pytest.mark.parametrize("version", sorted(record_t5.VERSIONS))
def test_encoder_and_decoder_equal_the_recorded_torch_numbers(version):
    pretrained = models.load(GOLDEN / version)
    is_first = version == "v1_0"
    assert (pretrained.config.tied, pretrained.config.scale_outputs, pretrained.config.gated) == (
        *(is_first, is_first),
        not is_first,
    )
    source, mask, decoder = tiny_t5.inputs()
    with np.load(GOLDEN / version / "expected.npz") as expected:
        logits = pretrained.apply(pretrained.params, source, mask, decoder_tokens=decoder)
        np.testing.assert_allclose(logits, expected["logits"], atol=1e-5)
        hidden = pretrained.hidden_states(pretrained.params, source, mask)
        np.testing.assert_allclose(hidden[mask == 1], expected["encoded"][mask == 1], atol=1e-5)


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("fields", [{}, {**tiny_t5.V1_1, "untied": True}, {"feed_forward_proj": "gated-silu"}])
def test_encoder_and_decoder_equal_transformers(fields, side, tmp_path):
    pytest.importorskip("transformers", reason="the oracle extra is not installed")
    model = tiny_t5.save_tiny_t5(tmp_path, seed=4, **fields)
    source, mask, decoder = tiny_t5.inputs(side)
    expected = tiny_t5.run_torch(model, source, mask, decoder)
    pretrained = models.load(tmp_path)
    output = pretrained.module.apply({"params": pretrained.params}, source, mask, decoder_tokens_BxT=decoder)
    np.testing.assert_allclose(output.logits, expected.logits, atol=1e-5)
    np.testing.assert_allclose(output.encoded[mask == 1], expected.encoded[mask == 1], atol=1e-5)


@pytest.mark.oracle
@pytest.mark.parametrize("fields", [{}, {**tiny_t5.V1_1, "untied": True}])
def test_transformers_reads_what_is_saved(fields, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    model = tiny_t5.save_tiny_t5(tmp_path / "theirs", seed=6, **fields)
    models.save(models.load(tmp_path / "theirs"), tmp_path / "ours")
    again, info = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values())
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name].numpy(), value.numpy())


@pytest.mark.oracle
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (8, 10), (32, 100), (64, 256)])
def test_buckets_equal_transformers_at_every_distance(num_buckets, max_distance, bidirectional):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5", reason="the oracle extra is not installed")
    slots = np.arange(300)
    ours = relative_buckets(
        slots, slots, num_buckets=num_buckets, max_distance=max_distance, bidirectional=bidirectional
    )
    after = torch.tensor(slots[None, :] - slots[:, None])
    peer = t5.T5Attention._relative_position_bucket(after, bidirectional, num_buckets, max_distance)
    np.testing.assert_array_equal(ours, peer.numpy())


@pytest.mark.slow
@pytest.mark.parametrize("side", ["left", "right"])
def test_decoding_from_a_cache_equals_decoding_at_once(side, v1_1):
    """The source is given once; the prompt of three columns is followed by single tokens."""
    source, mask, decoder = tiny_t5.inputs(side)
    apply = jax.jit(v1_1.module.apply)
    variables = {"params": v1_1.params}
    expected = apply(variables, source, mask, decoder_tokens_BxT=decoder).logits
    cache = init_t5_cache(v1_1.config, 3, decoder.shape[1], source.shape[1])
    out = apply(variables, source, mask, decoder_tokens_BxT=decoder[:, :3], cache=cache)
    np.testing.assert_allclose(out.logits, expected[:, :3], atol=1e-5)

    def next_token(token, cache):
        return v1_1.module.apply(variables, decoder_tokens_BxT=token, cache=cache)

    chex.clear_trace_counter()  # it counts by the place in this file, of which both sides have one
    step = jax.jit(chex.assert_max_traces(next_token, n=1))
    for i in range(3, decoder.shape[1]):
        out = step(decoder[:, i : i + 1], out.cache)
        np.testing.assert_allclose(out.logits[:, 0], expected[:, i], atol=1e-5)


@pytest.mark.slow
def test_padding_of_the_decoder_on_either_side_does_not_change_its_tokens(v1_1):
    source, mask, decoder = tiny_t5.inputs()
    expected = v1_1.apply(v1_1.params, source, mask, decoder_tokens=decoder[:, :5])
    for left, right in ((2, 0), (0, 2)):
        pad = [(0, 0), (left, right)]
        padded_mask = np.pad(np.ones((3, 5), np.int32), pad)
        out = v1_1.module.apply(
            {"params": v1_1.params},
            source,
            mask,
            decoder_tokens_BxT=np.pad(decoder[:, :5], pad),
            decoder_mask_BxT=padded_mask,
        )
        assert np.isfinite(out.logits).all()
        np.testing.assert_allclose(out.logits[:, left : left + 5], expected, atol=1e-5)


def test_scanned_and_unrolled_layers_give_the_same_numbers(v1_1):
    source, mask, decoder = tiny_t5.inputs()
    unrolled = T5(T5Config(**{**vars(v1_1.config), "unroll": True, "remat": True}))
    ours = unrolled.apply({"params": v1_1.params}, source, mask, decoder_tokens_BxT=decoder)
    scanned = v1_1.apply(v1_1.params, source, mask, decoder_tokens=decoder)
    np.testing.assert_allclose(ours.logits, scanned, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "count"),
    [
        # Published sizes: t5-small 60,506,624; t5-base 222,903,552; t5-v1_1-small 76,961,152.
        (T5Config(32128, 512, 6, 6, 8, 64, 2048), 60_506_624),
        (T5Config(32128, 768, 12, 12, 12, 64, 3072), 222_903_552),
        (
            T5Config(32128, 512, 8, 8, 6, 64, 1024, gated=True, activation="gelu_new", tied=False, scale_outputs=False),
            76_961_152,
        ),
    ],
    ids=["small", "base", "v1_1-small"],
)
def test_full_sizes_have_the_published_number_of_parameters(config, count, key):
    tokens = jnp.zeros((1, 2), jnp.int32)
    shapes = jax.eval_shape(lambda key: T5(config).init(key, tokens, decoder_tokens_BxT=tokens), key)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


@pytest.mark.slow
def test_inputs_that_do_not_fit_are_refused(v1_1, tiny, unchecked_types):
    source, mask, decoder = tiny_t5.inputs()
    variables = {"params": v1_1.params}
    with pytest.raises(ValueError, match="tokens must be given where there is no cache"):
        v1_1.module.apply(variables, decoder_tokens_BxT=decoder)
    cache = init_t5_cache(v1_1.config, 3, 4, 5)
    with pytest.raises(ValueError, match=r"cache must hold a source \(3, 14\), got \(3, 5\)"):
        v1_1.module.apply(variables, source, mask, decoder_tokens_BxT=decoder, cache=cache)
    with pytest.raises(ValueError, match="decoder_tokens must have 3 rows, as tokens, got 2"):
        v1_1.apply(v1_1.params, source, mask, decoder_tokens=decoder[:2])
    with pytest.raises(ValueError, match="decoder_tokens must be None for a model that is no encoder-decoder"):
        tiny.apply(tiny.params, source, decoder_tokens=decoder)
    with pytest.raises(ValueError, match="num_buckets must be a multiple of 4"):
        T5Config(10, 4, 1, 1, 1, 4, 8, num_buckets=6)
