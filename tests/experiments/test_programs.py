"""Compiled programs are forgotten at the share of memory maps that is given, and not before."""

import sys

import jax
import jax.numpy as jnp
import pytest

from experiments import programs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its memory maps")


def test_programs_are_forgotten_at_the_share_and_kept_below_it(tmp_path, monkeypatch):
    twice = jax.jit(lambda x: 2 * x)
    twice(jnp.ones(3))
    used = programs.memory_maps()
    limit = tmp_path / "max_map_count"
    limit.write_text(f"{100 * used}\n")
    monkeypatch.setattr(programs, "_LIMIT", limit)
    assert not programs.forget_when_many(0.5)
    assert twice._cache_size() == 1
    limit.write_text(f"{used}\n")
    assert programs.forget_when_many(0.5)
    assert twice._cache_size() == 0


def test_forgetting_gives_memory_maps_back():
    functions = [jax.jit(lambda x, i=i: jnp.sort(x)[i] + jnp.cumsum(x)) for i in range(20)]
    for function in functions:
        function(jnp.arange(50.0))
    before = programs.memory_maps()
    assert programs.forget_when_many(0.0)
    assert programs.memory_maps() < before - 20


def test_a_system_that_does_not_tell_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "_MAPS", tmp_path / "none")
    assert not programs.forget_when_many(0.0)
