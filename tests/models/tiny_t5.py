"""A tiny random T5 saved by transformers, with a source, decoder tokens and torch's numbers."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

VOCAB, START = 33, 0
V1_1 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}


class Recorded(NamedTuple):
    """What torch computed: the encoder's hidden states (b, s, d) and the decoder's logits (b, t, v)."""

    encoded: np.ndarray
    logits: np.ndarray


def save_tiny_t5(folder: Path, *, seed: int = 0, untied: bool = False, **fields):
    """Saves a random model in the hub's layout and returns it, in evaluation mode; ``untied`` gives it a head."""
    import torch
    import transformers

    torch.manual_seed(seed)
    config = transformers.T5Config(
        vocab_size=VOCAB, d_model=16, d_kv=5, d_ff=24, num_layers=2, num_decoder_layers=3, num_heads=4,
        relative_attention_num_buckets=8, relative_attention_max_distance=10, decoder_start_token_id=START, **fields,
    )  # fmt: skip
    model = transformers.T5ForConditionalGeneration(config).eval()
    if untied:
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    return model


def inputs(side: str = "right") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A source of 14, 9 and 3 tokens with its mask, padded on a side, and the decoder's tokens ``(3, 12)``."""
    rng = np.random.default_rng(0)
    source = rng.integers(2, VOCAB, (3, 14)).astype(np.int32)
    mask = (np.arange(14) < np.array([[14], [9], [3]])).astype(np.int32)
    mask = mask if side == "right" else mask[:, ::-1]
    decoder = rng.integers(2, VOCAB, (3, 12)).astype(np.int32)
    decoder[:, 0] = START
    return source * mask, mask, decoder


def run_torch(model, source: np.ndarray, mask: np.ndarray, decoder: np.ndarray) -> Recorded:
    """Returns torch's numbers."""
    import torch

    with torch.no_grad():
        out = model(
            input_ids=torch.tensor(source),
            attention_mask=torch.tensor(mask.copy()),
            decoder_input_ids=torch.tensor(decoder),
            decoder_attention_mask=torch.ones(decoder.shape, dtype=torch.long),
        )
    return Recorded(out.encoder_last_hidden_state.numpy(), out.logits.numpy())
