"""What the loader must know of a family of models."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import flax.linen as nn

from zsml_jax.models.rules import Table


class Family(NamedTuple):
    """How a ``model_type`` of the hub becomes a module with parameters.

    Attributes:
      module: the module's class; its only field is the config.
      config: ``(config.json, names of the tensors, dtype) -> config``; raises KeyError for an absent field and
        ValueError for a value that is not supported.
      table: the rules of its checkpoints.
    """

    module: Callable[[Any], nn.Module]
    config: Callable[[Mapping[str, Any], Collection[str], str], Any]
    table: Table
