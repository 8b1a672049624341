"""Points: the laws of the algebra, and samplers against the distributions they name."""

import jax
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from zsml_jax.train.points import (
    Point,
    Points,
    chain,
    choice,
    grid,
    log_uniform,
    normal,
    product,
    sample,
    uniform,
    zip_,
)


def rows(size=None):
    """Values of one traced and one static field."""
    lengths = {"min_size": 1, "max_size": 3} if size is None else {"min_size": size, "max_size": size}
    return st.lists(st.tuples(st.integers(0, 9), st.sampled_from("xyz")), **lengths)


def made(name, values):
    return Points(tuple(Point({name: value}, {f"{name}_kind": kind}) for value, kind in values))


laws = settings(max_examples=30, deadline=None)


@laws
@given(rows(), rows(), rows())
def test_the_product_is_associative_and_has_a_unit(a, b, c):
    a, b, c = made("a", a), made("b", b), made("c", c)
    assert product(product(a, b), c) == product(a, product(b, c)) == product(a, b, c)
    assert product(product(), a) == product(a, product()) == product(a) == a
    assert len(product(a, b)) == len(a) * len(b)


@laws
@given(rows(), rows(), rows())
def test_the_chain_is_associative(a, b, c):
    a, b, c = (made("a", values) for values in (a, b, c))
    assert chain(chain(a, b), c) == chain(a, chain(b, c)) == chain(a, b, c)
    assert len(chain(a, b)) == len(a) + len(b)


@laws
@given(rows(), rows(), rows())
def test_the_product_distributes_over_a_chain_from_the_left(a, b, c):
    a, b, c = made("a", a), made("a", b), made("c", c)
    assert product(chain(a, b), c) == chain(product(a, c), product(b, c))


@laws
@given(rows(3), rows(3), rows(3))
def test_zip_is_associative_and_picks_the_diagonal_of_the_product(a, b, c):
    a, b, c = made("a", a), made("b", b), made("c", c)
    assert zip_(zip_(a, b), c) == zip_(a, zip_(b, c)) == zip_(a, b, c)
    assert zip_(a, b).rows == product(a, b).rows[::4]


@laws
@given(rows(2), rows(2), rows(2), rows(2))
def test_chains_of_equal_lengths_zip_part_by_part(a, b, c, d):
    a, b, c, d = made("a", a), made("a", b), made("c", c), made("c", d)
    assert zip_(chain(a, b), chain(c, d)) == chain(zip_(a, c), zip_(b, d))


def test_traced_and_static_fields_stay_apart():
    points = product(grid(static=["width"], width=[4, 8]), grid(rate=[0.1, 0.2, 0.3]))
    assert [p.static["width"] for p in points] == [4, 4, 4, 8, 8, 8]
    assert [p.traced["rate"] for p in points] == [0.1, 0.2, 0.3] * 2
    assert points[5].fields == {"width": 8, "rate": 0.3}


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        (uniform(-2.0, 3.0), scipy.stats.uniform(-2, 5)),
        (log_uniform(1e-5, 1e-1), scipy.stats.loguniform(1e-5, 1e-1)),
        (normal(1.5, 0.2), scipy.stats.norm(1.5, 0.2)),
    ],
    ids=["uniform", "log-uniform", "normal"],
)
def test_a_sampler_draws_from_the_distribution_that_it_names(key, distribution, expected):
    values = [p.traced["x"] for p in sample(key, 4000, x=distribution)]
    assert scipy.stats.kstest(values, expected.cdf).pvalue > 0.01
    # The test has the power to see a tenth of a standard deviation.
    assert scipy.stats.kstest(np.add(values, 0.1 * np.std(values)), expected.cdf).pvalue < 0.01


def test_a_choice_draws_all_values_alike(key):
    drawn = [p.static["kind"] for p in sample(key, 3000, static=["kind"], kind=choice("abc"))]
    assert scipy.stats.chisquare([drawn.count(kind) for kind in "abc"]).pvalue > 0.01


def test_fields_are_independent_and_do_not_move_when_another_is_added(key):
    alone = sample(key, 2000, rate=log_uniform(1e-4, 1.0))
    both = sample(key, 2000, decay=log_uniform(1e-4, 1.0), rate=log_uniform(1e-4, 1.0))
    assert [p.traced["rate"] for p in alone] == [p.traced["rate"] for p in both]
    rate, decay = (np.log([p.traced[name] for p in both]) for name in ("rate", "decay"))
    assert scipy.stats.pearsonr(rate, decay).pvalue > 0.01
    assert [p.traced["rate"] for p in sample(jax.random.key(1), 3, rate=uniform(0, 1))] != [
        p.traced["rate"] for p in sample(jax.random.key(2), 3, rate=uniform(0, 1))
    ]


def test_log_uniform_values_lie_between_the_bounds(key):
    values = [p.traced["x"] for p in sample(key, 2000, x=log_uniform(0.5, 0.50001))]
    assert np.float32(0.5) <= min(values) <= max(values) <= np.float32(0.50001)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Points(()), "points must hold at least one point"),
        (lambda: grid(), "at least one field"),
        (lambda: grid(a=[]), "a must have at least one value"),
        (lambda: grid(static=["b"], a=[1]), r"static must name fields of \['a'\], got \['b'\]"),
        (lambda: grid(static="a", a=[1]), "must be a sequence of names"),
        (lambda: grid(a=["relu"]), "a must be a number, got 'relu'; name it in static"),
        (lambda: grid(static=["a"], a=[[1]]), "a is static and must be hashable"),
        (lambda: product(grid(a=[1]), grid(a=[2])), r"both have \['a'\]"),
        (lambda: zip_(grid(a=[1]), grid(b=[1, 2])), r"lengths \[1, 2\]"),
        (lambda: zip_(), "one length"),
        (lambda: chain(grid(a=[1]), grid(b=[1])), "same fields"),
        (lambda: Points((Point({"a": 1}, {"a": 1}),)), "both"),
        (lambda: uniform(1.0, 1.0), "low must be less than high"),
        (lambda: log_uniform(0.0, 1.0), "low must be positive"),
        (lambda: normal(0.0, 0.0), "scale positive"),
        (lambda: choice([]), "at least one value"),
        (lambda: sample(jax.random.key(0), 0, a=uniform(0, 1)), "n must be at least 1, got 0"),
    ],
)
def test_bad_points_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
