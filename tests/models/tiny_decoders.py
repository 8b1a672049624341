"""Tiny random decoders saved by transformers, rows of tokens, and torch's numbers for each row by itself."""

from pathlib import Path

import numpy as np

VOCAB = 37
LENGTHS = (9, 6, 2)

_LLAMA = {
    "vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
}  # fmt: skip
#: The smallest shapes that tell every size apart, by model type.
SHAPES = {
    "gpt2": {"vocab_size": VOCAB, "n_embd": 16, "n_layer": 3, "n_head": 4, "n_inner": 24, "n_positions": 32},
    "gpt_neo": {
        "vocab_size": VOCAB, "hidden_size": 16, "num_layers": 4, "num_heads": 4, "intermediate_size": 24,
        "max_position_embeddings": 32, "attention_types": [[["global", "local"], 2]], "window_size": 3,
    },
    "gpt_neox": {
        "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 24, "max_position_embeddings": 64,
    },
    "llama": _LLAMA,
    "mistral": {**_LLAMA, "sliding_window": 4},
    "qwen2": _LLAMA,
    "qwen3": {**_LLAMA, "head_dim": 8},
}  # fmt: skip


def save_tiny_decoder(folder: Path, model_type: str, *, seed: int = 0, shard: str = "1GB", **fields):
    """Saves a random model in the hub's layout and returns it, in evaluation mode."""
    import torch
    import transformers

    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(model_type, **{**SHAPES[model_type], "pad_token_id": 0, **fields})
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.2)
            if "norm" in name or ".ln_" in name:
                parameter += name.endswith("weight")
    model.save_pretrained(folder, max_shard_size=shard)
    return model


def rows(seed: int = 0) -> list[np.ndarray]:
    """Token ids of rows of different lengths."""
    rng = np.random.default_rng(seed)
    return [rng.integers(1, VOCAB, length).astype(np.int32) for length in LENGTHS]


def padded(sequences: list[np.ndarray], side: str, extra: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask of one batch, padded on a side."""
    longest = max(map(len, sequences)) + extra
    ids, mask = np.zeros((2, len(sequences), longest), np.int32)
    for i, row in enumerate(sequences):
        place = slice(longest - len(row), longest) if side == "left" else slice(0, len(row))
        ids[i, place], mask[i, place] = row, 1
    return ids, mask


def torch_logits(model, sequences: list[np.ndarray]) -> list[np.ndarray]:
    """Logits of each row, computed by itself, so that no padding is in them."""
    import torch

    with torch.no_grad():
        return [model(input_ids=torch.tensor(row[None].astype(np.int64))).logits[0].numpy() for row in sequences]
