"""Sphinx configuration: pages in MyST Markdown, the API from the docstrings, notebooks as jupytext sources."""

import importlib.metadata

project = "zsml_jax"
author = "The zsml_jax authors"
release = importlib.metadata.version("zsml_jax")

extensions = [
    "myst_nb",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]

apidoc_modules = [
    {"path": "../zsml_jax", "destination": "api", "separate_modules": True, "module_first": True},
]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
# A module's page lists what it defines, and not what its package re-exports a second time.
autodoc_default_options = {"members": True, "ignore-module-all": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Attributes are told in the docstring of their class; jaxtyping annotations such as "*batch k" are no RST.
napoleon_use_ivar = True
napoleon_attr_annotations = False

myst_enable_extensions = ["dollarmath", "colon_fence"]
nb_execution_mode = "off"

html_theme = "sphinx_book_theme"
html_title = "zsml_jax"
