"""Pruning and quantisation of kernels."""

import jax.numpy as jnp
import numpy as np

from tests.contract.case import Case
from zsml_jax import compression
from zsml_jax.compression import error_feedback
from zsml_jax.models import quantized

I, O = 16, 12
INPUTS = np.random.default_rng(7).normal(size=(64, I)).astype(np.float32)
HESSIAN = jnp.asarray(2 * INPUTS.T @ INPUTS / len(INPUTS))


def kernels(seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(I, O)), jnp.float32)


def pruned(within):
    def call(x):
        found = compression.prune({"up": {"kernel": x}}, "magnitude", 0.5, groups="up/kernel", within=within)
        return found.params, dict(found.masks)

    return call


def rounded(method="nearest", **options):
    def call(x):
        found = compression.quantize({"up": {"kernel": x}}, method, groups="up/kernel", **options)
        return quantized.dequantize(found)

    return call


CASES = [
    *(Case(f"magnitude_{name}", pruned(name), kernels) for name in ("global", "layer", "output", "rows", "2:4")),
    Case("sparsegpt", lambda x: error_feedback.sparsegpt(x, HESSIAN, 0.5, block=8), kernels),
    Case("sparsegpt_2_of_4", lambda x: error_feedback.sparsegpt(x, HESSIAN, 0.5, pattern=(2, 4)), kernels),
    Case("gptq_int8", lambda x: quantized.dequantize(error_feedback.gptq(x, HESSIAN, "int8", block=8)), kernels),
    Case("gptq_int4", lambda x: quantized.dequantize(error_feedback.gptq(x, HESSIAN, "int4", group=8)), kernels),
    Case("int8", rounded(format="int8"), kernels),
    Case("int4", rounded(format="int4", group=8), kernels),
    Case("nf4", rounded(format="nf4", group=8), kernels),
    Case("int8_dynamic", rounded("dynamic"), kernels),
]

SEEDED = {
    "random_pruning": lambda key: dict(
        compression.prune({"up": {"kernel": kernels(0)}}, "random", 0.5, groups="up/kernel", key=key).masks
    )
}
