"""Functional transforms: change or watch a pretrained model without touching its code, its parameters or their paths.

All of them take an apply function ``(params, *args, **kwargs) -> output`` that runs a Linen module, and return another
one, so that they compose: an outer transform sees what inner ones have made of a layer. Start with :func:`sites`, which
lists what a model has, then :func:`intercept` (replace or extend Dense layers: adapters), :func:`edit` (change
activations: steering) and :func:`capture` (read activations: probes, calibration). :func:`select` and :func:`update` do
the same to parameters. Sites and parameters are addressed by the patterns of :mod:`.patterns`.

>>> import flax.linen as nn, jax, jax.numpy as jnp
>>> from zsml_jax import transform
>>> module = nn.Sequential([nn.Dense(2, use_bias=False), nn.relu, nn.Dense(1, use_bias=False)])
>>> params = {"layers_0": {"kernel": jnp.eye(2)}, "layers_2": {"kernel": jnp.ones((2, 1))}}
>>> apply_fn = lambda params, x: module.apply({"params": params}, x)
>>> @jax.jit
... def run(shift, x):
...     steered = transform.edit(apply_fn, "layers_0", lambda hidden: hidden + shift)
...     return transform.capture(steered, "layers_0")(params, x)
>>> output, captured = run(10.0, jnp.array([[1.0, -2.0]]))
>>> output.tolist(), captured["layers_0"].tolist()
([[19.0]], [[11.0, 8.0]])

Build a transform inside the function that is jitted and pass arrays through that function's arguments: then new vectors
or adapters never recompile, ``vmap`` runs many adapters over one model, and ``grad`` reaches only what it is asked for.
The apply function itself must not be jitted.

Models with scanned layers need nothing for arrays to reach each layer. For values to leave the layers their stack must
declare :data:`STACK_CONTRACT`.
"""

from zsml_jax.transform.capturing import capture
from zsml_jax.transform.editing import edit
from zsml_jax.transform.interception import Dense, intercept
from zsml_jax.transform.parameters import select, update
from zsml_jax.transform.sites import ApplyFn, Site, sites
from zsml_jax.transform.transformed import STACK_CONTRACT

__all__ = [
    "STACK_CONTRACT",
    "ApplyFn",
    "Dense",
    "Site",
    "capture",
    "edit",
    "intercept",
    "select",
    "sites",
    "update",
]
