"""The Monarch product and the nearest one to a kernel."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.contract.case import Case, whole
from zsml_jax.peft import monarch

SHAPE = monarch.MonarchShape(8, 12, 4, 2)
FACTORS = jax.tree.map(lambda x: x + 0.1, monarch.init(SHAPE, key=jax.random.key(0)))


def inputs(seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(5, 8)), jnp.float32)


def kernels(seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(8, 12)), jnp.float32)


CASES = [
    # Adapters run at the precision of the model that they adapt.
    Case("monarch_product", lambda x: monarch.product(x, FACTORS, 12), inputs, whole, is_network=True),
    Case("merged_monarch", lambda x: x + monarch.delta_weight(FACTORS, SHAPE), kernels, whole),
    Case(
        "nearest_monarch",
        lambda x: monarch.delta_weight(monarch.project(x, blocks=4, block_rank=2), SHAPE),
        kernels,
    ),
]

SEEDED = {"monarch_init": lambda key: monarch.init(SHAPE, key=key)}
