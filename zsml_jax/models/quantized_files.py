"""Quantised models in folders: which tensors of a file are quantised kernels, and what config.json says of them.

``models.save`` writes compressed-tensors (:mod:`.quantized_layouts`) where that can hold all kernels, so that vLLM and
transformers read the folder too, and else a layout of this package. ``models.load`` reads both.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import numpy as np

from zsml_jax.models.lazy_tensor import LazyTensor
from zsml_jax.models.quantized import Quantized
from zsml_jax.models.quantized_layouts import Layout, obstacle, own_scheme, read_own, read_packed, scheme_of
from zsml_jax.models.rules import TRANSPOSE, Rule, Table, slots_of
from zsml_jax.typing import PyTree

FIELD = "quantization_config"
_OWN = "zsml_jax"
#: Names of tensors that belong to a quantised weight, and the name of that weight.
_TENSORS = {
    "compressed-tensors": re.compile(r"(?P<weight>.*\.weight)_(packed|scale|shape|zero_point)"),
    _OWN: re.compile(r"(?P<weight>.*\.weight)(\.(?P<part>\d+))?\.(codes|scale|zero|input_scale)"),
}


class StoredKernel(NamedTuple):
    """A quantised kernel of one layer in a file.

    Attributes:
      shape: the kernel with shapes for arrays.
      read: reads it.
    """

    shape: Quantized
    read: Callable[[], Quantized]


def weight_names(hub: Mapping[str, Any], names: Collection[str]) -> set[str]:
    """Returns the names that the tensors of a folder would have if nothing were quantised.

    Args:
      hub: ``config.json``.
      names: of the tensors that are there.

    Raises:
      ValueError: if the method of quantisation is unknown here.
    """
    pattern = _pattern(hub)
    if pattern is None:
        return set(names)
    found = {name: pattern.fullmatch(name) for name in names}
    return {name if match is None else match["weight"] for name, match in found.items()}


def take_kernels(
    hub: Mapping[str, Any], tensors: Mapping[str, LazyTensor], table: Table, dtype: str
) -> tuple[dict[str, LazyTensor], dict[str, StoredKernel]]:
    """Takes the quantised kernels out of the tensors of a folder.

    Args:
      hub: ``config.json``.
      tensors: of the folder.
      table: the family's rules.
      dtype: of the arrays that the kernels stand for.

    Returns:
      The other tensors, and the kernels by the paths that rules give.

    Raises:
      ValueError: if the quantisation is of a kind that is not supported, or the tensors do not fit it.
    """
    pattern = _pattern(hub)
    if pattern is None:
        return dict(tensors), {}
    is_own = hub[FIELD]["quant_method"] == _OWN
    stored: dict[tuple[str, int | None], list[str]] = {}
    for name in tensors:
        if match := pattern.fullmatch(name):
            part = match.groupdict().get("part")
            stored.setdefault((match["weight"], None if part is None else int(part)), []).append(name)
    kernels: dict[str, StoredKernel] = {}
    for weight, part in stored:
        found = table.find(weight)
        paths = () if found is None else found[1] if isinstance(found[1], tuple) else (found[1],)
        if not paths or None in paths or (part or 0) >= len(paths):
            raise ValueError(f"{weight} is quantised and no kernel of this model")
        slot = paths[part or 0]
        if is_own:
            scheme = hub[FIELD]["kernels"].get(re.sub(r"\[\d+\]", "", slot))
            if scheme is None:
                raise ValueError(f"{FIELD} must have kernels with an entry for {slot}")
            stem = weight if part is None else f"{weight}.{part}"
            kernels[slot] = StoredKernel(*read_own(stem, tensors, scheme, dtype))
        else:
            base = weight.removesuffix(".weight")
            if found is not None and found[0].transform is not TRANSPOSE:
                raise ValueError(f"{base} is quantised and no linear layer of its own, kept as (out, in)")
            kernels[slot] = StoredKernel(*read_packed(base, tensors, _scheme(hub, base), dtype))
    taken = {name for names in stored.values() for name in names} | {weight for weight, _ in stored}
    return {name: tensor for name, tensor in tensors.items() if name not in taken}, kernels


def read_stacked(kernels: Sequence[StoredKernel], *, stacked: bool) -> Quantized:
    """Reads a kernel, or those of all layers of a stack into one."""
    if not stacked:
        return kernels[0].read()
    leaves, structure = jax.tree.flatten(kernels[0].shape)
    whole = [np.empty((len(kernels), *leaf.shape), leaf.dtype) for leaf in leaves]
    for i, kernel in enumerate(kernels):
        for array, row in zip(whole, jax.tree.leaves(kernel.read()), strict=True):
            array[i] = row
    return jax.tree.unflatten(structure, whole)


def expect_kernels(expected: PyTree, kernels: Mapping[str, StoredKernel], table: Table) -> dict[str, Any]:
    """Returns abstract parameters with quantised kernels in their places, the layers of a stack together.

    Args:
      expected: abstract parameters of the module.
      kernels: of :func:`take_kernels`.
      table: the family's rules.

    Raises:
      ValueError: if a kernel has another shape than the module's, or the layers of a stack are quantised differently.
    """
    leaves: dict[str, Any] = flax.traverse_util.flatten_dict(expected, sep="/")  # pyrefly: ignore
    for path, leaf in leaves.items():
        slots = slots_of(table, path, leaf)
        own = [kernels[slot].shape for slot in slots if slot in kernels]
        if not own:
            continue
        described = {jax.tree.structure(kernel): jax.tree.map(lambda x: (x.shape, x.dtype), kernel) for kernel in own}
        if len(own) < len(slots) or len(described) > 1 or len({str(each) for each in described.values()}) > 1:
            raise ValueError(f"all layers of {path} must be quantised alike; {len(own)} of {len(slots)} are quantised")
        if own[0].shape != leaf.shape[slots != (path,) :]:
            raise ValueError(f"{path} must be {leaf.shape}, got layers of {own[0].shape}")
        leading = (len(slots),) if slots != (path,) else ()
        stacked = lambda x, leading=leading: jax.ShapeDtypeStruct((*leading, *x.shape), x.dtype)
        leaves[path] = jax.tree.map(stacked, own[0])
    return flax.traverse_util.unflatten_dict(leaves, sep="/")


def quantization_config(table: Table, params: PyTree, layout: Layout) -> dict[str, Any]:
    """Returns the field ``quantization_config`` of config.json.

    Args:
      table: the family's rules.
      params: the parameters, or their shapes.
      layout: how kernels lie in the files.
    """
    leaves: dict[str, Any] = flax.traverse_util.flatten_dict(params, sep="/")  # pyrefly: ignore
    if layout == "own":
        kernels = {path: own_scheme(leaf) for path, leaf in leaves.items() if isinstance(leaf, Quantized)}
        return {"quant_method": _OWN, "kernels": kernels}
    groups: list[dict[str, Any]] = []
    ignored: list[str] = ["lm_head"]
    for path, leaf in leaves.items():
        targets = sorted({_target(rule) for rule in _rules(table, path, leaf)})
        if isinstance(leaf, Quantized):
            scheme = scheme_of(leaf)
            same = [group for group in groups if {**group, "targets": None} == {**scheme, "targets": None}]
            (same[0] if same else groups.append(scheme | {"targets": []}) or groups[-1])["targets"] += targets
        elif path.endswith("/kernel"):
            ignored += targets
    formats = {group["format"] for group in groups}
    named = {target for group in groups for target in group["targets"]}
    return {
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "format": formats.pop() if len(formats) == 1 else "mixed-precision",
        "config_groups": {f"group_{i}": group for i, group in enumerate(groups)},
        "ignore": [name for name in ignored if f"re:{name}$" not in named],
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }


def choose_layout(table: Table, params: PyTree, wanted: Layout | None) -> Layout | None:
    """Returns the layout in which to write parameters, None if none is quantised.

    Args:
      table: the family's rules.
      params: the parameters, or their shapes.
      wanted: a layout; compressed-tensors where it can hold all kernels if None.

    Raises:
      ValueError: if the one that is wanted cannot hold a kernel; all of them are named.
    """
    leaves: dict[str, Any] = flax.traverse_util.flatten_dict(params, sep="/")  # pyrefly: ignore
    kernels = {path: leaf for path, leaf in leaves.items() if isinstance(leaf, Quantized)}
    if not kernels:
        return None
    if wanted not in (None, "compressed-tensors", "own"):
        raise ValueError(f"layout must be 'compressed-tensors', 'own' or None, got {wanted!r}")
    problems = []
    for path, leaf in kernels.items():
        problems += [f"{path}: it {why}" for rule in _rules(table, path, leaf)[:1] if (why := obstacle(rule, leaf))]
    if problems and wanted == "compressed-tensors":
        raise ValueError("\n  ".join([f"layout {wanted!r} must be able to hold all kernels, and cannot:", *problems]))
    return wanted or ("own" if problems else "compressed-tensors")


def _rules(table: Table, path: str, leaf: Any) -> list[Rule]:
    found = (table.source_of(slot) for slot in slots_of(table, path, leaf))
    return [each[0] for each in found if each is not None]


def _target(rule: Rule) -> str:
    pieces: Sequence[str] = re.split(r"\{\w+\}", rule.source.removesuffix(".weight"))
    return "re:" + r"\d+".join(re.escape(piece) for piece in pieces) + "$"


def _pattern(hub: Mapping[str, Any]) -> re.Pattern[str] | None:
    given = hub.get(FIELD)
    if given is None:
        return None
    method = given.get("quant_method") if isinstance(given, Mapping) else given
    if method not in _TENSORS:
        raise ValueError(f"config.json: the quant_method {method!r} is not supported; supported: {sorted(_TENSORS)}")
    if given.get("kv_cache_scheme") is not None:
        raise ValueError("config.json: a kv_cache_scheme is not supported")
    return _TENSORS[method]


def _scheme(hub: Mapping[str, Any], base: str) -> Mapping[str, Any]:
    for group in hub[FIELD].get("config_groups", {}).values():
        for target in group.get("targets", ()):
            if target == "Linear" or target == base or (target[:3] == "re:" and re.match(target[3:], base)):
                return group
    raise ValueError(f"config.json: {FIELD} must have a group of which {base} is a target")
