"""Compression from folder to folder, one block at a time, for models that do not fit into memory.

Weights are read when their block's turn comes, and written as soon as it is done, a safetensors file a block. In memory
are one block, the statistics of its inputs, and the calibration data's activations. A block is done once its file is
in place, so that a job that was killed goes on behind the last of them: it runs the finished blocks again, which is
what the activations need, and compresses the others. Results are those of :func:`zsml_jax.compression.prune` and
:func:`~zsml_jax.compression.quantize`, bit for bit.

Of an encoder-decoder the whole compressed encoder is in memory for a moment, to make what the decoder reads.
"""

import dataclasses
import functools
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from zsml_jax import transform
from zsml_jax.compression import pruning, quantization
from zsml_jax.compression.calibration import Calibration, InputStatistics
from zsml_jax.compression.layerwise import Compress, advance, check_in_layers, compress_block
from zsml_jax.compression.masks import check_fit
from zsml_jax.models import quantized
from zsml_jax.models.blocks import BlockInput, Stack, stacks
from zsml_jax.models.convert import Checkpoint, revert_slots
from zsml_jax.models.json_file import read_json, write_json
from zsml_jax.models.pretrained import FAMILIES, Pretrained, open_lazily
from zsml_jax.models.quantized import Activations, Format, Group, Quantized
from zsml_jax.models.quantized_files import take_kernels
from zsml_jax.models.quantized_layouts import Layout
from zsml_jax.models.rules import Table, slots_of
from zsml_jax.models.save import folder_config, write_extras, write_index
from zsml_jax.models.tensors import open_safetensors
from zsml_jax.models.whole_folder import check_replaceable, whole_folder
from zsml_jax.report import progress
from zsml_jax.transform.patterns import Patterns
from zsml_jax.typing import PyTree

_JOB = "job.json"


def prune_folder(
    source: str | Path,
    target: str | Path,
    method: str,
    sparsity: float,
    *,
    groups: Patterns,
    calibration: Calibration,
    within: str | None = None,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> None:
    """Does what :func:`zsml_jax.compression.prune` does, from a model's folder to another.

    Args:
      source: the model, as :func:`zsml_jax.models.load` takes it.
      target: a new folder, or one with a model, which is replaced once all is done. Unfinished work lies beside it, in
        a hidden folder ``.<name>-unfinished``; calling again goes on with it.
      method: ``"wanda"`` or ``"sparsegpt"``.
      sparsity: as there.
      groups: as there.
      calibration: the data; its model is that of ``open_lazily(source)``, or the loaded one.
      within: as there.
      dtype: of parameters and activations.

    Raises:
      ValueError: as there; or if the unfinished work is that of another job.
      FileExistsError: if the target holds something else than a model.
    """
    if method not in ("wanda", "sparsegpt"):
        raise ValueError(f"method must be 'wanda' or 'sparsegpt' for folders, got {method!r}")
    within = pruning.WITHIN[method] if within is None else within
    pretrained, checkpoint = open_lazily(source, dtype=dtype)
    chosen = _arrays(pretrained, groups)
    check_fit(chosen, sparsity, within)
    compress, gram = pruning.layer_method(method, sparsity, within)
    job = {"method": method, "sparsity": sparsity, "within": within}
    _run(_Job(pretrained, checkpoint, calibration, tuple(chosen), compress, gram), target, job)


def quantize_folder(
    source: str | Path,
    target: str | Path,
    method: str,
    *,
    groups: Patterns,
    calibration: Calibration,
    format: Format = "int8",
    group: Group | None = None,
    symmetric: bool = True,
    activations: Activations | None = None,
    layout: Layout | None = None,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> None:
    """Does what :func:`zsml_jax.compression.quantize` does, from a model's folder to another.

    Args:
      source: as for :func:`prune_folder`.
      target: as for :func:`prune_folder`.
      method: ``"gptq"``, ``"awq"`` or ``"smoothquant"``.
      groups: as there.
      calibration: as for :func:`prune_folder`.
      format: as there.
      group: as there.
      symmetric: as there.
      activations: as there.
      layout: of the quantised kernels, as for :func:`zsml_jax.models.save`.
      dtype: of the other parameters and activations.

    Raises:
      ValueError: as there; or if the unfinished work is that of another job.
      FileExistsError: if the target holds something else than a model.
    """
    if method not in ("gptq", "awq", "smoothquant"):
        raise ValueError(f"method must be 'gptq', 'awq' or 'smoothquant' for folders, got {method!r}")
    scheme = quantization.scheme_of(method, format, group, symmetric, activations)
    pretrained, checkpoint = open_lazily(source, dtype=dtype)
    chosen = _arrays(pretrained, groups)
    for kernel in chosen.values():
        jax.eval_shape(functools.partial(quantized.quantize, **scheme), kernel)
    compress, gram = quantization.layer_method(method, scheme, {})
    job = {"method": method, **scheme, "layout": layout}
    _run(_Job(pretrained, checkpoint, calibration, tuple(chosen), compress, gram, layout), target, job)


@dataclasses.dataclass(frozen=True)
class _Job:
    """What is to be done, and what of it does not change from block to block."""

    pretrained: Pretrained
    checkpoint: Checkpoint
    calibration: Calibration
    paths: tuple[str, ...]
    compress: Compress
    gram: bool
    layout: Layout | None = None

    @functools.cached_property
    def stacks(self) -> list[Stack]:
        return stacks(self.pretrained)

    @functools.cached_property
    def table(self) -> Table:
        return FAMILIES[self.pretrained.model_type].rules(self.pretrained.config)

    @functools.cached_property
    def result(self) -> Pretrained:
        """The compressed model in shapes."""
        new = transform.update(self.pretrained.params, list(self.paths), self._shape_of)
        return dataclasses.replace(self.pretrained, params=new)

    @functools.cached_property
    def slots(self) -> dict[str, list[str]]:
        """The parameters of each block, and under "" of all that is in none, by the paths that rules give."""
        names = [stack.slot(i) for stack in self.stacks for i in range(stack.length)]
        found: dict[str, list[str]] = {name: [] for name in (*names, "")}
        for path, leaf in _leaves(self.pretrained.params).items():
            for slot in slots_of(self.table, path, leaf):
                found[next((name for name in names if slot.startswith(f"{name}/")), "")].append(slot)
        return found

    def _shape_of(self, kernel: Any, path: str) -> Any:
        one = jax.ShapeDtypeStruct(kernel.shape[-2:], kernel.dtype)
        inputs = kernel.shape[-2]
        number: Any = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
        gram = number(inputs, inputs) if self.gram else None
        statistics = InputStatistics(number(), gram, number(inputs), number(inputs), number(inputs))
        new, _ = jax.eval_shape(lambda k, s: self.compress(k, s, (path, 0)), one, statistics)
        leading = kernel.shape[:-2]
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*leading, *x.shape), x.dtype), new)


def _run(job: _Job, target: str | Path, options: Mapping[str, Any]) -> None:
    check_in_layers(job.stacks, job.paths)
    check_replaceable(target, marker="config.json", kind="a model")
    config, layout = folder_config(job.result, job.layout)
    target = Path(target).expanduser().absolute()
    work = target.parent / f".{target.name}-unfinished"
    _begin(work, {**options, **_fingerprint(job)})
    names = list(job.slots)
    files = {name: f"model-{i + 1:05d}-of-{len(names):05d}.safetensors" for i, name in enumerate(names)}
    blocks = [(stack, i) for stack in job.stacks for i in range(stack.length)]
    read_finished = lambda name: _read_block(job, work / files[name], config, name)
    states: list[BlockInput] = []
    for stack, i in progress(blocks, "compressing blocks"):
        name = stack.slot(i)
        if i == 0:
            states = _enter(job, stack, read_finished)
        if (work / files[name]).is_file():
            own = read_finished(name)
        else:
            own, _ = compress_block(stack, i, _read(job, name), states, job.paths, job.compress, gram=job.gram)
            slots = {f"{name}/{path}": leaf for path, leaf in _leaves(own).items()}
            _write(revert_slots(job.table, slots, layout=layout), work / files[name])
        advance(stack, i, own, states)
    _write(revert_slots(job.table, _leaves(_read(job, "")), layout=layout), work / files[""])
    _finish(job, work, target, config)


def _enter(job: _Job, stack: Stack, read_finished: Callable[[str], Any]) -> list[BlockInput]:
    """What the first block of a stack is called with; the stacks before it are finished."""
    params = _read(job, "")
    for before in job.stacks[: stack.number]:
        rows = [read_finished(before.slot(i)) for i in range(before.length)]
        whole = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
        params = _nested(_leaves(params) | {f"{before.path}/{path}": leaf for path, leaf in _leaves(whole).items()})
    return [stack.enter(params, tokens, **inputs) for tokens, inputs in job.calibration.batches()]


def _read(job: _Job, name: str) -> dict[str, Any]:
    """The parameters of a block as they were, or with an empty name all that are in none."""
    start = f"{name}/" if name else ""
    return _nested({slot[len(start) :]: jnp.asarray(job.checkpoint.read(slot)) for slot in job.slots[name]})


def _read_block(job: _Job, file: Path, config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The parameters of a finished block."""
    tensors, kernels = take_kernels(config, open_safetensors(file), job.table, job.pretrained.config.dtype)
    expected: dict[str, Any] = {}
    whole = _leaves(job.result.params)
    for slot in job.slots[name]:
        leaf = whole[slot.replace(name, name.partition("[")[0], 1)]
        stacked = name.endswith("]")
        expected[slot] = jax.tree.map(lambda x, stacked=stacked: jax.ShapeDtypeStruct(x.shape[stacked:], x.dtype), leaf)
    dtype = job.pretrained.config.dtype
    checkpoint = Checkpoint(job.table, tensors, _nested(expected), dtype=dtype, source=str(file), kernels=kernels)
    on_device = lambda leaf: jax.tree.map(jnp.asarray, leaf)
    return _nested({slot[len(name) + 1 :]: on_device(checkpoint.read(slot)) for slot in job.slots[name]})


def _begin(work: Path, description: dict[str, Any]) -> None:
    """Makes the folder of unfinished work, or checks that the one that is there is of the same job."""
    if (work / _JOB).is_file():
        if read_json(work / _JOB) != json.loads(json.dumps(description)):
            raise ValueError(f"target must be without unfinished work of another job, and {work} holds one; remove it")
        return
    work.mkdir(parents=True, exist_ok=True)
    write_json(work / "job.tmp", description)
    os.replace(work / "job.tmp", work / _JOB)


def _fingerprint(job: _Job) -> dict[str, Any]:
    """What else decides the result: the data, the kernels, and the source as far as its shapes and head tell."""
    digest = hashlib.sha256()
    for tokens, inputs in job.calibration.batches():
        for array in (tokens, *inputs.values()):
            digest.update(np.ascontiguousarray(array).tobytes())
    shapes = {path: [list(leaf.shape), str(leaf.dtype)] for path, leaf in _leaves(job.pretrained.params).items()}
    first = job.checkpoint.read(job.slots[""][0])
    return {
        "calibration": digest.hexdigest(),
        "batch_size": job.calibration.batch_size,
        "kernels": list(job.paths),
        "shapes": shapes,
        "weights": hashlib.sha256(np.ascontiguousarray(first).tobytes()).hexdigest(),
    }


def _write(tensors: Mapping[str, Any], file: Path) -> None:
    """Writes a file that is there as a whole or not at all."""
    fresh = file.with_suffix(".tmp")
    safetensors.numpy.save_file({name: tensor.read() for name, tensor in tensors.items()}, fresh, {"format": "pt"})
    with fresh.open("rb") as opened:
        os.fsync(opened.fileno())
    os.replace(fresh, file)


def _finish(job: _Job, work: Path, target: Path, config: Mapping[str, Any]) -> None:
    files = sorted(work.glob("*.safetensors"))
    tensors = {file.name: open_safetensors(file) for file in files}
    placed = {name: file for file, held in tensors.items() for name in held}
    size = sum(math.prod(x.shape) * x.dtype.itemsize for held in tensors.values() for x in held.values())
    with whole_folder(target) as fresh:
        write_json(fresh / "config.json", config)
        write_index(placed, size, fresh)
        write_extras(job.pretrained, fresh)
        for file in files:
            os.rename(file, fresh / file.name)
            (fresh / file.name).chmod((fresh / "config.json").stat().st_mode)
    (work / _JOB).unlink()
    work.rmdir()


def _arrays(pretrained: Pretrained, groups: Patterns) -> dict[str, Any]:
    chosen = transform.select(pretrained.params, groups)
    for path, kernel in chosen.items():
        if not path.endswith("kernel") or len(kernel.shape) not in (2, 3) or isinstance(kernel, Quantized):
            raise ValueError(f"groups must be kernels of dense layers, arrays of 2 or 3 axes; {path} is not one")
    return chosen


def _leaves(tree: PyTree) -> dict[str, Any]:
    return flax.traverse_util.flatten_dict(tree, sep="/")  # pyrefly: ignore


def _nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    return flax.traverse_util.unflatten_dict(dict(leaves), sep="/")
