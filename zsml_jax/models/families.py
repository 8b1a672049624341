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
      table: the rules of its checkpoints; a function of the config where they depend on it.
      write: ``config -> fields of config.json``; None for a family whose file is written as it was read.
      architecture: the class that ``architectures`` in config.json names for a model that was made here.
      inputs: ``config -> keyword arguments`` (abstract) that the module's ``init`` needs beside tokens; None for none.
    """

    module: Callable[[Any], nn.Module]
    config: Callable[[Mapping[str, Any], Collection[str], str], Any]
    table: Table | Callable[[Any], Table]
    write: Callable[[Any], dict[str, Any]] | None = None
    architecture: str = ""
    inputs: Callable[[Any], dict[str, Any]] | None = None

    def rules(self, config: Any) -> Table:
        """Returns the rules for a configuration."""
        return self.table if isinstance(self.table, Table) else self.table(config)
