"""Adapters in files: a folder with ``adapter_config.json`` and ``adapter_model.safetensors``, without the base."""

import dataclasses
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from zsml_jax.models.json_file import read_json, write_json
from zsml_jax.models.pretrained import Pretrained
from zsml_jax.models.tensors import open_safetensors
from zsml_jax.models.whole_folder import check_replaceable, whole_folder
from zsml_jax.peft.adapter import Adapter, adapt
from zsml_jax.peft.method import Method
from zsml_jax.peft.more import DensityWarning
from zsml_jax.peft.weights_hash import weights_hash
from zsml_jax.train.parameter_paths import path_of
from zsml_jax.typing import PyTree

CONFIG_FILE, TENSOR_FILE = "adapter_config.json", "adapter_model.safetensors"
_VERSION = 1
_TREES = ("arrays", "weights", "shared")


def save(adapter: Adapter, folder: str | Path, pretrained: Pretrained) -> None:
    """Writes an adapter, and of its base only the type and a hash of the weights.

    The folder is replaced as a whole, see :func:`~zsml_jax.models.whole_folder.whole_folder`: who is killed half-way
    leaves the old one. Numbers keep their bits and their dtype.

    Args:
      adapter: one adapter; of a stack take one with :func:`~zsml_jax.peft.pick`.
      folder: a new folder, or one with an adapter, which is replaced.
      pretrained: the model that was adapted.

    Raises:
      ValueError: if the adapter does not fit the model, holds infinite or NaN numbers, or its method cannot be found
        again by its name.
      FileExistsError: if the folder holds something else than an adapter.
    """
    check_replaceable(folder, marker=CONFIG_FILE, kind="an adapter")
    method = type(adapter.method)
    if _methods().get(method.__name__) is not method:
        raise ValueError(f"adapter must be of a method whose name is its own, got {method!r}")
    tensors = {**_named(adapter), **_named_head(adapter.head)}
    expected = _abstract(pretrained, adapter.method)
    shapes = {name: tuple(leaf.shape) for name, leaf in _named(expected).items()}
    _raise_if(_differences({name: leaf for name, leaf in tensors.items() if name[:5] != "head/"}, shapes), "adapter")
    if expected.layers != adapter.layers:
        raise ValueError("adapter must adapt the layers that its config names in pretrained, got others")
    numbers = {name: np.asarray(value) for name, value in adapter.numbers.items()}
    if several := [name for name, value in numbers.items() if value.ndim]:
        raise ValueError(f"adapter must be one, got a stack of several numbers {several}; take one with pick")
    held = {name: np.asarray(leaf) for name, leaf in jax.device_get(tensors).items()}
    _require_finite({**held, **numbers}, "adapter")
    config = {
        "version": _VERSION,
        "method": method.__name__,
        "config": _structure(adapter.method),
        "numbers": {name: float(str(value)) for name, value in numbers.items()},
        "base": {
            "model_type": pretrained.model_type,
            "name": json.loads(pretrained.hub_config).get("_name_or_path"),
            "weights": weights_hash(pretrained.params),
        },
    }
    write_adapter(folder, config, held)


def load(folder: str | Path, pretrained: Pretrained, *, head: PyTree = None, any_base: bool = False) -> Adapter:
    """Reads an adapter that :func:`save` wrote.

    Args:
      folder: the folder.
      pretrained: the model that was adapted.
      head: a pytree with the structure of the saved head; needed unless that was a nested dict.
      any_base: whether other weights than those that were adapted are taken, such as the original ones of a base that
        was quantised for training.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if the base is another, or a tensor is missing, unexpected, misshapen or not finite; all are listed.
    """
    path = Path(folder).expanduser()
    config = read_json(path / CONFIG_FILE)
    if not isinstance(config, Mapping) or config.get("version") != _VERSION:
        theirs = isinstance(config, Mapping) and "peft_type" in config
        hint = "; it is of the peft library, which import_peft reads" if theirs else ""
        raise ValueError(f"{path / CONFIG_FILE} must be of version {_VERSION} of this package{hint}")
    try:
        _check_base(config["base"], pretrained, any_base)
        numbers = {name: jnp.asarray(value, jnp.float32) for name, value in config["numbers"].items()}
        if config["method"] not in _methods():
            raise ValueError(f"method must be one of {sorted(_methods())}, got {config['method']!r}")
        method = _methods()[config["method"]](**config["config"])
    except KeyError as error:
        raise ValueError(f"{path / CONFIG_FILE}: the field {error} is missing") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path / CONFIG_FILE}: {error}") from error
    like = _abstract(pretrained, method)
    if not (path / TENSOR_FILE).is_file():
        raise FileNotFoundError(f"{path} has no {TENSOR_FILE}")
    tensors = open_safetensors(path / TENSOR_FILE)
    shapes = {name: tuple(leaf.shape) for name, leaf in _named(like).items()}
    of_head = [name for name in tensors if name.startswith("head/")]
    wanted_head = of_head if head is None else list(_named_head(head))
    problems = _differences({name: tensor for name, tensor in tensors.items() if name not in of_head}, shapes)
    problems += [f"missing: {name}" for name in wanted_head if name not in tensors]
    problems += [f"unexpected: {name}" for name in of_head if name not in wanted_head]
    _raise_if(problems, str(path / TENSOR_FILE))
    values = {name: tensor.read() for name, tensor in tensors.items()}
    _require_finite(values, str(path / TENSOR_FILE))
    place = lambda name: jax.tree_util.tree_map_with_path(
        lambda keys, _: jnp.asarray(values[f"{name}/{path_of(keys)}"]), getattr(like, name)
    )
    return dataclasses.replace(
        like,
        **{name: place(name) for name in _TREES},
        head=_head(head, {name.removeprefix("head/"): values[name] for name in of_head}),
        numbers=numbers,
    )


def write_adapter(folder: str | Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a folder with an adapter, as a whole.

    Args:
      folder: what is made or replaced.
      config: the fields of ``adapter_config.json``.
      tensors: the arrays by name.

    Raises:
      FileExistsError: if the folder holds something else than an adapter.
    """
    check_replaceable(folder, marker=CONFIG_FILE, kind="an adapter")
    with whole_folder(folder) as fresh:
        write_json(fresh / CONFIG_FILE, config)
        contiguous = {name: np.ascontiguousarray(tensor).reshape(tensor.shape) for name, tensor in tensors.items()}
        safetensors.numpy.save_file(contiguous, fresh / TENSOR_FILE, {"format": "pt"})
        shutil.copymode(fresh / CONFIG_FILE, fresh / TENSOR_FILE)  # the library writes files for the owner alone


def _structure(method: Method) -> dict[str, Any]:
    """The fields of a config that are not traced."""
    names = [field.name for field in dataclasses.fields(method) if field.name not in method.traced]
    fields = {name: getattr(method, name) for name in names}
    return fields | {"ranks": dict(fields["ranks"])} if "ranks" in fields else fields


def _abstract(pretrained: Pretrained, method: Method) -> Adapter:
    """The adapter that a config gives, as shapes; what it warned of when it was made is not said again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DensityWarning)
        return jax.eval_shape(lambda base: adapt(base, method, key=jax.random.key(0)), pretrained)


def _methods() -> dict[str, type[Method]]:
    def below(method: type[Method]) -> Iterator[type[Method]]:
        yield method
        for each in method.__subclasses__():
            yield from below(each)

    return {method.__name__: method for method in reversed(list(below(Method)))}


def _named(adapter: Adapter) -> dict[str, Any]:
    trees = {name: getattr(adapter, name) for name in _TREES}
    return {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(trees)}


def _named_head(head: PyTree) -> dict[str, Any]:
    return {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path({"head": head})}


def _head(like: PyTree, values: Mapping[str, np.ndarray]) -> PyTree:
    if like is not None:
        return jax.tree_util.tree_map_with_path(lambda keys, _: jnp.asarray(values[path_of(keys)]), like)
    head: dict[str, Any] = {}
    for path, value in values.items():
        *names, last = path.split("/")
        node = head
        for name in names:
            node = node.setdefault(name, {})
        node[last] = jnp.asarray(value)
    return head or None


def _differences(found: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    problems = [f"missing: {name} {shape}" for name, shape in expected.items() if name not in found]
    for name, leaf in found.items():
        shape = tuple(leaf.shape)
        if name not in expected:
            problems.append(f"unexpected: {name} {shape}")
        elif shape != expected[name]:
            problems.append(f"misshapen: {name} is {shape}, must be {expected[name]}")
    return problems


def _check_base(recorded: Mapping[str, Any], pretrained: Pretrained, any_base: bool) -> None:
    if recorded["model_type"] != pretrained.model_type:
        raise ValueError(f"pretrained must be a {recorded['model_type']}, as was adapted, got {pretrained.model_type}")
    if not any_base and (own := weights_hash(pretrained.params)) != recorded["weights"]:
        raise ValueError(
            f"pretrained must have the weights that were adapted, {recorded['weights']} of {recorded['name']!r}, got "
            f"{own}; any_base=True takes others"
        )


def _require_finite(values: Mapping[str, np.ndarray], source: str) -> None:
    bad = [name for name, value in values.items() if not np.isfinite(np.asarray(value, np.float32)).all()]
    _raise_if([f"not finite: {name}" for name in bad], source)


def _raise_if(problems: list[str], source: str) -> None:
    if problems:
        raise ValueError("\n  ".join([f"{source} does not fit; {len(problems)} problems:", *problems]))
