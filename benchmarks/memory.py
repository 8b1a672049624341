"""Does a training step fit? Bytes of each device, from the compiler alone: no weights, no accelerator.

    python -m benchmarks.memory                                         # Llama-3.1-8B on an 8 x 8 mesh
    python -m benchmarks.memory --model ~/models/mine --mesh data:4,model:1 --batch 16 --length 1024

The step is that of ``train.fit``: AdamW with float32 masters and moments, clipping, bfloat16 compute, each layer
computed again in the backward pass, the state donated. The mesh is of CPU devices that exist in name only, so the plan
is that of XLA's CPU backend. It multiplies bfloat16 as float32 and keeps float32 copies for that: at the defaults one
of all layers' inputs, 4.3 of the 8.8 GB of temporaries. Attention materialises its scores, as it does wherever no flash
kernel runs. A TPU's plan was not at hand to compare.
"""

import argparse
import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from zsml_jax.models.pretrained import FAMILIES
from zsml_jax.train import init_state, make_step, optimizer, sharding, sharding_tables
from zsml_jax.train.memory import StepMemory, step_memory
from zsml_jax.typing import Array

#: What shapes depend on in the published config.json.
PUBLISHED = {
    "llama-3.1-8b": {
        "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "intermediate_size": 14336, "max_position_embeddings": 131072, "vocab_size": 128256,
        "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
        "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    },
}  # fmt: skip
#: Memory of one chip in bytes (Google Cloud's "TPU v5e", "TPU v4" and "TPU v5p" pages: 16, 32 and 95 GB).
CHIPS = {"v5e": 16e9, "v4": 32e9, "v5p": 95e9}


def next_token_loss(module: Any, params: Any, batch: dict[str, Array], key: Any) -> tuple[Array, dict[str, Array]]:
    logits_BxTxV = module.apply({"params": params}, batch["tokens"]).logits[:, :-1]
    picked_BxT = jnp.take_along_axis(logits_BxTxV, batch["tokens"][:, 1:, None], axis=-1)[..., 0]
    return (jax.nn.logsumexp(logits_BxTxV, axis=-1) - picked_BxT).mean(), {}


def measure(hub: dict[str, Any], axes: str, batch: int, length: int) -> tuple[StepMemory, int]:
    """Returns the memory of a step, and the number of parameters."""
    family = FAMILIES[hub["model_type"]]
    config = dataclasses.replace(family.config(hub, (), "bfloat16"), remat=True)
    module = family.module(config)
    mesh = sharding.make_mesh(axes)
    rate = optimizer.adamw(3e-4, b2=0.95, weight_decay=0.1)
    adamw = optimizer.by_path([(".*", rate)], clip_norm=1.0)

    def start(key):
        params = module.init(key, jnp.zeros((1, 2), jnp.int32))["params"]
        return init_state(params, adamw, key=key, compute_dtype=jnp.bfloat16)

    state = jax.eval_shape(start, jax.random.key(0))
    rules = sharding_tables.rules_for(hub["model_type"])
    state = sharding.abstract(state, sharding.state_shardings(state, mesh, rules))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    tokens = {"tokens": jax.ShapeDtypeStruct((batch, length), jnp.int32, sharding=rows)}
    step = make_step(lambda *arguments: next_token_loss(module, *arguments), adamw, compute_dtype=jnp.bfloat16)
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return step_memory(step, state, tokens, mesh=mesh), count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama-3.1-8b", help=f"a folder with config.json, or {sorted(PUBLISHED)}")
    parser.add_argument("--mesh", default="data:8,model:8", help="axes data and model with their sizes")
    parser.add_argument("--batch", type=int, default=32, help="rows of the global batch")
    parser.add_argument("--length", type=int, default=2048, help="tokens of a row")
    options = parser.parse_args()
    devices = math.prod(int(part.partition(":")[2]) for part in options.mesh.split(","))
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
    hub = PUBLISHED.get(options.model) or json.loads((Path(options.model).expanduser() / "config.json").read_text())
    begin = time.perf_counter()
    memory, count = measure(hub, options.mesh, options.batch, options.length)
    print(
        f"{options.model}: {count:,} parameters, mesh {options.mesh}, batch {options.batch} x {options.length} tokens"
    )
    print(f"compiled in {time.perf_counter() - begin:.0f} s; bytes of each device:")
    for name, value in {**memory._asdict(), "total": memory.total}.items():
        print(f"  {name:<12} {value:>15,}")
    for chip, limit in CHIPS.items():
        print(f"  {'fits' if memory.total < limit else 'does not fit'} {chip} ({limit / 1e9:.0f} GB)")


if __name__ == "__main__":
    main()
