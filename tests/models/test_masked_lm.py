"""Heads for masked words: what loads, what ``apply`` gives, and that sentence encoders do not see them."""

import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from tests.models import reactions, tiny_models
from tests.models.conftest import GOLDEN
from zsml_jax import models
from zsml_jax.data import assets
from zsml_jax.models.sentence import pool


@pytest.fixture(scope="module")
def roberta():
    """The golden RoBERTa, which has a head."""
    return models.load(GOLDEN / "roberta")


def masked_logits(pretrained):
    rows, words = reactions.masked_tokens(assets.path("rxnmapper"))
    return reactions.at_masks(np.asarray(jax.jit(pretrained.apply)(pretrained.params, rows))), words


def test_apply_gives_logits_with_a_head_and_hidden_states_without_one(roberta, tiny):
    ids, mask, _ = tiny_models.tiny_inputs("roberta")
    out = roberta.module.apply({"params": roberta.params}, ids, mask)
    np.testing.assert_array_equal(roberta.apply(roberta.params, ids, mask), out.logits)
    np.testing.assert_array_equal(roberta.hidden_states(roberta.params, ids, mask), out.last)
    assert tiny.config.masked_lm is False
    np.testing.assert_array_equal(tiny.apply(tiny.params, ids, mask), tiny.hidden_states(tiny.params, ids, mask))


def test_a_sentence_encoder_embeds_hidden_states_of_a_model_with_a_head():
    albert = models.load(GOLDEN / "albert")
    texts = list(tiny_models.TEXTS[:3])
    batch = albert.tokenizer(texts)
    hidden = albert.hidden_states(albert.params, batch.ids, batch.mask)
    vectors = models.text_encoder(GOLDEN / "albert", cache=False)(texts)
    np.testing.assert_allclose(vectors, pool(hidden, batch.mask, albert.sentence), atol=1e-5)


def test_the_real_albert_equals_the_recorded_torch_numbers_and_restores_53_of_54_masked_tokens(rxnmapper):
    logits, words = masked_logits(rxnmapper)
    with np.load(GOLDEN / "rxnmapper.npz") as expected:
        np.testing.assert_allclose(logits[:, ::10], expected["logits"], atol=1e-4)
    assert len(words) == 54
    assert (logits.argmax(-1) == words).sum() == 53
    # 877,598 in the file, which repeats the decoder (591 x 128) and its bias.
    assert sum(leaf.size for leaf in jax.tree.leaves(rxnmapper.params)) == 877_598 - 591 * 129


@pytest.mark.slow
@pytest.mark.oracle
def test_the_real_albert_equals_transformers_at_every_token(rxnmapper):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    folder = assets.path("rxnmapper")
    rows, _ = reactions.masked_tokens(folder)
    mask = (np.arange(rows.shape[1]) < rows.shape[1] - np.arange(len(rows))[:, None] // 2).astype(np.int32)
    with torch.no_grad():
        peer = transformers.AlbertForMaskedLM.from_pretrained(folder).eval()
        expected = peer(torch.tensor(rows), torch.tensor(mask)).logits.numpy()
    ours = rxnmapper.apply(rxnmapper.params, rows, mask)
    np.testing.assert_allclose(ours[mask == 1], expected[mask == 1], atol=1e-4)


@pytest.mark.oracle
@pytest.mark.parametrize("masked_lm", [True, False])
@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert", "albert"])
def test_transformers_reads_what_is_saved(model_type, masked_lm, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    model = tiny_models.save_tiny_model(tmp_path / "theirs", model_type, masked_lm=masked_lm)
    models.save(models.load(tmp_path / "theirs"), tmp_path / "ours")
    auto = transformers.AutoModelForMaskedLM if masked_lm else transformers.AutoModel
    again, info = auto.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values())
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name].numpy(), value.numpy())


@pytest.mark.parametrize("layout", ["roberta", "albert"])
def test_decoders_that_a_file_repeats_are_left_out(layout, tmp_path):
    """Older files hold the tied decoder and its bias under a second name."""
    folder = shutil.copytree(GOLDEN / layout, tmp_path / layout)
    shards = sorted(folder.glob("*.safetensors"))
    tensors = {name: value for shard in shards for name, value in safetensors.numpy.load_file(shard).items()}
    head, prefix = ("lm_head", "roberta") if layout == "roberta" else ("predictions", "albert")
    tensors[f"{head}.decoder.weight"] = tensors[f"{prefix}.embeddings.word_embeddings.weight"]
    tensors[f"{head}.decoder.bias"] = tensors[f"{head}.bias"]
    for shard in shards:
        shard.unlink()
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    again, before = models.load(folder), models.load(GOLDEN / layout)
    jax.tree.map(np.testing.assert_array_equal, again.params, before.params)


def test_a_head_that_is_not_tied_and_lacks_its_weight_is_refused(tmp_path):
    folder = shutil.copytree(GOLDEN / "albert", tmp_path / "albert")
    fields = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=r"missing: head/decoder/kernel \(\d+, \d+\)"):
        models.load(folder)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("num_hidden_groups", 4, "num_groups must be at most 3"), ("inner_group_num", 2, "inner_group_num is 2")],
)
def test_layer_groups_that_are_not_supported_are_named(field, value, message, tmp_path):
    folder = shutil.copytree(GOLDEN / "albert", tmp_path / "albert")
    fields = json.loads((folder / "config.json").read_text()) | {field: value}
    (folder / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=message):
        models.load(folder)


def test_layers_of_a_group_share_their_parameters():
    albert = models.load(GOLDEN / "albert")
    assert albert.config.num_layers == 3
    assert [name for name in albert.params if name.startswith("layer_")] == ["layer_0"]
