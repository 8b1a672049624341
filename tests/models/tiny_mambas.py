"""Tiny random Mambas saved by transformers; every parameter is random, so that no wrong mapping hides in zeros.

Weights of a scale of 0.4 make models in which torch's own float32 logits are 2e-5 away from its float64 ones; at 0.25
both packages are well within 1e-5 of those.
"""

from pathlib import Path

SHAPE = {
    "vocab_size": 37, "hidden_size": 12, "state_size": 5, "num_hidden_layers": 3, "expand": 2, "conv_kernel": 4,
    "time_step_rank": 3, "pad_token_id": 0,
}  # fmt: skip


def save_tiny_mamba(folder: Path, *, seed: int = 0, backbone: bool = False, **fields):
    """Saves a random model in the hub's layout and returns it, in evaluation mode."""
    import torch
    import transformers

    torch.manual_seed(seed)
    model = transformers.MambaForCausalLM(transformers.MambaConfig(**(SHAPE | fields))).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.25)
            if "norm" in name or name.endswith(".D"):
                parameter += 1
    (model.backbone if backbone else model).save_pretrained(folder)
    return model
