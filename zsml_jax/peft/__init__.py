"""Fine-tuning few parameters: MoRe (Monarch), LoRA and friends.

The model stays as it is. :func:`adapt` makes an :class:`Adapter`, a pytree of its own; :func:`apply` runs the model
with it, :func:`apply_fn` is the pure function that training differentiates, and :func:`merge` gives plain parameters
that compute the same. A config says which method, how large, and which layers.

>>> import jax, jax.numpy as jnp
>>> from zsml_jax import models, peft
>>> from zsml_jax.models.decoder import Decoder, DecoderConfig
>>> config = DecoderConfig(vocab_size=11, width=8, num_layers=2, num_heads=2, mlp_width=12, max_positions=16)
>>> module, tokens = Decoder(config), jnp.arange(6)[None]
>>> base = models.Pretrained(module.init(jax.random.key(0), tokens)["params"], module, config)
>>> adapter = peft.adapt(base, peft.MoRe(blocks=2, block_rank=2, targets=["query", "value"]), key=jax.random.key(1))
>>> sorted(adapter.arrays), adapter.parameters
(['layers/attention/query', 'layers/attention/value'], 128)
>>> run = peft.apply_fn(base.apply)
>>> @jax.jit
... def loss(adapter, params):
...     return jnp.mean(run(adapter, params, tokens) ** 2)
>>> gradient = jax.grad(loss)(adapter, base.params)
>>> moved = adapter.replace(arrays=jax.tree.map(lambda a, g: a - 0.1 * g, adapter.arrays, gradient.arrays))
>>> bool(loss(moved, base.params) < loss(adapter, base.params))
True
>>> merged = base.replace(params=peft.merge(base, moved))
>>> bool(jnp.allclose(merged.apply(merged.params, tokens), peft.apply(base, moved, tokens), atol=1e-5))
True

:func:`optimizer_rules` hands an adapter to :func:`zsml_jax.train.fit`, on a mesh with :func:`sharding_rules`;
:func:`generate_fn` writes texts with it; :func:`stack` serves several adapters in one batch, and :func:`combine` adds
them up. A method is a :class:`Method`; :mod:`.method` says how to add one. :mod:`.search` chooses a config under a
budget of parameters, and :mod:`.recipes` has the published ones.
"""

from zsml_jax.peft.adapter import AdaptedLayer, Adapter, adapt, init
from zsml_jax.peft.applying import apply, apply_fn, generate_fn
from zsml_jax.peft.dora import DoRA
from zsml_jax.peft.export import export_lora
from zsml_jax.peft.files import load, save
from zsml_jax.peft.full import FullFineTuning, LinearProbe
from zsml_jax.peft.ia3 import IA3
from zsml_jax.peft.importing import import_peft
from zsml_jax.peft.lora import LoRA
from zsml_jax.peft.merging import merge, merge_params, unmerge
from zsml_jax.peft.method import LayerShape, LowRank, Method
from zsml_jax.peft.monarch_dense import MonarchDense
from zsml_jax.peft.more import DensityWarning, MoRe
from zsml_jax.peft.oft import BOFT, OFT
from zsml_jax.peft.several import combine, low_rank_factors, pick, stack
from zsml_jax.peft.training import optimizer_rules, sharding_rules
from zsml_jax.peft.vera import VeRA

__all__ = [
    "BOFT",
    "IA3",
    "OFT",
    "AdaptedLayer",
    "Adapter",
    "DensityWarning",
    "DoRA",
    "FullFineTuning",
    "LayerShape",
    "LinearProbe",
    "LoRA",
    "LowRank",
    "Method",
    "MoRe",
    "MonarchDense",
    "VeRA",
    "adapt",
    "apply",
    "apply_fn",
    "combine",
    "export_lora",
    "generate_fn",
    "import_peft",
    "init",
    "load",
    "low_rank_factors",
    "merge",
    "merge_params",
    "optimizer_rules",
    "pick",
    "save",
    "sharding_rules",
    "stack",
    "unmerge",
]
