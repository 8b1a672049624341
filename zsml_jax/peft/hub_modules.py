"""What the hub calls the dense layers of a model, by the tables with which models are loaded and saved."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from zsml_jax.models.pretrained import FAMILIES, Pretrained
from zsml_jax.models.rules import Rule, Table, slots_of
from zsml_jax.peft.adapter import flatten
from zsml_jax.typing import AnyArray


class Place(NamedTuple):
    """A layer of ours.

    Attributes:
      path: its path.
      row: its number in a scanned stack; None outside of one.
      shape: of its kernel, ``(n, m)``.
    """

    path: str
    row: int | None
    shape: tuple[int, ...]


class HubModule(NamedTuple):
    """A module of a torch model.

    Attributes:
      rule: how its weight holds kernels.
      places: the layers whose kernels it holds, several where queries, keys and values are one.
    """

    rule: Rule
    places: tuple[Place, ...]

    @property
    def is_in_out(self) -> bool:
        """Whether its weight is ``(n, m)``, as GPT-2's, and not ``(m, n)``."""
        inputs = sum(place.shape[1] for place in self.places) + 1
        return self.rule.tensor([np.zeros((inputs, place.shape[1])) for place in self.places]).shape[0] == inputs

    def joined(self, kernels: Sequence[Float[np.ndarray, "r _"]]) -> Float[np.ndarray, "m r"]:
        """Returns what the module holds as ``(m, r)`` of a matrix with the outputs of each layer."""
        tensor = self.rule.tensor(kernels)
        return tensor.T if self.is_in_out else tensor

    def split(self, tensor: Float[AnyArray, "m r"]) -> tuple[Float[np.ndarray, "r _"], ...]:
        """Returns the inverse of :meth:`joined`."""
        return tuple(map(np.asarray, self.rule.parts(tensor.T if self.is_in_out else tensor)))


def table_of(pretrained: Pretrained) -> Table:
    """Returns the rules of a model's family.

    Raises:
      ValueError: if the model's type is unknown.
    """
    if pretrained.model_type not in FAMILIES:
        raise ValueError(f"pretrained must have a model_type of {sorted(FAMILIES)}, got {pretrained.model_type!r}")
    return FAMILIES[pretrained.model_type].rules(pretrained.config)


def hub_modules(pretrained: Pretrained) -> dict[str, HubModule]:
    """Returns the modules by their names in the hub's files.

    Args:
      pretrained: a model of a known type.

    Raises:
      ValueError: if the model's type is unknown.
    """
    table = table_of(pretrained)
    places = {}
    for path, leaf in flatten(pretrained.params).items():
        if path.endswith("/kernel") and len(leaf.shape) >= 2:
            slots = slots_of(table, path, leaf)
            is_stacked = slots != (path,)
            layer = path.removesuffix("/kernel")
            for i, slot in enumerate(slots):
                places[slot] = Place(layer, i if is_stacked else None, tuple(leaf.shape[is_stacked:]))
    modules = {}
    for slot in places:
        found = table.source_of(slot)
        if found is not None and len(places[slot].shape) == 2:
            rule, name, parts = found
            modules[name.removesuffix(".weight")] = HubModule(rule, tuple(places[part] for part in parts))
    return modules
