"""One small residual network, with numbered layers and with scanned ones, whose numbers are the same."""

import flax.linen as nn
import jax
import jax.numpy as jnp

LAYERS, WIDTH, HIDDEN = 3, 4, 6
#: What the scan of the stack declares; a stack that lets no values out has only the parameters.
OPEN = {"params": 0, "intermediates": 0}


class Mlp(nn.Module):
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        hidden = Gelu(name="act")(nn.Dense(HIDDEN, dtype=jnp.dtype(self.dtype), name="up")(x))
        return nn.Dense(WIDTH, dtype=jnp.dtype(self.dtype), name="down")(hidden)


class Gelu(nn.Module):
    """A submodule without parameters."""

    def __call__(self, x):
        return jax.nn.gelu(x)


class Layer(nn.Module):
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, _):
        return x + Mlp(self.dtype, name="mlp")(x), None


class Numbered(nn.Module):
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        for i in range(LAYERS):
            x, _ = Layer(self.dtype, name=f"layer_{i}")(x, None)
        return nn.Dense(2, dtype=jnp.dtype(self.dtype), name="head")(x)


class Scanned(nn.Module):
    dtype: str = "float32"
    remat: bool = False
    unroll: bool = False
    is_open: bool = True

    @nn.compact
    def __call__(self, x):
        stack = nn.scan(
            nn.remat(Layer, prevent_cse=False) if self.remat else Layer,
            variable_axes=OPEN if self.is_open else {"params": 0},
            split_rngs={"params": True},
            length=LAYERS,
            unroll=LAYERS if self.unroll else 1,
        )
        x, _ = stack(self.dtype, name="layers")(x, None)
        return nn.Dense(2, dtype=jnp.dtype(self.dtype), name="head")(x)


class Held(nn.Module):
    """Its stack is a field, made by the caller and not in a method."""

    layers: nn.Module

    def __call__(self, x):
        return self.layers(x, None)[0]


def apply_of(module):
    return lambda params, *args, **kwargs: module.apply({"params": params}, *args, **kwargs)


def random_params(module, x, seed=0):
    """Parameters in which nothing is zero, so that no error hides in a bias."""
    params = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return treedef.unflatten([0.5 * jax.random.normal(k, a.shape) for k, a in zip(keys, leaves, strict=True)])


def numbered_params(stacked):
    """The parameters of Numbered from those of Scanned."""
    layers = {f"layer_{i}": jax.tree.map(lambda a: a[i], stacked["layers"]) for i in range(LAYERS)}  # noqa: B023
    return {**layers, "head": stacked["head"]}
