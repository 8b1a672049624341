"""Groups of modules: which kernels a compression touches, defined once for every family of models.

In every family a kernel belongs to attention (queries, keys, values and output, of the encoder, the decoder and between
them), to the feed-forward layers, to a Mamba's mixers, or to the rest (a pooler, the transform before a head for masked
words, the widening of factorised embeddings); what scores the words of a vocabulary is the head. The groups of "The
Cost of Compression" (Namburi et al., 2023) are not the same in all families; they are the preset ``"paper"``.

>>> from zsml_jax.models.initialise import initialise
>>> import jax
>>> config = {"model_type": "llama", "vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 2,
...           "num_attention_heads": 2, "intermediate_size": 12, "max_position_embeddings": 8}
>>> tiny = initialise(config, key=jax.random.key(0))
>>> groups(tiny)["feed_forward"]
('layers/mlp/down/kernel', 'layers/mlp/gate/kernel', 'layers/mlp/up/kernel')
>>> weights(tiny.params, groups(tiny)["attention"])
512
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import flax.traverse_util
import jax.numpy as jnp

from zsml_jax import transform
from zsml_jax.evaluate.validation import is_traced
from zsml_jax.models.pretrained import Pretrained
from zsml_jax.transform.patterns import Patterns
from zsml_jax.typing import Params

#: By group, the paths of its kernels in all families.
_ROLES = {
    "attention": r"(.*/)?(attention|cross)/(query|key|value|out)/kernel",
    "feed_forward": r"(.*/)?mlp/(up|gate|down)/kernel",
    "mixer": r"(.*/)?mixer/(in_proj|x_proj|dt_proj|out_proj)/kernel",
    "head": r"head/kernel|head/decoder/kernel",
    "other": r"(.*/)?(pooler|projection|widen|head/dense)/kernel",
}
_ATTENTION_OUT = re.compile(r"(.*/)?(attention|cross)/out/kernel")
#: Where the paper counts the attention's output as feed-forward.
_OUT_IS_FEED_FORWARD = ("bert", "roberta", "xlm-roberta")


@dataclasses.dataclass(frozen=True)
class Groups:
    """The kernels of a model by group, as paths in its parameters; ``groups["attention"]`` refuses what is not there.

    Attributes:
      attention: queries, keys, values and outputs.
      feed_forward: the layers of the MLPs.
      mixer: the projections of a Mamba's mixers.
      other: what is in no layer.
      head: what scores words, where it has a kernel of its own; a head that is tied to the word embedding has none
        (:func:`zsml_jax.models.untied.untie` gives it one).
    """

    attention: tuple[str, ...]
    feed_forward: tuple[str, ...]
    mixer: tuple[str, ...]
    other: tuple[str, ...]
    head: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """All kernels but the head's."""
        return (*self.attention, *self.feed_forward, *self.mixer, *self.other)

    @property
    def all_and_head(self) -> tuple[str, ...]:
        """All kernels, the head's as well."""
        return (*self.all, *self.head)

    def __getitem__(self, name: str) -> tuple[str, ...]:
        """Returns the paths of a group.

        Raises:
          ValueError: if there is no such group, or this model has no kernel in it.
        """
        names = [*(field.name for field in dataclasses.fields(self)), "all", "all_and_head"]
        if name not in names:
            raise ValueError(f"group must be one of {names}, got {name!r}")
        if not (paths := getattr(self, name)):
            filled = [each for each in names if getattr(self, each)]
            raise ValueError(f"group {name!r} has no kernel in this model; those that have are {filled}")
        return paths


def groups(pretrained: Pretrained, *, preset: Literal["uniform", "paper"] = "uniform") -> Groups:
    """Returns the groups of a model.

    Args:
      pretrained: the model; its parameters may be shapes, and quantised.
      preset: ``"uniform"`` for one definition in all families. ``"paper"`` for that of Namburi et al. (2023), which
        counts the attention's output as feed-forward in BERT and RoBERTa, and elsewhere as attention. Their pruning of
        all modules is of :attr:`Groups.all`, their quantisation of all is of :attr:`Groups.all_and_head`.

    Returns:
      The groups.

    Raises:
      ValueError: if the preset is unknown, or the model has no kernel in any group.
    """
    if preset not in ("uniform", "paper"):
        raise ValueError(f"preset must be 'uniform' or 'paper', got {preset!r}")
    paths = sorted(flax.traverse_util.flatten_dict(pretrained.params, sep="/"))
    found = {role: tuple(p for p in paths if re.fullmatch(pattern, p)) for role, pattern in _ROLES.items()}
    if not any(found.values()):
        raise ValueError(
            f"pretrained must be a model with attention, an MLP or mixers, got a {pretrained.model_type!r}"
        )
    if preset == "paper" and pretrained.model_type in _OUT_IS_FEED_FORWARD:
        moved = tuple(path for path in found["attention"] if _ATTENTION_OUT.fullmatch(path))
        found["attention"] = tuple(path for path in found["attention"] if path not in moved)
        found["feed_forward"] = tuple(sorted((*found["feed_forward"], *moved)))
    return Groups(**found)


def weights(params: Params, paths: Sequence[str]) -> int:
    """Returns the number of weights at some paths."""
    return sum(math.prod(leaf.shape) for leaf in transform.select(params, list(paths)).values())


def equal_budget(params: Params, chosen: Mapping[str, Sequence[str]], removed: int) -> dict[str, float]:
    """Returns for each group the sparsity at which so many of its weights are removed.

    Groups hold very different numbers of weights, so that equal percentages are unequal cuts.

    >>> equal_budget({"a": {"kernel": jnp.ones((2, 4))}, "b": {"kernel": jnp.ones((4, 4))}},
    ...              {"first": ["a/kernel"], "second": ["b/kernel"]}, removed=4)
    {'first': 0.5, 'second': 0.25}

    Args:
      params: the parameters.
      chosen: by name, paths of a group.
      removed: weights to remove.

    Raises:
      ValueError: if a group has no more weights than are to be removed.
    """
    sizes = {name: weights(params, paths) for name, paths in chosen.items()}
    if small := [name for name, size in sizes.items() if not 0 <= removed < size]:
        raise ValueError(f"removed must be at least 0 and less than the weights of {small}, {sizes}; got {removed}")
    return {name: removed / size for name, size in sizes.items()}


def kernels(params: Params, paths: Patterns) -> dict[str, Any]:
    """Returns the kernels at some paths, checked to be finite matrices or stacks of them.

    Args:
      params: the parameters.
      paths: paths or patterns, such as a group.

    Raises:
      ValueError: if a path matches nothing, is no kernel of a dense layer, or has entries that are not finite.
    """
    chosen = transform.select(params, paths)
    for path, kernel in chosen.items():
        if not path.endswith("kernel") or getattr(kernel, "ndim", 0) not in (2, 3) or not hasattr(kernel, "astype"):
            raise ValueError(f"groups must be kernels of dense layers, arrays of 2 or 3 axes; {path} is not one")
        if not is_traced(kernel) and not bool(jnp.isfinite(kernel).all()):
            raise ValueError(f"params must be finite, but {path} has nan or infinite entries")
    return chosen
