r"""The points of a study: hyperparameters on a grid or drawn at random, and a small algebra over them.

A point keeps its *traced* fields, numbers that one compiled program takes as arguments, apart from its *static* ones,
which decide the program (a width, an activation's name). :func:`grid` and :func:`sample` make points;
:func:`product`, :func:`zip_` and :func:`chain` put them together. With :math:`1` the single point without fields,

.. math:: (ab)c = a(bc), \quad 1a = a1 = a, \quad (a + b)c = ac + bc,

where the product is :func:`product` and the sum is :func:`chain`; both, and :func:`zip_`, keep the order of points.
"""

import dataclasses
import itertools
import math
import numbers
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zsml_jax.typing import Array, Key


class Point(NamedTuple):
    """One setting of the hyperparameters.

    Attributes:
      traced: numbers, by name.
      static: hashable values, by name.
    """

    traced: Mapping[str, float | int | bool]
    static: Mapping[str, Any]

    @property
    def fields(self) -> dict[str, Any]:
        """All fields, static ones first."""
        return {**self.static, **self.traced}


@dataclasses.dataclass(frozen=True)
class Points:
    """Points in order, all with the same fields.

    Attributes:
      rows: the points.

    Raises:
      ValueError: if there is no point, fields differ, a traced value is no number, or a static one cannot be hashed.
    """

    rows: tuple[Point, ...]

    def __post_init__(self):
        if not self.rows:
            raise ValueError("points must hold at least one point, got none")
        first = self.rows[0]
        for i, point in enumerate(self.rows):
            if point.traced.keys() != first.traced.keys() or point.static.keys() != first.static.keys():
                raise ValueError(
                    f"all points must have the same fields: point 0 has {_names(first)}, point {i} has {_names(point)}"
                )
            _check(point)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Point]:
        return iter(self.rows)

    def __getitem__(self, i: int) -> Point:
        return self.rows[i]


@dataclasses.dataclass(frozen=True)
class Distribution:
    """How a field is drawn.

    Attributes:
      draw: ``(key, n) -> n values``.
    """

    draw: Callable[[Key, int], Sequence[Any]]


def grid(*, static: Sequence[str] = (), **values: Sequence[Any]) -> Points:
    """Returns every combination of the fields' values, the last field fastest.

    Args:
      static: the names of the fields that are static.
      **values: the values of each field.

    Returns:
      As many points as the product of the numbers of values.

    Raises:
      ValueError: if a field has no value, ``static`` names no field, or a value is of the wrong kind.

    >>> [p.traced for p in grid(learning_rate=[0.1, 0.2], decay=[0, 1])][1]
    {'learning_rate': 0.1, 'decay': 1}
    """
    _check_static(static, values)
    for name, choices in values.items():
        if len(choices) == 0:
            raise ValueError(f"{name} must have at least one value, got none")
    return _rows([dict(zip(values, row, strict=True)) for row in itertools.product(*values.values())], static)


def sample(key: Key, n: int, *, static: Sequence[str] = (), **distributions: Distribution) -> Points:
    """Draws n points, each field on its own.

    The values of a field depend on the key and its name only, so that adding a field leaves the others as they were.

    Args:
      key: the random key.
      n: how many points.
      static: the names of the fields that are static.
      **distributions: of each field, such as ``learning_rate=log_uniform(1e-4, 1e-1)``.

    Returns:
      n points.

    Raises:
      ValueError: if n is not positive, ``static`` names no field, or a value is of the wrong kind.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    _check_static(static, distributions)
    columns = [
        distribution.draw(jax.random.fold_in(key, zlib.crc32(name.encode())), n)
        for name, distribution in distributions.items()
    ]
    return _rows([dict(zip(distributions, row, strict=True)) for row in zip(*columns, strict=True)], static)


def uniform(low: float | int, high: float | int) -> Distribution:
    """Draws from ``[low, high)``; raises ValueError unless ``low < high``, both finite."""
    _check_order(low, high)
    return _floats(lambda key, n: jax.random.uniform(key, (n,), minval=low, maxval=high))


def log_uniform(low: float | int, high: float | int) -> Distribution:
    """Draws numbers whose logarithm is uniform; raises ValueError unless ``0 < low < high``, both finite."""
    _check_order(low, high)
    if low <= 0:
        raise ValueError(f"low must be positive, got {low}")
    width = math.log(high / low)
    return _floats(lambda key, n: jnp.clip(low * jnp.exp(jax.random.uniform(key, (n,)) * width), low, high))


def normal(mean: float | int, scale: float | int) -> Distribution:
    """Draws from a Gaussian; raises ValueError unless the standard deviation ``scale`` is positive."""
    if not (scale > 0 and math.isfinite(scale) and math.isfinite(mean)):
        raise ValueError(f"mean must be finite and scale positive, got {mean} and {scale}")
    return _floats(lambda key, n: mean + scale * jax.random.normal(key, (n,)))


def choice(values: Sequence[Any]) -> Distribution:
    """Draws one of the values, all alike, with replacement; raises ValueError if there are none."""
    options = tuple(values)
    if not options:
        raise ValueError("values must hold at least one value, got none")
    return Distribution(lambda key, n: [options[i] for i in np.asarray(jax.random.randint(key, (n,), 0, len(options)))])


def product(*factors: Points) -> Points:
    """Returns every combination of points, the last factor fastest; without factors, the point without fields.

    Raises:
      ValueError: if two factors have a field of the same name.

    >>> len(product(grid(a=[1, 2]), grid(b=[1, 2, 3])))
    6
    """
    return Points(tuple(_merged(row) for row in itertools.product(*factors)))


def zip_(*columns: Points) -> Points:
    """Joins the first points of all columns, the second ones, and so on.

    Raises:
      ValueError: if there are no columns, lengths differ, or two columns have a field of the same name.

    >>> [p.traced for p in zip_(grid(a=[1, 2]), grid(b=[3, 4]))]
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 4}]
    """
    if len({len(column) for column in columns}) != 1:
        raise ValueError(f"columns must be of one length, got the lengths {[len(column) for column in columns]}")
    return Points(tuple(_merged(row) for row in zip(*columns, strict=True)))


def chain(*parts: Points) -> Points:
    """Returns the points of one part after the other.

    Raises:
      ValueError: if there are no parts, or their fields differ.

    >>> [p.traced["a"] for p in chain(grid(a=[1, 2]), grid(a=[5]))]
    [1, 2, 5]
    """
    return Points(tuple(itertools.chain(*parts)))


def _merged(row: Sequence[Point]) -> Point:
    merged = Point({}, {})
    for point in row:
        if common := sorted(merged.fields.keys() & point.fields.keys()):
            raise ValueError(f"points that are joined must have different fields; both have {common}")
        merged = Point({**merged.traced, **point.traced}, {**merged.static, **point.static})
    return merged


def _rows(rows: Sequence[Mapping[str, Any]], static: Sequence[str]) -> Points:
    split = lambda row, wanted: {name: value for name, value in row.items() if (name in static) == wanted}
    return Points(tuple(Point(split(row, False), split(row, True)) for row in rows))


def _check(point: Point) -> None:
    if common := sorted(point.traced.keys() & point.static.keys()):
        raise ValueError(f"a field must be traced or static; these are both: {common}")
    for name, value in point.traced.items():
        if not isinstance(value, numbers.Real | np.bool_):
            raise ValueError(f"{name} must be a number, got {value!r}; name it in static if it decides the program")
    for name, value in point.static.items():
        try:
            hash(value)
        except TypeError as error:
            raise ValueError(f"{name} is static and must be hashable, got {value!r}") from error


def _check_static(static: Sequence[str], fields: Mapping[str, Any]) -> None:
    if isinstance(static, str):
        raise ValueError(f"static must be a sequence of names, got the string {static!r}")
    if unknown := sorted(set(static) - fields.keys()):
        raise ValueError(f"static must name fields of {sorted(fields)}, got {unknown}")
    if not fields:
        raise ValueError("there must be at least one field, got none")


def _check_order(low: float | int, high: float | int) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"low must be less than high, both finite, got {low} and {high}")


def _floats(draw: Callable[[Key, int], Array]) -> Distribution:
    return Distribution(lambda key, n: np.asarray(draw(key, n)).tolist())


def _names(point: Point) -> str:
    return f"traced {sorted(point.traced)} and static {sorted(point.static)}"
