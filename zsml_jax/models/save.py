"""Writes a model as a folder in the hub's layout, which transformers and :func:`zsml_jax.models.load` read."""

import dataclasses
import json
import math
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import safetensors.numpy

from zsml_jax.models.convert import revert
from zsml_jax.models.families import Family
from zsml_jax.models.hub_fields import OLD_SPELLINGS
from zsml_jax.models.image_preprocessing import write_image_config
from zsml_jax.models.json_file import write_json
from zsml_jax.models.lazy_tensor import Outgoing
from zsml_jax.models.pretrained import FAMILIES, Pretrained
from zsml_jax.models.quantized import Quantized
from zsml_jax.models.quantized_files import FIELD, choose_layout, quantization_config, weight_names
from zsml_jax.models.quantized_layouts import Layout
from zsml_jax.models.sentence import SentenceConfig, write_sentence_config
from zsml_jax.models.whole_folder import check_replaceable, whole_folder
from zsml_jax.typing import Params

#: Fields that say how a program runs, which no file holds.
_RUN_FIELDS = ("remat", "unroll", "chunk")
#: Fields that may be None, and where to find what that means.
_RESOLVED = {"num_kv_heads": "key_heads", "head_width": "key_width", "step_rank": "rank"}


def save(
    pretrained: Pretrained,
    folder: str | Path,
    *,
    max_shard_bytes: int = 5_000_000_000,
    layout: Layout | None = None,
) -> None:
    """Writes ``config.json``, the weights as safetensors, and the files of tokenizer, pooling and image preprocessing.

    The folder is never half of one model, nor half of two, see :func:`~zsml_jax.models.whole_folder.whole_folder`.
    Weights keep their bits: what is loaded again is equal. So do codes and scales of quantised kernels, which are
    written in the layout of compressed-tensors, as vLLM and transformers read it, where that can hold all of them.

    Args:
      pretrained: the model; its ``model_type`` decides the names of the tensors. For a model that was made here and not
        loaded, give it one: ``Pretrained(..., model_type="gpt2")``.
      folder: a new folder, or one with a model (a ``config.json``), which is replaced.
      max_shard_bytes: the weights are split into files of at most this size, but at least one tensor each.
      layout: of quantised kernels: ``"compressed-tensors"``, ``"own"`` for that of this package, or the first of them
        that can hold all if None.

    Raises:
      ValueError: if the model's type is unknown, cannot express its configuration, or has other parameters; if these
        lie on devices of other hosts; or if the layout cannot hold a quantised kernel.
      FileExistsError: if the folder holds something else than a model.
    """
    if not all(getattr(leaf, "is_fully_addressable", True) for leaf in jax.tree.leaves(pretrained.params)):
        raise ValueError("params must lie on devices of this process; gather them before they are saved")
    config, layout = folder_config(pretrained, layout)
    check_replaceable(folder, marker="config.json", kind="a model")
    family = FAMILIES[pretrained.model_type]
    tensors = revert(family.rules(pretrained.config), pretrained.params, layout=layout)
    _check_shapes(pretrained, family)
    _check_config(pretrained, family, config, weight_names(config, tensors.keys()))
    with whole_folder(folder) as fresh:
        write_json(fresh / "config.json", config)
        _write_tensors(tensors, fresh, max_shard_bytes)
        write_extras(pretrained, fresh)


def folder_config(pretrained: Pretrained, layout: Layout | None = None) -> tuple[dict[str, Any], Layout | None]:
    """Returns config.json of a model's folder, and the layout of its quantised kernels, None if it has none.

    Args:
      pretrained: the model; its parameters may be shapes.
      layout: as for :func:`save`.

    Raises:
      ValueError: as for :func:`save`.
    """
    family = FAMILIES.get(pretrained.model_type)
    if family is None:
        raise ValueError(f"model_type must be one of {sorted(FAMILIES)}, got {pretrained.model_type!r}")
    table = family.rules(pretrained.config)
    layout = choose_layout(table, pretrained.params, layout)
    config = _hub_config(pretrained, family)
    if layout is not None:
        config[FIELD] = quantization_config(table, pretrained.params, layout)
    return config, layout


def write_extras(pretrained: Pretrained, folder: Path) -> None:
    """Writes the files of tokenizer, pooling and image preprocessing into a model's folder."""
    if pretrained.image is not None:
        write_json(folder / "preprocessor_config.json", write_image_config(pretrained.image))
    if pretrained.sentence != SentenceConfig():
        write_sentence_config(pretrained.sentence, folder, pretrained.config.width)
    if pretrained.tokenizer is not None:
        pretrained.tokenizer.save(folder)


def write_index(placed: Mapping[str, str], total_bytes: int, folder: Path) -> None:
    """Writes the index of a folder whose tensors are in several files.

    Args:
      placed: the file of each tensor.
      total_bytes: size of all tensors.
      folder: the folder.
    """
    index = {"metadata": {"total_size": total_bytes}, "weight_map": dict(placed)}
    write_json(folder / "model.safetensors.index.json", index)


def _hub_config(pretrained: Pretrained, family: Family) -> dict[str, Any]:
    """The fields of config.json: those that were read, under those that the configuration decides."""
    read: dict[str, Any] = json.loads(pretrained.hub_config)
    read.pop(FIELD, None)  # what was quantised when it was read need not be so any more
    leaves: Any = jax.tree.leaves(pretrained.params, is_leaf=lambda node: isinstance(node, Quantized))
    largest = max(leaves, key=lambda leaf: math.prod(leaf.shape))
    config = {
        **({"architectures": [family.architecture]} if family.architecture else {}),
        **_special_ids(pretrained),
        **{key: value for key, value in read.items() if key not in OLD_SPELLINGS},
        "model_type": pretrained.model_type,
        "dtype": str(largest.dtype),
    }
    for key, value in family.write(pretrained.config).items():
        if key.endswith("_config"):  # a part's own file, which the oldest files repeat under a second name
            value = {**(read.get(key) or {}), **(read.get(f"{key}_dict") or {}), **value}
        config[key] = value
    return config


def _special_ids(pretrained: Pretrained) -> dict[str, int]:
    """Where a text begins and ends, which a causal language model's file says, and its defaults would say wrongly."""
    if pretrained.tokenizer is None or not hasattr(pretrained.module, "init_cache"):
        return {}
    roles = [role for role in ("bos_token", "eos_token", "pad_token") if role in pretrained.tokenizer.special]
    ids = {f"{role}_id": pretrained.tokenizer.token_id(pretrained.tokenizer.special[role]) for role in roles}
    return {name: i for name, i in ids.items() if i is not None}


def _check_shapes(pretrained: Pretrained, family: Family) -> None:
    """Refuses parameters that a module of the configuration does not have."""
    own, expected = _shapes(pretrained.params), _shapes(family.abstract_params(pretrained.config))
    differing = [
        f"{path} is {own.get(path, 'missing')}, must be {expected.get(path, 'absent')}"
        for path in sorted(own | expected)
        if own.get(path) != expected.get(path)
    ]
    if differing:
        raise ValueError("\n  ".join(["params must be those of the configuration:", *differing]))


def _shapes(params: Params) -> dict[str, tuple[int, ...]]:
    leaves: Mapping[str, Any] = flax.traverse_util.flatten_dict(params, sep="/")
    return {path: tuple(leaf.shape) for path, leaf in leaves.items()}


def _check_config(pretrained: Pretrained, family: Family, config: Mapping[str, Any], names: Collection[str]) -> None:
    """Refuses a configuration that the model's type cannot express: one that would be read as another."""
    own = pretrained.config
    again = family.config(json.loads(json.dumps(config)), names, own.dtype)
    if differing := _differing(own, again):
        raise ValueError(
            f"config cannot be that of a {pretrained.model_type}; it would be read as another: {', '.join(differing)}"
        )


def _differing(own: Any, again: Any, prefix: str = "") -> list[str]:
    names = [field.name for field in dataclasses.fields(own) if field.name not in _RUN_FIELDS]
    found = []
    for name in names:
        first, second = (getattr(config, _RESOLVED.get(name, name)) for config in (own, again))
        if dataclasses.is_dataclass(first) and dataclasses.is_dataclass(second):
            found += _differing(first, second, f"{prefix}{name}.")
        elif first != second:
            found.append(f"{prefix}{name} is {first!r}, not {second!r}")
    return found


def _write_tensors(tensors: Mapping[str, Outgoing], folder: Path, max_shard_bytes: int) -> None:
    shards: list[list[str]] = [[]]
    room = max_shard_bytes
    for name, tensor in sorted(tensors.items()):
        if tensor.nbytes > room and shards[-1]:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(name)
        room -= tensor.nbytes
    many = len(shards) > 1
    placed: dict[str, str] = {}
    for i, names in enumerate(shards):
        file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" if many else "model.safetensors"
        safetensors.numpy.save_file({name: tensors[name].read() for name in names}, folder / file, {"format": "pt"})
        shutil.copymode(folder / "config.json", folder / file)  # the library writes files for the owner alone
        placed |= dict.fromkeys(names, file)
    if many:
        write_index(placed, sum(tensor.nbytes for tensor in tensors.values()), folder)
