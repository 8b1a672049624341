import json

import numpy as np
import PIL.Image
import pytest

from tests.golden import record_clip
from tests.models import tiny_clip
from zsml_jax.models.image_preprocessing import ImageConfig, preprocess, read_image_config, write_image_config


def test_pixels_equal_the_recorded_ones_for_files_pictures_and_arrays(tmp_path):
    config = read_image_config(record_clip.HERE, 12)
    arrays = tiny_clip.pictures()
    PIL.Image.fromarray(arrays[0]).save(tmp_path / "picture.png")
    with np.load(record_clip.HERE / "expected.npz") as expected:
        np.testing.assert_allclose(preprocess(arrays, config), expected["pixels"], atol=1e-6)
        others = preprocess([tmp_path / "picture.png", PIL.Image.fromarray(arrays[1])], config)
        np.testing.assert_allclose(others, expected["pixels"], atol=1e-6)


@pytest.mark.oracle
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"size": {"height": 9, "width": 14}, "do_center_crop": False},
        {"size": {"shortest_edge": 10}, "crop_size": {"height": 15, "width": 12}, "resample": 2},
        {"size": {"shortest_edge": 11}, "crop_size": 8, "do_normalize": False},
        {"do_resize": False, "crop_size": 40, "rescale_factor": 1 / 127.5},
    ],
)
def test_pixels_equal_transformers(fields, tmp_path):
    pytest.importorskip("transformers", reason="the oracle extra is not installed")
    peer = tiny_clip.processor(**fields)
    peer.save_pretrained(tmp_path)
    config = read_image_config(tmp_path, 224)
    for picture in tiny_clip.pictures():
        expected = np.asarray(peer(picture)["pixel_values"][0]).transpose(1, 2, 0)
        np.testing.assert_allclose(preprocess([picture], config)[0], expected, atol=1e-6)


def test_old_files_give_sizes_as_numbers_and_no_file_stands_for_clip(tmp_path):
    assert read_image_config(tmp_path, 336) == ImageConfig(shortest_edge=336, crop=(336, 336))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": 224, "crop_size": 200}))
    assert read_image_config(tmp_path, 336) == ImageConfig(shortest_edge=224, crop=(200, 200))


@pytest.mark.parametrize(
    "config",
    [
        ImageConfig(),
        ImageConfig(shortest_edge=None, size=(3, 4), crop=None),
        ImageConfig(shortest_edge=None, crop=(5, 6), mean=(0.0, 0.0, 0.0), rescale=1.0),
    ],
)
def test_what_is_written_is_read_again(config, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(write_image_config(config)))
    assert read_image_config(tmp_path, 224) == config


def test_grey_pictures_become_rgb():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    config = ImageConfig(shortest_edge=None, crop=None, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), rescale=1.0)
    np.testing.assert_array_equal(preprocess([grey], config)[0], np.repeat(grey[..., None], 3, axis=2))


def test_what_is_no_picture_is_refused():
    with pytest.raises(ValueError, match=r"images\[1\] must be .* uint8 array .*, got float32 \(4, 4, 3\)"):
        preprocess([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.float32)], ImageConfig())
    with pytest.raises(ValueError, match="at least one image"):
        preprocess([], ImageConfig())
    uncropped = ImageConfig(shortest_edge=8, crop=None)
    with pytest.raises(ValueError, match="images must have one size after preprocessing"):
        preprocess(tiny_clip.pictures(), uncropped)
