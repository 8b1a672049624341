"""Writes a model as a folder in the hub's layout, which transformers and :func:`zsml_jax.models.load` read."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import safetensors.numpy

from zsml_jax.models.convert import Outgoing, revert
from zsml_jax.models.hub_fields import OLD_SPELLINGS
from zsml_jax.models.image_preprocessing import write_image_config
from zsml_jax.models.pretrained import FAMILIES, Pretrained


def save(pretrained: Pretrained, folder: str | Path, *, max_shard_bytes: int = 5_000_000_000) -> None:
    """Writes ``config.json``, the weights as safetensors, and the tokenizer's files if there is a tokenizer.

    Everything is written beside the folder under a temporary name and renamed when it is complete, so a folder is
    either the old one or the new one. Weights keep their bits: what is loaded again is equal.

    Args:
      pretrained: the model; its ``model_type`` decides the names of the tensors. For a model that was made here and not
        loaded, give it one: ``Pretrained(..., model_type="gpt2")``.
      folder: a new folder, or one with a model (a ``config.json``), which is replaced.
      max_shard_bytes: the weights are split into files of at most this size, but at least one tensor each.

    Raises:
      ValueError: if the model's type is unknown, its parameters do not fit it, or they lie on devices of other hosts.
      FileExistsError: if the folder holds something else than a model.
    """
    family = FAMILIES.get(pretrained.model_type)
    if family is None:
        raise ValueError(f"model_type must be one of {sorted(FAMILIES)}, got {pretrained.model_type!r}")
    leaves = jax.tree.leaves(pretrained.params)
    if not all(getattr(leaf, "is_fully_addressable", True) for leaf in leaves):
        raise ValueError("params must lie on devices of this process; gather them before they are saved")
    target = Path(folder).expanduser()
    if target.exists() and not (target / "config.json").is_file() and (target.is_file() or any(target.iterdir())):
        raise FileExistsError(f"folder must be new or hold a model, and {target} holds no config.json")
    read: dict[str, Any] = json.loads(pretrained.hub_config)
    written = {"architectures": [family.architecture]} if family.architecture else {}
    config = {**written, **read, "model_type": pretrained.model_type, "dtype": str(leaves[0].dtype)}
    if family.write is not None:
        config = {key: value for key, value in config.items() if key not in OLD_SPELLINGS}
        config |= family.write(pretrained.config)
    elif not read:
        raise ValueError(f"a {pretrained.model_type} that was not loaded has no config.json to write")
    tensors = revert(family.rules(pretrained.config), pretrained.params)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        fresh = work / "new"
        fresh.mkdir()
        (fresh / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        _write_tensors(tensors, fresh, max_shard_bytes)
        if pretrained.image is not None:
            fields = json.dumps(write_image_config(pretrained.image), indent=2) + "\n"
            (fresh / "preprocessor_config.json").write_text(fields, encoding="utf-8")
        if pretrained.tokenizer is not None:
            pretrained.tokenizer.save(fresh)
        _swap(fresh, target, work / "old")
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _swap(fresh: Path, target: Path, old: Path) -> None:
    """Puts a finished folder in place; the old one comes back if that fails."""
    if target.exists():
        os.rename(target, old)
    try:
        os.rename(fresh, target)
    except OSError:
        if old.exists():
            os.rename(old, target)
        raise


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
        total = sum(tensor.nbytes for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": placed}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
