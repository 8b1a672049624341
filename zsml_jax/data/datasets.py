"""Named data sets behind one function."""

import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zsml_jax.data import splits, text_sets, tfds_source
from zsml_jax.data.dataset import Dataset
from zsml_jax.data.nearest_name import nearest


def load(name: str, *, split: str = "all", data_dir: str | Path | None = None, **options: Any) -> Dataset:
    """Loads a labelled data set into memory.

    ==============================  ==============================================  =============================
    name                            contents                                        options
    ==============================  ==============================================  =============================
    ``bbc_news``                    2,225 articles, 5 topics                        ``split_seed``
    ``trec_coarse``, ``trec_fine``  5,381 questions, 6 or 50 kinds of answer        ``split_seed``
    ``trec``                        the same, by ``labels="coarse"`` or ``"fine"``  ``labels``, ``split_seed``
    ``sentiment_domains``           snippets of four domains, negative or positive  ``threshold``, ``split_seed``
    ``digits``                      1,797 handwritten digits, 8 x 8                 ``split_seed``
    any TFDS name                   what has been prepared under ``data_dir``       ``input_key``, ``label_key``
    ==============================  ==============================================  =============================

    The built-in sets ship no splits; :mod:`zsml_jax.data.splits` divides them into train (60 %), validation (20 %) and
    test (20 %) by a seeded hash, stratified, and with equal contents in one split. A TFDS name can carry a config and
    a version: ``squad/v1.1``, ``mnist:3.0.1``.

    Args:
      name: a name of the table.
      split: ``train``, ``validation``, ``test`` or ``all``, or a part of them such as ``test[:8000]`` or
        ``train[:80%]+test``.
      data_dir: where TFDS sets lie; by default ``TFDS_DATA_DIR``, or ``~/tensorflow_datasets``.
      **options: what the table names for this set.

    Returns:
      The data set.

    Raises:
      ValueError: if the name, the split or an option does not exist; the message lists those that do.
      zsml_jax.data.assets.AssetError: if an asset is needed and cannot be fetched.
    """
    reader: Callable[..., Dataset]
    if name in _READERS:
        reader = _READERS[name]
    elif tfds_source.is_prepared(name, data_dir):
        return _tfds(name, split=split, data_dir=data_dir, **_checked(options, _tfds, name))
    else:
        here = ", ".join(tfds_source.prepared(data_dir)) or "none"
        where = tfds_source.data_directory(data_dir)
        raise ValueError(
            f"there is no data set {name!r}. {nearest(name, dataset_names(), 'built-in data sets')} "
            f"TFDS sets in {where}: {here}; `python -m zsml_jax.data.prepare {name}` would write one more."
        )
    if data_dir is not None:
        raise ValueError(f"data_dir is for TFDS sets; {name!r} comes from a pinned package and lies in ZSML_CACHE")
    return reader(split=split, **_checked(options, reader, name))


def dataset_names() -> tuple[str, ...]:
    """Returns the names of the built-in data sets."""
    return tuple(_READERS)


def class_descriptions(name: str) -> Mapping[str, str]:
    """Returns, by class id, a phrase that says what the class is and fits into a prompt.

    Raises:
      ValueError: if nobody has described the classes of this data set.
    """
    table = text_sets.descriptions()
    if name not in table:
        raise ValueError(f"the classes of {name!r} have no descriptions. {nearest(name, table, 'described data sets')}")
    return dict(table[name])


def digits(*, split: str = "all", split_seed: int = 0) -> Dataset:
    """scikit-learn's handwritten digits: 1,797 images of 8 x 8, grey levels from 0 to 16 as float32 (UCI, 1998)."""
    from sklearn.datasets import load_digits

    source: Any = load_digits()
    everything = Dataset(
        name="digits",
        split="all",
        inputs=np.asarray(source.images, np.float32),
        labels=np.asarray(source.target),
        class_names=tuple(str(digit) for digit in range(10)),
        ids=tuple(f"{i:04d}" for i in range(len(source.target))),
    )
    contents = [hashlib.sha256(image.astype(np.uint8).tobytes()).hexdigest() for image in source.images]
    equal = np.unique(contents, return_inverse=True)[1]
    divided = splits.assign(contents, source.target.tolist(), [equal], seed=split_seed)
    return dataclasses.replace(everything.subset(splits.select(split, divided, "digits")), split=split)


def _trec_coarse(*, split: str = "all", split_seed: int = 0) -> Dataset:
    return text_sets.trec(labels="coarse", split=split, split_seed=split_seed)


def _trec_fine(*, split: str = "all", split_seed: int = 0) -> Dataset:
    return text_sets.trec(labels="fine", split=split, split_seed=split_seed)


_READERS: dict[str, Callable[..., Dataset]] = {
    "bbc_news": text_sets.bbc_news,
    "trec": text_sets.trec,
    "trec_coarse": _trec_coarse,
    "trec_fine": _trec_fine,
    "sentiment_domains": text_sets.sentiment_domains,
    "digits": digits,
}


def _tfds(
    name: str,
    *,
    split: str,
    data_dir: str | Path | None,
    input_key: str = "",
    label_key: str = "",
) -> Dataset:
    """A prepared TFDS set with class labels; by default its own pair of input and label."""
    source = tfds_source.open_source(name, split=split, data_dir=data_dir)
    features, pair = source.dataset_info.features, source.dataset_info.supervised_keys or ("", "")
    input_key, label_key = input_key or pair[0], label_key or pair[1]
    for argument, key in (("input_key", input_key), ("label_key", label_key)):
        if key not in features:
            raise ValueError(f"{argument} of {name!r} must be one of {', '.join(sorted(features))}, got {key!r}")
    if not hasattr(features[label_key], "names"):
        raise ValueError(f"label_key of {name!r} must name a class label, but {label_key!r} is {features[label_key]}")
    inputs, labels = [], []
    for example in tfds_source.examples(source, title=f"reading {name} {split}"):
        inputs.append(example[input_key])
        labels.append(example[label_key])
    return Dataset(
        name=name,
        split=split,
        inputs=_together(inputs, name),
        labels=np.asarray(labels, np.int64),
        class_names=tuple(features[label_key].names),
    )


def _together(inputs: list[Any], name: str) -> list[str] | np.ndarray:
    if all(isinstance(value, bytes) for value in inputs):
        return [value.decode("utf-8") for value in inputs]
    shapes = {np.shape(value) for value in inputs}
    if len(shapes) > 1:
        raise ValueError(
            f"the inputs of {name!r} have {len(shapes)} different shapes and do not fit into one array; read them with "
            "zsml_jax.data.pipeline and a transform that resizes"
        )
    return np.stack(inputs)


def _checked(options: dict[str, Any], reader: Callable[..., Dataset], name: str) -> dict[str, Any]:
    known = set(inspect.signature(reader).parameters) - {"name", "split", "data_dir"}
    if unknown := sorted(set(options) - known):
        raise ValueError(f"{name!r} has no option {unknown[0]!r}. {nearest(unknown[0], sorted(known), 'options')}")
    return options
