"""The methods that the MoRe experiment compares, at one budget of trained parameters."""

from typing import Any, NamedTuple

import jax

from experiments.more_config import MethodName, Tuning
from zsml_jax import peft
from zsml_jax.models import Pretrained
from zsml_jax.train import optimizer, schedules
from zsml_jax.typing import PyTree, Scalar


class Contender(NamedTuple):
    """A method as it takes part.

    Attributes:
      method: its config.
      parameters: how many numbers it trains, the head not counted.
      head_parameters: those of the head.
    """

    method: peft.Method
    parameters: int
    head_parameters: int


def contenders(config: Tuning, pretrained: Pretrained, head: PyTree = None) -> dict[MethodName, Contender]:
    """Returns the methods by name, each with the largest rank that MoRe's number of parameters allows.

    Args:
      config: the experiment's.
      pretrained: the model.
      head: what is trained along.

    Raises:
      ValueError: if a method does not fit the model, or has more parameters than the budget at rank 1 already.
    """
    more = peft.MoRe(targets=config.targets, blocks=config.blocks, block_rank=config.block_rank)
    budget = trained_parameters(pretrained, more)
    made: dict[MethodName, Any] = {
        "MoRe": lambda: more,
        "LoRA": lambda: _largest(peft.LoRA, config, pretrained, budget),
        "DoRA": lambda: _largest(peft.DoRA, config, pretrained, budget),
        "full": peft.FullFineTuning,
        "probe": peft.LinearProbe,
    }
    in_head = sum(leaf.size for leaf in jax.tree.leaves(head))
    methods = {name: made[name]() for name in config.methods}
    return {name: Contender(m, trained_parameters(pretrained, m), in_head) for name, m in methods.items()}


def trained_parameters(pretrained: Pretrained, method: peft.Method) -> int:
    """Returns how many parameters a method trains; no array is made."""
    return jax.eval_shape(lambda: peft.adapt(pretrained, method, key=jax.random.key(0))).parameters


def describe(method: peft.Method) -> str:
    """Returns a method's sizes in words."""
    match method:
        case peft.MoRe():
            return f"{method.blocks} blocks of rank {method.block_rank}"
        case peft.LoRA():  # DoRA is one
            return f"rank {method.rank}"
        case peft.FullFineTuning():
            return "all of the model"
        case _:
            return "the head only"


def rules(config: Tuning, adapter: peft.Adapter, rate: Scalar, *, head_factor: float = 1.0) -> list[optimizer.Rule]:
    """Returns the optimizer's rules for adapter and base: AdamW, warm-up and half a cosine; the base is frozen."""

    def adamw(peak: Scalar) -> Any:
        warmup = round(config.warmup_share * config.steps)
        cosine = schedules.warmup_cosine(peak, steps=config.steps, warmup_steps=warmup)
        return optimizer.adamw(cosine, weight_decay=config.weight_decay)

    factor = config.full_factor if isinstance(adapter.method, peft.FullFineTuning) else 1.0
    return peft.optimizer_rules(adapter, adamw(factor * rate), head=adamw(head_factor * rate))


def _largest(kind: type[peft.LoRA], config: Tuning, pretrained: Pretrained, budget: int) -> peft.LoRA:
    """The method with the largest rank within the budget; its parameters grow by the same number with each rank."""
    # The factor is alpha over the rank: twice the rank is what most published recipes have.
    of = lambda rank: kind(targets=config.targets, rank=rank, alpha=2 * rank)
    first, second = (trained_parameters(pretrained, of(rank)) for rank in (1, 2))
    rank = 1 + (budget - first) // (second - first)
    if rank < 1:
        raise ValueError(f"block_rank must give {kind.__name__} of rank 1 its {first:,} parameters, got {budget:,}")
    return of(rank)
