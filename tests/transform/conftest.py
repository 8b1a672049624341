from typing import Any, NamedTuple

import jax
import pytest

from tests.transform.stacks import LAYERS, WIDTH, Numbered, Scanned, apply_of, numbered_params, random_params


class Model(NamedTuple):
    """A network, and how its layers are called: the template of a path, and whether they are stacked."""

    apply: Any
    params: Any
    template: str
    stacked: bool

    def paths(self, name):
        """The paths of a submodule of every layer."""
        return [self.template.format(i) + name for i in range(1 if self.stacked else LAYERS)]

    def stack(self, values, name):
        """What was captured of a submodule of every layer, as one array with a leading axis l."""
        if self.stacked:
            return values[self.paths(name)[0]]
        return jax.tree.map(lambda *rows: jax.numpy.stack(rows), *[values[path] for path in self.paths(name)])

    def per_site(self, name, arrays):
        """Arrays with a leading axis l, by path."""
        if self.stacked:
            return {self.paths(name)[0]: arrays}
        return {path: jax.tree.map(lambda a: a[i], arrays) for i, path in enumerate(self.paths(name))}  # noqa: B023


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(1), (2, WIDTH))


@pytest.fixture(params=["numbered", "scanned"])
def model(request, x):
    """One network in two forms: the same numbers must come out of each."""
    return form(request.param, x)


@pytest.fixture(params=["numbered", "scanned", "remat", "unrolled"])
def any_form(request, x):
    """The same network in all its forms."""
    return form(request.param, x)


def form(name, x):
    params = random_params(Scanned(), x)
    if name == "numbered":
        return Model(apply_of(Numbered()), numbered_params(params), "layer_{}/", False)
    return Model(apply_of(Scanned(remat=name == "remat", unroll=name == "unrolled")), params, "layers/", True)


@pytest.fixture
def scanned(x):
    return Model(apply_of(Scanned()), random_params(Scanned(), x), "layers/", True)
