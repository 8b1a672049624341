"""A method with its learning rate as a JSON file: what a search hands to a training run."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from zsml_jax.data.nearest_name import nearest
from zsml_jax.peft.dora import DoRA
from zsml_jax.peft.full import FullFineTuning, LinearProbe
from zsml_jax.peft.ia3 import IA3
from zsml_jax.peft.lora import LoRA
from zsml_jax.peft.method import Method
from zsml_jax.peft.more import MoRe
from zsml_jax.peft.oft import BOFT, OFT
from zsml_jax.peft.vera import VeRA
from zsml_jax.report.records import dumps, write_atomic

_KINDS: dict[str, type[Method]] = {
    kind.__name__: kind for kind in (BOFT, DoRA, FullFineTuning, IA3, LinearProbe, LoRA, MoRe, OFT, VeRA)
}


class MethodFile(NamedTuple):
    """What the file says.

    Attributes:
      method: the config.
      learning_rate: of the adapter.
      found: where it comes from, for readers: scores, parameters, seeds.
    """

    method: Method
    learning_rate: float
    found: dict[str, Any]


def write_method(path: str | os.PathLike, method: Method, learning_rate: float, **found: Any) -> None:
    """Writes a method.

    Args:
      path: the file.
      method: the config.
      learning_rate: of the adapter.
      **found: what JSON can hold, see :class:`MethodFile`.

    Raises:
      ValueError: if the method is not one of the package's own.
    """
    name = type(method).__name__
    if _KINDS.get(name) is not type(method):
        raise ValueError(f"method must be one of {', '.join(_KINDS)}, got {name}")
    fields = dataclasses.asdict(method)
    content = {"method": name, "config": fields, "learning_rate": learning_rate, "found": found}
    write_atomic(Path(path), dumps(content, indent=2) + "\n")


def read_method(path: str | os.PathLike) -> MethodFile:
    """Reads a method.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is not one of :func:`write_method`, or the config refuses what it says.
    """
    try:
        content = json.loads(Path(path).read_text())
        name, fields, learning_rate = content["method"], dict(content["config"]), float(content["learning_rate"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} must hold a method, its config and its learning_rate as JSON") from error
    if name not in _KINDS:
        raise ValueError(f"{path} has an unknown method {name!r}. {nearest(name, _KINDS, 'methods')}")
    kind = _KINDS[name]
    if unknown := sorted(set(fields) - {field.name for field in dataclasses.fields(kind)}):
        raise ValueError(f"{path} has fields that {name} does not know: {unknown}")
    config: dict[str, Any] = {name: _tuples(value) for name, value in fields.items()}
    return MethodFile(kind(**config), learning_rate, dict(content.get("found", {})))


def _tuples(value: Any) -> Any:
    """The value with tuples for the lists that JSON has made of them."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
