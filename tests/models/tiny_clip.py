"""A tiny random CLIP saved by transformers, with texts, pictures and torch's numbers."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

VOCAB, END, IMAGE = 33, 32, 12


class Recorded(NamedTuple):
    """What torch computed: scores (n, b), unit vectors (b, e) and (n, e), hidden states of both towers."""

    logits_per_image: np.ndarray
    text: np.ndarray
    image: np.ndarray
    last: np.ndarray
    image_last: np.ndarray


def save_tiny_clip(folder: Path, *, seed: int = 0, end_id: int = END, **image_fields):
    """Saves a random model and its image settings in the hub's layout and returns it, in evaluation mode."""
    import torch
    import transformers

    torch.manual_seed(seed)
    layers = {"num_hidden_layers": 2, "num_attention_heads": 4, "projection_dim": 6}
    text = {
        **layers, "vocab_size": VOCAB, "hidden_size": 20, "intermediate_size": 28, "max_position_embeddings": 12,
        "eos_token_id": end_id, "bos_token_id": 31, "pad_token_id": 0,
    }  # fmt: skip
    image = {**layers, "hidden_size": 16, "intermediate_size": 24, "image_size": IMAGE, "patch_size": 4, **image_fields}
    model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=image, projection_dim=6))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "logit_scale":
                parameter.normal_(std=0.3)
    model.eval().save_pretrained(folder)
    processor(size={"shortest_edge": IMAGE}, crop_size={"height": IMAGE, "width": IMAGE}).save_pretrained(folder)
    return model


def processor(**fields):
    """Returns transformers' image processor on Pillow."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(**fields)


def write_tokenizer(folder: Path) -> None:
    """Writes the files of CLIP's tokenizer, with 31 parts of words, a start token and an end token."""
    letters = [*"abcdehst'"]
    parts = [*letters, *(f"{x}</w>" for x in letters), "é", "Ã", "©", "©</w>", *"123", *(f"{x}</w>" for x in "123")]
    vocab = [*parts, "th", "the</w>", "ab</w>", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({part: i for i, part in enumerate(vocab)}))
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e</w>\na b</w>\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 12}))


def tokens() -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask of texts of 9, 6 and 2 tokens that end in the end token, padded on the right."""
    ids = np.random.default_rng(0).integers(1, 31, (3, 9)).astype(np.int32)
    lengths = np.array([[9], [6], [2]])
    mask = (np.arange(9) < lengths).astype(np.int32)
    ids[np.arange(9) == lengths - 1] = END
    return ids * mask, mask


def pictures() -> list[np.ndarray]:
    """Two pictures of different shapes, uint8."""
    rng = np.random.default_rng(1)
    smooth = np.add.outer(np.arange(31) * 3, np.arange(20) * 5)[..., None] + np.array([0, 40, 60])
    return [smooth.astype(np.uint8), rng.integers(0, 256, (13, 29, 3), np.uint8)]


def run_torch(model, ids: np.ndarray, mask: np.ndarray, pixels: np.ndarray) -> Recorded:
    """Returns torch's numbers for images with channels last."""
    import torch

    channels_first = torch.tensor(pixels.transpose(0, 3, 1, 2))
    with torch.no_grad():
        out = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask), pixel_values=channels_first)
    last = (out.text_model_output.last_hidden_state, out.vision_model_output.last_hidden_state)
    return Recorded(*(x.numpy() for x in (out.logits_per_image, out.text_embeds, out.image_embeds, *last)))
