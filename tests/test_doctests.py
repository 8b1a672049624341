import doctest
import importlib
import pkgutil

import pytest

import zsml_jax

MODULES = [module.name for module in pkgutil.walk_packages(zsml_jax.__path__, "zsml_jax.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings_give_what_they_show(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
