"""The ``peft`` library on the golden models: its numbers read into our adapters, and what it computes with them."""

from typing import NamedTuple

import jax
import numpy as np

from tests.peft.conftest import GOLDEN, TOKENS
from zsml_jax.peft.monarch import from_gralora

FOLDERS = {"llama": GOLDEN / "decoders" / "llama", "bert": GOLDEN / "encoders" / "bert"}
#: The names of layers of the golden models: theirs, with the number of the layer in braces, by ours.
NAMES = {
    "llama": {
        "layers/attention/query": "layers.{}.self_attn.q_proj",
        "layers/attention/key": "layers.{}.self_attn.k_proj",
        "layers/attention/value": "layers.{}.self_attn.v_proj",
        "layers/attention/out": "layers.{}.self_attn.o_proj",
        "layers/mlp/gate": "layers.{}.mlp.gate_proj",
        "layers/mlp/up": "layers.{}.mlp.up_proj",
        "layers/mlp/down": "layers.{}.mlp.down_proj",
    },
    "bert": {
        "layer_{}/attention/query": "layer.{}.attention.self.query",
        "layer_{}/attention/key": "layer.{}.attention.self.key",
        "layer_{}/attention/value": "layer.{}.attention.self.value",
        "layer_{}/attention/out": "layer.{}.attention.output.dense",
        "layer_{}/mlp/up": "layer.{}.intermediate.dense",
        "layer_{}/mlp/down": "layer.{}.output.dense",
        "pooler": "pooler.dense",
    },
}


class Computed(NamedTuple):
    """What torch computed: the output, the adapter's arrays by layer, their gradients, merged kernels and biases."""

    output: np.ndarray
    arrays: dict[str, dict[str, np.ndarray]]
    gradients: dict[str, dict[str, np.ndarray]]
    shared: dict[str, np.ndarray]
    kernels: dict[str, np.ndarray]
    biases: dict[str, np.ndarray]


def run(model: str, config, read, shared=lambda layer: {}, scale: float = 0.2) -> Computed:
    """Adapts a golden model with random numbers and computes everything; the loss is ``mean(cos(output))``."""
    import peft
    import torch
    import transformers

    auto = transformers.AutoModelForCausalLM if model == "llama" else transformers.AutoModel
    base = auto.from_pretrained(FOLDERS[model]).eval()
    adapted = peft.get_peft_model(base, config).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += scale * torch.randn_like(parameter)
    output = _output(adapted)
    output.cos().mean().backward()
    layers = {
        path: module
        for path, module in _modules(adapted, model).items()
        if isinstance(module, peft.tuners.tuners_utils.BaseTunerLayer)
    }
    # Nothing that is read of a BERT comes through its pooler, and torch then has no gradient at all.
    gradient = lambda p: np.zeros(p.shape, np.float32) if p.grad is None else p.grad.numpy()
    arrays = _stacked({path: read(module, lambda p: p.detach().numpy()) for path, module in layers.items()})
    gradients = _stacked({path: read(module, gradient) for path, module in layers.items()})
    common = shared(next(iter(layers.values())))
    merged = adapted.merge_and_unload(safe_merge=True)
    modules = {path: module for path, module in _modules(merged, model).items() if path in layers}
    weights = {path: {"kernel": module.weight.detach().numpy().T} for path, module in modules.items()}
    biases = {
        path: {"bias": module.bias.detach().numpy()} for path, module in modules.items() if module.bias is not None
    }
    return Computed(
        output.detach().numpy(),
        arrays,
        gradients,
        common,
        {path: own["kernel"] for path, own in _stacked(weights).items()},
        {path: own["bias"] for path, own in _stacked(biases).items()},
    )


def lora(layer, get):
    return {"a": get(layer.lora_A["default"].weight).T, "b": get(layer.lora_B["default"].weight).T}


def dora(layer, get):
    return {**lora(layer, get), "magnitude": get(layer.lora_magnitude_vector["default"].weight)}


def vera(layer, get):
    return {"d": get(layer.vera_lambda_d["default"]), "b": get(layer.vera_lambda_b["default"])}


def vera_shared(layer):
    return {"projection_a": layer.vera_A["default"].numpy().T, "projection_b": layer.vera_B["default"].numpy().T}


def ia3(layer, get):
    return {"scale": get(layer.ia3_l["default"]).reshape(-1)}


def oft(layer, get):
    return {"upper": get(layer.oft_R["default"].weight)}


def boft(layer, get):
    return {"rotation": get(layer.boft_R["default"]), "scale": get(layer.boft_s["default"])[:, 0]}


def gralora(layer, get):
    a, b = get(layer.gralora_A["default"]), get(layer.gralora_B["default"])
    return {name: np.asarray(factor) for name, factor in from_gralora(a, b)._asdict().items()}


def _output(adapted):
    import torch

    output = adapted(torch.from_numpy(TOKENS).long())
    return output.logits if hasattr(output, "logits") else output.last_hidden_state


def _modules(model, name: str) -> dict[tuple[str, int], object]:
    """The modules by our path and number of the layer, in the order of the layers."""
    found = {}
    modules = dict(model.named_modules())
    for i in range(8):
        for path, template in NAMES[name].items():
            names = [key for key in modules if key == template.format(i) or key.endswith("." + template.format(i))]
            if names and ("{" in template or i == 0):
                found[path.format(i), i] = modules[names[0]]
    return found


def _stacked(by_layer: dict[tuple[str, int], dict[str, np.ndarray]]) -> dict[str, dict[str, np.ndarray]]:
    """Arrays by path, those of a scanned stack with its leading axis."""
    by_path: dict[str, list] = {}
    for (path, _), arrays in by_layer.items():
        by_path.setdefault(path, []).append(arrays)
    scanned = lambda path: path.startswith("layers/")
    return {
        path: jax.tree.map(lambda *rows: np.stack(rows), *rows) if scanned(path) else rows[0]
        for path, rows in by_path.items()
    }
