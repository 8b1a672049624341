"""Adapters of other programs: the LoRA and GraLoRA folders that the ``peft`` library writes."""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zsml_jax.models.json_file import read_json
from zsml_jax.models.pretrained import Pretrained
from zsml_jax.models.tensors import open_safetensors
from zsml_jax.peft.adapter import Adapter, adapt
from zsml_jax.peft.dora import DoRA
from zsml_jax.peft.files import CONFIG_FILE, TENSOR_FILE
from zsml_jax.peft.hub_modules import HubModule, hub_modules, table_of
from zsml_jax.peft.lora import LoRA
from zsml_jax.peft.method import LayerShape
from zsml_jax.peft.monarch import from_gralora
from zsml_jax.peft.more import MoRe

#: Fields that say nothing of what the adapter computes, or that the tensors say themselves.
_NO_MATTER = frozenset(
    {"peft_type", "task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "peft_version"}
    | {"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out", "runtime_config"}
    | {"lora_dropout", "gralora_dropout", "init_weights", "megatron_core", "qalora_group_size", "ensure_weight_tying"}
)
_READ = {
    "LORA": {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "init_lora_weights"},
    "GRALORA": {"r", "alpha", "gralora_k", "hybrid_r"},
}
_PARTS = {
    "LORA": ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector"),
    "GRALORA": ("gralora_A", "gralora_B", "gralora_A_general.weight", "gralora_B_general.weight"),
}


class _Found(NamedTuple):
    """What a module adds: ``scale * down @ up.T``, and DoRA's magnitudes."""

    down: np.ndarray  # (n, r)
    up: np.ndarray  # (m, r)
    magnitude: np.ndarray | None


def import_peft(folder: str | Path, pretrained: Pretrained) -> Adapter:
    """Reads a LoRA (with rank-stabilised scales, patterns, and DoRA) or a GraLoRA as an adapter that computes the same.

    It becomes a :class:`~zsml_jax.peft.LoRA` or :class:`~zsml_jax.peft.DoRA` whose scale is in its numbers, ``alpha``
    being 1. GraLoRA of k blocks becomes a LoRA of rank k r: it is the same family as MoRe, but its output blocks are
    contiguous and MoRe's interleaved, so that no MoRe is equal to it. Layers of a scanned stack get the rank of the
    largest, and those that are not adapted get a zero update. Dropout is left out. The file does not say which weights
    were adapted, so that a wrong base of the right shapes is not noticed.

    Args:
      folder: with ``adapter_config.json`` and ``adapter_model.safetensors``.
      pretrained: the model that was adapted.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if the method or a field is not supported, or tensors are missing, unexpected, misshapen or not
        finite; all are listed.
    """
    path = Path(folder).expanduser()
    config = read_json(path / CONFIG_FILE)
    kind = config.get("peft_type") if isinstance(config, Mapping) else None
    if kind not in _READ:
        raise ValueError(f"{path / CONFIG_FILE}: peft_type must be one of {sorted(_READ)}, got {kind!r}")
    _check_fields(config, kind, str(path / CONFIG_FILE))
    if not (path / TENSOR_FILE).is_file():
        raise FileNotFoundError(f"{path} has no {TENSOR_FILE}")
    found = _read(path / TENSOR_FILE, config, kind, pretrained)
    modules = hub_modules(pretrained)
    layers: dict[tuple[str, int | None], dict[str, np.ndarray]] = {}
    for name, own in found.items():
        module = modules[name]
        magnitudes: Any = module.split(own.magnitude[:, None]) if own.magnitude is not None else None
        for i, (place, up) in enumerate(zip(module.places, module.split(own.up), strict=True)):
            layers[place.path, place.row] = {"a": own.down, "b": up}
            if magnitudes is not None:
                layers[place.path, place.row]["magnitude"] = magnitudes[i][0]
    ranks: dict[str, int] = {}
    for (path_of_layer, _), arrays in layers.items():
        ranks[path_of_layer] = max(ranks.get(path_of_layer, 0), arrays["b"].shape[0])
    method = DoRA if config.get("use_dora") else LoRA
    same = len(set(ranks.values())) == 1
    fresh = adapt(
        pretrained,
        method(targets=tuple(ranks), rank=max(ranks.values()), ranks={} if same else ranks, alpha=1.0, scaling="none"),
        key=jax.random.key(0),
    )
    arrays = {layer: {name: np.array(leaf) for name, leaf in own.items()} for layer, own in fresh.arrays.items()}
    for (layer, row), own in layers.items():
        rows = ... if row is None else row
        rank = own["b"].shape[0]
        arrays[layer]["a"][rows][:, :rank] = own["a"]
        arrays[layer]["b"][rows][:rank] = own["b"]
        if "magnitude" in own:
            arrays[layer]["magnitude"][rows] = own["magnitude"]
    return dataclasses.replace(fresh, arrays=jax.tree.map(jnp.asarray, arrays))


def _check_fields(config: Mapping[str, Any], kind: str, source: str) -> None:
    """Refuses fields that would change what is computed, by name."""
    known = _NO_MATTER | _READ[kind]
    refused = {
        name: value
        for name, value in config.items()
        if name not in known and value and (name, value) != ("bias", "none")
    }
    # Some ways to begin also change the base, which the folder does not hold.
    if isinstance(start := config.get("init_lora_weights"), str) and start not in ("gaussian", "eva", "orthogonal"):
        refused["init_lora_weights"] = start
    if refused:
        raise ValueError(f"{source}: fields are not supported: {refused}")


def _read(path: Path, config: Mapping[str, Any], kind: str, pretrained: Pretrained) -> dict[str, _Found]:
    """What each module adds, by its name in the hub's files."""
    table, modules = table_of(pretrained), hub_modules(pretrained)
    parts: dict[str, dict[str, np.ndarray]] = {}
    problems = []
    endings = "|".join(map(re.escape, _PARTS[kind]))
    for key, tensor in open_safetensors(path).items():
        match = re.fullmatch(rf"base_model\.model\.(.+?)\.({endings})(?:\.weight)?", key)
        name = table.canonical(f"{match[1]}.weight").removesuffix(".weight") if match else ""
        if match is None or name not in modules:
            problems.append(f"unexpected: {key} {tensor.shape}")
            continue
        own = np.asarray(tensor.read(), np.float32)
        if not np.isfinite(own).all():
            problems.append(f"not finite: {key}")
        parts.setdefault(name, {"name": np.array(match[1])})[match[2]] = own
    found = {}
    read = _lora if kind == "LORA" else _gralora
    for name, own in parts.items():
        module, theirs = modules[name], str(own.pop("name"))
        expected = _shapes(config, kind, theirs, module)
        problems += [f"missing: {theirs}.{part} {shape}" for part, shape in expected.items() if part not in own]
        problems += [f"unexpected: {theirs}.{part} {own[part].shape}" for part in own if part not in expected]
        wrong = [part for part, shape in expected.items() if part in own and own[part].shape != shape]
        problems += [f"misshapen: {theirs}.{part} is {own[part].shape}, must be {expected[part]}" for part in wrong]
        if not problems:
            found[name] = read(config, theirs, own)
    if problems or not found:
        raise ValueError("\n  ".join([f"{path} does not fit; {len(problems)} problems:", *problems]))
    return found


def _shapes(config: Mapping[str, Any], kind: str, name: str, module: HubModule) -> dict[str, tuple[int, ...]]:
    inputs, outputs = module.places[0].shape[0], sum(place.shape[1] for place in module.places)
    if kind == "LORA":
        rank = _by_pattern(config.get("rank_pattern"), name, config["r"])
        magnitude = {"lora_magnitude_vector": (outputs,)} if config.get("use_dora") else {}
        return {"lora_A.weight": (rank, inputs), "lora_B.weight": (outputs, rank), **magnitude}
    blocks, rank, hybrid = config["gralora_k"], config["r"], config.get("hybrid_r", 0)
    general = {"gralora_A_general.weight": (hybrid, inputs), "gralora_B_general.weight": (outputs, hybrid)}
    a, b = (blocks, inputs // blocks, rank), (blocks, rank, outputs // blocks)
    return {"gralora_A": a, "gralora_B": b, **(general if hybrid else {})}


def _lora(config: Mapping[str, Any], name: str, own: Mapping[str, np.ndarray]) -> _Found:
    rank = own["lora_A.weight"].shape[0]
    alpha = _by_pattern(config.get("alpha_pattern"), name, config["lora_alpha"])
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return _Found(own["lora_A.weight"].T, np.float32(scale) * own["lora_B.weight"], own.get("lora_magnitude_vector"))


def _gralora(config: Mapping[str, Any], name: str, own: Mapping[str, np.ndarray]) -> _Found:
    a, b = own["gralora_A"], own["gralora_B"]
    blocks, rank = a.shape[0], a.shape[2]
    shape = LayerShape(blocks * a.shape[1], blocks * b.shape[2])
    more = MoRe(blocks=blocks, block_rank=rank)
    down, up = map(np.asarray, more.low_rank(shape, from_gralora(a, b)._asdict(), {"alpha": 1.0}))
    # Output s' N + l of MoRe is l s + s' of GraLoRA.
    up = up.reshape(up.shape[0], -1, blocks).swapaxes(1, 2).reshape(up.shape).T
    if config.get("hybrid_r", 0):
        down = np.concatenate([down, own["gralora_A_general.weight"].T], axis=1)
        up = np.concatenate([up, own["gralora_B_general.weight"]], axis=1)
    return _Found(down, np.float32(config["alpha"] / (rank + config.get("hybrid_r", 0))) * up, None)


def _by_pattern(patterns: Mapping[str, Any] | None, name: str, default: Any) -> Any:
    """What the first pattern says that describes the end of a module's name, as the ``peft`` library reads them."""
    found = (value for pattern, value in (patterns or {}).items() if re.match(rf"(.*\.)?({pattern})$", name))
    return next(found, default)
