"""Optimizers by parameter path: each parameter has a rule, frozen ones too.

Example::

    rate = schedules.warmup_cosine(3e-4, steps=10_000, warmup_steps=500)
    optimizer = by_path(
        [
            ("embed/.*", FROZEN),
            (".*", adamw(rate, weight_decay=0.1)),
        ],
        clip_norm=1.0,
    )

Learning rates, decay and the rest are part of the optimizer's state (``optax.inject_hyperparams``), so that a study
may change or vmap them without another compilation; :func:`set_hyperparameters` does so between two steps.
"""

import collections
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import optax

from zsml_jax.data.nearest_name import nearest
from zsml_jax.train import parameter_paths
from zsml_jax.train.number_range import require_not_negative, require_positive
from zsml_jax.train.schedules import Schedule, constant
from zsml_jax.typing import Array, PyTree, Scalar

#: A rule's right side for parameters that stay as they are.
FROZEN: Final = "frozen"
#: What is not decayed by default: the paths of biases and of the scales of norms.
NO_DECAY: Final = r".*(bias|scale)"

Rule = tuple[str, optax.GradientTransformation | str]

#: Where an optimizer's state keeps a number, and a learning rate; the rule's position is in the path of a partition.
_NUMBER = re.compile(r"(?:.*?/?inner_states/(?P<rule>\d+)/)?.*?hyperparams/(?P<name>\w+)")
_RATE = re.compile(r"(?:.*?/?inner_states/(?P<rule>\d+)/)?.*?(?P<name>learning_rate)")


class PathOptimizer(NamedTuple):
    """An optax transformation that knows which parameters it leaves alone.

    Attributes:
      init: optax's ``init``.
      update: optax's ``update``.
      frozen: parameters to a tree of booleans, True where a leaf is frozen.
    """

    init: Callable[[PyTree], PyTree]
    update: Callable[..., tuple[PyTree, PyTree]]
    frozen: Callable[[PyTree], PyTree]


class RateState(NamedTuple):
    """The state of a scheduled learning rate.

    Attributes:
      count: steps done.
      learning_rate: the rate of the last step.
    """

    count: Array
    learning_rate: Array


def by_path(rules: Sequence[Rule], *, clip_norm: Scalar | None = None) -> PathOptimizer:
    """Returns the optimizer that treats each parameter by the first rule whose expression matches its whole path.

    Args:
      rules: pairs of a regular expression and an optax transformation, or :data:`FROZEN`.
      clip_norm: the largest norm of all gradients together, those of frozen parameters not counted; traced.

    Returns:
      The optimizer. Its ``init`` raises a ValueError that names every parameter without a rule, and every rule that
      no parameter matches.

    Raises:
      ValueError: if a rule holds something else, or ``clip_norm`` is not positive.
    """
    for pattern, value in rules:
        if isinstance(value, str) and value != FROZEN:
            raise ValueError(f"rules must give an optax transformation or FROZEN; {pattern!r} gives {value!r}")
    if clip_norm is not None:
        require_positive("clip_norm", clip_norm)
    is_frozen = [isinstance(value, str) for _, value in rules]

    def labels(params: PyTree) -> PyTree:
        matched = parameter_paths.match(rules, params, every_rule_matches=True)
        return jax.tree.map(lambda i, leaf: leaf if isinstance(leaf, optax.MaskedNode) else str(i), matched, params)

    def frozen(params: PyTree) -> PyTree:
        return jax.tree.map(lambda label: is_frozen[int(label)], labels(params))

    partition = optax.partition(
        {str(i): optax.set_to_zero() if isinstance(value, str) else value for i, (_, value) in enumerate(rules)}, labels
    )
    if clip_norm is None:
        return PathOptimizer(partition.init, partition.update, frozen)
    clip = optax.inject_hyperparams(optax.clip_by_global_norm, hyperparam_dtype=jnp.float32)(max_norm=clip_norm)
    trained = lambda params: jax.tree.map(lambda is_frozen: not is_frozen, frozen(params))
    both = optax.chain(optax.masked(clip, trained), partition)
    return PathOptimizer(both.init, both.update, frozen)


def adamw(
    rate: Schedule | Scalar,
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    no_decay: str = NO_DECAY,
) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter, 2019): weight decay apart from the moments, times the learning rate.

    Args:
      rate: a schedule of :mod:`.schedules`, or a constant rate.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      weight_decay: share of a parameter that a step at rate 1 takes away.
      no_decay: expression of the whole paths that are not decayed. Paths and not ranks decide, since a bias of scanned
        layers is a matrix.

    Raises:
      ValueError: if a number is negative.
    """
    for name, value in {"b1": b1, "b2": b2, "eps": eps, "weight_decay": weight_decay}.items():
        require_not_negative(name, value)

    kind = rate.kind if isinstance(rate, Schedule) else "constant"

    def make(
        b1: Any, b2: Any, eps: Any, weight_decay: Any, peak: Any, warmup_steps: Any, steps: Any, end: Any
    ) -> optax.GradientTransformation:
        return optax.chain(
            optax.scale_by_adam(b1, b2, eps),
            optax.add_decayed_weights(weight_decay, decay_mask(no_decay)),
            _scale_by_rate(Schedule(kind, peak, warmup_steps, steps, end)),
        )

    return _injected(make, rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)


def sgd(
    rate: Schedule | Scalar, *, momentum: Scalar = 0.0, weight_decay: Scalar = 0.0, no_decay: str = NO_DECAY
) -> optax.GradientTransformation:
    """Gradient descent with heavy-ball momentum; weight decay is added to the gradient, as an L2 penalty is.

    Args:
      rate: a schedule of :mod:`.schedules`, or a constant rate.
      momentum: the share of the earlier direction that is kept.
      weight_decay: factor of the parameter in the gradient.
      no_decay: as in :func:`adamw`.

    Raises:
      ValueError: if a number is negative.
    """
    for name, value in {"momentum": momentum, "weight_decay": weight_decay}.items():
        require_not_negative(name, value)

    kind = rate.kind if isinstance(rate, Schedule) else "constant"

    def make(
        momentum: Any, weight_decay: Any, peak: Any, warmup_steps: Any, steps: Any, end: Any
    ) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(weight_decay, decay_mask(no_decay)),
            optax.trace(momentum),
            _scale_by_rate(Schedule(kind, peak, warmup_steps, steps, end)),
        )

    return _injected(make, rate, momentum=momentum, weight_decay=weight_decay)


def decay_mask(no_decay: str = NO_DECAY) -> Callable[[PyTree], PyTree]:
    """Returns the function from parameters to booleans, False where the whole path matches ``no_decay``.

    >>> decay_mask()({"norm": {"scale": 1.0}, "dense": {"bias": 0.0, "kernel": 1.0}})
    {'dense': {'bias': False, 'kernel': True}, 'norm': {'scale': False}}
    """
    pattern = re.compile(no_decay)
    return lambda params: jax.tree_util.tree_map_with_path(
        lambda path, _: not pattern.fullmatch(parameter_paths.path_of(path)), params
    )


def hyperparameters(opt_state: PyTree) -> dict[str, Array]:
    """Returns the traced numbers in an optimizer's state by name: ``peak``, ``b1``, ``max_norm`` and their kind.

    Where several rules have a number of one name, the names end in ``/`` and the rule's position among the rules.
    """
    return _find(_NUMBER, opt_state)


def learning_rates(opt_state: PyTree) -> dict[str, Array]:
    """Returns the rates of the last step: ``learning_rate``, or one a rule, named as :func:`hyperparameters` does."""
    return _find(_RATE, opt_state)


def set_hyperparameters(opt_state: PyTree, **values: Scalar) -> PyTree:
    """Returns the state with other numbers; a compiled step takes it as it takes the old one.

    Args:
      opt_state: the state.
      **values: numbers by the names of :func:`hyperparameters`; a name without a position means all rules.

    Raises:
      ValueError: if the state has no number of a name.
    """
    known = hyperparameters(opt_state)
    for name in values:
        if not any(name in (other, other.partition("/")[0]) for other in known):
            raise ValueError(f"the optimizer has no {name!r}. {nearest(name, known, 'hyperparameters')}")

    def changed(path: Sequence[Any], leaf: Any) -> Any:
        place = _NUMBER.fullmatch(parameter_paths.path_of(path))
        if place is None:
            return leaf
        value = values.get(f"{place['name']}/{place['rule']}", values.get(place["name"]))
        return leaf if value is None else jnp.asarray(value, leaf.dtype)

    return jax.tree_util.tree_map_with_path(changed, opt_state)


def _injected(
    make: Callable[..., optax.GradientTransformation], rate: Schedule | Scalar, **numbers: Scalar
) -> optax.GradientTransformation:
    """The transformation with its numbers in its state, float32 also where the parameters are not."""
    schedule = rate if isinstance(rate, Schedule) else constant(rate)
    numbers |= {name: value for name, value in schedule._asdict().items() if name != "kind"}
    floats = {name: jnp.asarray(value, jnp.float32) for name, value in numbers.items()}
    return optax.inject_hyperparams(make, hyperparam_dtype=jnp.float32)(**floats)


def _scale_by_rate(schedule: Schedule) -> optax.GradientTransformation:
    def init(params: PyTree) -> RateState:
        return RateState(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32))

    def update(updates: PyTree, state: Any, params: PyTree | None = None) -> tuple[PyTree, RateState]:
        rate = schedule(state.count)
        scaled = jax.tree.map(lambda u: (-rate * u).astype(u.dtype), updates)
        return scaled, RateState(state.count + 1, rate)

    return optax.GradientTransformation(init, update)


def _find(pattern: re.Pattern[str], opt_state: PyTree) -> dict[str, Array]:
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(opt_state):
        if place := pattern.fullmatch(parameter_paths.path_of(path)):
            found.append((place["name"], place["rule"], leaf))
    counts = collections.Counter(name for name, _, _ in found)
    return {name if counts[name] == 1 else f"{name}/{rule}": leaf for name, rule, leaf in found}
