"""How the training loop is told what of an adapted model to train."""

import re
from collections.abc import Sequence

import jax
import optax
from jax.sharding import PartitionSpec

from zsml_jax.peft.adapter import Adapter
from zsml_jax.train.optimizer import FROZEN, Rule
from zsml_jax.train.parameter_paths import paths
from zsml_jax.train.sharding import ShardingRule

_TRAINED = ("arrays", "weights", "head")


def optimizer_rules(
    adapter: Adapter,
    transformation: optax.GradientTransformation,
    *,
    head: optax.GradientTransformation | None = None,
    weights: optax.GradientTransformation | None = None,
) -> list[Rule]:
    """Returns rules for :func:`zsml_jax.train.optimizer.by_path` that train an adapter and nothing else.

    They are for the tree ``{"adapter": adapter, "base": pretrained.params}``, and cover every parameter of it; what is
    not trained is frozen by name::

        run = peft.apply_fn(pretrained.apply)

        def loss_fn(params, batch, key):
            logits = run(params["adapter"], params["base"], batch["tokens"], key=key)
            return language_model_loss(logits, batch), {}

        rules = peft.optimizer_rules(adapter, optimizer.adamw(1e-3))
        fitted = train.fit(loss_fn, {"adapter": adapter, "base": pretrained.params}, batches,
                           optimizer=optimizer.by_path(rules), steps=1_000, key=key)
        fitted.params["adapter"]

    Args:
      adapter: the adapter.
      transformation: what moves its arrays, and all else that is trained and has no transformation of its own.
      head: what moves the head.
      weights: what moves the parameters of the model that are trained in full.

    Raises:
      ValueError: if the adapter has nothing to train.
    """
    if not jax.tree.leaves([getattr(adapter, name) for name in _TRAINED]):
        raise ValueError("adapter must have something to train: adapted layers, parameters in full, or a head")
    own = {"head": head, "weights": weights}
    rules: list[Rule] = []
    for name in _TRAINED:
        if jax.tree.leaves(getattr(adapter, name)):
            rules.append((f"adapter/{name}(/.*)?", own.get(name) or transformation))
    frozen = sorted({path.split("/")[0] for path in paths(adapter)} - set(_TRAINED))
    rules += [(f"adapter/{re.escape(name)}/.*", FROZEN) for name in frozen]
    return [*rules, ("base/.*", FROZEN)]


def sharding_rules(rules: Sequence[ShardingRule]) -> list[ShardingRule]:
    """Returns how the tree of :func:`optimizer_rules` lies on a mesh: adapters are small, and copied to every device.

    Args:
      rules: those of the model, such as ``sharding_tables.rules_for(pretrained.model_type)``. Parameters that the
        adapter trains in full lie as the model's do.
    """
    of_model: list[ShardingRule] = [(f"(base|adapter/weights)/({pattern})", spec) for pattern, spec in rules]
    return [*of_model, ("adapter/.*", PartitionSpec())]
