"""Every method against the ``peft`` library on whole models: forward, merged weights and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.peft import torch_peft
from tests.peft.conftest import TOKENS
from zsml_jax import peft
from zsml_jax.peft.adapter import flatten

pytestmark = [
    pytest.mark.oracle,
    # The peft library asks transformers for a property that it is about to rename.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

ALL = {"target_modules": "all-linear"}
QUERY = {"llama": "q_proj", "bert": "query"}
IA3 = {
    "llama": {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    "bert": {
        "target_modules": r".*(key|value|layer\.\d\.output\.dense)",
        "feedforward_modules": r".*\d\.output\.dense",
    },
}
#: By name: their config, ours, how to read their numbers, and what all layers share.
CASES = {
    "lora": (lambda p, m: p.LoraConfig(r=3, lora_alpha=5, **ALL), peft.LoRA(rank=3, alpha=5), torch_peft.lora),
    "rslora": (
        lambda p, m: p.LoraConfig(r=4, lora_alpha=5, use_rslora=True, target_modules=[QUERY[m]]),
        peft.LoRA(rank=4, alpha=5, scaling="root_rank", targets="query"),
        torch_peft.lora,
    ),
    "ranks": (
        lambda p, m: p.LoraConfig(r=2, rank_pattern={QUERY[m]: 5}, **ALL),
        peft.LoRA(rank=2, ranks={"query": 5}),
        torch_peft.lora,
    ),
    "dora": (
        lambda p, m: p.LoraConfig(r=3, lora_alpha=5, use_dora=True, **ALL),
        peft.DoRA(rank=3, alpha=5),
        torch_peft.dora,
    ),
    "vera": (lambda p, m: p.VeraConfig(r=6, **ALL), peft.VeRA(rank=6), torch_peft.vera),
    "ia3": (lambda p, m: p.IA3Config(**IA3[m]), peft.IA3(), torch_peft.ia3),
    "oft": (lambda p, m: p.OFTConfig(oft_block_size=4, **ALL), peft.OFT(block_size=4), torch_peft.oft),
    "boft": (lambda p, m: p.BOFTConfig(boft_block_size=4, **ALL), peft.BOFT(block_size=4), torch_peft.boft),
    "butterfly": (
        lambda p, m: p.BOFTConfig(boft_block_size=2, boft_n_butterfly_factor=3, target_modules=[QUERY[m]]),
        peft.BOFT(block_size=2, factors=3, targets="query"),
        torch_peft.boft,
    ),
}


@pytest.fixture(autouse=True)
def library(monkeypatch):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    pytest.importorskip("transformers", reason="the oracle extra is not installed")
    library = pytest.importorskip("peft", reason="the oracle extra is not installed")
    # Its BOFT has butterflies only where its CUDA kernel compiles; this does what the kernel does.
    boft = library.tuners.boft.layer
    block_diagonal = lambda matrices: torch.stack([torch.block_diag(*factor) for factor in matrices])
    monkeypatch.setattr(boft, "get_fbd_cuda", lambda: True)
    monkeypatch.setattr(boft.FastBlockDiag, "apply", block_diagonal)
    return library


#: DoRA on the scanned model has all of LoRA in it, and is in the fast suite.
FAST = ("dora", "llama")
EACH = [
    pytest.param(name, model, marks=() if (name, model) == FAST else pytest.mark.slow)
    for name in CASES
    for model in ("llama", "bert")
]


@pytest.mark.parametrize(("name", "model"), EACH)
def test_a_method_agrees_with_the_library(name, model, library, request):
    make, config, read = CASES[name]
    pretrained = request.getfixturevalue(model)
    shared = {"shared": torch_peft.vera_shared} if name == "vera" else {}
    theirs = torch_peft.run(model, make(library, model), read, **shared)
    adapter = peft.adapt(pretrained, config, key=jax.random.key(0))
    assert jax.tree.map(np.shape, adapter.arrays) == jax.tree.map(np.shape, theirs.arrays)
    check(pretrained, adapter.replace(arrays=theirs.arrays, shared=theirs.shared), theirs)


def test_more_is_gralora_with_the_outputs_in_another_order(llama, library):
    """Hidden units of an MLP have no order, so that the model may be written with those of GraLoRA or of MoRe."""
    config = library.GraloraConfig(r=4, alpha=6, gralora_k=2, target_modules=["up_proj", "gate_proj"])
    theirs = torch_peft.run("llama", config, torch_peft.gralora)
    width = llama.config.mlp_width
    order = np.arange(width).reshape(2, width // 2).T.reshape(-1)  # theirs, where ours are in order
    reordered = {
        **{path: value for path, value in flatten(llama.params).items() if "mlp/" not in path},
        **{f"layers/mlp/{n}/kernel": llama.params["layers"]["mlp"][n]["kernel"][..., order] for n in ("up", "gate")},
        "layers/mlp/down/kernel": llama.params["layers"]["mlp"]["down"]["kernel"][:, order],
    }
    config = peft.MoRe(blocks=2, block_rank=4, alpha=6, scaling="rank", targets=("up", "gate"))
    adapter = peft.adapt(llama, config, key=jax.random.key(0)).replace(arrays=theirs.arrays)
    base = llama.replace(params=peft.adapter.with_weights(reordered, reordered))
    check(base, adapter, theirs._replace(kernels={path: k[..., order] for path, k in theirs.kernels.items()}))


def check(pretrained, adapter, theirs):
    output = jax.jit(peft.apply)(pretrained, adapter, TOKENS)
    np.testing.assert_allclose(output, theirs.output, atol=1e-5)
    loss = lambda adapter: jnp.mean(jnp.cos(peft.apply(pretrained, adapter, TOKENS)))
    gradients = jax.jit(jax.grad(loss))(adapter).arrays
    for path, own in theirs.gradients.items():
        for name, gradient in own.items():
            np.testing.assert_allclose(gradients[path][name], gradient, atol=1e-5, err_msg=f"{path} {name}")
    merged = flatten(peft.merge(pretrained, adapter))
    for path, kernel in theirs.kernels.items():
        np.testing.assert_allclose(merged[f"{path}/kernel"], kernel, atol=1e-5)
    for path, bias in theirs.biases.items():
        np.testing.assert_allclose(merged[f"{path}/bias"], bias, atol=1e-5)
