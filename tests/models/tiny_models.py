"""Tiny random encoders saved by transformers; every parameter is random, so that no wrong mapping hides in zeros."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

WORDS = """the a cat dog sat ran on under mat house is was un ##happy ##ly happy very ##s
! ? , . ' caf ##e é 東 京"""
WORD_PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split()]
TEXTS = (
    "The cat sat on the mat.",
    "a DOG ran under  the house, unhappily!",
    "Café é 東京 [MASK] zebra",
    "",
    "very very very happy dogs, very very very happy cats, is it? the the the the the the the",
)


class Recorded(NamedTuple):
    """What torch computed: hidden states (layers + 1, b, t, d), and perhaps pooled (b, d) and logits (b, t, v)."""

    hidden_states: np.ndarray
    pooled: np.ndarray | None
    logits: np.ndarray | None


def save_tiny_model(
    folder: Path,
    model_type: str,
    *,
    layers: int = 2,
    width: int = 16,
    heads: int = 4,
    mlp: int = 24,
    activation: str = "gelu",
    masked_lm: bool = False,
    file_format: str = "safetensors",
    seed: int = 0,
    **fields,
):
    """Saves a random model in the hub's layout and returns it, in evaluation mode; ``fields`` go to its config."""
    import torch
    import transformers

    torch.manual_seed(seed)
    vocab, positions = len(WORD_PIECES), 24
    if model_type == "distilbert":
        config = transformers.DistilBertConfig(
            vocab_size=vocab, dim=width, n_layers=layers, n_heads=heads, hidden_dim=mlp, activation=activation,
            max_position_embeddings=positions,
        )  # fmt: skip
    else:
        kind = {"bert": transformers.BertConfig, "roberta": transformers.RobertaConfig}
        kind |= {"xlm-roberta": transformers.XLMRobertaConfig, "albert": transformers.AlbertConfig}
        typed = model_type in ("bert", "albert")
        config = kind[model_type](
            vocab_size=vocab, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
            intermediate_size=mlp, hidden_act=activation, type_vocab_size=2 if typed else 1, **fields,
            max_position_embeddings=positions + (0 if typed else 2), layer_norm_eps=1e-6,
        )  # fmt: skip
    auto = transformers.AutoModelForMaskedLM if masked_lm else transformers.AutoModel
    model = auto.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    if file_format == "sharded":
        model.save_pretrained(folder, max_shard_size="4KB")
    else:
        model.save_pretrained(folder)
    if file_format == "bin":
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return model


def tiny_inputs(model_type: str, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token ids, mask and token types of three rows of 11, padded on the right by 0, 4 and 9."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, len(WORD_PIECES), (3, 11)).astype(np.int32)
    mask = (np.arange(11) < np.array([[11], [7], [2]])).astype(np.int32)
    ids[mask == 0] = 1 if "roberta" in model_type else 0
    types = rng.integers(0, 2, ids.shape).astype(np.int32) * (model_type in ("bert", "albert"))
    return ids, mask, types


def run_torch(model, ids: np.ndarray, mask: np.ndarray, types: np.ndarray) -> Recorded:
    """Returns torch's numbers."""
    import torch

    inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
    if model.config.model_type in ("bert", "albert"):
        inputs["token_type_ids"] = torch.tensor(types)
    with torch.no_grad():
        out = model.base_model(**inputs, output_hidden_states=True)
        logits = None if model.base_model is model else model(**inputs).logits.numpy()
    pooled = getattr(out, "pooler_output", None)
    hidden = np.stack([h.numpy() for h in out.hidden_states])
    return Recorded(hidden, None if pooled is None else pooled.numpy(), logits)


def write_vocab_txt(folder: Path, **settings) -> None:
    """Writes the files of a WordPiece tokenizer of old packages."""
    (folder / "vocab.txt").write_text("\n".join(WORD_PIECES) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_byte_bpe(folder: Path, **settings) -> None:
    """Writes the files of a byte BPE tokenizer of old packages, trained on the test's texts."""
    import tokenizers

    trainer = tokenizers.ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer.train_from_iterator(TEXTS, vocab_size=290, min_frequency=1, special_tokens=special)
    trainer.save_model(str(folder))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
