"""A TFDS directory of twelve images, written without TensorFlow."""

import io
import json

import numpy as np
import pytest
from sklearn.datasets import load_digits


@pytest.fixture(scope="session")
def tiny_images():
    """The images and labels in ``tiny_digits``: rows 0 to 7 are its train split, 8 to 11 its test split."""
    digits = load_digits()
    return digits.images[:12, :, :, None].astype(np.uint8), digits.target[:12]


@pytest.fixture(scope="session")
def tiny_tfds(tmp_path_factory, tiny_images):
    """A ``data_dir`` that holds ``tiny_digits`` 1.0.0 and 1.10.0, which are the same."""
    root = tmp_path_factory.mktemp("tfds")
    for version in ("1.0.0", "1.10.0"):
        _write(root / "tiny_digits" / version, *tiny_images, version)
    return root


def _write(folder, images, labels, version):
    from array_record.python.array_record_module import ArrayRecordWriter
    from PIL import Image
    from tensorflow_datasets.proto import tf_example_pb2

    folder.mkdir(parents=True)
    infos = []
    for split, rows in {"train": range(8), "test": range(8, 12)}.items():
        writer = ArrayRecordWriter(str(folder / f"tiny_digits-{split}.array_record-00000-of-00001"), "group_size:1")
        for row in rows:
            png = io.BytesIO()
            Image.fromarray(images[row, :, :, 0]).save(png, format="png")
            example = tf_example_pb2.Example()
            example.features.feature["image"].bytes_list.value.append(png.getvalue())
            example.features.feature["label"].int64_list.value.append(int(labels[row]))
            writer.write(example.SerializeToString())
        writer.close()
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        infos.append({"filepathTemplate": template, "name": split, "shardLengths": [str(len(rows))]})
    info = {
        "fileFormat": "array_record",
        "name": "tiny_digits",
        "splits": infos,
        "supervisedKeys": {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}},
        "version": version,
    }
    module = "tensorflow_datasets.core.features"
    image = {"dtype": "uint8", "shape": {"dimensions": ["8", "8", "1"]}}
    features = {
        "image": {"image": image, "pythonClassName": f"{module}.image_feature.Image"},
        "label": {"classLabel": {"numClasses": "10"}, "pythonClassName": f"{module}.class_label_feature.ClassLabel"},
    }
    tree = {"featuresDict": {"features": features}, "pythonClassName": f"{module}.features_dict.FeaturesDict"}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "features.json").write_text(json.dumps(tree))
    (folder / "label.labels.txt").write_text("".join(f"digit {digit}\n" for digit in range(10)))
