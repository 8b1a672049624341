"""What the loader must know of a family of models."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from zsml_jax.models.rules import Table
from zsml_jax.typing import PyTree


class Family(NamedTuple):
    """How a ``model_type`` of the hub becomes a module with parameters.

    Attributes:
      module: the module's class; its only field is the config.
      config: ``(config.json, names of the tensors, dtype) -> config``; raises KeyError for an absent field and
        ValueError for a value that is not supported.
      table: the rules of its checkpoints; a function of the config where they depend on it.
      write: ``config -> fields of config.json``, from which ``config`` reads the same.
      architecture: the class that ``architectures`` in config.json names for a model that was made here, where
        ``write`` names none.
      inputs: ``config -> keyword arguments`` (abstract) that the module's ``init`` needs beside tokens; None for none.
    """

    module: Callable[[Any], nn.Module]
    config: Callable[[Mapping[str, Any], Collection[str], str], Any]
    table: Table | Callable[[Any], Table]
    write: Callable[[Any], dict[str, Any]]
    architecture: str = ""
    inputs: Callable[[Any], dict[str, Any]] | None = None

    def rules(self, config: Any) -> Table:
        """Returns the rules for a configuration."""
        return self.table if isinstance(self.table, Table) else self.table(config)

    def abstract_params(self, config: Any) -> PyTree:
        """Returns the shapes of the module's parameters for a configuration; nothing is computed."""
        tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)
        inputs = {} if self.inputs is None else self.inputs(config)
        return jax.eval_shape(self.module(config).init, jax.random.key(0), tokens, **inputs)["params"]
