import json
import shutil
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden import record_clip
from tests.models import tiny_clip
from zsml_jax import models, zeroshot
from zsml_jax.models.clip import Clip, ClipConfig, TowerConfig

GOLDEN = record_clip.HERE


@pytest.fixture(scope="module")
def clip():
    """The golden CLIP."""
    return models.load(GOLDEN)


def run(pretrained, ids, mask, pixels):
    return pretrained.module.apply({"params": pretrained.params}, ids, mask, images_NxYxXxC=pixels)


def assert_equal(ours, expected, mask):
    for name in ("logits_per_image", "text", "image", "image_last"):
        np.testing.assert_allclose(getattr(ours, name), expected[name], atol=1e-5, err_msg=name)
    np.testing.assert_allclose(ours.last[mask == 1], expected["last"][mask == 1], atol=1e-5)


def test_both_towers_equal_the_recorded_torch_numbers(clip):
    with np.load(GOLDEN / "expected.npz") as expected:
        ours = run(clip, expected["ids"], expected["mask"], expected["pixels"])
        assert_equal(ours, expected, expected["mask"])


def test_pictures_become_the_recorded_vectors(clip):
    with np.load(GOLDEN / "expected.npz") as expected:
        pictures = tiny_clip.pictures()
        np.testing.assert_allclose(models.encode_images(clip, pictures, batch_size=1), expected["image"], atol=1e-5)
        three = models.image_encoder(clip, batch_size=2)([*pictures, pictures[0]])
        np.testing.assert_allclose(three, expected["image"][[0, 1, 0]], atol=1e-5)


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("fields", [{}, {"end_id": 2}, {"image_size": 8, "hidden_act": "gelu"}])
def test_both_towers_equal_transformers(fields, tmp_path):
    pytest.importorskip("transformers", reason="the oracle extra is not installed")
    model = tiny_clip.save_tiny_clip(tmp_path, seed=5, **fields)
    pretrained = models.load(tmp_path)
    ids, mask = tiny_clip.tokens()
    size = pretrained.config.image_size
    pixels = np.random.default_rng(2).normal(size=(2, size, size, 3)).astype(np.float32)
    expected = tiny_clip.run_torch(model, ids, mask, pixels)._asdict()
    assert_equal(run(pretrained, ids, mask, pixels), expected, mask)


@pytest.mark.oracle
def test_transformers_reads_what_is_saved(tmp_path):
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    model = tiny_clip.save_tiny_clip(tmp_path / "theirs", seed=6)
    loaded = models.load(tmp_path / "theirs")
    models.save(loaded, tmp_path / "ours")
    again, info = transformers.CLIPModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values())
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name].numpy(), value.numpy())
    assert models.load(tmp_path / "ours").image == loaded.image


def test_apply_gives_the_text_tower_s_hidden_states(clip):
    with np.load(GOLDEN / "expected.npz") as expected:
        mask = expected["mask"]
        hidden = clip.apply(clip.params, expected["ids"], mask)
        np.testing.assert_allclose(hidden[mask == 1], expected["last"][mask == 1], atol=1e-5)


@pytest.fixture
def clip_folder(tmp_path):
    """A copy of the golden CLIP with a tokenizer of the old files."""
    folder = Path(shutil.copytree(GOLDEN, tmp_path / "clip"))
    tiny_clip.write_tokenizer(folder)
    return folder


def test_texts_are_lowered_split_and_merged_to_the_end_of_each_word(clip_folder):
    tokenizer = models.load(clip_folder).tokenizer
    vocab = json.loads((clip_folder / "vocab.json").read_text())
    expected = ["<|startoftext|>", "the</w>", "c", "ab</w>", "'", "s</w>", "1</w>", "2</w>", "<|endoftext|>"]
    np.testing.assert_array_equal(tokenizer(["The  CAB's 12"]).ids[0], [vocab[part] for part in expected])
    assert tokenizer.decode(tokenizer.ragged(["The cab, é"])[0]).startswith("the cab")


@pytest.mark.oracle
def test_tokens_equal_transformers(clip_folder):
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    peer = transformers.CLIPTokenizer.from_pretrained(clip_folder)
    texts = ["The  CAB's 12", "", "thé  BATHS' <|endoftext|>", "zebra a!"]
    ours = models.load(clip_folder).tokenizer.ragged(texts)
    for row, expected in zip(ours, peer(texts)["input_ids"], strict=True):
        np.testing.assert_array_equal(row, expected)


def test_a_text_encoder_gives_the_text_tower_s_unit_vectors(clip_folder):
    """Of texts of different lengths, one of them cut at the model's 12 tokens with its end token kept."""
    pretrained = models.load(clip_folder)
    texts = ["the cab", "a bat", "bat " * 9]
    vectors = models.text_encoder(clip_folder, cache=False)(texts)
    for text, vector in zip(texts, vectors, strict=True):
        batch = pretrained.tokenizer([text], pad_to=12)
        output = pretrained.module.apply({"params": pretrained.params}, batch.ids, batch.mask)
        np.testing.assert_allclose(vector, output.text[0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_texts_and_images_make_a_zero_shot_classifier(clip):
    """A head of text vectors scores images as CLIP does."""
    ids, mask = tiny_clip.tokens()
    texts = np.asarray(jax.jit(clip.module.apply)({"params": clip.params}, ids, mask).text)
    scale = jnp.exp(clip.params["logit_scale"])
    head = zeroshot.class_head(lambda prompts: texts[[int(p) for p in prompts]], ["0", "1", "2"], logit_scale=scale)
    with np.load(GOLDEN / "expected.npz") as expected:
        logits = head.logits(models.encode_images(clip, tiny_clip.pictures()))
        np.testing.assert_allclose(logits, expected["logits_per_image"], atol=1e-4)


def test_scanned_and_unrolled_layers_give_the_same_numbers(clip):
    towers = {name: dict(vars(getattr(clip.config, name)), unroll=True, remat=True) for name in ("text", "image")}
    config = ClipConfig(**{**vars(clip.config), **{name: TowerConfig(**fields) for name, fields in towers.items()}})
    with np.load(GOLDEN / "expected.npz") as expected:
        inputs = expected["ids"], expected["mask"]
        unrolled = Clip(config).apply({"params": clip.params}, *inputs, images_NxYxXxC=expected["pixels"])
        chex.assert_trees_all_close(unrolled, run(clip, *inputs, expected["pixels"]), atol=1e-5)


@pytest.mark.parametrize(
    ("config", "count"),
    [
        # Published sizes: ViT-B/16 149,620,737; ViT-L/14 427,616,513.
        (
            ClipConfig(TowerConfig(512, 12, 8, 2048), TowerConfig(768, 12, 12, 3072), patch_size=16),
            149_620_737,
        ),
        (
            ClipConfig(
                *(TowerConfig(768, 12, 12, 3072), TowerConfig(1024, 24, 16, 4096)),
                patch_size=14,
                projection_width=768,
            ),
            427_616_513,
        ),
    ],
    ids=["ViT-B/16", "ViT-L/14"],
)
def test_full_sizes_have_the_published_number_of_parameters(config, count, key):
    image = jnp.zeros((1, 224, 224, 3))
    shapes = jax.eval_shape(
        lambda key: Clip(config).init(key, jnp.zeros((1, 2), jnp.int32), images_NxYxXxC=image)["params"], key
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


def test_inputs_that_do_not_fit_are_refused(clip, tiny, unchecked_types):
    with pytest.raises(ValueError, match="at most 12 columns"):
        clip.apply(clip.params, np.ones((1, 13), np.int32))
    with pytest.raises(ValueError, match=r"images must have the shape \(n, \(12, 12, 3\)\), got \(1, 8, 8, 3\)"):
        run(clip, None, None, np.zeros((1, 8, 8, 3), np.float32))
    with pytest.raises(ValueError, match="pretrained must have an image tower, got a bert"):
        models.encode_images(tiny, tiny_clip.pictures())
    with pytest.raises(ValueError, match="at least one image"):
        models.encode_images(clip, [])
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        models.encode_images(clip, tiny_clip.pictures(), batch_size=0)
    with pytest.raises(ValueError, match="num_heads must divide the width 10"):
        TowerConfig(10, 1, 3, 8)
